"""Parts of `scripts/bench` about whole campaigns: isolation, many workers, memory, faults, hours on end."""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from qfuzz.backends.discovery import default_rides, load_backend
from qfuzz.campaign.ahead import AHEAD, prepare
from qfuzz.campaign.client import ONE_THREAD
from qfuzz.campaign.crew import Crew, LocalCrew
from qfuzz.campaign.protocol import SHARD_SIZE, TAP_EVERY, Ride
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.shard import judge_example
from qfuzz.campaign.tally import CASE_VERDICTS
from qfuzz.strategies.generate import cases_of

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from campaigns import Heard, a_plan, fuzz  # noqa: E402  campaigns as the tests run them
from fault_campaign import complaints, run, temporaries  # noqa: E402
from faulty import OPS, faults_of  # noqa: E402

SEED = 21
SAFE = ("conv", "linear", "add", "mul", "relu", "sigmoid", "max_pool", "concat", "quantize", "dequantize")
"""Operators on which no default backend has a known crash, whose forks would be counted as the cost of isolation."""


def isolation(options: argparse.Namespace) -> None:
    """The same shards in a worker with its runners, and in one process without either; in turns, the best of each."""
    shards = 2 if options.quick else 6
    plan = a_plan(rides=_rides(), seed=SEED, n=shards * SHARD_SIZE, ops=SAFE, reduce=False)
    isolated, plain = [], []
    with _crew(plan.profile.specs, 1) as crew:
        for _ in range(2 if options.quick else 4):
            isolated.append(fuzz(plan, crew=crew).state_seconds)
            command = [sys.executable, __file__, str(shards)]
            done = subprocess.run(command, check=True, env=os.environ | ONE_THREAD, capture_output=True, text=True)
            plain.append(float(done.stdout.splitlines()[-1]))
    n, cost = shards * SHARD_SIZE, 1 - min(plain) / min(isolated)
    print(
        f"   {n / min(isolated):.0f} examples/s isolated, {n / min(plain):.0f} in one process without isolation: "
        f"isolation costs {cost:.1%} of throughput (at most 10 % wanted)"
    )


def _plain(shards: int) -> float:
    """Seconds for the work of so many shards in this process: generated, judged, and counted by nobody."""
    rides = [(load_backend(r.spec), r.every) for r in _rides()]

    def do(seed: int, shard: int) -> None:
        cases = list(cases_of(seed, shard, ops=SAFE))
        for first in range(0, len(cases), AHEAD):
            indices = range(first, min(first + AHEAD, len(cases)))
            riding = {i: [(p, b) for p, (b, every) in enumerate(rides) if i % every == 0] for i in indices}
            ready = {i: prepare(cases[i], [b for _, b in riding[i]]) for i in indices}
            for i in indices:
                judge_example(i, ready[i], riding[i], {}, lambda position: None, tap=i % TAP_EVERY == 0)

    do(SEED + 1, 0)  # what is done once is not measured
    gc.disable()  # as in a runner
    start = time.perf_counter()
    for shard in range(shards):
        do(SEED, shard)
    return time.perf_counter() - start


def jobs(options: argparse.Namespace) -> None:
    """One campaign with one worker, with two, and on two Dask workers: in turns, each alone here, and warm."""
    n = SHARD_SIZE * (12 if options.quick else 24)
    plan = a_plan(rides=_rides(), seed=SEED, n=n, ops=SAFE, reduce=False)
    warm = a_plan(rides=_rides(), seed=SEED + 1, n=4 * SHARD_SIZE, ops=SAFE, reduce=False)
    specs = plan.profile.specs
    crews = {
        "1 job": lambda: _crew(specs, 1),
        "2 jobs": lambda: _crew(specs, 2),
        "2 Dask workers": lambda: _dask(specs),
    }
    best = dict.fromkeys(crews, 0.0)
    for _ in range(1 if options.quick else 3):
        for name, started in crews.items():
            with started() as crew:
                if crew is not None:
                    fuzz(warm, crew=crew)
                    best[name] = max(best[name], n / fuzz(plan, crew=crew).state_seconds)
    wanted = {"2 jobs": " (at least 1.8 wanted)", "2 Dask workers": " (at least 1.7 wanted)"}
    for name, rate in best.items():
        print(f"   {name}: {rate:.0f} examples/s, {rate / best['1 job']:.2f} times one job's{wanted.get(name, '')}")


def share(options: argparse.Namespace) -> None:
    """Share of the workers' time inside the frameworks' own calls, in a real campaign with the default backends."""
    n = SHARD_SIZE * (4 if options.quick else 15)
    plan = a_plan(rides=_rides(), seed=SEED, n=n, reduce=False)
    with _crew(plan.profile.specs, 1) as crew:
        campaign = fuzz(plan, crew=crew)
    spent = campaign.tally.seconds
    judged = sum(spent[stage] for stage in ("generate", "reference", "backends", "oracle"))
    stages = ", ".join(f"{stage} {seconds / judged:.1%}" for stage, seconds in spent.items() if stage != "reduce")
    print(f"   {stages} of {judged:.0f} s")


def memory(options: argparse.Namespace) -> None:
    """Memory of a worker and of its supervisor over 50,000 examples."""
    n = 50_000 if not options.quick else 5_000
    backends = (Ride("reference"), Ride("onnxruntime", 10), Ride("torch-fbgemm", 10))
    installed = {r.spec for r in _rides()}
    plan = a_plan(rides=[r for r in backends if r.spec in {"reference", *installed}], seed=SEED, n=n, reduce=False)
    with _crew(plan.profile.specs, 1) as crew:
        assert isinstance(crew, LocalCrew)
        watched = Watched(crew)
        fuzz(plan, crew=crew, heard=Heard(watched.look))
        print(f"   {watched.told(n)}")


