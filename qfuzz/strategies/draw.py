"""A thin hand on Hypothesis's draws: integers only, the simplest alternative first.

`strategy_of` draws straight from Hypothesis's choice sequence. `st.composite` would wrap each of a case's thirty
integers into a strategy of its own, which costs three times as much as everything else that generation does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NoReturn, TypeVar

from hypothesis.internal.conjecture.data import ConjectureData
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_PART = 0x9F022E
"""Label of the spans that Hypothesis may delete as a whole when it shrinks."""


class Draw:
    """What a drawing function draws with. Few draws, each of them small."""

    def __init__(self, data: ConjectureData) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        """An integer in low..high; shrinks to the one closest to 0."""
        if low == high:
            return low
        return self._data.draw_integer(low, high, shrink_towards=min(max(0, low), high))

    def pick(self, alternatives: Sequence[T]) -> T:
        """One of `alternatives`; shrinks to the first."""
        return alternatives[self.integer(0, len(alternatives) - 1)]

    def rarely(self, one_in: int) -> bool:
        """True once in `one_in`; shrinks to False."""
        return self.integer(0, one_in - 1) == one_in - 1

    def key(self) -> int:
        """A 64-bit fill key; shrinks to 0, which fills with zero points."""
        return self.integer(0, 2**64 - 1)

    def reject(self) -> NoReturn:
        """Give this try up: what was drawn makes no valid value. Counted, and rare."""
        self._data.mark_invalid("not valid")

    @contextmanager
    def part(self) -> Iterator[None]:
        """What is drawn inside belongs together."""
        self._data.start_span(_PART)
        yield
        self._data.stop_span()


class _Built(SearchStrategy[T], Generic[T]):
    def __init__(self, build: Callable[[Draw], T], name: str) -> None:
        super().__init__()
        self._build, self._name = build, name

    def do_draw(self, data: ConjectureData) -> T:
        return self._build(Draw(data))

    def __repr__(self) -> str:
        return self._name


def strategy_of(build: Callable[[Draw], T], name: str) -> SearchStrategy[T]:
    """The strategy whose values `build` draws; `name` is how it is shown."""
    return _Built(build, name)
