"""A crew on a Dask cluster: every task is one function call on bytes, done by a worker process of qfuzz's own there.

The scheduler holds a bounded number of tasks at a time, however many shards a campaign has. A Dask worker that dies
takes its tasks with it, and Dask gives them to another; results do not depend on who did what.
"""

import contextlib
import queue
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
from distributed import Client, Future, KilledWorker

import qfuzz
from qfuzz.campaign.crew import RECALLED, Lost, Report, Seat, Task
from qfuzz.campaign.pipes import FrameBuffer, decode_reply, frame
from qfuzz.campaign.protocol import PROTOCOL, Conclude, Concluded, Judged, RunShard, ShardDone
from qfuzz.campaign.tally import Tally
from qfuzz.ir.errors import BackendMissing, CampaignFailed, QfuzzError

CONNECT_SECONDS = 10.0
START_SECONDS = 180.0
"""How long workers of a cluster may take to load the frameworks."""
TASKS_A_THREAD = 3
"""Tasks that the scheduler holds for each thread of the cluster: one that runs, and enough that it need not wait."""
LOOK_EVERY = 20
"""Waits after which the cluster's size is asked for again: workers come and go."""

_TASKS = msgspec.msgpack.Decoder(RunShard | Conclude)
_SEATS = threading.local()
"""Of a Dask worker: each of its threads has a seat, kept from task to task. It ends with its thread or process."""


def _seat(specs: Sequence[str]) -> Seat:
    seat = getattr(_SEATS, "seat", None)
    if seat is None or seat.specs != tuple(specs):
        if seat is not None:
            seat.close()
        seat = _SEATS.seat = Seat(specs)
    assert isinstance(seat, Seat)
    return seat


def do_task(data: bytes) -> bytes:
    """Run on a Dask worker: do a task to its end; what came of it, as frames. A shard's counts come as one."""
    task = _TASKS.decode(data)
    seat = _seat(task.profile.specs)
    seat.give(task)
    total = Tally()
    told: list[Judged] = []
    while True:
        for report in seat.receive():
            match report:
                case Judged():
                    total.merge(report.tally)
                    told.append(report)
                case ShardDone():
                    whole = Judged(
                        shard=report.shard,
                        stop=report.stop,
                        tally=total,
                        suspects=tuple(s for j in told for s in j.suspects),
                        errors=tuple(e for j in told for e in j.errors),
                    )
                    return frame(whole) + frame(report)
                case Concluded():
                    return frame(report)
                case Lost(why=why):
                    raise RuntimeError(why)


def describe(specs: tuple[str, ...]) -> tuple[str, int, dict[str, dict[str, str]] | str]:
    """Run on a Dask worker: its qfuzz, its protocol, and what its backends say of themselves, or why there are none."""
    try:
        return qfuzz.__version__, PROTOCOL, _seat(specs).client.described
    except QfuzzError as e:
        return qfuzz.__version__, PROTOCOL, str(e)


