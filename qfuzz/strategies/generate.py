"""`cases_of(seed, shard)`: the cases of a campaign, a pure function of its arguments.

They are those that Hypothesis would draw in its generate phase, without a database and without constants of its own, in
a test that never fails (a test proves that they are): outcomes and time change no draw. Hypothesis's engine is not run.
What it keeps of each test, to replay and shrink it, takes three times as long as drawing the case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random

from qfuzz.ir.network import Case
from qfuzz.strategies.draw import Draw, RandomDraw, Rejected, SimplestDraw
from qfuzz.strategies.networks import case_builder

SHARD_SIZE = 200
MAX_DRAWS = 10 * SHARD_SIZE
"""Where this many tries give no full shard, the shard is smaller."""


@dataclass
class DrawCount:
    """How many tries generation made, and how many gave no case."""

    draws: int = 0
    rejected: int = 0


class ShardCases(Iterator[Case]):
    """The cases of one shard. `counts` says what generation cost."""

    def __init__(self, collected: Sequence[Case], counts: DrawCount) -> None:
        self._cases = iter(collected)
        self.counts = counts

    def __next__(self) -> Case:
        return next(self._cases)


def cases_of(seed: int, shard: int, *, ops: Sequence[str] = (), max_nodes: int = 4, invalid: float = 0.0) -> ShardCases:
    """The `SHARD_SIZE` cases of a shard (fewer where most tries give none).

    Parameters
    ----------
    seed, shard
        Which cases. The minimal case is the first of shard 0, and drawn in no other.
    ops, max_nodes, invalid
        As for `qfuzz.cases`.
    """
    build = case_builder(ops, 1, max_nodes, invalid)
    counts = DrawCount()
    random = RandomDraw(Random(f"{seed}/{shard}"))
    tries: Iterator[Draw] = repeat(random, MAX_DRAWS)
    if shard == 0:
        tries = chain([SimplestDraw()], tries)
    collected: list[Case] = []
    while len(collected) < SHARD_SIZE and (draw := next(tries, None)):
        counts.draws += 1
        random.begin()
        try:
            collected.append(build(draw))
        except Rejected:
            counts.rejected += 1
    return ShardCases(collected, counts)
