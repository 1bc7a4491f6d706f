"""What a campaign is to do, and which of its shards are left."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from qfuzz.campaign.protocol import SHARD_SIZE, Profile, RunShard


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign is to do.

    Attributes
    ----------
    seed, profile
        Which shards.
    max_examples, seconds
        Bounds; None is unbounded. `seconds` counts this run and, where it is resumed, those before it.
    fail_on
        Of a comparison: which changes make the exit code 1, ``any`` or ``regressed``.
    reduce
        Whether findings are reduced; else they are written as they were found.
    corpora
        Where known issues are listed.
    database
        Where campaigns leave each other cases; empty for nowhere.
    """

    seed: int
    profile: Profile
    max_examples: int | None = None
    seconds: float | None = None
    fail_fast: bool = False
    fail_on: str = "any"
    reduce: bool = True
    corpora: tuple[Path, ...] = ()
    database: str = ""

    @property
    def n_shards(self) -> int | None:
        """How many shards there are; None for no end."""
        return None if self.max_examples is None else -(-self.max_examples // SHARD_SIZE)

    def shard(self, number: int, start: int = 0) -> RunShard:
        """The shard of that number, from the example `start` on."""
        left = SHARD_SIZE if self.max_examples is None else self.max_examples - number * SHARD_SIZE
        return RunShard(self.seed, number, start, min(SHARD_SIZE, left), self.profile)


class Ledger:
    """Which shards are done, and how far others have come. Done ones are kept as ranges, however many there are.

    Parameters
    ----------
    ranges
        First and last shard of each run of shards that are done, in order.
    partial
        Shards that were begun, and how many of their examples are done.
    """

    def __init__(self, ranges: tuple[tuple[int, int], ...] = (), partial: dict[int, int] | None = None) -> None:
        self._ranges = [list(r) for r in ranges]
        self.partial = dict(partial or {})

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last shard of each run of shards that are done, in order."""
        return tuple((first, last) for first, last in self._ranges)

    @property
    def frontier(self) -> int:
        """The lowest shard that is not done."""
        return self._ranges[0][1] + 1 if self._ranges and self._ranges[0][0] == 0 else 0

    def is_done(self, shard: int) -> bool:
        """Whether the shard is done."""
        return any(first <= shard <= last for first, last in self._ranges)

    def complete(self, shard: int) -> None:
        """The shard is done."""
        self.partial.pop(shard, None)
        at = next((i for i, (first, _) in enumerate(self._ranges) if first > shard), len(self._ranges))
        self._ranges.insert(at, [shard, shard])
        for i in (at, at - 1):  # join with the next, then with the one before
            if 0 <= i < len(self._ranges) - 1 and self._ranges[i][1] + 1 == self._ranges[i + 1][0]:
                self._ranges[i : i + 2] = [[self._ranges[i][0], self._ranges[i + 1][1]]]

    def remaining(self, plan: Plan) -> Iterator[RunShard]:
        """The shards that are left, in order; without end where the plan has none."""
        number = 0
        while plan.n_shards is None or number < plan.n_shards:
            if self.is_done(number):
                number = next(last for first, last in self._ranges if first <= number <= last) + 1
                continue
            request = plan.shard(number, self.partial.get(number, 0))
            if request.start < request.stop:
                yield request
            number += 1
