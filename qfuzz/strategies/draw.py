"""A thin hand on Hypothesis's draws: integers only, the simplest alternative first.

`strategy_of` draws straight from Hypothesis's choice sequence. `st.composite` would wrap each of a case's thirty
integers into a strategy of its own, which costs three times as much as everything else that generation does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from random import Random
from typing import Any, Generic, NoReturn, TypeVar

from hypothesis.internal.conjecture.data import ConjectureData
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_PART = 0x9F022E
"""Label of the spans that Hypothesis may delete as a whole when it shrinks."""

BUFFER_SIZE = 8 * 1024
"""Hypothesis gives a case up whose choices take more bytes; so does every other way to draw it."""


class Draw(ABC):
    """What a drawing function draws with. Few draws, each of them small."""

    @abstractmethod
    def integer(self, low: int, high: int) -> int:
        """An integer in low..high; shrinks to the one closest to 0."""

    @abstractmethod
    def reject(self) -> NoReturn:
        """Give this try up: what was drawn makes no valid value. Counted, and rare."""

    def part(self) -> AbstractContextManager[None]:
        """What is drawn inside belongs together."""
        return _ANYTHING

    def pick(self, alternatives: Sequence[T]) -> T:
        """One of `alternatives`; shrinks to the first."""
        return alternatives[self.integer(0, len(alternatives) - 1)]

    def rarely(self, one_in: int) -> bool:
        """True once in `one_in`; shrinks to False."""
        return self.integer(0, one_in - 1) == one_in - 1

    def key(self) -> int:
        """A 64-bit fill key; shrinks to 0, which fills with zero points."""
        return self.integer(0, 2**64 - 1)


_ANYTHING = nullcontext()


def closest_to_0(low: int, high: int) -> int:
    """What an integer in low..high shrinks to."""
    return min(max(0, low), high)


class RecordedDraw(Draw):
    """Draws of a test that Hypothesis runs: recorded, so that it can replay and shrink them."""

    def __init__(self, data: ConjectureData) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        if low == high:
            return low
        return self._data.draw_integer(low, high, shrink_towards=closest_to_0(low, high))

    def reject(self) -> NoReturn:
        self._data.mark_invalid("not valid")

    @contextmanager
    def part(self) -> Iterator[None]:
        self._data.start_span(_PART)
        yield
        self._data.stop_span()


class Rejected(Exception):
    """A try that gives no value."""


class SimplestDraw(Draw):
    """What everything shrinks to."""

    def integer(self, low: int, high: int) -> int:
        return closest_to_0(low, high)

    def reject(self) -> NoReturn:
        raise Rejected


class RandomDraw(Draw):
    """The draws of a test that Hypothesis runs with `NoConstants`, without the record, which costs more than all else.

    One `source` serves case after case. `begin` comes before each of them.
    """

    def __init__(self, source: Random) -> None:
        self._provider = NoConstants(ConjectureData(random=source, provider=NoConstants))
        self._room = BUFFER_SIZE

    def begin(self) -> None:
        """A new value is drawn."""
        self._room = BUFFER_SIZE

    def integer(self, low: int, high: int) -> int:
        if low == high:
            return low
        value = self._provider.draw_integer(low, high)
        self._room -= 2 + value.bit_length() // 8
        if self._room < 0:
            raise Rejected
        return value

    def reject(self) -> NoReturn:
        raise Rejected


class NoConstants(HypothesisProvider):
    """Hypothesis's own provider without its constants.

    It would mix in constants found in local modules, and keeps the mixture for the whole process: draws would depend on
    what else was imported, or drawn before. The edges that matter here are drawn on purpose.
    """

    def _maybe_draw_constant(self, choice_type: Any, constraints: Any, *, p: float = 0.05) -> None:
        return None


class _Built(SearchStrategy[T], Generic[T]):
    def __init__(self, build: Callable[[Draw], T], name: str) -> None:
        super().__init__()
        self._build, self._name = build, name

    def do_draw(self, data: ConjectureData) -> T:
        return self._build(RecordedDraw(data))

    def __repr__(self) -> str:
        return self._name


def strategy_of(build: Callable[[Draw], T], name: str) -> SearchStrategy[T]:
    """The strategy whose values `build` draws; `name` is how it is shown."""
    return _Built(build, name)
