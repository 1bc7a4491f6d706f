"""Kernels that die, hang, exit or flood: a verdict with its case, every other example counted, nothing left over."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import Heard, a_plan, fuzz
from small_cases import add_case, linear_case

from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.crew import LocalCrew
from qfuzz.campaign.protocol import KNOWN_EVERY, KnownDeath
from qfuzz.campaign.run import ERRORS_ALLOWED, Campaign
from qfuzz.ir.errors import BackendMissing, QfuzzError, WorkerFailed
from qfuzz.ir.expectation import Condition
from qfuzz.ops import CODEC
from qfuzz.oracle.verdicts import REASON_KEPT
from qfuzz.strategies import cases_of

DEATHS = {
    "Segfault": "SIGSEGV",
    "DividesByZero": "SIGFPE",
    "IllegalInstruction": "SIGILL",
    "Aborts": "SIGABRT",
    "Dies": "SIGKILL",
    "Exits": "exited with status 0",
    "ExitsInC": "exited with status 0",
    "ExitsInPython": "exited with status 1",
    "AssertionFails": "died of SIGABRT: ",
    "Throws": "died of SIGABRT: terminate called after throwing an instance of 'std::logic_error' |   what():  k out",
    "FreesTwice": "died of SIGABRT: double free or corruption",
}


def processes_of_this_session(worker: int) -> list[int]:
    """Live processes of a worker's session: the worker leads one of its own, and runners stay in it."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == worker and fields[0] != "Z":
            alive.append(int(stat.parent.name))
    return alive


def assert_gone(worker: int) -> None:
    for _ in range(100):
        if not processes_of_this_session(worker):
            return
        time.sleep(0.05)
    raise AssertionError(f"left over: {processes_of_this_session(worker)}")


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient([f"misbehaving:{n}" for n in (*DEATHS, "Hangs", "Prints", "Raises", "Honest")]) as started:
        yield started


@pytest.mark.parametrize("name", DEATHS)
def test_a_death_is_a_verdict_and_the_worker_lives(name: str, client: WorkerClient) -> None:
    spec = f"misbehaving:{name}"
    verdicts = client.check(add_case(), (spec, "misbehaving:Honest"))
    dead, honest = verdicts.backends
    assert (dead.backend, dead.verdict, dead.op) == (spec, "crash", "add")
    assert DEATHS[name] in dead.reason
    assert dead.is_finding
    assert (honest.verdict, honest.counts.exact) == ("exact", 4)
    assert client.check(linear_case(), (spec,)).backends[0].verdict == "exact", "the operator is not there"


def test_what_it_said_last_is_in_the_reason(client: WorkerClient) -> None:
    (verdict,) = client.check(add_case(), ("misbehaving:Aborts",)).backends
    assert "check failed: x > 0" in verdict.reason
    (verdict,) = client.check(add_case(), ("misbehaving:AssertionFails",)).backends
    assert "kernel.cc:17: run: Assertion `n > 0' failed." in verdict.reason


def test_several_deaths_in_one_case(client: WorkerClient) -> None:
    specs = ("misbehaving:Segfault", "misbehaving:Honest", "misbehaving:Exits")
    assert [v.verdict for v in client.check(add_case(), specs).backends] == ["crash", "exact", "crash"]


def test_a_hang_is_a_verdict(client: WorkerClient) -> None:
    start = time.monotonic()
    hung, honest = client.check(add_case(), ("misbehaving:Hangs", "misbehaving:Honest"), time_limit=0.5).backends
    assert (hung.verdict, hung.op, honest.verdict) == ("hang", "add", "exact")
    assert hung.reason == "no progress for 0.5 s (busy)"
    assert time.monotonic() - start < 10
    assert client.check(add_case(), ("misbehaving:Honest",)).backends[0].verdict == "exact"


def test_floods_of_output_do_no_harm(client: WorkerClient, capfd: pytest.CaptureFixture[str]) -> None:
    (verdict,) = client.check(add_case(), ("misbehaving:Prints",)).backends
    assert verdict.verdict == "exact"
    assert capfd.readouterr() == ("", "")


def test_an_error_in_a_backends_own_code_is_no_verdict(client: WorkerClient) -> None:
    with pytest.raises(WorkerFailed, match=r"ZeroDivisionError: in the backend's own code"):
        client.check(add_case(), ("misbehaving:Raises",))
    assert client.check(add_case(), ("misbehaving:Honest",)).backends[0].verdict == "exact"


def test_closing_leaves_no_process() -> None:
    with WorkerClient(["misbehaving:Honest"]) as started:
        worker = started.process.pid
        started.check(add_case())
        assert len(processes_of_this_session(worker)) == 3, "with its warden and a runner"
    assert_gone(worker)


def test_a_lost_worker_is_said() -> None:
    with WorkerClient(["misbehaving:Honest"]) as started:
        worker = started.process.pid
        started.check(add_case())
        started.process.kill()
        started.process.wait()
        with pytest.raises(WorkerFailed, match="worker is gone"):
            started.check(add_case())
        # Its runner asked the kernel to end with it.
        assert_gone(worker)


@pytest.mark.parametrize("spec", ["nowhere:Backend", "misbehaving:Nobody", "misbehaving:add_case", "nobody"])
def test_a_worker_that_cannot_start_says_why(spec: str) -> None:
    with pytest.raises(QfuzzError, match=spec.partition(":")[0]) as raised:
        WorkerClient([spec])
    assert isinstance(raised.value, BackendMissing)


N = 60


def fuzzed(
    *names: str, n: int = N, heard: Heard | None = None, limit: float = 30.0, known: tuple[KnownDeath, ...] = ()
) -> Campaign:
    specs = (f"misbehaving:{name}" for name in names)
    plan = a_plan(*specs, seed=3, n=n, ops=("add", "relu"), max_nodes=2, limit=limit, known=known, reduce=False)
    return fuzz(plan, heard=heard)


