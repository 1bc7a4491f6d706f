"""The forked child that runs kernels and judges them. It may die at any moment; its parent knows what it was at."""

import contextlib
import gc
import mmap
import os
import re
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from qfuzz.campaign.pipes import READ_BYTES, FrameBuffer, frame, write_all
from qfuzz.campaign.processes import cpu_seconds, end_group, end_stragglers, fork, reap, wants_processor
from qfuzz.campaign.protocol import MEMORY_LIMIT, Broke, Reply
from qfuzz.oracle.memory import says_no_memory

_MARK = struct.Struct("<iiq")
_KEPT_OUTPUT = 2000
_MOST_OUTPUT = 256 * 2**20
_GLANCE = 0.2
"""Seconds without a message after which a runner is looked at."""
_BUSY = 0.05
"""Share of a processor that a hung runner uses at least where it loops; one that waits uses none."""
_ITS_TIME = 0.9
"""Share of the time limit that a busy runner must have had a processor for, to count as hung …"""
_STARVED = 4
"""… or so many times the limit must have passed: on a crowded machine a right kernel is slow, too."""


class Mark:
    """16 bytes of memory shared with the runner: shard, index and backend that it is at."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MARK.size)

    def set(self, shard: int, index: int, backend: int) -> None:
        """Say what is about to run."""
        _MARK.pack_into(self._memory, 0, shard, index, backend)

    def get(self) -> tuple[int, int, int]:
        """What was about to run last."""
        shard, index, backend = _MARK.unpack_from(self._memory)
        return shard, index, backend


class Death:
    """How a runner ended without finishing.

    Attributes
    ----------
    at
        Its last mark.
    hung
        Whether it was killed for standing still; else it died by itself.
    reason
        Signal, exit code, memory limit or time limit, and the end of what the framework printed.
    internal
        Whether it ran out of memory in qfuzz's own code. A kernel that leaks may be the reason, or a case that is too
        large to judge: where it happens again in a fresh process, it is an error of ours and never a verdict.
    """

    def __init__(self, at: tuple[int, int, int], *, hung: bool, reason: str, internal: bool = False) -> None:
        self.at, self.hung, self.reason, self.internal = at, hung, reason, internal


Send = Callable[[Reply], None]
Job = Callable[[Send, Mark], None]


class Runner:
    """A forked child that runs `job(send, mark)`. A context manager: leaving it ends the child and all that it started.

    Parameters
    ----------
    close_in_child
        Descriptors that the child has no use for.
    memory_limit
        Bytes of private memory that it may hold, and at least twice what this process holds; None for no limit.
    """

    def __init__(self, job: Job, close_in_child: Sequence[int] = (), memory_limit: int | None = MEMORY_LIMIT) -> None:
        self._mark = Mark()
        self._mark.set(-1, -1, -1)
        self._frames = FrameBuffer()
        self._memory_limit = None if memory_limit is None else max(memory_limit, 2 * _private_memory())
        self._output = os.memfd_create("qfuzz-output")
        self._read_end, write_end = os.pipe()
        try:
            self._pid = fork()
        except OSError:
            for fd in (self._output, self._read_end, write_end):
                os.close(fd)
            raise
        if self._pid == 0:
            _child(job, self._mark, self._output, write_end, (self._read_end, *close_in_child), self._memory_limit)
        os.close(write_end)
        self._reaped = False

    def pump(
        self, forward: Callable[[bytes], None], time_limit: float, until: Callable[[], bool] | None = None
    ) -> Death | None:
        """Forward whole frames until the child has finished, or `until()` holds.

        Returns
        -------
        Death or None
            How it died, or None. The child counts as hung when its mark stands still for `time_limit` seconds, in which
        it waits, or uses a processor all the time.
        """
        seen, since = self._mark.get(), time.monotonic()
        glance: tuple[float, float] | None = None  # when it was first seen idle, and its processor time then
        while True:
            ready, _, _ = select.select([self._read_end], [], [], min(_GLANCE, time_limit))
            now = time.monotonic()
            if ready:
                data = os.read(self._read_end, READ_BYTES)
                if not data:
                    return self._end()
                for whole in self._frames.feed(data):
                    forward(whole)
                since, glance = now, None
                if until is not None and until():
                    return None
            if self._mark.get() != seen:
                seen, since, glance = self._mark.get(), now, None
            elif not ready and self._has_ended():
                return self._end()  # something that it started holds its pipe open
            elif not ready and glance is None:
                glance = now, cpu_seconds(self._pid)
            elif glance is not None and now - since > time_limit:
                used = cpu_seconds(self._pid) - glance[1]
                is_busy = used > _BUSY * (now - glance[0]) or wants_processor(self._pid)
                if not is_busy or used > _ITS_TIME * time_limit or now - since > _STARVED * time_limit:
                    return self._end(f"no progress for {time_limit:g} s ({'busy' if is_busy else 'waiting'})")

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _end(self, hang: str = "") -> Death | None:
        """Reap the child, which has ended or is to; the hang it is ended for, if any, is the reason."""
        if not hang:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        status, kib = self._reap()
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if not hang and code == _FINISHED:
            return None
        tail = _tail(self._output)
        if hang:
            return Death(self._mark.get(), hung=True, reason=hang + tail)
        if code == _NO_MEMORY:
            return Death(self._mark.get(), hung=False, reason="out of memory in qfuzz's own code" + tail, internal=True)
        reason = _how(status, kib) + tail
        if self._memory_limit is not None and says_no_memory(tail):
            reason = f"memory limit of {self._memory_limit // 2**20} MiB reached: {reason}"
        return Death(self._mark.get(), hung=False, reason=reason)

    def _reap(self) -> tuple[int, int]:
        end_group(self._pid)  # while the child keeps the group's number taken
        reaped = reap(self._pid)
        self._reaped = True
        end_stragglers()
        return reaped

    def close(self) -> None:
        """End the child and all that it started."""
        if not self._reaped:
            self._reap()
        for fd in (self._read_end, self._output):
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def run_forked(
    job: Job, forward: Callable[[bytes], None], time_limit: float, memory_limit: int | None = MEMORY_LIMIT
) -> Death | None:
    """Run `job` in a fresh fork to its end, forwarding every whole frame that it sends."""
    with Runner(job, memory_limit=memory_limit) as runner:
        return runner.pump(forward, time_limit)


_FINISHED = 77
"""Exit status of a runner that did all its work: `exit(0)` inside a kernel is a crash like any other."""
_NO_MEMORY = 78
"""Exit status of a runner whose memory ran out in qfuzz's own code."""


