"""The supervisor's side of a worker: start it, ask it, outlive it."""

import contextlib
import itertools
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

from qfuzz.campaign.pipes import READ_BYTES, FrameBuffer, decode_reply, frame, verdicts_in, write_all
from qfuzz.campaign.processes import WORKER_VARIABLE
from qfuzz.campaign.protocol import (
    PROTOCOL,
    Broke,
    CheckCase,
    Ran,
    Ready,
    Reply,
    Request,
    RunCase,
    StartFailed,
)
from qfuzz.ir.errors import BackendMissing, WorkerFailed
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array
from qfuzz.ops import CODEC
from qfuzz.oracle.verdicts import BackendVerdict, Verdicts

_STARTED = itertools.count()
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
START_LIMIT = 120.0
"""Seconds that a worker may take to load its frameworks."""


class WorkerClient:
    """A running worker process. A context manager: leaving it ends the process and all its runners."""

    def __init__(self, specs: Sequence[str]) -> None:
        self.specs = tuple(specs)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        request_read, self._request_write = os.pipe()
        self._reply_read, reply_write = os.pipe()
        environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment[WORKER_VARIABLE] = f"{os.getpid()}-{next(_STARTED)}-{time.time_ns()}"
        pipes = [str(request_read), str(reply_write), str(os.getpid())]
        command = [sys.executable, "-m", "qfuzz.campaign.worker", *pipes, *specs]
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=(request_read, reply_write),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=environment,
                start_new_session=True,  # Ctrl-C is the supervisor's; it ends the worker itself
            )
        except OSError as e:
            raise WorkerFailed(f"a worker process could not be started: {e}") from None
        finally:
            os.close(request_read)
            os.close(reply_write)
        self._frames = FrameBuffer()
        self._pending: list[Reply] = []
        try:
            self.described = self._await_ready()
        except BaseException:
            self.close()
            raise

    def _await_ready(self) -> dict[str, dict[str, str]]:
        match self.next_reply(START_LIMIT):
            case Ready(protocol, described):
                if protocol != PROTOCOL:
                    raise WorkerFailed(f"the worker speaks protocol {protocol}; this is qfuzz with protocol {PROTOCOL}")
                return described
            case StartFailed(message):
                raise BackendMissing(message)
            case Broke(text):
                raise WorkerFailed(f"a worker failed at start: {text}")
            case None:
                raise WorkerFailed(f"a worker did not start within {START_LIMIT:g} s: {self.log_tail()}")
            case other:
                raise WorkerFailed(f"a worker began with {type(other).__name__}")

    @property
    def fileno(self) -> int:
        """The descriptor that becomes readable when replies come."""
        return self._reply_read

    def send(self, request: Request) -> None:
        """Ask the worker; replies come through `receive`."""
        try:
            write_all(self._request_write, frame(request))
        except BrokenPipeError:
            raise WorkerFailed(f"a worker is gone: {self.log_tail()}") from None

    def receive(self) -> list[Reply]:
        """Replies that have arrived; blocks until there is one.

        Raises
        ------
        WorkerFailed
            When the worker is gone.
        """
        if self._pending:
            pending, self._pending = self._pending, []
            return pending
        data = os.read(self._reply_read, READ_BYTES)
        if not data:
            raise WorkerFailed(f"a worker is gone: {self.log_tail()}")
        return [decode_reply(f) for f in self._frames.feed(data)]

    def next_reply(self, limit: float | None = None) -> Reply | None:
        """The next single reply, or None when `limit` seconds pass without one."""
        while not self._pending:
            if limit is not None:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._reply_read, selectors.EVENT_READ)
                    if not selector.select(limit):
                        return None
            self._pending = self.receive()
        return self._pending.pop(0)

    def check(
        self,
        case: Case,
        specs: Sequence[str] = (),
        *,
        tap: bool = True,
        compare: bool = False,
        time_limit: float = 30.0,
    ) -> Verdicts:
        """Judge `case` in a runner of this worker; crashes and hangs come back as verdicts.

        With `compare`, two specs are compared, and a third verdict says how they differ.

        Raises
        ------
        WorkerFailed
            For an error inside qfuzz, with its traceback, or when the worker is gone.
        """
        self.send(CheckCase(CODEC.encode(case), tuple(specs) or self.specs, tap, compare, time_limit))
        return verdicts_in(self.next_reply())

    def values(
        self, case: Case, spec: str, taps: Sequence[str] = (), *, time_limit: float = 30.0
    ) -> dict[str, Array] | BackendVerdict:
        """What the backend `spec` computes for `case`: its outputs and `taps` by name, or why there are none.

        Raises
        ------
        WorkerFailed
            For an error inside qfuzz, with its traceback, or when the worker is gone.
        """
        self.send(RunCase(CODEC.encode(case), spec, tuple(taps), time_limit))
        match self.next_reply():
            case Ran(values, refusal):
                return refusal or {v.name: v.array for v in values}
            case Broke(text):
                raise WorkerFailed(f"an error inside qfuzz:\n{text}")
            case other:
                raise WorkerFailed(f"unexpected reply {type(other).__name__}")

    def log_tail(self) -> str:
        """The end of what the worker printed, on one line."""
        with contextlib.suppress(OSError, ValueError):
            size = os.fstat(self._log.fileno()).st_size
            text = os.pread(self._log.fileno(), 2000, max(0, size - 2000)).decode("utf-8", "replace")
            return " | ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())
        return ""

    def close(self) -> None:
        """End the worker and its runners, whatever they are doing."""
        for fd in (self._request_write, self._reply_read):
            with contextlib.suppress(OSError):
                os.close(fd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def __enter__(self) -> "WorkerClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
