"""`cases_of(seed, shard)`: the cases of a campaign, a pure function of its arguments.

Hypothesis draws only in its generate phase, without a database; the body collects and never raises, for outcomes and
time would change later draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture import providers

from qfuzz.ir.network import Case
from qfuzz.strategies.draw import Draw, strategy_of
from qfuzz.strategies.networks import case_builder

SHARD_SIZE = 200
_PROVIDER = "qfuzz"


class NoConstants(providers.HypothesisProvider):
    """Hypothesis's own provider without its constants.

    It would mix in constants found in local modules, and keeps the mixture for the whole process: draws would depend on
    what else was imported, or drawn before. The edges that matter here are drawn on purpose.
    """

    def _maybe_draw_constant(self, choice_type: Any, constraints: Any, *, p: float = 0.05) -> None:
        return None


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


def cases_of(seed_: int, shard: int, *, ops: Sequence[str] = (), max_nodes: int = 4) -> ShardCases:
    """The `SHARD_SIZE` cases of a shard (fewer where the space is smaller).

    Parameters
    ----------
    seed_, shard
        Which cases. Hypothesis begins with the minimal example every time: only shard 0 keeps it.
    ops, max_nodes
        As for `qfuzz.cases`.
    """
    providers.AVAILABLE_PROVIDERS[_PROVIDER] = f"{__name__}.{NoConstants.__name__}"
    collected: list[Case] = []
    counts = DrawCount()
    build = case_builder(ops, 1, max_nodes)

    def counted(d: Draw) -> Case:
        counts.draws += 1
        return build(d)

    @seed(f"{seed_}/{shard}")
    @settings(
        max_examples=SHARD_SIZE + 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        backend=_PROVIDER,
    )
    @given(strategy_of(counted, "cases"))
    def collect(case: Case) -> None:
        collected.append(case)

    collect()
    counts.rejected = counts.draws - len(collected)
    kept = collected[:SHARD_SIZE] if shard == 0 else collected[1 : SHARD_SIZE + 1]
    return ShardCases(kept, counts)
