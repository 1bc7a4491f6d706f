"""An executor in another Python: the stand-in here for what `foreign_host` loads there.

The host is started when something is first asked for, and shared by all forks of the process that started it; each
process has a child of its own there, forked when it first needs one. A kernel that ends its child raises `Crashed`
here, and the next call gets a fresh child.
"""

import contextlib
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

from qfuzz.backends import foreign_host
from qfuzz.backends.foreign_protocol import (
    PROTOCOL,
    Died,
    Failed,
    Hello,
    Load,
    Loaded,
    NotReady,
    Ran,
    Ready,
    Refused,
    Reply,
    Request,
    Run,
    Value,
    plain,
    receive,
    send,
)
from qfuzz.ir.errors import BackendMissing, Corrupted, Crashed, WorkerFailed
from qfuzz.ir.protocols import Array
from qfuzz.oracle import memory

START_LIMIT = 120.0
"""Seconds that another Python may take to load its framework."""

OLDEST = (3, 9)
"""The oldest Python that can be a host."""

_LIMIT = struct.Struct("<q")
"""Bytes of memory that a child may hold; negative for no limit."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

T = TypeVar("T")


class Refusal(Exception):
    """The framework refused, in the executor's words."""


@cache
def foreign(python: str, executor: str, environment: tuple[tuple[str, str], ...] = ()) -> "Foreign":
    """The stand-in for the file `executor` in that Python: one for all backends of this process."""
    return Foreign(python, executor, dict(environment))


