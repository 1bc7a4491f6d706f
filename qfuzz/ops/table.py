"""Images of unary elementwise operators: a stored byte has 256 values, so each is evaluated once and then looked up.

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
        """The image of all storable integers of `x`'s type, in ascending order."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_rescaling(inputs[0], element)
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        q = x.type.qtype
        domain = np.arange(q.qmin, q.qmax + 1, dtype=np.float64)
        table = self.table(Operand(TensorType(domain.shape, q), domain, domain), element)
        first = (x.lo - q.qmin).astype(np.int64)
        if x.is_point:
            r = table.lower.take(first)
            return TableImage(r, r, table, first, first)
        last = (x.hi - q.qmin).astype(np.int64)
        r = table.lower
        low = extreme(r.approx - r.error - np.spacing(np.abs(r.approx)), first, last, np.minimum)
        high = extreme(r.approx + r.error + np.spacing(np.abs(r.approx)), first, last, np.maximum)
        return TableImage(known_reals(low), known_reals(high), table, first, last)


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
