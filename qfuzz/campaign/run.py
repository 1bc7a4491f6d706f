"""The main job: shards go to workers, their examples are counted, and what they find is gathered by symptom.

Results depend on the seed and the number of examples alone: a shard is a pure function of (seed, shard), every suspect
keeps its lowest example, and reduction starts from there when all examples have run.
"""

import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.protocol import Broke, Example, KnownDeath, Ride, RunShard, ShardDone
from qfuzz.campaign.tally import BackendTally, Tally
from qfuzz.findings.signature import Symptom, symptom_of
from qfuzz.ir.errors import WorkerFailed
from qfuzz.oracle.verdicts import BackendVerdict

SHARD_SIZE = 200
SECONDS_A_SUSPECT = 3.0
"""What reducing one suspect takes, about."""
SHARD_TRIES = 3
"""How often a shard is given to a fresh worker after its worker was lost."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign is to do.

    Attributes
    ----------
    max_examples, seconds
        Bounds; None is unbounded.
    rides
        The backends and how often each runs.
    seconds_per_call
        How long one backend may take for one example.
    """

    seed: int
    rides: tuple[Ride, ...]
    max_examples: int | None = None
    seconds: float | None = None
    ops: tuple[str, ...] = ()
    max_nodes: int = 4
    jobs: int = 1
    fail_fast: bool = False
    known_deaths: tuple[KnownDeath, ...] = ()
    seconds_per_call: float = 30.0
    out: Path = Path("qfuzz-out")


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """The first example, by index, that showed a symptom on a backend."""

    spec: str
    example: int
    symptom: Symptom
    verdict: BackendVerdict
    case: bytes


Progress = Callable[[Tally, Sequence[Suspect]], None]


class Fuzzing(msgspec.Struct, frozen=True, kw_only=True):
    """What the fuzzing part of a campaign gave.

    Attributes
    ----------
    described
        What each backend says of itself, by spec.
    stopped
        Why it ended before its plan: ``interrupted``, ``fail-fast``, or nothing.
    """

    tally: Tally
    suspects: tuple[Suspect, ...]
    described: dict[str, dict[str, str]]
    seconds: float
    stopped: str = ""


