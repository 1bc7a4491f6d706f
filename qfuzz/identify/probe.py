"""A probe: cases on which models of an operator's arithmetic must differ."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from qfuzz.arithmetic.family import Form
from qfuzz.ir.network import Case


class Probe(NamedTuple):
    """A generator of cases.

    Attributes
    ----------
    draw
        (form, key, models left) -> a case, or None where this key gives none. A pure function.
    tells
        The choices that it tells apart.
    small
        The same for cases that are as small as they can be, or None.
    confirmations
        How many cases the last model left must pass.
    """

    draw: Callable[[Form, int, Sequence[Any]], Case | None]
    tells: frozenset[str]
    small: Callable[[Form, int, Sequence[Any]], Case | None] | None = None
    confirmations: int = 1


def probe(draw: Callable[..., Case | None], tells: str, *, sized: bool = True, confirmations: int = 1) -> Probe:
    """A probe whose generator takes ``size=1`` for small cases, if it is `sized`."""
    return Probe(draw, frozenset(tells.split()), partial(draw, size=1) if sized else None, confirmations)
