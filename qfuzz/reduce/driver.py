"""The reduction loop: every attempt goes through one `consider`, which keeps the best, the seen and the counts."""

from collections.abc import Callable, Sequence

import msgspec

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case
from qfuzz.reduce.edit import Candidate, Pass
from qfuzz.reduce.order import size_key
from qfuzz.reduce.passes import TIERS

MAX_ATTEMPTS = 3_000


class Reduction(msgspec.Struct, frozen=True):
    """What reduction came to.

    Attributes
    ----------
    case
        The smallest interesting case seen.
    attempts
        How many candidates were tried on the backend.
    stopped
        Whether time or attempts ended it before its fixpoint.
    """

    case: Case
    attempts: int
    stopped: bool


class _Stop(Exception):
    """No attempts or no time left."""


def never() -> bool:
    """Time is never up."""
    return False


def reduce_case(
    case: Case,
    interesting: Callable[[Case], bool],
    *,
    max_attempts: int = MAX_ATTEMPTS,
    out_of_time: Callable[[], bool] = never,
    tiers: Sequence[Sequence[Pass]] = TIERS,
) -> Reduction:
    """The smallest case, under `size_key`, that passes lead to and that is still interesting.

    Deterministic where `interesting` is. `case` itself is taken to be interesting.

    Parameters
    ----------
    max_attempts
        How many candidates may be tried.
    out_of_time
        A safety stop, asked before each attempt.
    """
    loop = _Loop(case, interesting, max_attempts, out_of_time)
    try:
        before = None
        while loop.best is not before:
            before = loop.best
            for tier in tiers:
                loop.run_tier(tier)
    except _Stop:
        return Reduction(loop.best, loop.attempts, stopped=True)
    return Reduction(loop.best, loop.attempts, stopped=False)


class _Loop:
    def __init__(
        self, case: Case, interesting: Callable[[Case], bool], max_attempts: int, out_of_time: Callable[[], bool]
    ) -> None:
        self.best, self.key = case, size_key(case)
        self.attempts = 0
        self._interesting, self._max_attempts, self._out_of_time = interesting, max_attempts, out_of_time
        self._seen = {case}

    def run_tier(self, tier: Sequence[Pass]) -> None:
        """All passes of a tier, until none of them makes a step."""
        before = None
        while self.best is not before:
            before = self.best
            for reduction_pass in tier:
                self.run_pass(reduction_pass)

    def run_pass(self, reduction_pass: Pass) -> None:
        """A pass from the best case on, anew after each step."""
        step = True
        while step:
            step = any(self.consider(candidate) for candidate in reduction_pass(self.best))

    def consider(self, candidate: Candidate) -> bool:
        """Whether the candidate is the new best: valid, smaller, unseen and interesting."""
        try:
            case = candidate()
        except InvalidCase:
            return False
        key = size_key(case)
        if key >= self.key or case in self._seen:
            return False
        if self.attempts >= self._max_attempts or self._out_of_time():
            raise _Stop
        self._seen.add(case)
        self.attempts += 1
        if not self._interesting(case):
            return False
        self.best, self.key = case, key
        return True