class Campaign:
    """Runs a plan.

    Parameters
    ----------
    on_progress
        Called after every batch of examples.
    on_suspect
        Called at each new symptom.
    reduction_share
        The most of a time budget that is left over for reduction once there are suspects.
    """

    def __init__(
        self,
        plan: Plan,
        on_progress: Progress,
        on_suspect: Callable[[Suspect], None],
        *,
        reduction_share: float = 0.0,
    ) -> None:
        self.plan = plan
        self._reduction_share = reduction_share
        self._on_progress, self._on_suspect = on_progress, on_suspect
        self._suspects: dict[tuple[str, Symptom], Suspect] = {}
        self._specs = {r.spec: r.spec for r in plan.rides}
        self._shards = self._remaining_shards()
        self.tally = Tally({})

    def fuzz(self) -> Fuzzing:
        """Run all shards, or until time is up, a finding stops it, or Ctrl-C.

        Raises
        ------
        BackendMissing, WorkerFailed
            When a worker cannot be started, or qfuzz itself fails in one.
        """
        started = time.monotonic()
        stopped = ""
        specs = tuple(r.spec for r in self.plan.rides)
        with ExitStack() as stack:
            # No more workers than there are shards: each loads the frameworks once.
            wanted = self.plan.jobs
            if self.plan.max_examples is not None:
                wanted = max(1, min(wanted, -(-self.plan.max_examples // SHARD_SIZE)))
            seats = [_Seat(specs) for _ in range(wanted)]
            for seat in seats:
                stack.callback(seat.close)
                seat.open()
            described = seats[0].client.described
            self._specs = {described[s]["name"]: s for s in specs}
            self.tally = Tally({described[s]["name"]: BackendTally() for s in specs})
            deadline = None if self.plan.seconds is None else time.monotonic() + self.plan.seconds
            try:
                stopped = self._serve(seats, deadline)
            except KeyboardInterrupt:
                stopped = "interrupted"
        ordered = sorted(self._suspects.values(), key=lambda s: (s.example, specs.index(s.spec)))
        return Fuzzing(
            tally=self.tally,
            suspects=tuple(ordered),
            described=described,
            seconds=time.monotonic() - started,
            stopped=stopped,
        )

    def _remaining_shards(self) -> Iterator[RunShard]:
        shard = 0
        while self.plan.max_examples is None or shard * SHARD_SIZE < self.plan.max_examples:
            left = SHARD_SIZE if self.plan.max_examples is None else self.plan.max_examples - shard * SHARD_SIZE
            yield RunShard(
                self.plan.seed,
                shard,
                0,
                min(SHARD_SIZE, left),
                self.plan.rides,
                self.plan.ops,
                self.plan.max_nodes,
                time_limit=self.plan.seconds_per_call,
                known_deaths=self.plan.known_deaths,
            )
            shard += 1

    def _serve(self, seats: "Sequence[_Seat]", deadline: float | None) -> str:
        with selectors.DefaultSelector() as selector:
            for seat in seats:
                self._assign(seat, selector)
            while selector.get_map():
                left = None if deadline is None else deadline - self._for_reduction() - time.monotonic()
                if left is not None and left <= 0:
                    return ""
                for key, _ in selector.select(0.5 if left is None else min(0.5, left)):
                    seat = key.data
                    try:
                        replies = seat.client.receive()
                    except WorkerFailed as e:
                        selector.unregister(key.fd)
                        seat.reopen(e)
                        selector.register(seat.client.fileno, selectors.EVENT_READ, seat)
                        continue
                    for reply in replies:
                        match reply:
                            case Example():
                                seat.done = reply.index + 1
                                if self._take(reply) and self.plan.fail_fast:
                                    return "fail-fast"
                            case ShardDone():
                                self.tally.add_shard(reply)
                                selector.unregister(key.fd)
                                self._assign(seat, selector)
                            case Broke(text):
                                raise WorkerFailed(f"an error inside qfuzz:\n{text}")
                            case _:
                                raise WorkerFailed(f"unexpected reply {type(reply).__name__}")
                self._on_progress(self.tally, tuple(self._suspects.values()))
        return ""

    def _for_reduction(self) -> float:
        """Seconds to leave for reducing the suspects so far."""
        most = self._reduction_share * (self.plan.seconds or 0.0)
        return min(most, SECONDS_A_SUSPECT * len(self._suspects))

    def _assign(self, seat: "_Seat", selector: selectors.BaseSelector) -> None:
        shard = next(self._shards, None)
        if shard is not None:
            seat.give(shard)
            selector.register(seat.client.fileno, selectors.EVENT_READ, seat)

    def _take(self, example: Example) -> bool:
        """Count an example; True where it shows a symptom not seen before."""
        self.tally.add_example(example)
        number = example.shard * SHARD_SIZE + example.index
        new = False
        for verdict in example.verdicts:
            if not verdict.is_finding:
                continue
            spec = self._specs[verdict.backend]
            key = (spec, symptom_of(verdict))
            known = self._suspects.get(key)
            if known is None or number < known.example:
                suspect = Suspect(spec=spec, example=number, symptom=key[1], verdict=verdict, case=example.case)
                self._suspects[key] = suspect
                if known is None:
                    self._on_suspect(suspect)
                    new = True
        return new


class _Seat:
    """A place for one worker: opened again with the rest of its shard when the worker is lost."""

    def __init__(self, specs: Sequence[str]) -> None:
        self._specs = specs
        self._client: WorkerClient | None = None
        self._shard: RunShard | None = None
        self._tries = 0
        self.done = 0

    @property
    def client(self) -> WorkerClient:
        if self._client is None:
            raise WorkerFailed("the worker was not started")
        return self._client

    def open(self) -> None:
        self._client = WorkerClient(self._specs)

    def give(self, shard: RunShard) -> None:
        self._shard, self._tries, self.done = shard, 1, shard.start
        self.client.send(shard)

    def reopen(self, why: WorkerFailed) -> None:
        if self._shard is None or self._tries >= SHARD_TRIES:
            raise WorkerFailed(f"a worker was lost {self._tries} times on one shard: {why}")
        self._tries += 1
        self.close()
        self.open()
        self.client.send(msgspec.structs.replace(self._shard, start=self.done))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