class Watched:
    """Memory, descriptors and processes of a campaign, looked at as it goes on."""

    def __init__(self, crew: LocalCrew) -> None:
        self._crew, self._here = crew, psutil.Process()
        self._seen: list[tuple[int, int, int, int, int]] = []

    def look(self, campaign: Campaign) -> None:
        """Note what there is, about once in 250 examples."""
        examples = campaign.tally.examples
        if self._seen and examples - self._seen[-1][0] < 250:
            return
        try:
            worker = psutil.Process(self._crew.workers[0])
            mine, its = self._here.memory_info().rss, worker.memory_info().rss
            processes = len(self._here.children(recursive=True))
            self._seen.append((examples, its, mine, self._here.num_fds() + worker.num_fds(), processes))
        except psutil.Error:
            pass  # it is being replaced

    def told(self, n: int) -> str:
        """Growth from the first tenth, when all is loaded, to the last."""
        tenth = n // 10
        early = [s for s in self._seen if tenth <= s[0] < 2 * tenth]
        late = [s for s in self._seen if s[0] >= n - tenth]
        worker, supervisor, fds = (_median(late, i) / _median(early, i) - 1 for i in (1, 2, 3))
        most = max(s[4] for s in self._seen)
        return (
            f"worker {_median(late, 1) / 2**20:.0f} MiB ({worker:+.1%} from the second tenth to the last), supervisor "
            f"{_median(late, 2) / 2**20:.0f} MiB ({supervisor:+.1%}), descriptors {_median(late, 3):.0f} ({fds:+.1%}), "
            f"never more than {most} processes"
        )


def _median(rows: list[tuple[int, int, int, int, int]], column: int) -> float:
    return float(statistics.median(row[column] for row in rows))


def faults(options: argparse.Namespace) -> None:
    """500 faults of every kind in one campaign, whose supervisor is killed twice and resumed."""
    wanted = 500 if not options.quick else 60
    n = SHARD_SIZE
    while len(faults_of(SEED, n, SHARD_SIZE)) < wanted:
        n += SHARD_SIZE
    expected = faults_of(SEED, n, SHARD_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        before = temporaries(Path(folder))
        killed = (len(expected) // 4, len(expected) // 2)
        start = time.perf_counter()
        story = run(SEED, n, 2, Path(folder) / "out", limit=1.0, kill_after=killed)
        seconds = time.perf_counter() - start
        wrong = complaints(story, SEED, n)
        uninterrupted = run(SEED, n, 2, Path(folder) / "whole", limit=1.0)
        if story.end["findings"] != uninterrupted.end["findings"]:
            wrong.append("the findings are not those of the campaign that was never killed")
        wrong += [f"left over: {p}" for p in temporaries(Path(folder)) if p not in before]
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(expected.values()).items()))
    print(f"   {n} examples, {len(expected)} faults ({kinds}); {story.killed} kills; {seconds:.0f} s")
    verdict = "all as it should be" if not wrong else f"{len(wrong)} WRONG"
    print(f"   {len(story.end['findings'])} findings; {verdict}")
    for text in wrong[:20]:
        print(f"      {text}")


def endurance(options: argparse.Namespace) -> None:
    """100,000 examples on `reference` and on a backend with faults: nothing leaks."""
    n = 100_000 if not options.quick else 10_000
    plan = a_plan(
        rides=(Ride("reference"), Ride("faulty:Faulty", 20)),
        seed=SEED,
        n=n,
        ops=OPS,
        max_nodes=1,
        limit=1.0,
        memory_limit=2**28,
        hangs_per_shard=1000,
        reduce=False,
    )
    with _crew(plan.profile.specs, 2) as crew, tempfile.TemporaryDirectory() as folder:
        assert isinstance(crew, LocalCrew)
        watched = Watched(crew)
        campaign = fuzz(plan, crew=crew, folder=Path(folder) / "out", heard=Heard(watched.look))
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        deaths, verdicts = campaign.tally.deaths, campaign.tally.backends["faulty:Faulty"].verdicts
        seen = ", ".join(f"{verdicts[v]} {v}" for v in CASE_VERDICTS if verdicts[v])
        print(f"   {campaign.tally.examples} examples; faults: {seen}; {deaths} runners died")
        print(f"   {size / 2**20:.1f} MiB on disk")
        print(f"   {watched.told(n)}")


def _rides() -> list[Ride]:
    return [Ride(spec, every) for spec, every in default_rides()]


@contextmanager
def _crew(specs: Sequence[str], n: int) -> Iterator[Crew]:
    crew = LocalCrew(specs, n)
    try:
        yield crew
    finally:
        crew.close()


@contextmanager
def _dask(specs: Sequence[str]) -> Iterator[Crew | None]:
    """Two workers of a cluster on this machine; None where Dask is not installed."""
    try:
        from distributed import LocalCluster

        from qfuzz.campaign.cluster import ClusterCrew
    except ImportError:
        yield None
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder, host="127.0.0.1"
        ) as cluster,
    ):
        crew = ClusterCrew(specs, cluster.scheduler_address)
        try:
            yield crew
        finally:
            crew.close()


if __name__ == "__main__":
    print(_plain(int(sys.argv[1])))
