"""A crew on a Dask cluster: every task is one function call on bytes, done by a worker process of qfuzz's own there.

The scheduler holds a bounded number of tasks at a time, however many shards a campaign has. A Dask worker that dies
takes its tasks with it, and Dask gives them to another; results do not depend on who did what.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import distributed
import msgspec
from distributed import Client, Future, KilledWorker, rpc
from distributed.versions import VersionMismatchWarning

from qfuzz.campaign.cluster_task import TaskLost, Versions, me, unpacked, versions_of
from qfuzz.campaign.crew import RECALLED, Lost, Report, Task
from qfuzz.campaign.pipes import FrameBuffer, decode_reply
from qfuzz.campaign.protocol import RunShard
from qfuzz.ir.errors import BackendMissing, CampaignFailed

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
"""How long the scheduler may take for an answer."""
START_SECONDS = 180.0
"""How long workers of a cluster may take to load the frameworks."""
WORKERLESS_SECONDS = 60.0
"""How long a cluster may be without workers."""
TASKS_A_THREAD = 3
"""Tasks that the scheduler holds for each thread of the cluster: one that runs, and enough that it need not wait."""
TASKS_AT_MOST = 5000
"""Tasks that the scheduler holds, however large the cluster is: what this process can take back in ten seconds."""
LOOK_SECONDS = 2.0
"""Seconds between two looks at which workers there are: they come and go."""

_LOGGERS = ("distributed", "tornado", "asyncio", "dask")

Key = tuple[str, int]
T = TypeVar("T")


class ClusterCrew:
    """The workers of a Dask cluster.

    Parameters
    ----------
    workerless_seconds
        How long the cluster may be without workers.

    Raises
    ------
    CampaignFailed
        In one line: nobody answers there, it is no Dask scheduler, has no workers, or other versions than this.
    BackendMissing
        Where its workers cannot load a backend.
    """

    def __init__(self, specs: Sequence[str], address: str, workerless_seconds: float = WORKERLESS_SECONDS) -> None:
        self._specs, self._address, self._workerless_seconds = tuple(specs), address, workerless_seconds
        self._name = f"qfuzz-{uuid.uuid4().hex}"  # others may run campaigns on the same cluster
        self._futures: dict[Key, tuple[Future, Task]] = {}
        self._done: queue.SimpleQueue[Key] = queue.SimpleQueue()
        self._given = 0
        self._do_task = _carried("do_task")
        self.lost_workers = 0
        _silence()
        self._client = _connected(address)
        try:
            self._require_versions()
            self._threads = self._ask_threads()
            self.described = self._described()
            self._versions: Versions = versions_of(self.described)
            self._threads = self._ask_threads()
            self._looked = self._manned = time.monotonic()
        except BaseException:
            self.close()
            raise

    # Beginning.

    def _require_versions(self) -> None:
        """Scheduler, workers and this process have one version of Dask's `distributed` and one Python."""
        versions = self._ask(self._client.get_versions)
        mine = _environment(versions["client"])
        others = {"the scheduler": versions["scheduler"]} | {f"worker {w}": v for w, v in versions["workers"].items()}
        theirs = {who: _environment(facts) for who, facts in others.items()}
        for who, version in theirs.items():
            if version != mine:
                raise self._failed(f"{who} has {version}, this process {mine}; they must be the same")
        if len(theirs) == 1:
            raise self._failed("it has no workers")

    def _described(self) -> dict[str, dict[str, str]]:
        """What backends say on the cluster: all workers have the same versions; of other facts, the first one's."""
        until = time.monotonic() + START_SECONDS
        asked = {
            w: self._client.submit(_carried("describe"), self._specs, workers=[w], pure=False) for w in self._threads
        }
        first: dict[str, dict[str, str]] | None = None
        for worker, future in asked.items():
            answer = self._answer(worker, future, until)
            if answer is None:
                continue  # it has left
            who, described = answer
            if who != me():
                raise self._failed(f"worker {worker} has {who}, this process {me()}; they must be the same")
            if isinstance(described, str):
                raise BackendMissing(f"scheduler {self._address}: worker {worker}: {described}")
            first = described if first is None else first
            for (spec, a), (_, b) in zip(versions_of(first), versions_of(described), strict=True):
                if a != b:
                    raise self._failed(f"{spec} has version {a} on one worker, {b} on {worker}; they must be the same")
        if first is None:
            raise self._failed("its workers have left")
        return first

    def _answer(self, worker: str, future: Future, until: float) -> tuple[str, dict[str, dict[str, str]] | str] | None:
        """What `describe` says on a worker; None where the worker has left."""
        while True:
            try:
                answer: tuple[str, dict[str, dict[str, str]] | str] = future.result(timeout=LOOK_SECONDS)
                return answer
            except TimeoutError:
                if worker not in self._ask_threads():
                    return None
                if time.monotonic() > until:
                    raise self._failed(f"worker {worker} did not load its backends in {START_SECONDS:g} s") from None
            except Exception as e:  # noqa: BLE001  whatever a foreign machine's import raises
                self._require_scheduler()
                raise self._failed(f"worker {worker} cannot run qfuzz: {type(e).__name__}: {_said(e)}") from None

    # The crew.

    @property
    def size(self) -> int:
        """How many threads the cluster's workers have."""
        return max(1, sum(self._threads.values()))

    def wants(self) -> int:
        """How many more tasks the scheduler is to hold."""
        return min(TASKS_A_THREAD * self.size, TASKS_AT_MOST) - len(self._futures)

    def give(self, task: Task) -> None:
        """Submit a task. Suspects go before shards."""
        self._given += 1
        key = self._name, self._given
        future = self._client.submit(
            self._do_task,
            msgspec.msgpack.encode(task),
            me(),
            self._versions,
            key=key,
            priority=0 if isinstance(task, RunShard) else 1,
        )
        self._await(future, task)

    def _await(self, future: Future, task: Task) -> None:
        self._futures[future.key] = future, task
        future.add_done_callback(lambda f: self._done.put(f.key))

    def wait(self, seconds: float) -> list[Report]:
        """What has come of tasks, at the latest after `seconds`."""
        self._look()
        reports: list[Report] = []
        try:
            reports += self._taken(self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait())
            while True:  # all that have come meanwhile
                reports += self._taken(self._done.get_nowait())
        except queue.Empty:
            return reports

    def _look(self) -> None:
        """See which workers there are."""
        self._require_scheduler()
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        before, self._threads = self._threads, self._ask_threads()
        self.lost_workers += len(before.keys() - self._threads.keys())
        if self._threads:
            self._manned = now
        elif now - self._manned > self._workerless_seconds:
            raise self._lost(f"without workers for {self._workerless_seconds:g} s")

    def _taken(self, key: Key) -> list[Report]:
        if key not in self._futures:
            return []  # it was recalled
        future, task = self._futures.pop(key)
        try:
            data: bytes = future.result(timeout=ANSWER_SECONDS)
        except (KilledWorker, TaskLost) as e:
            return [Lost(task, str(e))]
        except CampaignFailed as e:
            raise self._lost(f"a worker is unfit: {e}") from None
        except Exception as e:  # noqa: BLE001  Dask's own errors, and whatever another machine raises
            self._require_scheduler()
            if isinstance(e, TimeoutError) and future.status != "error":
                self._await(future, task)  # its worker died with the result, and it is done again elsewhere
                return []
            if future.cancelled():  # not by us
                raise self._lost("it dropped tasks that were under way") from None
            raise self._lost(f"a worker failed: {type(e).__name__}: {_said(e)}") from None
        replies: list[Any] = [decode_reply(f) for f in FrameBuffer().feed(unpacked(data))]
        return replies

    def recall(self) -> list[Report]:
        """Cancel all shards that have not ended; what a cluster had done of them is lost, and is done on resuming."""
        return self._cancel([key for key, (_, task) in self._futures.items() if isinstance(task, RunShard)])

    def abandon(self) -> list[Report]:
        """Cancel everything."""
        return self._cancel(list(self._futures))

    def _cancel(self, keys: Sequence[Key]) -> list[Report]:
        reports: list[Report] = []
        unfinished = []
        for key in keys:
            future, task = self._futures[key]
            if future.status == "finished":
                reports += self._taken(key)
            else:
                del self._futures[key]
                unfinished.append(future)
                reports.append(Lost(task, RECALLED))
        with contextlib.suppress(Exception):  # a scheduler that is gone has forgotten them by itself
            self._client.cancel(unfinished)
        return reports

    def close(self) -> None:
        """Leave the cluster; what it does for us is cancelled."""
        with contextlib.suppress(Exception):
            self._client.cancel([future for future, _ in self._futures.values()])
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)

    # Trouble.

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._lost("the connection is lost")

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return _within(ANSWER_SECONDS, question)
        except Exception as e:  # noqa: BLE001  Dask raises OSError, its own errors and those of event loops
            raise self._lost(f"it does not answer: {_said(e)}") from None

    def _ask_threads(self) -> dict[str, int]:
        """How many threads each worker has, by address."""
        return dict(self._ask(self._client.nthreads))

    def _failed(self, what: str) -> CampaignFailed:
        return CampaignFailed(f"scheduler {self._address}: {what}")

    def _lost(self, what: str) -> CampaignFailed:
        return self._failed(f"{what}; what was committed is kept, and --resume goes on from there")


