"""Whatever dies first, and whatever kernels have started: no process is left over."""

import faulthandler
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from small_cases import add_case

from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.processes import WORKER_VARIABLE
from qfuzz.campaign.runner import Mark, Runner, Send, run_forked
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


def alive(token: str) -> list[int]:
    """Live processes that were started with this token in their environment, or are forks of such."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def assert_gone(token: str) -> None:
    deadline = time.monotonic() + 10
    while alive(token):
        assert time.monotonic() < deadline, [Path(f"/proc/{p}/stat").read_text()[:80] for p in alive(token)]
        time.sleep(0.02)


class Tree:
    """A running tree: the process that the test started, what it prints, and its token."""

    def __init__(self, process: subprocess.Popen[str], token: str) -> None:
        assert process.stdout is not None
        self.process, self.token = process, token
        self.out: IO[str] = process.stdout

    def line(self) -> str:
        return self.out.readline().strip()

    def await_processes(self, n: int) -> list[int]:
        deadline = time.monotonic() + 20
        while len(found := alive(self.token)) < n:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


@contextmanager
def tree(what: str, name: str, limit: float = 30.0) -> Iterator[Tree]:
    token = uuid.uuid4().hex
    script = Path(__file__).with_name("small_worker.py")
    process = subprocess.Popen(
        [sys.executable, str(script), what, name, str(limit), str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {WORKER_VARIABLE: token},
        start_new_session=True,
    )
    try:
        yield Tree(process, token)
    finally:
        for pid in alive(token):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Honest", "finished"),
        ("LeavesASleeper", "finished"),
        ("LeavesADaemon", "finished"),
        ("LeavesASleeperAndDies", "died of SIGSEGV"),
        ("LeavesADaemonAndHangs", "no progress for 1 s (waiting)"),
    ],
)
def test_what_a_kernel_started_ends_with_its_runner(name: str, reason: str) -> None:
    """Only the worker and its warden are left, at once, and no descriptor more than where nothing happened."""
    with tree("work", name, 1.0) as t:
        assert t.line() == "running"
        assert t.line() == reason
        descriptors = t.line()
        assert len(descriptors.split()) <= 5, descriptors  # three streams, its pipe to us, and the listing itself
        assert len(alive(t.token)) == 2


VICTIMS = ["Hangs", "TakesALockTwice", "LeavesADaemonAndHangs"]


@pytest.mark.parametrize("name", VICTIMS)
def test_killing_the_worker_leaves_nothing(name: str) -> None:
    with tree("work", name) as t:
        assert t.line() == "running"
        t.await_processes(4 if "Daemon" in name else 3)
        t.process.kill()
        assert_gone(t.token)


@pytest.mark.parametrize("name", VICTIMS)
def test_killing_the_supervisor_leaves_nothing(name: str) -> None:
    with tree("supervise", name) as t:
        assert t.line() == "running"
        t.await_processes(5 if "Daemon" in name else 4)
        t.process.kill()
        assert_gone(t.token)


def test_killing_the_workers_group_leaves_nothing() -> None:
    """As a supervisor does that ends its worker."""
    with tree("work", "LeavesADaemonAndHangs") as t:
        assert t.line() == "running"
        t.await_processes(4)
        os.killpg(t.process.pid, signal.SIGKILL)
        assert_gone(t.token)


def test_a_process_whose_parent_is_gone_already_ends_itself() -> None:
    program = (
        "import os; from qfuzz.campaign.processes import die_with_parent; die_with_parent(os.getpid()); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("name", "how"), [("Hangs", "busy"), ("TakesALockTwice", "waiting"), ("PoolWaitsForItself", "waiting")]
)
def test_a_loop_and_a_deadlock_tell_apart(name: str, how: str) -> None:
    case, backend = add_case(), load_backend(f"misbehaving:{name}")

    def job(send: Send, mark: Mark) -> None:
        check_one(case, backend, Reference(case))

    death = run_forked(job, lambda _: None, 1.0)
    assert death is not None
    assert death.hung
    assert death.reason == f"no progress for 1 s ({how})"


def test_no_descriptor_and_no_child_is_left() -> None:
    def job(send: Send, mark: Mark) -> None:
        faulthandler.disable()  # pytest's would print to the terminal
        os.abort()

    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        assert run_forked(job, lambda _: None, 10.0) is not None
        Runner(job).close()
    assert os.listdir("/proc/self/fd") == before
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]]
    assert not list(Path().glob("core*"))


def test_a_flood_of_output_is_bounded() -> None:
    def job(send: Send, mark: Mark) -> None:
        line = b"x" * 2**20
        for _ in range(300):
            with suppress(OSError):
                os.write(1, line)
        os.abort()

    with Runner(job) as runner:
        death = runner.pump(lambda _: None, 30.0)
        assert death is not None
        assert os.fstat(runner._output).st_size <= 2**28


def test_a_large_share_of_memory_is_told_of_a_kill() -> None:
    def job(send: Send, mark: Mark) -> None:
        held = bytearray(b"1") * (2**30 + 2**28)
        os.kill(os.getpid(), signal.SIGKILL)
        del held

    death = run_forked(job, lambda _: None, 30.0)
    assert death is not None
    # What it held of this process before the fork counts, too.
    assert re.fullmatch(r"died of SIGKILL \(held [1-9][0-9]*\.[0-9] GiB\)", death.reason), death.reason
