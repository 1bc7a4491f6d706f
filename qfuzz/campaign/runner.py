"""The forked child that runs kernels and judges them. It may die at any moment; its parent knows what it was at."""

import contextlib
import ctypes
import gc
import mmap
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType

from qfuzz.campaign.pipes import FrameBuffer, frame, write_all
from qfuzz.campaign.protocol import Broke, Reply

_MARK = struct.Struct("<iiq")
_KEPT_OUTPUT = 2000
_PR_SET_PDEATHSIG = 1


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
        Signal or exit code, and the end of what the framework printed.
    """

    def __init__(self, at: tuple[int, int, int], *, hung: bool, reason: str) -> None:
        self.at, self.hung, self.reason = at, hung, reason


Send = Callable[[Reply], None]
Job = Callable[[Send, Mark], None]


class Runner:
    """A forked child that runs `job(send, mark)`. A context manager: leaving it ends the child."""

    def __init__(self, job: Job, close_in_child: Sequence[int] = ()) -> None:
        self._mark = Mark()
        self._mark.set(-1, -1, -1)
        self._frames = FrameBuffer()
        self._output = os.memfd_create("qfuzz-output")
        self._read_end, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _child(job, self._mark, self._output, write_end, (self._read_end, *close_in_child))
        os.close(write_end)
        self._reaped = False

    def pump(
        self, forward: Callable[[bytes], None], time_limit: float, until: Callable[[], bool] | None = None
    ) -> Death | None:
        """Forward whole frames until the child has finished, or `until()` holds.

        Returns
        -------
        Death or None
            How it died, or None. The child counts as hung when its mark stands still for `time_limit` seconds.
        """
        seen, since = self._mark.get(), time.monotonic()
        while True:
            ready, _, _ = select.select([self._read_end], [], [], min(0.2, time_limit))
            now = time.monotonic()
            if ready:
                data = os.read(self._read_end, 2**18)
                if not data:
                    return self._end(hung=False)
                for whole in self._frames.feed(data):
                    forward(whole)
                since = now
                if until is not None and until():
                    return None
            if self._mark.get() != seen:
                seen, since = self._mark.get(), now
            elif now - since > time_limit:
                os.kill(self._pid, signal.SIGKILL)
                return self._end(hung=True, reason=f"no progress for {time_limit:g} s")

    def _end(self, *, hung: bool, reason: str = "") -> Death | None:
        _, status = os.waitpid(self._pid, 0)
        self._reaped = True
        if not hung and os.WIFEXITED(status) and os.WEXITSTATUS(status) == _FINISHED:
            return None
        return Death(self._mark.get(), hung=hung, reason=(reason or _how(status)) + _tail(self._output))

    def close(self) -> None:
        """End the child."""
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._reaped = True
        for fd in (self._read_end, self._output):
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def run_forked(job: Job, forward: Callable[[bytes], None], time_limit: float) -> Death | None:
    """Run `job` in a fresh fork to its end, forwarding every whole frame that it sends."""
    with Runner(job) as runner:
        return runner.pump(forward, time_limit)


_FINISHED = 77
"""Exit status of a runner that did all its work: `exit(0)` inside a kernel is a crash like any other."""


def _child(job: Job, mark: Mark, output: int, write_end: int, close: Sequence[int]) -> None:
    status = 1
    try:
        die_with_parent()
        for fd in close:
            os.close(fd)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()  # it lives for a shard at most, and its examples leave no cycles worth a tenth of its time
        os.dup2(output, 1)
        os.dup2(output, 2)

        def send(reply: Reply) -> None:
            write_all(write_end, frame(reply))

        try:
            job(send, mark)
        except Exception:  # noqa: BLE001  the worker's rim: an error of ours, kept with its traceback
            send(Broke(traceback.format_exc()))
        status = _FINISHED
    except BrokenPipeError:
        status = _FINISHED
    finally:
        os._exit(status)


def forget_output() -> None:
    """Drop what the frameworks have printed so far: it belongs to cases that are done."""
    sys.stdout.flush()
    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)


def die_with_parent() -> None:
    """On Linux, ask the kernel to kill this process when its parent dies, so that no orphan is left."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return (
            f"died of {signal.Signals(number).name}" if number in signal.valid_signals() else f"died of signal {number}"
        )
    return f"exited with status {os.WEXITSTATUS(status)}"


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, _KEPT_OUTPUT, max(0, size - _KEPT_OUTPUT)).decode("utf-8", "replace")
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return ": " + " | ".join(lines[-4:]) if lines else ""