def _carried(name: str) -> Callable[..., Any]:
    """A function of `qfuzz.campaign.cluster_task`, found by name only where it is called.

    Being local, it travels as code: the scheduler needs no qfuzz, and a Dask worker that has none says so, where it
    would die of a task that it cannot read.
    """

    def call(*arguments: Any) -> Any:
        import importlib

        return getattr(importlib.import_module("qfuzz.campaign.cluster_task"), name)(*arguments)

    return call


def _environment(facts: Mapping[str, Any]) -> str:
    """What Dask says of a process, as far as it must be the same in all: code travels between them."""
    packages = facts["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return f"distributed {packages['distributed']} (Python {python})"


class _Client(Client):  # type: ignore[misc]  # seen as Any
    """A client that is closed by us alone: one whose scheduler is none would wait long for its own end."""

    def __del__(self) -> None:
        pass


def _connected(address: str) -> Client:
    try:
        return _within(1.3 * CONNECT_SECONDS, lambda: _Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
    except Exception as e:  # noqa: BLE001  Dask raises OSError, ValueError, TypeError and its own for what is not there
        reason = f"cannot be reached: {_said(e)}"
        if not isinstance(e, OSError | ValueError):  # it was reached
            reason = "it answers, but not as a Dask scheduler does"
            with contextlib.suppress(Exception):
                theirs, mine = _within(CONNECT_SECONDS, lambda: asyncio.run(_version(address))), distributed.__version__
                reason = f"the scheduler has distributed {theirs}, this process {mine}; they must be the same"
        raise CampaignFailed(f"scheduler {address}: {reason}") from None


async def _version(address: str) -> str:
    async with rpc(address) as scheduler:
        return str((await scheduler.versions())["packages"]["distributed"])


def _within(seconds: float, do: Callable[[], T]) -> T:
    """What `do` returns or raises, or TimeoutError: Dask's own limits do not hold while a peer is silent."""
    done: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((do(), None))
        except Exception as e:  # noqa: BLE001  raised by who waits
            done.put((None, e))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # there is no error


def _silence() -> None:
    """What goes wrong is said in one line, by us; Dask and its event loop would say it in tracebacks, too."""
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    for name in (*_LOGGERS, *logging.root.manager.loggerDict):
        if name.split(".")[0] in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _said(e: BaseException) -> str:
    """What an error says, on one line of bounded length."""
    return " ".join(str(e).split())[:300] or type(e).__name__
