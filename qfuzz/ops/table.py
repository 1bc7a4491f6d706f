"""Images of unary elementwise operators: a stored byte has 256 values, so each is evaluated once and then looked up.

Of int32, only those are evaluated that occur.

For uncertain inputs the domain is discrete too: the bounds are the extremes over all integers between, so that a
function's critical points need no thought.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.contract import Contract
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import ExactOperator, Image, Operand, check_rescaling


@dataclass(frozen=True)
class TableImage(Image):
    """Entries of `table` looked up: from `first` to `last` per element."""

    lower: Reals
    upper: Reals
    table: Image
    first: Ints
    last: Ints

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        errors = np.broadcast_to(self.table.error(contract), self.table.lower.approx.shape)
        return extreme(errors, self.first, self.last, np.maximum)


class UnaryOperator(ExactOperator, frozen=True, kw_only=True):
    """An operator that maps every stored integer on its own. A subclass says what `table` holds."""

    def table(self, x: Operand, element: Element) -> Image:
        """The image of all storable integers of `x`'s type, or of some of them, in ascending order."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_rescaling(inputs[0], element)
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        q = x.type.qtype
        domain = np.arange(q.qmin, q.qmax + 1, dtype=np.float64) if q.dtype != "int32" else occurring(x)
        table = self.table(Operand(TensorType(domain.shape, q), domain, domain), element)
        first = np.searchsorted(domain, x.lo)
        if x.is_point:
            r = table.lower.take(first)
            return TableImage(r, r, table, first, first)
        last = np.searchsorted(domain, x.hi)
        r = table.lower
        if float((x.hi - x.lo).max(initial=0.0)) > MAX_UNCERTAIN and q.dtype == "int32":
            anything = np.full(x.lo.shape, FAR)
            return TableImage(known_reals(-anything), known_reals(anything), table, first, first)
        low = extreme(r.approx - r.error - np.spacing(np.abs(r.approx)), first, last, np.minimum)
        high = extreme(r.approx + r.error + np.spacing(np.abs(r.approx)), first, last, np.maximum)
        return TableImage(known_reals(low), known_reals(high), table, first, last)


MAX_UNCERTAIN = 64
"""Between how many integers apart all of int32 are evaluated; of what is more uncertain, nothing is said."""
FAR = 2.0**45
"""In output units beyond every storage range."""


def occurring(x: Operand) -> Floats:
    """The integers that elements of `x` can be, in ascending order; at least one."""
    steps = np.arange(min(float((x.hi - x.lo).max(initial=0.0)), MAX_UNCERTAIN) + 1)
    between = np.minimum(x.lo[..., None] + steps, x.hi[..., None])
    return np.unique(np.concatenate([[0.0], between.ravel(), x.hi.ravel()]))


def extreme(table: Floats, first: Ints, last: Ints, pick: np.ufunc) -> Floats:
    """`pick` (np.minimum or np.maximum) over ``table[first..last]``, elementwise."""
    best: Floats = table[first]
    if first is last:
        return best
    for step in range(1, int((last - first).max(initial=0)) + 1):
        best = pick(best, table[np.minimum(first + step, last)])
    return best


def known_reals(values: Floats) -> Reals:
    """Numbers that are what their float64 says."""
    flat = values.ravel()

    def refine(i: int, bits: int) -> Bounds:
        f = Fraction(float(flat[i]))
        return f, f

    return Reals(values, np.zeros_like(values), refine)
