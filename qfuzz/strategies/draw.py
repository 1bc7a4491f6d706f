"""A thin hand on Hypothesis's draws: cached strategies, the simplest alternative first."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


@lru_cache(maxsize=None)
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Draw:
    """What a composite strategy draws with. Few draws, each of them small."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """An integer in low..high; shrinks to the one closest to 0."""
        if low == high:
            return low
        value: int = self._draw(_integers(low, high))
        return value

    def pick(self, alternatives: Sequence[T]) -> T:
        """One of `alternatives`; shrinks to the first."""
        return alternatives[self.integer(0, len(alternatives) - 1)]

    def rarely(self, one_in: int) -> bool:
        """True once in `one_in`; shrinks to False."""
        return self.integer(0, one_in - 1) == one_in - 1

    def key(self) -> int:
        """A 64-bit fill key; shrinks to 0, which fills with zero points."""
        return self.integer(0, 2**64 - 1)
