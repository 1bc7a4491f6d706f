"""Processes that end together: a supervisor, its workers, their runners, and whatever kernels start.

- A process asks the kernel to be killed when its parent dies (`die_with_parent`).
- A runner leads a process group of its own, which is killed when it ends (`end_group`).
- What left that group becomes the worker's child (`adopt_orphans`) and is killed then, too (`end_stragglers`).
- A warden beside each worker (`start_warden`) outlives it, and then ends all that is left of its session.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import psutil

WORKER_VARIABLE = "QFUZZ_WORKER"
"""Set at a worker's start to a text that no other has: by it the warden knows processes that left the session."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 10.0
"""Seconds for which killed processes are waited for."""


class _Here:
    """What this process knows of its children. Mutable: the kernel tells an adopted child from no other."""

    adopts: ClassVar[bool] = False
    children: ClassVar[set[int]] = set()


def die_with_parent(parent: int | None = None) -> None:
    """On Linux, ask to be killed when the parent dies, so that no orphan is left.

    Parameters
    ----------
    parent
        The process that is expected to be the parent: where it has died before the kernel was asked, this one ends at
        once.

    The kernel kills when the *thread* ends that forked this process, though others of its process go on.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """On Linux, become the parent of all descendants whose own parents die, for `end_stragglers` to find them.

    For a process that starts children only by `fork` and `start_warden`, or tells of them with `keep`.
    """
    _Here.children |= _current_children()
    _Here.adopts = _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> bool:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            return bool(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0) == 0)
    return False


def keep(pid: int) -> None:
    """Say that a child was started on purpose."""
    _Here.children.add(pid)


def keep_children() -> None:
    """Say that all children of now were started on purpose."""
    _Here.children |= _current_children()


def fork() -> int:
    """`os.fork`, for a child that ends with its parent and leads a process group of its own."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        keep(pid)
        with contextlib.suppress(OSError):  # it was quicker, or has ended
            os.setpgid(pid, pid)
        return pid
    _Here.children, _Here.adopts = set(), False
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    die_with_parent(parent)
    return 0


def end_group(leader: int) -> None:
    """Kill a child by `fork` that is not reaped yet, and all that stayed in its group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(leader, signal.SIGKILL)


def reap(pid: int) -> tuple[int, int]:
    """Wait for a child by `fork` to end: its status, and the most KiB of memory that it held."""
    _, status, usage = os.wait4(pid, 0)
    _Here.children.discard(pid)
    return status, usage.ru_maxrss


def end_stragglers() -> None:
    """Kill and reap the children that this process has adopted; nothing where it adopts none."""
    while _Here.adopts and (adopted := _current_children() - _Here.children):
        for pid in adopted:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _current_children() -> set[int]:
    pid = os.getpid()
    try:
        return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return {child.pid for child in psutil.Process().children()}


def start_warden() -> None:
    """Fork a process that ends what is left of this session once this process has died, whatever killed it.

    For a process that leads its session, before it opens anything that the warden should not hold open.
    """
    worker, session, token = os.getpid(), os.getsid(0), os.environ.get(WORKER_VARIABLE, "")
    if sys.platform != "linux" or worker != session:
        return
    pid = os.fork()
    if pid:
        keep(pid)
        return
    try:
        _guard(worker, session, token)
    finally:
        os._exit(0)


def _guard(worker: int, session: int, token: str) -> None:
    os.setpgid(0, 0)  # who kills the worker's group leaves its warden
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 65536)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    while os.getppid() == worker:
        signal.sigwait({signal.SIGUSR1})
    end_session(session, token)


def end_session(session: int, token: str = "") -> None:
    """Kill all processes of a session but this one, and those that were started with `token` as `WORKER_VARIABLE`."""
    deadline = time.monotonic() + _PATIENCE
    while (left := [pid for pid in psutil.pids() if _belongs(pid, session, token)]) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _belongs(pid: int, session: int, token: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if stat[0] in "ZX":
            return False
        if int(stat[3]) == session:
            return True
        wanted = f"{WORKER_VARIABLE}={token}".encode()
        return bool(token) and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def wants_processor(pid: int) -> bool:
    """Whether a thread of a process runs, or would if a processor were free."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its descendants have used; zero for one that is gone."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total
