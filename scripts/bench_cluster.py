"""What bounds a campaign on many machines: bytes and microseconds per shard, per message, per finding, per task.

Run as ``python scripts/bench_cluster.py``; the figures of `qfuzz/CAMPAIGNS.md` are its output.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from campaigns import Heard, a_plan
from clusters import Cluster

from qfuzz.backends.discovery import canonical, default_rides
from qfuzz.campaign.cluster import ClusterCrew
from qfuzz.campaign.cluster_task import do_task, me, packed, unpacked, versions_of
from qfuzz.campaign.crew import LocalCrew, Report, Task
from qfuzz.campaign.pipes import FrameBuffer, decode_reply, frame
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import Concluded, FoundCase, Ride, RunShard
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.state import State
from qfuzz.findings.finding import write_finding

N_SHARDS = 4
N_REPLAYED = 2000
N_TASKS = 3000


class Recorded:
    """A crew that answers each task at once with what another crew said, as bytes: what is left is the supervisor."""

    size, lost_workers = 1, 0

    def __init__(self, described: dict[str, dict[str, str]], shards: list[bytes]) -> None:
        self.described, self._shards = described, shards
        self._given: list[Task] = []

    def wants(self) -> int:
        return 1 - len(self._given)

    def give(self, task: Task) -> None:
        self._given.append(task)

    def wait(self, seconds: float) -> list[Report]:
        reports: list[Report] = []
        for task in self._given:
            assert isinstance(task, RunShard)
            for whole in FrameBuffer().feed(unpacked(self._shards[task.shard % len(self._shards)])):
                reply = decode_reply(whole)
                changes = {"shard": task.shard} | ({"suspects": ()} if hasattr(reply, "suspects") else {})
                reports.append(msgspec.structs.replace(reply, **changes))  # type: ignore[type-var,arg-type]
        self._given.clear()
        return reports

    def recall(self) -> list[Report]:
        return []

    def abandon(self) -> list[Report]:
        return []

    def close(self) -> None:
        pass


class Listening(LocalCrew):
    """A crew that remembers what comes of suspects, as bytes."""

    def __init__(self, specs: tuple[str, ...]) -> None:
        super().__init__(specs, 1)
        self.concluded: list[Concluded] = []

    def wait(self, seconds: float) -> list[Report]:
        reports = super().wait(seconds)
        self.concluded += [r for r in reports if isinstance(r, Concluded)]
        return reports


def say(what: str, value: float, unit: str) -> None:
    """Print a figure."""
    print(f"{what:<62} {value:>12,.1f} {unit}", flush=True)


def mean(values: list[int]) -> float:
    """Of none, 0."""
    return sum(values) / max(1, len(values))


def folder_bytes(folder: Path) -> int:
    """Of all files in it."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def timed(do: Callable[[], object], times: int = 1) -> float:
    """Microseconds."""
    started = time.perf_counter()
    for _ in range(times):
        do()
    return (time.perf_counter() - started) / times * 1e6


def shards_of(plan: Plan) -> tuple[list[bytes], dict[str, dict[str, str]]]:
    """Some shards, done as a Dask worker does them: seconds and bytes."""
    from unittest import mock  # a thread of this process stands for one of a Dask worker's

    with LocalCrew(plan.profile.specs, 1)._seats[0].client as client:
        described = client.described
    results, seconds = [], []
    with mock.patch("qfuzz.campaign.cluster_task._is_unwanted", return_value=False):
        do_task(msgspec.msgpack.encode(plan.shard(0)), me(), versions_of(described))  # starts the worker
        for number in range(1, N_SHARDS + 1):
            data = msgspec.msgpack.encode(plan.shard(number))
            started = time.perf_counter()
            results.append(do_task(data, me(), versions_of(described)))
            seconds.append(time.perf_counter() - started)
    say("a shard of 200 examples, default backends, one core", sum(seconds) / len(seconds), "s")
    say("task of a shard (without Dask's envelope)", len(msgspec.msgpack.encode(plan.shard(10**5))), "bytes")
    say("result of a shard: Judged and ShardDone", mean([len(unpacked(r)) for r in results]), "bytes")
    say("result of a shard, packed", mean([len(r) for r in results]), "bytes")
    return results, described


