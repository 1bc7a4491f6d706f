"""embedding_rows: a table of float32 numbers, quantized row by row by its own ranges, as numbers again.

Semantics: "each row first has quantized values, and then scale and zero_offset": the scale is the range (maximum -
minimum) of a row over 2^bits - 1, the offset its minimum, and each element is the nearest integer to (x - offset) /
scale (PyTorch, qembeddingbag_prepack.cpp; FBGEMM, QuantUtils.cc). Rows of 8 bits hold float32, and elements are scaled
by 255 / (range + `EPSILON`). Rows of 4 and 2 bits hold float16: the minimum is rounded to it before the range is taken,
and the scale before it divides; a scale that becomes 0 is 1. Beyond `LARGEST` nothing is said.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import ExactOperator, Image, Operand, SteppedImage
from qfuzz.ops.table import known_reals

EPSILON = float32(1e-8)
LARGEST = {8: 2.0**100, 4: 2.0**15, 2: 2.0**15}
_TINY = 2.0**-140
"""More than what is lost below the normal float32 numbers."""


class EmbeddingRows(ExactOperator, frozen=True, kw_only=True, tag="embedding_rows"):
    """`x` [..., features] of float32, quantized by rows to `bits` (8, 4 or 2), and what that stands for."""

    bits: Literal[2, 4, 8] = 8

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        if x.element != "float32" or element != "float32":
            raise InvalidCase(f"x, output: {x.dtype}, {element}; embedding_rows takes and gives float32")
        if not x.shape or not x.shape[-1]:
            raise InvalidCase(f"x: shape {x.shape}; needs [..., features], and features")
        return x.shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        return RowsImage(operands[0], self.bits)


class RowsImage(SteppedImage):
    """Rows, each quantized with what a kernel may make of its scale, offset and elements."""

    def __init__(self, x: Operand, bits: int) -> None:
        self.x, self.bits, self.top = x, bits, 2**bits - 1
        if not x.is_point:
            self.lower, self.upper = (known_reals(b) for b in self._somewhere())
            return
        self.rows = x.lo.reshape(-1, x.lo.shape[-1])
        self.is_said = float(np.abs(self.rows).max(initial=0.0)) <= LARGEST[bits]
        self.offset = self.rows.min(axis=1)
        if bits < 8:
            with np.errstate(over="ignore"):
                self.offset = self.offset.astype(np.float32).astype(np.float16).astype(np.float64)
            self.offset = np.where(np.isfinite(self.offset), self.offset, 0.0)
        self.range = self.rows.max(axis=1) - self.offset
        self.lower = self.upper = self._exactly()

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        if not self.x.is_point:
            return self._somewhere()
        shape = self.x.lo.shape
        if not self.is_said:
            return np.full(shape, -np.inf), np.full(shape, np.inf)
        if contract.terms == "exact":
            r = self.lower
            return r.approx - r.error, r.approx + r.error
        off = gamma(contract.k) * (1 + 2.0**-20)
        found = [self._with(divisor, scale, off) for divisor, scale in self._scales(off)]
        lo = np.minimum.reduce([f[0] for f in found])
        hi = np.maximum.reduce([f[1] for f in found])
        exact = self.lower
        return np.minimum(lo.reshape(shape), exact.approx), np.maximum(hi.reshape(shape), exact.approx)

    def _scales(self, off: float) -> list[tuple[Floats, Floats]]:
        """What elements may be divided by, and multiplied with again, as [rows]."""
        if self.bits == 8:
            return [((self.range + EPSILON) / 255, self.range / 255)]
        return [(s, s) for s in (_half(self.range / self.top * (1 + share * off)) for share in (-1, 0, 1))]

    def _with(self, divisor: Floats, scale: Floats, off: float) -> tuple[Floats, Floats]:
        """Bounds for these scales: those elements that lie next to a tie may be rounded to either side."""
        offset = self.offset[:, None]
        t = (self.rows - offset) / divisor[:, None]
        room = (off + 2.0**-50) * np.abs(t)
        q = [np.clip(n, 0, self.top) for n in (np.ceil(t - room - 0.5), np.floor(t + room + 0.5))]
        ends = [n * scale[:, None] + offset for n in q]
        error = (off + 2.0**-50) * (self.top * np.abs(scale[:, None]) + np.abs(offset)) + _TINY * self.top
        return np.minimum(*ends) - error, np.maximum(*ends) + error

    def _exactly(self) -> Reals:
        """Computed without error: where float64 leaves a rounding open, in rationals."""
        if not self.is_said or not self.rows.size:
            return known_reals(np.zeros(self.x.lo.shape))
        scales = [self._exact_scale(row) for row in range(len(self.rows))]
        t = (self.rows - self.offset[:, None]) / np.array([[float(divisor)] for divisor, _ in scales])
        q = np.clip(np.rint(t), 0, self.top)
        for i, j in np.argwhere(np.abs(np.abs(t - np.floor(t)) - 0.5) < 2.0**-40 * (1 + np.abs(t))).tolist():
            exact = (Fraction(float(self.rows[i, j])) - Fraction(float(self.offset[i]))) / scales[i][0]
            q[i, j] = min(max(round(exact), 0), self.top)
        scale = np.array([[float(s)] for _, s in scales])
        approx = (q * scale + self.offset[:, None]).reshape(self.x.lo.shape)
        error = ((np.abs(q * scale) + np.abs(self.offset[:, None])) * 2.0**-50).reshape(self.x.lo.shape)
        columns = self.rows.shape[1]

        def refine(i: int, bits: int) -> Bounds:
            row, column = divmod(i, columns)
            value = int(q[row, column]) * scales[row][1] + Fraction(float(self.offset[row]))
            return value, value

        return Reals(approx, error, refine)

    def _exact_scale(self, row: int) -> tuple[Fraction, Fraction]:
        """What elements are divided by, and multiplied with."""
        span = Fraction(float(self.rows[row].max())) - Fraction(float(self.offset[row]))
        if self.bits == 8:
            return (span + Fraction(EPSILON)) / 255, span / 255
        real = span / self.top
        near = float(real)
        if Fraction(near) != real:  # beside a tie of float16, on the right side of it
            near = float(np.nextafter(near, np.inf if Fraction(near) < real else -np.inf))
        scale = Fraction(float(_half(np.array(near))))
        return scale, scale

    def _somewhere(self) -> tuple[Floats, Floats]:
        """For uncertain elements: within the row's range, up to what rounding its ends to float16 moves them."""
        lo, hi = self.x.lo.min(axis=-1, keepdims=True), self.x.hi.max(axis=-1, keepdims=True)
        size = np.maximum(np.abs(lo), np.abs(hi))
        room = np.where(size > LARGEST[self.bits], np.inf, size * 2.0**-8 + 2.0**-18)
        lo, hi = lo - room, hi + room
        shape = self.x.lo.shape
        return np.broadcast_to(lo, shape).copy(), np.broadcast_to(hi, shape).copy()


def _half(scale: Floats) -> Floats:
    """Rounded to float16; 1 where that is 0."""
    rounded = scale.astype(np.float16).astype(np.float64)
    return np.where(rounded == 0, 1.0, rounded)
