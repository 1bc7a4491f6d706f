"""std: the standard deviation over axes.

Semantics: `torch.std`: ``sqrt(sum (x - mean)^2 / (n - correction))`` over the n elements; of no more elements than the
correction it is not defined.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qfuzz.exact import elementary
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.reduction import check_ascending, reduced_shape
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_narrow,
    check_rescaling,
    float_scale,
    output_scale,
    zero_point_magnitude,
)
from qfuzz.ops.table import known_reals

_SLACK = 2.0**-47
"""Relative; a dozen roundings of float64 are less."""


class Std(ExactOperator, frozen=True, kw_only=True, tag="std"):
    """The standard deviation over `axes`.

    Attributes
    ----------
    axes
        Ascending; none at all are all of them.
    keepdims
        Whether reduced dimensions stay, with size 1.
    correction
        What is taken from the number of elements before it divides: 1 is Bessel's.
    """

    axes: tuple[int, ...]
    keepdims: bool = False
    correction: int = 1

    def reduced(self, rank: int) -> tuple[int, ...]:
        """The axes that are reduced of a value of `rank` dimensions."""
        return self.axes or tuple(range(rank))

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_narrow([x], element)
        check_rescaling(x, element)
        check_ascending(self.axes, x.shape)
        axes = self.reduced(len(x.shape))
        n = math.prod(x.shape[a] for a in axes)
        if self.correction < 0 or n <= self.correction:
            raise InvalidCase(f"correction: {self.correction}; needs 0 at least, and less than the {n} elements")
        if n * (x.qtype.qmax - x.qtype.qmin) ** 2 * n >= 2**62:
            raise InvalidCase(f"x: squares of {n} elements leave int64")
        return reduced_shape(x.shape, axes, keepdims=self.keepdims)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        axes = self.reduced(len(x.type.shape))
        n = math.prod(x.type.shape[a] for a in axes)

        def rows(a: Floats) -> Floats:
            """What is reduced to one element in each row."""
            last = np.moveaxis(a, axes, range(a.ndim - len(axes), a.ndim))
            return np.ascontiguousarray(last).reshape(-1, n)

        lo, hi = (rows(a) for a in x.centered())
        scale_x, scale_y = x.float_scale, float_scale(element)
        below = math.sqrt(n - self.correction)
        if x.is_point:
            c = lo.astype(np.int64)
            spread = n * (c * c).sum(axis=1) - c.sum(axis=1) ** 2
            approx = np.sqrt(spread.astype(np.float64) / n) / below * (scale_x / scale_y)

            def refine(i: int, bits: int) -> Bounds:
                if not spread[i]:
                    return Fraction(0), Fraction(0)
                a, b = elementary.square_root(Fraction(int(spread[i]), n * (n - self.correction)), bits)
                unit = x.scale / output_scale(element)
                return a * unit, b * unit

            reals = approx.reshape(shape)
            lower = upper = Reals(reals, reals * _SLACK, refine)
        else:
            middle, radius = (lo + hi) / 2, (hi - lo) / 2
            off = middle - middle.mean(axis=1, keepdims=True)
            deviation, reach = (np.sqrt((a * a).sum(axis=1)) / below for a in (off, radius))
            unit = scale_x / scale_y
            lower = known_reals((np.maximum(deviation - reach, 0.0) * unit * (1 - _SLACK)).reshape(shape))
            upper = known_reals(((deviation + reach) * unit * (1 + _SLACK)).reshape(shape))

        def largest(a: Floats) -> Floats:
            most = rows(np.broadcast_to(a, x.type.shape)).max(axis=1).reshape(shape)
            return np.asarray(most * (math.sqrt(n) / below * scale_x / scale_y))

        return StdImage(
            lower,
            upper,
            largest(x.magnitude()),
            largest(x.affine_magnitude()),
            zero_point_magnitude(element),
        )


@dataclass(frozen=True)
class StdImage(Image):
    """Deviations, and how far float32 kernels are from them.

    Elements that are off by delta at most change the deviation by sqrt(n / (n - correction)) delta: it is the length of
    their projection off the mean, over sqrt(n - correction). What a kernel does with them in float64 is more exact.

    Attributes
    ----------
    real, affine
        sqrt(n / (n - correction)) times the largest |x|, or |s q| + |s zero_point|, in output units.
    """

    lower: Reals
    upper: Reals
    real: Floats
    affine: Floats
    zero_point_y: float

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros_like(self.real)
        affine = contract.terms in ("affine", "fixed_point")
        bound = (self.affine if affine else self.real) + self.upper.approx
        if affine or contract.adds_zero_point or contract.tie in ("half_even_after_zero_point", "either_even"):
            bound = bound + self.zero_point_y
        return np.asarray(gamma(contract.k) * (1 + 2.0**-40) * bound)