def supervisor(plan: Plan, shards: list[bytes], described: dict[str, dict[str, str]]) -> None:
    """What a shard costs where all shards come together."""
    decode = timed(lambda: [decode_reply(f) for f in FrameBuffer().feed(unpacked(shards[0]))], 200)
    say("decode the result of a shard", decode, "us")
    replayed = msgspec.structs.replace(plan, max_examples=N_REPLAYED * 200)
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        with State.create(out, replayed) as state:
            campaign = Campaign(replayed, Recorded(described, shards), state, (), lambda _: "", Heard())
            cpu = time.process_time()
            microseconds = timed(campaign.run) / N_REPLAYED
            cpu_microseconds = (time.process_time() - cpu) / N_REPLAYED * 1e6
        say("supervisor per shard: decode, merge, commit (wall)", microseconds, "us")
        say("supervisor per shard: decode, merge, commit (processor)", cpu_microseconds, "us")
        say(f"campaign.db after {N_REPLAYED} shards without findings", (out / "campaign.db").stat().st_size, "bytes")


def findings() -> None:
    """What a finding costs: there, on the network, on disk."""
    specs = ("planted?fault=truncation", "planted?fault=pads-with-stored-zero")
    plan = a_plan(*specs, n=200)
    crew = Listening(specs)
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        try:
            with State.create(out, plan) as state:
                write = lambda found: str(write_finding(out, found.finding(), None))  # noqa: E731
                campaign = Campaign(plan, crew, state, (), write, Heard())
                campaign.run()
                found: list[FoundCase] = [c.finding for c in crew.concluded if c.finding is not None]
                say("findings measured", len(found), "")
                say("a suspect concluded, by a worker", mean([int(c.seconds * 1e6) for c in crew.concluded]) / 1e6, "s")
                asked = [len(frame(campaign._request(c.suspect, reduce=True))) for c in crew.concluded]
                answered = [len(packed(frame(c))) for c in crew.concluded]
                say("Conclude, with an unreduced case", mean(asked), "bytes")
                say("Concluded, with its finding, packed", mean(answered), "bytes")
                say("supervisor per finding: write its folder", timed(lambda: write(found[0]), 20), "us")
                suspect = crew.concluded[0].suspect
                commit = timed(lambda: state.conclude(suspect, found[0], ""), 20)
                say("supervisor per finding: commit it", commit, "us")
                say("a finding's folder", mean([folder_bytes(Path(p)) for p in campaign.paths.values()]), "bytes")
            say("campaign.db with these findings", (out / "campaign.db").stat().st_size, "bytes")
        finally:
            crew.close()


def scheduler(result_bytes: int) -> None:
    """Tasks as large as ours that do nothing: what is left is Dask."""
    with tempfile.TemporaryDirectory() as made, Cluster(Path(made), 2) as cluster:
        crew = ClusterCrew(("reference",), cluster.address)
        try:
            crew._do_task = lambda data, who, versions: bytes(result_bytes)
            task = a_plan("reference", n=10**6).shard(0)
            scheduler = psutil.Process(cluster.scheduler.pid)
            crew._taken = lambda key: [crew._futures.pop(key)[0].result()]  # type: ignore[method-assign,list-item,return-value]
            before, mine, started, ended = scheduler.cpu_times(), time.process_time(), time.perf_counter(), 0
            given = 0
            while ended < N_TASKS:
                while given < N_TASKS and len(crew._futures) < 100:
                    crew.give(task)
                    given += 1
                ended += len(crew.wait(1.0))
            after = scheduler.cpu_times()
            say("Dask: tasks a second, two workers on this machine", N_TASKS / (time.perf_counter() - started), "/s")
            used = after.user + after.system - before.user - before.system
            say("Dask: scheduler per task (processor)", used / N_TASKS * 1e6, "us")
            say("Dask: client per task (processor)", (time.process_time() - mine) / N_TASKS * 1e6, "us")
            say("Dask: scheduler's memory", scheduler.memory_info().rss / 2**20, "MiB")
        finally:
            crew.close()


def main() -> None:
    """All of it."""
    print(f"{os.cpu_count()} cores, {subprocess.run(['uname', '-m'], capture_output=True, text=True).stdout.strip()}")
    rides = [Ride(canonical(spec), every) for spec, every in default_rides()]
    plan = a_plan(rides=rides, n=10**8)
    shards, described = shards_of(plan)
    supervisor(plan, shards, described)
    findings()
    scheduler(int(mean([len(s) for s in shards])))


if __name__ == "__main__":
    main()