class Foreign:
    """An executor's surface, in another Python.

    Parameters
    ----------
    python
        A program, by path or by name.
    executor
        Path of the executor's file.
    environment
        Variables that the process has beside those of this one.
    """

    Refusal = Refusal

    def __init__(self, python: str, executor: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.python, self.executor, self.environment = python, executor, environment
        self._host: _Host | None = None
        self._open: _Channel | None = None

    def facts(self) -> dict[str, str]:
        """What the executor tells there, and which Python that is.

        Raises
        ------
        BackendMissing
            In one line: why there is no such framework in that Python.
        """
        return dict(self._running().facts)

    def load(self, *data: Any) -> "ForeignProgram":
        """Load a dialect's data there; raises `Refusal`, or `Crashed`."""
        return ForeignProgram(self, tuple(plain(d) for d in data))

    def close(self) -> None:
        """End the host and its children; the next call starts another."""
        if self._open is not None:
            self._open.close()
        if self._host is not None:
            self._host.close()
        self._host = self._open = None

    def with_channel(self, work: Callable[["_Channel"], T]) -> T:
        """Do `work` on this process's channel; once more on another, should the host itself be gone."""
        for last in (False, True):
            channel = self._channel()
            try:
                return work(channel)
            except (Crashed, WorkerFailed, MemoryError):
                self._drop()  # no conversation goes on after an answer that was none
                raise
            except _Lost:
                self._drop()
                if last:
                    raise WorkerFailed(f"{self.python}: its process was ended twice, by no kernel") from None
        raise AssertionError("unreachable")

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    def _channel(self) -> "_Channel":
        if self._open is None or self._open.pid != os.getpid():
            self._open = self._connected()
        return self._open

    def _connected(self) -> "_Channel":
        for last in (False, True):
            (mine, theirs), (death, tells) = socket.socketpair(), socket.socketpair()
            try:
                limit, _ = resource.getrlimit(resource.RLIMIT_DATA)  # this process's is its child's there, too
                fds = [theirs.fileno(), tells.fileno()]
                socket.send_fds(self._running().control, [_LIMIT.pack(limit)], fds)
                return _Channel(mine, death)
            except ConnectionError:
                mine.close()
                death.close()
                if self._host is not None:
                    self._host.close()
                self._host = None
                if last:
                    raise WorkerFailed(f"{self.python}: its process was ended twice, by no kernel") from None
            finally:
                theirs.close()
                tells.close()
        raise AssertionError("unreachable")

    def _running(self) -> "_Host":
        if self._host is None:
            self._host = _Host(self.python, self.executor, self.environment)
        return self._host


class ForeignProgram:
    """A program there. `compile_seconds` were spent inside the framework."""

    def __init__(self, owner: Foreign, data: tuple[Any, ...]) -> None:
        self._owner, self._data = owner, data
        self._at: _Channel | None = None
        self._number = 0
        self.compile_seconds = 0.0
        owner.with_channel(self._load)

    def _load(self, channel: "_Channel") -> None:
        number, drop = channel.next_program()
        reply = channel.ask(Load(number, self._data, drop))
        if not isinstance(reply, Loaded):
            raise WorkerFailed(f"another Python answered a load with {type(reply).__name__}")
        self._at, self._number, self.compile_seconds = channel, number, reply.seconds

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Values of `names`; raises `Corrupted` where the run wrote in its inputs, or around them."""
        given = {name: Value.of(array) for name, array in inputs.items()}

        def work(channel: _Channel) -> Reply:
            if channel is not self._at:  # the child that had it is gone
                self._load(channel)
            return channel.ask(Run(self._number, given, tuple(names)))

        reply = self._owner.with_channel(work)
        if not isinstance(reply, Ran):
            raise WorkerFailed(f"another Python answered a run with {type(reply).__name__}")
        if reply.damage:
            raise Corrupted(reply.damage)
        return {name: value.array for name, value in reply.values.items()}

    def __del__(self) -> None:
        if self._at is not None:
            self._at.not_needed.append(self._number)


class _Lost(Exception):
    """The other side is gone, and did not say that a kernel ended it."""


class _Channel:
    """What one process says to its child there, and hears."""

    def __init__(self, stream: socket.socket, death: socket.socket) -> None:
        self.pid = os.getpid()
        self._stream, self._death = stream, death
        self._programs = 0
        self.not_needed: list[int] = []

    def next_program(self) -> tuple[int, tuple[int, ...]]:
        """A fresh number, and the numbers that are not needed any more."""
        self._programs += 1
        drop, self.not_needed = tuple(self.not_needed), []
        return self._programs, drop

    def ask(self, request: Request) -> Reply:
        """The child's answer; raises `Refusal`, or `Crashed` with how it died."""
        reply: Reply | None = None
        with contextlib.suppress(ConnectionError):
            send(self._stream, request)
            reply = receive(self._stream)
        match reply:
            case None:
                obituary = receive(self._death)
                if isinstance(obituary, Died):
                    raise Crashed(obituary.reason)
                raise _Lost
            case Refused(text):
                raise Refusal(text)
            case Failed("MemoryError", text):
                raise MemoryError(text)
            case Failed(_, text):
                raise WorkerFailed(f"an executor failed in another Python:\n{text}")
            case answer:
                return answer

    def close(self) -> None:
        """Leave: the child ends."""
        self._stream.close()
        self._death.close()


class _Host:
    """A started host: its control socket, and what its executor tells."""

    def __init__(self, python: str, executor: str, environment: Mapping[str, str]) -> None:
        program = shutil.which(os.path.expanduser(python))
        if program is None:
            raise BackendMissing(f"{python}: no such program")
        self.control, theirs = socket.socketpair()
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed below
        try:
            with theirs:
                host = str(Path(foreign_host.__file__))
                process = subprocess.Popen(
                    [program, "-I", "-B", host, executor, str(memory.__file__), str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | _ONE_THREAD | dict(environment),
                )
        except OSError as e:
            self.control.close()
            log.close()
            raise BackendMissing(f"{python} cannot be started: {e.strerror}") from None
        self.close = weakref.finalize(self, _end, process, self.control, os.getpid())
        try:
            self.facts = _started(python, self.control, process, log)
        except BaseException:
            self.close()
            raise
        finally:
            log.close()


def _end(process: "subprocess.Popen[bytes]", control: socket.socket, owner: int) -> None:
    control.close()
    if os.getpid() == owner:  # in a fork, the host is another's
        process.kill()
        process.wait()


def _started(python: str, control: socket.socket, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> dict[str, str]:
    """Greet the host, and wait for its executor."""
    control.settimeout(START_LIMIT)
    try:
        hello = receive(control)
        if hello is None:
            raise BackendMissing(f"{python} is no Python of at least {_dotted(OLDEST)}: {_ended(process, log)}")
        if not isinstance(hello, Hello):
            raise BackendMissing(f"{python} began with {type(hello).__name__}")
        if hello.python < OLDEST:
            raise BackendMissing(f"{python} is Python {_dotted(hello.python)}; at least {_dotted(OLDEST)} is needed")
        if hello.protocol != PROTOCOL:
            raise BackendMissing(f"{python} speaks version {hello.protocol} of the protocol, not {PROTOCOL}")
        send(control, Hello(PROTOCOL))
        match receive(control):
            case Ready(facts):
                control.settimeout(None)
                return {**facts, "python": python, "python_version": _dotted(hello.python)}
            case NotReady(reason):
                raise BackendMissing(f"{python} {reason}")
            case None:
                raise BackendMissing(f"{python} ended while it loaded its framework: {_ended(process, log)}")
            case other:
                raise BackendMissing(f"{python} answered with {type(other).__name__}")
    except TimeoutError:
        raise BackendMissing(f"{python} did not answer within {START_LIMIT:g} s") from None
    except (ConnectionError, WorkerFailed) as e:
        raise BackendMissing(f"{python}: {e}") from None


def _ended(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> str:
    """How a host ended that gave no answer, and the last line that it printed."""
    try:
        status = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "it closed its socket"
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), 2000, max(0, size - 2000)).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    how = f"exited with status {status}" if status >= 0 else f"died of {signal.Signals(-status).name}"
    return how + (f": {lines[-1]}" if lines else "")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