def _child(
    job: Job, mark: Mark, output: int, write_end: int, close: Sequence[int], memory_limit: int | None
) -> NoReturn:
    status = 1
    try:
        for fd in close:
            os.close(fd)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()  # it lives for a shard at most, and its examples leave no cycles worth a tenth of its time
        os.dup2(output, 1)
        os.dup2(output, 2)
        _limit(memory_limit)

        def send(reply: Reply) -> None:
            write_all(write_end, frame(reply))

        try:
            job(send, mark)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  the worker's rim: an error of ours, kept with its traceback
            send(Broke(traceback.format_exc()))
        status = _FINISHED
    except MemoryError:
        status = _NO_MEMORY
    except BrokenPipeError:
        status = _FINISHED
    finally:
        os._exit(status)


def _limit(memory: int | None) -> None:
    """Leave no core files, flood no memory with output, and hold at most `memory` bytes.

    Private memory is limited, not address space: each thread reserves 72 MiB or more of the latter and uses none of it,
    so that a limit of address space would accuse kernels of the number of their threads.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, _MOST_OUTPUT)
    if memory is not None:
        _lower(resource.RLIMIT_DATA, memory)


def _private_memory() -> int:
    """Bytes that the kernel counts against a limit of private memory; zero where it does not say."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return 1024 * int(found[1])
    return 0


def _lower(limit: int, to: int) -> None:
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (to if hard == resource.RLIM_INFINITY else min(to, hard), hard))


def forget_output() -> None:
    """Drop what the frameworks have printed so far: it belongs to cases that are done."""
    sys.stdout.flush()
    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)


def _how(status: int, kib: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        # Where a machine has less memory than the limit, its kernel kills.
        held = f" (held {kib / 2**20:.1f} GiB)" if number == signal.SIGKILL and kib > 2**20 else ""
        return f"died of {name}{held}"
    return f"exited with status {os.WEXITSTATUS(status)}"


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, _KEPT_OUTPUT, max(0, size - _KEPT_OUTPUT)).decode("utf-8", "replace")
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return ": " + " | ".join(lines[-4:]) if lines else ""
