"""Campaigns on a Dask cluster: the same results as here, whoever dies; what cannot go on says so in one line."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from campaigns import Heard, a_plan, counts, fuzz
from clusters import Cluster, a_server, ended, free_port, qfuzz_workers, run_cli, until

pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install 'qfuzz[cluster]'")

from distributed import LocalCluster

from qfuzz.campaign.cluster import TASKS_A_THREAD, ClusterCrew
from qfuzz.campaign.cluster_task import IDLE_SECONDS
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import Judged, ShardDone
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.state import read_snapshot
from qfuzz.ir.errors import CampaignFailed

SOON = IDLE_SECONDS / 2
"""Within which a cancelled task ends: sooner than a seat that is only idle."""
SPECS = ("planted?fault=truncation", "misbehaving:Segfault", "planted?fault=none")


def the_plan(n: int = 500) -> Plan:
    return a_plan(*SPECS, n=n, ops=("linear", "add"), max_nodes=1)


def results(campaign: Campaign, folder: Path) -> object:
    """All that a campaign comes to."""
    findings = {
        text: (f.case, f.first_example, f.backends, f.reduction, f.verdict.verdict)
        for text, f in campaign.findings.items()
    }
    files = {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.name in ("case.json", "repro.py")
    }
    return counts(campaign), findings, files


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What one worker on this machine comes to."""
    folder = tmp_path_factory.mktemp("local")
    campaign = fuzz(the_plan(), 1, folder)
    assert {f.backend for f in campaign.findings.values()} == set(SPECS[:2])
    return results(campaign, folder)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Two worker processes, which are replaced when they die."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
        silence_logs=50,
    ) as made:
        yield made


def busy_runner(dask: int) -> bool:
    """Whether a process below that Dask worker has computed for a while."""
    times = []
    for pid in qfuzz_workers([dask]):
        with contextlib.suppress(psutil.NoSuchProcess):
            runners = [c for c in psutil.Process(pid).children() if c.status() == psutil.STATUS_RUNNING]
            times += [sum(r.cpu_times()[:2]) for r in runners]
    return max(times, default=0.0) > 1.0


def small(*more: str) -> tuple[str, ...]:
    return ("-b", "reference", "--ops", "linear", "--max-nodes", "1", "--seed", "1", "--out", "out", *more)


def test_a_cluster_changes_nothing(cluster: LocalCluster, expected: object, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    crew = ClusterCrew(SPECS, cluster.scheduler_address)
    try:
        heard = Heard()
        assert results(fuzz(the_plan(), crew=crew, folder=folder, heard=heard), folder) == expected
        assert heard.troubles == []
        until(lambda: not cluster.scheduler.tasks, "no task is left in the scheduler")
    finally:
        crew.close()


def test_a_killed_dask_worker_loses_nothing(cluster: LocalCluster, expected: object, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(campaign: Campaign) -> None:
        if not killed and campaign.tally.examples:
            victim = cluster.workers[0].process.pid
            killed.extend([victim, *qfuzz_workers([victim])])
            os.kill(victim, signal.SIGKILL)

    folder = tmp_path / "out"
    crew = ClusterCrew(SPECS, cluster.scheduler_address)
    try:
        campaign = fuzz(the_plan(), crew=crew, folder=folder, heard=Heard(kill_one))
    finally:
        crew.close()
    assert results(campaign, folder) == expected
    assert len(killed) >= 2, "it had a worker of qfuzz, which must have ended with it"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed), "both are gone", 5)