def guilty_examples() -> list[int]:
    cases = list(cases_of(3, 0, ops=("add", "relu"), max_nodes=2))[:N]
    return [i for i, c in enumerate(cases) if any(n.op.name == "add" for n in c.network.nodes)]


@pytest.mark.parametrize("name", ["Segfault", "Exits"])
def test_a_campaign_outlives_its_kernels(name: str) -> None:
    heard = Heard()
    fuzzing = fuzzed(name, "Honest", heard=heard)
    guilty = guilty_examples()
    assert 5 < len(guilty) < N - 5
    deadly, honest = fuzzing.tally.backends[f"misbehaving:{name}"], fuzzing.tally.backends["misbehaving:Honest"]
    assert fuzzing.tally.examples == N
    assert (deadly.examples, honest.examples) == (N, N)
    assert deadly.verdicts["crash"] == len(guilty)
    assert honest.verdicts["crash"] == honest.verdicts["violation"] == 0
    suspects = heard.suspects
    assert [s.example for s in suspects] == guilty
    case = CODEC.decode(suspects[0].case).case
    assert any(n.op.name == "add" for n in case.network.nodes)
    assert {(s.spec, s.symptom.verdict) for s in suspects} == {(f"misbehaving:{name}", "crash")}


def test_a_violation_by_nan_is_concluded() -> None:
    """A suspect that holds NaN does not equal its copy that a worker sends back; others wait for its end."""
    specs = ("misbehaving:NoNumbers", "misbehaving:OffByOne")
    plan = a_plan(*specs, seed=3, n=20, ops=("dequantize",), max_nodes=1, reduce=False)
    found = fuzz(plan).findings.values()
    assert {spec for f in found for spec in f.backends} == set(specs)


def test_known_deaths_run_on_one_example_in_so_many() -> None:
    spec = "misbehaving:Segfault"
    elsewhere = KnownDeath(spec, "relu", (), Condition(versions="==0.0.1"))
    tally = fuzzed("Segfault", known=(KnownDeath(spec, "add", (), Condition()), elsewhere)).tally.backends[spec]
    guilty = guilty_examples()
    ran = [i for i in guilty if i % KNOWN_EVERY == 0]
    assert tally.verdicts["crash"] == len(ran)
    assert tally.unsupported == len(guilty) - len(ran)
    assert {r.partition(":")[0] for r in tally.reasons} == {"known, not run"}


def test_a_campaign_outlives_hangs() -> None:
    """Two are waited for twice each; examples alike are left out then, and said to be unsupported with the reason."""
    fuzzing = fuzzed("Hangs", "Honest", limit=0.3)
    hung = fuzzing.tally.backends["misbehaving:Hangs"]
    assert fuzzing.tally.examples == fuzzing.tally.backends["misbehaving:Honest"].examples == N
    assert hung.examples + hung.unsupported == N
    assert 2 <= hung.verdicts["hang"] <= 6
    assert hung.verdicts["hang"] + hung.unsupported == len(guilty_examples())
    assert all("known, not run" in reason for reason in hung.reasons)


def test_a_campaign_says_its_own_errors_and_goes_on() -> None:
    heard = Heard()
    n = 20
    campaign = fuzzed("Raises", n=n, heard=heard)
    assert 5 < campaign.errors == len(heard.troubles) == sum(i < n for i in guilty_examples()) <= ERRORS_ALLOWED
    assert all("ZeroDivisionError: in the backend's own code" in what for what in heard.troubles)
    assert campaign.tally.examples == n - campaign.errors
    assert not heard.suspects


@pytest.mark.parametrize("name", ["SaysWhatCannotBeWritten", "SaysTooMuch"])
def test_what_a_backend_says_is_kept_legible(name: str) -> None:
    campaign = fuzz(a_plan(f"misbehaving:{name}", seed=3, n=5, ops=("add",), max_nodes=1, reduce=False))
    assert not campaign.lost and not campaign.errors
    assert campaign.tally.backends[f"misbehaving:{name}"].verdicts["rejected"] == 5
    assert all(len(f.verdict.reason) < 2 * REASON_KEPT for f in campaign.findings.values())
    assert campaign.findings


def test_backends_of_one_name_are_told_apart_or_refused() -> None:
    with pytest.raises(BackendMissing, match="call themselves"):
        WorkerClient(("misbehaving:SaysTooMuch", "misbehaving:SaysTooMuch?times=2"))


def test_errors_without_end_end_a_campaign() -> None:
    with pytest.raises(WorkerFailed, match="ZeroDivisionError"):
        fuzz(a_plan("misbehaving:Raises", seed=3, n=200, ops=("add",), max_nodes=1))


def test_a_worker_that_is_killed_is_replaced() -> None:
    """Every example is counted once all the same."""
    plan = a_plan("misbehaving:Honest", seed=3, n=1600, ops=("add",), max_nodes=1)
    killed: list[int] = []

    def kill_once(campaign: Campaign) -> None:
        if not killed and campaign.tally.examples:
            assert isinstance(crew, LocalCrew)
            killed.append(crew.workers[0])
            os.kill(killed[0], signal.SIGKILL)

    crew = LocalCrew(plan.profile.specs, 1)
    try:
        campaign = fuzz(plan, crew=crew, heard=Heard(kill_once))
        assert campaign.tally.examples == campaign.tally.backends["misbehaving:Honest"].examples == 1600
        assert campaign.tally.deaths == len(killed) == 1
    finally:
        last = crew.workers
        crew.close()
    for worker in (*killed, *last):
        assert_gone(worker)
