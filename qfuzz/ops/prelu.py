"""prelu: x where it is positive, else x times a slope, one for all or one for each channel.

Semantics: `torch.nn.functional.prelu`: ``max(0, x) + slope * min(0, x)``; channels are the second dimension. The slope
is a constant, quantized per tensor.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term, combine, product_terms
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    LinearImage,
    Operand,
    check_multipliers,
    check_rescaling,
    float32_exact,
    float_scale,
    per_tensor,
    zero_point_magnitude,
)
from qfuzz.ops.table import known_reals


class Prelu(ExactOperator, frozen=True, kw_only=True, tag="prelu"):
    """Inputs are x and the slope, of one element or of as many as x has channels."""

    arity: ClassVar[tuple[int, int]] = (2, 2)
    constant_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, slope = inputs
        check_rescaling(x, element)
        unit = per_tensor(slope, "slope").scale[0]
        check_multipliers([unit, unit * x.qtype.scale[0]], element, "slope")
        if not x.shape:
            raise InvalidCase("x: shape (); needs a dimension")
        channels = x.shape[1] if len(x.shape) > 1 else 1
        if slope.shape not in ((1,), (channels,)):
            raise InvalidCase(f"slope: shape {slope.shape}; needs (1,), or ({channels},): one for each channel of x")
        return x.shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, slope = operands
        shape = x.type.shape
        lo, hi = x.centered()
        factor = slope.centered()[0].reshape((1, -1, *(1,) * (len(shape) - 2))[-max(len(shape), 1) :])
        factor = np.broadcast_to(factor, shape)
        whole = Multiplier.quotient(x.float_scale, float_scale(element))
        part = Multiplier.quotient(x.float_scale * slope.float_scale, float_scale(element))

        def terms(n: Floats) -> list[Term]:
            return [
                Term(np.maximum(n, 0.0), whole, are_integers=True),
                *product_terms(np.minimum(n, 0.0), factor, part),
            ]

        def magnitude(largest: Floats, slopes: Floats) -> Floats:
            negative = lo < 0
            steep = slopes * part.approx
            return largest * np.where(negative, np.where(hi >= 0, np.maximum(steep, whole.approx), steep), whole.approx)

        zero_point = zero_point_magnitude(element)

        def affine() -> Floats:
            return magnitude(x.affine_magnitude(), np.broadcast_to(np.abs(factor), shape)) + zero_point

        if x.is_point:
            lower = upper = combine(terms(lo), shape)
        else:
            ends = [combine(terms(n), shape).approx for n in (lo, hi)]
            across = (lo < 0) & (hi > 0)
            least, most = np.minimum(*ends), np.maximum(*ends)
            slack = (np.abs(least) + np.abs(most)) * 2.0**-48
            lower = known_reals(np.where(across, np.minimum(least, 0.0), least) - slack)
            upper = known_reals(np.where(across, np.maximum(most, 0.0), most) + slack)
        real = magnitude(x.magnitude(), np.abs(factor))
        return LinearImage(
            lower,
            upper,
            lambda: real,
            lambda: real,
            affine,
            1,
            lambda: float32_exact(terms(lo), affine, element),
            None,
            zero_point,
            zero_point=zero_point,
        )