def test_a_result_that_dies_with_its_worker_is_made_again(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        crew = ClusterCrew(("reference",), cluster.address)
        try:
            task = a_plan("reference", n=200, ops=("linear",), max_nodes=1).shard(0)
            crew.give(task)
            ((future, _),) = crew._futures.values()
            until(lambda: future.status == "finished", "the shard is done, and nobody has its result yet")
            cluster.workers[0].kill()
            cluster.workers[0].wait()
            cluster.add_worker()
            reports: list[object] = []
            until(lambda: reports.extend(crew.wait(0.5)) or reports, "its result")
        finally:
            crew.close()
    judged, done = reports
    assert isinstance(judged, Judged)
    assert judged.tally.examples == 200
    assert done == ShardDone(0, 200, True)


def test_the_scheduler_holds_few_tasks_of_many_shards(cluster: LocalCluster, tmp_path: Path) -> None:
    """A campaign of 10^5 shards: neither the scheduler nor this process holds more than a few of them at a time."""
    held: list[int] = []
    crew = ClusterCrew(("reference",), cluster.scheduler_address)
    plan = a_plan("reference", n=200 * 10**5, ops=("linear",), max_nodes=1)
    assert plan.n_shards == 10**5

    def look(campaign: Campaign) -> None:
        held.append(len(cluster.scheduler.tasks))
        assert len(crew._futures) <= TASKS_A_THREAD * 2

    try:
        campaign = fuzz(plan, crew=crew, heard=Heard(look), interrupted=lambda: len(held) > 20)
        assert campaign.stopped == "interrupted"
        # Those that have ended stay until the client says that it has them.
        assert max(held) <= 2 * TASKS_A_THREAD * 2
        until(lambda: not cluster.scheduler.tasks, "what was under way is cancelled")
    finally:
        crew.close()
    assert campaign.tally.examples % 200 == 0


def test_workers_come_and_go(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        crew = ClusterCrew(("reference",), cluster.address)
        sizes: list[int] = []

        def change(campaign: Campaign) -> None:
            sizes.append(crew.size)
            if len(cluster.workers) == 1 and campaign.tally.examples >= 200:
                cluster.add_worker()
            if 2 in sizes and qfuzz_workers([cluster.workers[1].pid]) and cluster.workers[0].poll() is None:
                cluster.workers[0].terminate()

        n = 40 * 200
        plan = a_plan("reference", n=n, ops=("linear",), max_nodes=1)
        try:
            campaign = fuzz(plan, crew=crew, heard=Heard(change))
        finally:
            crew.close()
        assert campaign.tally.examples == n
        assert not campaign.lost
        assert max(sizes) == 2, "the worker that came was used"
        assert cluster.workers[0].poll() is not None, "the first worker left"


def test_without_workers_it_ends_and_is_resumed(tmp_path: Path) -> None:
    plan = a_plan("reference", n=1000, ops=("linear",), max_nodes=1)
    with Cluster(tmp_path / "dask") as cluster:
        crew = ClusterCrew(("reference",), cluster.address, workerless_seconds=2)

        def kill(campaign: Campaign) -> None:
            if campaign.tally.examples:
                cluster.workers[0].kill()

        try:
            with pytest.raises(CampaignFailed, match="without workers for 2 s"):
                fuzz(plan, crew=crew, folder=tmp_path / "out", heard=Heard(kill))
        finally:
            crew.close()
    kept = read_snapshot(tmp_path / "out")
    assert 0 < kept.tally.examples < 1000
    assert counts(fuzz(plan, folder=tmp_path / "out", resume=True)) == counts(fuzz(plan))


def test_a_lost_scheduler_ends_it_in_one_line(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        process = run_cli(*small("--max-examples", "100000", "--scheduler", cluster.address), folder=tmp_path)
        out = tmp_path / "out"
        until(lambda: (out / "campaign.db").is_file() and read_snapshot(out).tally.examples, "a shard is committed")
        cluster.scheduler.kill()
        code, _, err = ended(process)
        errors = [line for line in err if not line.startswith("seed")]
        assert (code, len(errors)) == (3, 1), err
        assert errors[0].startswith(f"qfuzz: error: scheduler {cluster.address}: ")
        assert "--resume" in errors[0]
        until(lambda: not qfuzz_workers([w.pid for w in cluster.workers]), "its tasks end")
    before = read_snapshot(out).tally.examples
    assert before % 200 == 0
    n = before + 250
    code, text, err = ended(run_cli("--resume", "out", "--max-examples", str(n), "--json", folder=tmp_path))
    assert code == 0, err
    assert msgspec.json.decode(text)["examples"] == n


def test_an_interrupt_keeps_what_was_done(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        process = run_cli(*small("--max-examples", "100000", "--scheduler", cluster.address), folder=tmp_path)
        out = tmp_path / "out"
        until(lambda: (out / "campaign.db").is_file() and read_snapshot(out).tally.examples, "a shard is committed")
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process, 20)
        assert code == 130, err
        assert not any("Traceback" in line or "distributed" in line for line in err), err
    assert read_snapshot(out).stopped == "interrupted"
    assert read_snapshot(out).tally.examples % 200 == 0


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_cancelled_tasks_end(by: signal.Signals, tmp_path: Path) -> None:
    """Here a task would take minutes: its examples hang."""
    with Cluster(tmp_path / "dask") as cluster:
        arguments = ("-b", "misbehaving:Hangs", "--ops", "add", "--max-nodes", "1", "--seed", "1", "--out", "out")
        process = run_cli(*arguments, "--scheduler", cluster.address, folder=tmp_path)
        dask = cluster.workers[0]
        until(lambda: busy_runner(dask.pid), "an example that hangs")
        process.send_signal(by)
        code, _, err = ended(process, 20)
        assert code == (130 if by == signal.SIGINT else -signal.SIGKILL), err
        until(lambda: not qfuzz_workers([dask.pid]), "its tasks end", SOON)
        assert dask.poll() is None, "Dask's own worker lives on"


def test_an_idle_seat_ends(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        code, _, err = ended(run_cli(*small("--max-examples", "9", "--scheduler", cluster.address), folder=tmp_path))
        assert code == 0, err
        until(lambda: not qfuzz_workers([cluster.workers[0].pid]), "no task comes any more", IDLE_SECONDS + SOON)


@pytest.mark.parametrize("address", ["nonsense", "foo://127.0.0.1:1", "tcp://127.0.0.1", "closed", "silent", "garbage"])
def test_no_scheduler_there(address: str, tmp_path: Path) -> None:
    with a_server(b"") as silent, a_server(b"HTTP/1.1 400 Bad Request\r\n\r\nno Dask here") as garbage:
        known = {"silent": silent, "garbage": garbage, "closed": f"tcp://127.0.0.1:{free_port()}"}
        where = known.get(address, address)
        code, out, err = ended(run_cli(*small("--max-examples", "9", "--scheduler", where), folder=tmp_path), 30)
    assert (code, out, len(err)) == (3, "", 1), err
    assert err[0].startswith(f"qfuzz: error: scheduler {where}: ")
    assert not (tmp_path / "out").exists()


UNFIT = {
    "no workers": (None, "it has no workers"),
    "another distributed": (
        "import distributed.versions as v; v._version_cached = lambda name, f=v._version_cached: "
        "'2020.1' if name == 'distributed' else f(name)",
        "has distributed 2020.1",
    ),
    "another qfuzz": ("import qfuzz; qfuzz.__version__ = '0.0.1'", "has qfuzz 0.0.1 (protocol"),
    "no qfuzz": ("import sys; sys.modules['qfuzz'] = None", "cannot run qfuzz: ModuleNotFoundError"),
    "no backend": ("", "misbehaving"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_clusters_are_refused(what: str, tmp_path: Path) -> None:
    before, message = UNFIT[what]
    with Cluster(tmp_path / "dask", n_workers=0) as cluster:
        if before is not None:
            cluster.add_worker(before, without=str(Path(__file__).parent))
        arguments = ("-b", "misbehaving:Honest", "--max-examples", "9", "--scheduler", cluster.address, "--out", "out")
        code, out, err = ended(run_cli(*arguments, folder=tmp_path))
    assert (code, out, len(err)) == (3, "", 1), err
    assert message in err[0]
    assert not (tmp_path / "out").exists()


def test_an_unfit_worker_that_joins_later_ends_it(tmp_path: Path) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        crew = ClusterCrew(("reference",), cluster.address)

        def add(campaign: Campaign) -> None:
            if len(cluster.workers) == 1:
                cluster.add_worker("import qfuzz; qfuzz.__version__ = '0.0.1'")

        try:
            with pytest.raises(CampaignFailed, match=r"a worker is unfit: it has qfuzz 0\.0\.1"):
                fuzz(a_plan("reference", n=10**6, ops=("linear",), max_nodes=1), crew=crew, heard=Heard(add))
        finally:
            crew.close()


def test_jobs_are_no_matter_of_a_cluster(tmp_path: Path) -> None:
    code, _, err = ended(run_cli("--jobs", "2", "--scheduler", "tcp://127.0.0.1:1", folder=tmp_path))
    assert (code, len(err)) == (2, 1)
    code, _, err = ended(run_cli("--scheduler", "", folder=tmp_path))
    assert (code, len(err)) == (2, 1)


def test_dask_is_an_extra(tmp_path: Path) -> None:
    where = ("--scheduler", "tcp://127.0.0.1:1")
    code, out, err = ended(
        run_cli(*small(*where), folder=tmp_path, before="import sys; sys.modules['distributed'] = None")
    )
    assert (code, out, err) == (3, "", ["qfuzz: error: --scheduler needs distributed; pip install 'qfuzz[cluster]'"])
    assert not (tmp_path / "out").exists()
