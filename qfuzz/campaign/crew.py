"""Those who do a campaign's tasks. A crew of this machine: one worker a seat, replaced when it is lost."""

import contextlib
import selectors
import time
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.protocol import (
    Broke,
    Conclude,
    Concluded,
    Judged,
    Recall,
    Revisit,
    Revisited,
    RunShard,
    ShardDone,
)
from qfuzz.ir.errors import WorkerFailed

TRIES = 3
"""How often a task is given to a fresh worker after its worker was lost."""
RECALL_PATIENCE = 2.0
"""Seconds that a worker has to answer a recall; then it is ended."""

SILENCE_LIMIT = 1800.0
"""Seconds without a word after which a worker with a task is replaced. Hangs of kernels end long before."""
RECALLED = "recalled"
"""Why a task was lost that was ended on purpose."""

Task: TypeAlias = RunShard | Conclude | Revisit


class Lost(msgspec.Struct, frozen=True):
    """A task that nobody could do, and why; nothing more comes of it."""

    task: Task
    why: str


Report: TypeAlias = Judged | ShardDone | Concluded | Revisited | Lost


class Crew(Protocol):
    """Does tasks. A task ends with `ShardDone`, `Concluded`, `Revisited` or `Lost`; of a shard `Judged` come before."""

    @property
    def described(self) -> dict[str, dict[str, str]]:
        """What each backend says of itself, by spec."""
        ...

    @property
    def size(self) -> int:
        """How many tasks are done at a time."""
        ...

    @property
    def lost_workers(self) -> int:
        """How many workers were lost so far."""
        ...

    def wants(self) -> int:
        """How many more tasks it can take now."""
        ...

    def give(self, task: Task) -> None:
        """Give it a task."""
        ...

    def wait(self, seconds: float) -> list[Report]:
        """What has come of tasks, at the latest after `seconds`."""
        ...

    def recall(self) -> list[Report]:
        """Stop all shards under way, soon; what was done of them."""
        ...

    def abandon(self) -> list[Report]:
        """Stop everything under way, now; all of it is lost."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Seat:
    """A place for one worker and its task. A worker that is lost is replaced, and goes on where it was."""

    def __init__(self, specs: Sequence[str]) -> None:
        self.specs = tuple(specs)
        self._tries = 0
        self.task: Task | None = None
        self.lost = 0
        self._heard = time.monotonic()
        self._client: WorkerClient | None = WorkerClient(specs)

    @property
    def client(self) -> WorkerClient:
        """The worker, started where there is none."""
        if self._client is None:
            self._client = WorkerClient(self.specs)
        return self._client

    def give(self, task: Task) -> None:
        """Begin with a task."""
        self.task, self._tries = task, 1
        self._send()

    def is_silent(self) -> bool:
        """Whether its worker, which has a task, has said nothing for longer than any task takes."""
        return self.task is not None and time.monotonic() - self._heard > SILENCE_LIMIT

    def abandon(self) -> list[Report]:
        """End the worker with its task, if it has one."""
        task, self.task = self.task, None
        if task is None:
            return []
        self.close()
        return [Lost(task, RECALLED)]

    def receive(self) -> list[Report]:
        """What has come of the task; blocks until there is something, which is nothing where a worker was replaced.

        Raises
        ------
        WorkerFailed
            When no new worker can be started.
        """
        assert self.task is not None
        try:
            replies = self.client.receive()
        except WorkerFailed as e:
            return self.replaced(str(e))
        self._heard = time.monotonic()
        reports: list[Report] = []
        for reply in replies:
            match reply:
                case Judged(stop=stop):
                    assert isinstance(self.task, RunShard)
                    self.task = msgspec.structs.replace(self.task, start=stop)
                    reports.append(reply)
                case ShardDone() | Concluded() | Revisited():
                    self.task = None
                    reports.append(reply)
                case Broke(text):
                    return reports + self.replaced(f"an error inside qfuzz:\n{text}")
                case other:
                    raise WorkerFailed(f"unexpected reply {type(other).__name__}")
        return reports

    def _send(self) -> None:
        assert self.task is not None
        self._heard = time.monotonic()
        with contextlib.suppress(WorkerFailed):  # seen when receiving, and mended there
            self.client.send(self.task)

    def replaced(self, why: str) -> list[Report]:
        """Give its task to a fresh worker, or up."""
        task = self.task
        assert task is not None
        self.lost += 1
        self.close()
        if self._tries >= TRIES:
            self.task = None
            return [Lost(task, f"tried {self._tries} times: {why}")]
        self._tries += 1
        self._send()
        return []

    def close(self) -> None:
        """End the worker."""
        if self._client is not None:
            self._client.close()
            self._client = None


class LocalCrew:
    """Workers on this machine.

    Parameters
    ----------
    specs
        The backends that each of them loads.
    jobs
        How many workers.

    Raises
    ------
    BackendMissing, WorkerFailed
        Where they cannot be started.
    """

    def __init__(self, specs: Sequence[str], jobs: int) -> None:
        self._seats: list[Seat] = []
        try:
            for _ in range(jobs):
                self._seats.append(Seat(specs))
        except BaseException:
            self.close()
            raise
        self.described = self._seats[0].client.described

    @property
    def size(self) -> int:
        """How many workers."""
        return len(self._seats)

    @property
    def lost_workers(self) -> int:
        """How many workers were lost so far."""
        return sum(s.lost for s in self._seats)

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers; each leads a session of its own."""
        return [s.client.process.pid for s in self._seats]

    def wants(self) -> int:
        """How many seats are free."""
        return sum(s.task is None for s in self._seats)

    def give(self, task: Task) -> None:
        """Give a free seat a task."""
        next(s for s in self._seats if s.task is None).give(task)

    def wait(self, seconds: float) -> list[Report]:
        """What has come of tasks, at the latest after `seconds`."""
        busy = [s for s in self._seats if s.task is not None]
        if not busy:
            return []
        reports: list[Report] = []
        with selectors.DefaultSelector() as selector:
            for seat in busy:
                selector.register(seat.client.fileno, selectors.EVENT_READ, seat)
            for key, _ in selector.select(max(0.0, seconds)):
                seat = key.data
                reports += seat.receive()
        for seat in busy:
            if seat.is_silent():
                reports += seat.replaced(f"its worker said nothing for {SILENCE_LIMIT:g} s")
        return reports

    def recall(self) -> list[Report]:
        """Stop all shards under way; a worker that does not answer soon is ended, and what it had is lost."""
        for seat in self._seats:
            if isinstance(seat.task, RunShard):
                with contextlib.suppress(WorkerFailed):
                    seat.client.send(Recall())
        until = time.monotonic() + RECALL_PATIENCE
        reports: list[Report] = []
        while any(isinstance(s.task, RunShard) for s in self._seats) and time.monotonic() < until:
            reports += self.wait(until - time.monotonic())
        for seat in self._seats:
            if isinstance(seat.task, RunShard):
                reports += seat.abandon()
        return reports

    def abandon(self) -> list[Report]:
        """Stop everything under way."""
        return [report for seat in self._seats for report in seat.abandon()]

    def close(self) -> None:
        """End all workers."""
        for seat in self._seats:
            seat.close()
