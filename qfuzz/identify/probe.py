"""A probe: cases on which models of an operator's arithmetic must differ."""

from collections.abc import Callable, Sequence
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
    """

    draw: Callable[[Form, int, Sequence[Any]], Case | None]
    tells: frozenset[str]
    small: Callable[[Form, int, Sequence[Any]], Case | None] | None = None
