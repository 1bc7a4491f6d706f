"""Dask clusters as tests need them: real schedulers and workers, in processes that can be killed."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

PATIENCE = 60.0


def environment(without: str = "") -> dict[str, str]:
    """This process's, in which imports find what they find here, but for the folder `without`."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p and p != without)}


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def qfuzz_workers(parents: Sequence[int] | None = None) -> list[int]:
    """Process ids of all workers of qfuzz on this machine below those processes, or below this one."""
    found = []
    for parent in parents if parents is not None else [os.getpid()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(parent).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "qfuzz.campaign.worker" in child.cmdline():
                        found.append(child.pid)
    return found


def run_cli(*arguments: str, folder: Path, before: str = "") -> subprocess.Popen[str]:
    """``qfuzz run`` in `folder`, in a process that runs the Python code `before` first."""
    command = [sys.executable, "-c", f"{before}\nfrom qfuzz.cli import main; main()", "run", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment(), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def ended(process: subprocess.Popen[str], seconds: float = 60.0) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and the lines of stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err.splitlines()


class Cluster:
    """A scheduler and workers, each a process. A context manager: leaving it ends them."""

    def __init__(self, folder: Path, n_workers: int = 1) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        port = self.address.rsplit(":", 1)[1]
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", port)
        self.workers: list[subprocess.Popen[bytes]] = []
        for _ in range(n_workers):
            self.add_worker()

    def add_worker(self, before: str = "", without: str = "") -> subprocess.Popen[bytes]:
        """Start a worker with one thread, which runs the Python code `before` first."""
        n = len(self.workers)
        arguments = (self.address, "--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder / str(n)))
        process = self._start("dask_worker", *arguments, before=before, without=without)
        self.workers.append(process)
        log = self.folder / f"{process.args[-1]}"  # type: ignore[index]
        until(lambda: b"Starting established connection" in log.read_bytes(), "a Dask worker")
        return process

    def _start(self, program: str, *arguments: str, before: str = "", without: str = "") -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{program}-{len(list(self.folder.glob('*.log')))}.log"
        code = f"{before}\nfrom distributed.cli.{program} import main; import sys; sys.argv.pop(); main()"
        command = [sys.executable, "-c", code, *arguments, "--no-dashboard", log.name]
        with log.open("wb") as out:
            return subprocess.Popen(command, env=environment(without), stdout=out, stderr=out, cwd=self.folder)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()


@contextlib.contextmanager
def a_server(greeting: bytes) -> Iterator[str]:
    """Something that listens and is no Dask scheduler; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                kept.append(connection)
                connection.sendall(greeting)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        for connection in kept:
            connection.close()
