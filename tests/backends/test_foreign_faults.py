"""Kernels of another Python that die, hang, refuse or write where they may not: verdicts; and nothing is left over."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_documents import RUN
from echoing import EXECUTOR, Echoing
from small_cases import Q, add_case, linear_case
from test_cli import document
from test_foreign import hosts

from qfuzz.backends.foreign import Foreign
from qfuzz.campaign.client import WorkerClient
from qfuzz.ir.errors import WorkerFailed
from qfuzz.ir.network import Case, Input, Network, Node
from qfuzz.ir.protocols import Supported
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import Relu
from qfuzz.ops.elementwise import Add
from qfuzz.oracle.check import check
from qfuzz.oracle.verdicts import BackendVerdict
from qfuzz.strategies import cases_of

DEATHS = {
    "segfault": "died of SIGSEGV",
    "sigsegv-load": "died of SIGSEGV",
    "SIGFPE": "died of SIGFPE",
    "SIGILL": "died of SIGILL",
    "SIGKILL": "died of SIGKILL",
    "abort": "died of SIGABRT: check failed: x > 0",
    "exit0": "exited with status 0",
    "exit3": "exited with status 3",
    "exit77": "exited with status 77",
    "sys.exit": "exited with status 1",
}


def spec_of(fault: str, marker: object = "") -> str:
    return Echoing(fault, str(marker)).name


def verdict_on(case: Case, fault: str, marker: object = "") -> BackendVerdict:
    """Judged in this very process, which lives on."""
    backend = Echoing(fault, str(marker))
    try:
        return check(case, [backend]).backends[0]
    finally:
        backend.foreign.close()


def relu_add_relu() -> Case:
    kind = TensorType((4,), Q)
    nodes = (Node("r", Relu(), ("a",), Q), Node("y", Add(), ("r", "b"), Q), Node("z", Relu(), ("y",), Q))
    return Case(Network((Input("a", kind), Input("b", kind)), (), nodes, ("z",)), add_case().inputs)


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient([spec_of(f) for f in (*DEATHS, "hang", "prints", "raises", "")]) as started:
        yield started


@pytest.mark.parametrize("fault", DEATHS)
def test_a_death_elsewhere_is_a_verdict_here(fault: str) -> None:
    verdict = verdict_on(add_case(), fault)
    assert (verdict.verdict, verdict.op, verdict.reason) == ("crash", "add", DEATHS[fault])
    assert verdict_on(linear_case(), fault).verdict == "exact", "the operator is not there"


@pytest.mark.parametrize(
    ("fault", "kind"), [("segfault", "Segfault"), ("abort", "Aborts"), ("exit0", "Exits"), ("SIGFPE", "DividesByZero")]
)
def test_a_crash_looks_as_it_does_in_process(fault: str, kind: str, client: WorkerClient) -> None:
    there = client.check(add_case(), (spec_of(fault),)).backends[0]
    with WorkerClient([f"misbehaving:{kind}"]) as other:
        here = other.check(add_case()).backends[0]
    assert (there.outcome, there.reason, there.op, there.counts) == (here.outcome, here.reason, here.op, here.counts)


def test_the_guilty_node_is_found() -> None:
    verdict = verdict_on(relu_add_relu(), "segfault")
    assert (verdict.verdict, verdict.op) == ("crash", "add")


def test_a_crash_that_does_not_come_back_is_none(tmp_path: Path) -> None:
    verdict = verdict_on(add_case(), "once", tmp_path / "marker")
    assert (tmp_path / "marker").exists()
    assert (verdict.verdict, verdict.counts.exact) == ("exact", 4)


def test_a_crash_that_comes_back_but_not_alone_says_so(tmp_path: Path) -> None:
    verdict = verdict_on(add_case(), "every-other", tmp_path / "marker")
    assert (verdict.verdict, verdict.op) == ("crash", "")
    assert verdict.reason == "died of SIGABRT (twice in one process; not in a process of its own)"
    assert (tmp_path / "marker").read_text() == "xxxx"


def test_what_runs_unjudged_dies_as_a_verdict_too(client: WorkerClient) -> None:
    died = client.values(add_case(), spec_of("abort"))
    assert isinstance(died, BackendVerdict)
    assert (died.verdict, died.reason) == ("crash", DEATHS["abort"])
    values = client.values(add_case(), spec_of(""))
    assert isinstance(values, dict) and set(values) == {"y"}


def test_a_hang_is_a_verdict(client: WorkerClient) -> None:
    hung, honest = client.check(add_case(), (spec_of("hang"), spec_of("")), time_limit=0.5).backends
    assert (hung.verdict, hung.op, honest.verdict) == ("hang", "add", "exact")
    assert hung.reason.startswith("no progress for 0.5 s")
    assert client.check(add_case(), (spec_of(""),)).backends[0].verdict == "exact"


@pytest.mark.parametrize(
    ("fault", "verdict", "reason"),
    [
        ("refuse-load", "rejected", "no such kernel"),
        ("refuse-run", "rejected", "no memory"),
        ("changes-input", "corrupted", "input 'a' was changed by the run"),
        ("unstable", "unstable", "two identical runs differ in 'y'"),
        ("prints", "exact", ""),
        ("", "exact", ""),
    ],
)
def test_other_faults_are_verdicts(fault: str, verdict: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    got = verdict_on(add_case(), fault)
    assert got.verdict == verdict
    assert reason in got.reason
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_executor_is_no_verdict(client: WorkerClient) -> None:
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: in the executor's own code"):
        verdict_on(add_case(), "raises")
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: in the executor's own code"):
        client.check(add_case(), (spec_of("raises"),))
    assert client.check(add_case(), (spec_of(""),)).backends[0].verdict == "exact"


def test_memory_that_ran_out_there_ran_out() -> None:
    verdict = verdict_on(add_case(), "memory")
    assert verdict.verdict == "rejected", "this process has no limit that was reached"
    assert "too much" in verdict.reason


def test_constants_cannot_be_written_there() -> None:
    verdict = verdict_on(linear_case(), "constants")
    assert verdict.verdict == "exact"


def test_a_program_outlives_the_child_that_had_it() -> None:
    """After a crash, programs that were loaded before are loaded anew when they are run."""
    backend = Echoing("segfault")
    case = linear_case()
    program = backend.compile(case.network)
    fed = {name: t.array for name, t in case.feeds.items()}
    first = program.run(fed)
    assert check(add_case(), [backend]).backends[0].verdict == "crash"
    again = program.run(fed)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    backend.foreign.close()


def test_a_host_that_is_killed_is_no_crash() -> None:
    """Nobody accuses a kernel for it: another host is started."""
    backend, before = Echoing(), set(hosts())
    assert check(add_case(), [backend]).backends[0].verdict == "exact"
    (host,) = set(hosts()) - before
    child = children_of(host)
    assert len(child) == 1
    os.kill(host, signal.SIGKILL)
    assert_ended(host, *child)
    assert check(add_case(), [backend]).backends[0].verdict == "exact"
    assert set(hosts()) - before - {host}
    backend.foreign.close()


def test_a_host_that_is_killed_in_every_call_is_said() -> None:
    with pytest.raises(WorkerFailed, match="ended twice, by no kernel"):
        verdict_on(add_case(), "kills-host")


# Nothing is left over.


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    return [d for child in children_of(pid) for d in (child, *descendants(child))]


def assert_ended(*pids: int) -> None:
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"left over: {left}"
        time.sleep(0.02)


def test_closing_leaves_no_process() -> None:
    there = Foreign(sys.executable, str(EXECUTOR))
    before = set(hosts())
    there.load("", ["relu"], "", {})
    (host,) = set(hosts()) - before
    both = (host, *children_of(host))
    assert len(both) == 2
    there.close()
    assert_ended(*both)


def test_a_stand_in_that_nobody_holds_ends_its_host() -> None:
    before = set(hosts())
    Foreign(sys.executable, str(EXECUTOR)).facts()
    assert_ended(*(set(hosts()) - before))


@pytest.mark.parametrize("how", ["closed", "worker killed", "runner killed", "host killed"])
def test_whatever_ends_first_nothing_is_left(how: str) -> None:
    with WorkerClient([spec_of("")]) as client:
        client.check(add_case())
        worker = client.process.pid
        everyone = descendants(worker)
        (host,) = [
            p
            for p in everyone
            if b"foreign_host.py" in Path(f"/proc/{p}/cmdline").read_bytes() and p in children_of(worker)
        ]
        (child,) = children_of(host)
        warden, runner = sorted(set(children_of(worker)) - {host})
        assert sorted(everyone) == sorted((host, child, warden, runner))
        if how == "worker killed":
            client.process.kill()
            client.process.wait()
            assert_ended(*everyone)
        elif how == "runner killed":
            os.kill(runner, signal.SIGKILL)
            assert_ended(runner, child)
            assert alive(host)
        elif how == "host killed":
            os.kill(host, signal.SIGKILL)
            assert_ended(host, child)
            assert client.check(add_case()).backends[0].verdict == "exact"
            everyone += descendants(worker)
    assert_ended(worker, *everyone)


def test_a_hang_that_is_killed_ends_there_too(client: WorkerClient) -> None:
    client.check(add_case(), (spec_of("hang"),), time_limit=0.3)
    worker = client.process.pid
    deadline = time.monotonic() + 10
    while [d for host in children_of(worker) for d in children_of(host)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_campaign_outlives_kernels_elsewhere(tmp_path: Path) -> None:
    """Every example is counted once, every crash is one of the guilty operator, and one finding is made of them."""
    n = 60
    cases = list(itertools.islice(cases_of(3, 0, ops=("add", "relu"), max_nodes=2), n))
    carried = [i for i, c in enumerate(cases) if isinstance(Echoing().supports(c.network), Supported)]
    guilty = [i for i in carried if any(node.op.name == "add" for node in cases[i].network.nodes)]
    assert 0 < len(guilty) < len(carried)
    deadly, honest = spec_of("abort"), spec_of("")
    args = ["-b", deadly, "-b", honest, "--ops", "add", "--ops", "relu", "--max-nodes", "2", "--seed", "3"]
    args += ["--invalid", "0"]
    d = document(tmp_path, RUN, "run", *args, "--max-examples", str(n), "--jobs", "1", code=1)
    died, lived = d["backends"]
    assert d["examples"] == n
    assert died["examples"] == lived["examples"] == len(carried)
    assert died["verdicts"]["crash"] == len(guilty)
    assert lived["verdicts"]["violation"] == lived["verdicts"]["crash"] == 0
    (finding,) = d["findings"]
    assert (finding["op"], finding["verdict"], finding["backend"]) == ("add", "crash", deadly)
    assert finding["first_example"] == guilty[0]
    assert finding["nodes"] == 1