class ClusterCrew:
    """The workers of a Dask cluster.

    Raises
    ------
    CampaignFailed
        In one line: nobody answers there, it is no Dask scheduler, has no workers, or other versions than this.
    BackendMissing
        Where its workers cannot load a backend.
    """

    def __init__(self, specs: Sequence[str], address: str) -> None:
        self._specs, self._address = tuple(specs), address
        self._client = _connected(address)
        self._futures: dict[str, tuple[Future, Task]] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._given = self._waits = 0
        self.lost_workers = 0
        try:
            self._require_versions()
            self.described = self._described()
            self._threads = self._count_threads()
        except BaseException:
            self.close()
            raise

    def _require_versions(self) -> None:
        """Scheduler, workers and this process run one version of Dask's `distributed`."""
        versions = self._client.get_versions(check=False)
        if not versions["workers"]:
            raise CampaignFailed(f"scheduler {self._address}: it has no workers")
        mine = versions["client"]["packages"]["distributed"]
        for who, facts in [("scheduler", versions["scheduler"]), *versions["workers"].items()]:
            other = facts["packages"]["distributed"]
            if other != mine:
                raise CampaignFailed(f"scheduler {self._address}: {who} has distributed {other}, this process {mine}")

    def _described(self) -> dict[str, dict[str, str]]:
        """What backends say on the cluster: all workers have the same versions; of other facts, the first one's."""
        asked = {
            worker: self._client.submit(describe, self._specs, workers=[worker], pure=False)
            for worker in self._client.scheduler_info(n_workers=-1)["workers"]
        }
        first: dict[str, dict[str, str]] | None = None
        for worker, future in asked.items():
            try:
                version, protocol, described = future.result(timeout=START_SECONDS)
            except Exception as e:  # noqa: BLE001  whatever a foreign machine's import raises
                reason = (str(e).splitlines() or [""])[0]
                raise CampaignFailed(
                    f"scheduler {self._address}: worker {worker}: {type(e).__name__}: {reason}"
                ) from None
            if (version, protocol) != (qfuzz.__version__, PROTOCOL):
                raise CampaignFailed(
                    f"scheduler {self._address}: worker {worker} has qfuzz {version} (protocol {protocol}), "
                    f"this process {qfuzz.__version__} (protocol {PROTOCOL})"
                )
            if isinstance(described, str):
                raise BackendMissing(f"worker {worker}: {described}")
            first = described if first is None else first
            for spec in self._specs:
                a, b = first[spec].get("version"), described[spec].get("version")
                if a != b:
                    raise CampaignFailed(
                        f"scheduler {self._address}: {spec} has version {a} on one worker, {b} on {worker}"
                    )
        assert first is not None
        return first

    def _count_threads(self) -> int:
        return sum(self._client.nthreads().values())

    @property
    def size(self) -> int:
        """How many threads the cluster's workers have."""
        return max(1, self._threads)

    def wants(self) -> int:
        """How many more tasks the scheduler is to hold."""
        return TASKS_A_THREAD * self.size - len(self._futures)

    def give(self, task: Task) -> None:
        """Submit a task."""
        self._given += 1
        key = f"qfuzz-{id(self)}-{self._given}"
        future = self._client.submit(do_task, msgspec.msgpack.encode(task), key=key, pure=False)
        self._futures[key] = future, task
        future.add_done_callback(lambda f: self._done.put(f.key))

    def wait(self, seconds: float) -> list[Report]:
        """What has come of tasks, at the latest after `seconds`."""
        self._waits += 1
        if self._waits % LOOK_EVERY == 0:
            self._require_scheduler()
            self._threads = self._count_threads()
        reports: list[Report] = []
        try:
            reports += self._taken(self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait())
            while True:  # all that have come meanwhile
                reports += self._taken(self._done.get_nowait())
        except queue.Empty:
            return reports

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise CampaignFailed(f"scheduler {self._address}: lost; --resume goes on where this ended")

    def _taken(self, key: str) -> list[Report]:
        if key not in self._futures:
            return []  # it was recalled
        future, task = self._futures.pop(key)
        try:
            data: bytes = future.result()
        except KilledWorker as e:
            return [Lost(task, f"its workers died: {e}")]
        except Exception as e:  # noqa: BLE001  an error on another machine, with its text
            if future.cancelled() or self._client.status != "running":
                self._require_scheduler()
                return [Lost(task, RECALLED)]
            return [Lost(task, str(e))]
        return _replies(data)

    def recall(self) -> list[Report]:
        """Cancel all shards that have not begun or not ended. What ended meanwhile counts."""
        return self._cancel([key for key, (_, task) in self._futures.items() if isinstance(task, RunShard)])

    def abandon(self) -> list[Report]:
        """Cancel everything."""
        return self._cancel(list(self._futures))

    def _cancel(self, keys: Sequence[str]) -> list[Report]:
        reports: list[Report] = []
        for key in keys:
            future, task = self._futures[key]
            if future.done():
                reports += self._taken(key)
            else:
                del self._futures[key]
                future.cancel()
                reports.append(Lost(task, RECALLED))
        return reports

    def close(self) -> None:
        """Leave the cluster; what it does for us is cancelled."""
        with contextlib.suppress(Exception):
            self._client.cancel([future for future, _ in self._futures.values()])
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as e:  # noqa: BLE001  Dask raises OSError, ValueError, TypeError and its own for what is not there
        reason = (str(e).splitlines() or [""])[0] or type(e).__name__
        raise CampaignFailed(f"scheduler {address}: cannot be reached: {reason}") from None


def _replies(data: bytes) -> list[Report]:
    reports: list[Any] = [decode_reply(f) for f in FrameBuffer().feed(data)]
    return reports
