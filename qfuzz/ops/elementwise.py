"""add, mul: elementwise arithmetic of two activations, with NumPy broadcasting and fused relu.

Semantics: ONNX Add and Mul; com.microsoft QLinearAdd and QLinearMul; `torch.ops.quantized.add` and `mul`.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term, product_terms
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType, check_shape
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    float_scale,
    linear_image,
    per_tensor,
    quantized_output,
    zero_point_magnitude,
)


def broadcast_shape(inputs: Sequence[TensorType]) -> tuple[int, ...]:
    """The shape that all inputs broadcast to, as NumPy's arrays do: ranks may differ, sizes of 1 are repeated."""
    try:
        shape = tuple(int(d) for d in np.broadcast_shapes(*(t.shape for t in inputs)))
    except ValueError:
        shapes = " and ".join(str(t.shape) for t in inputs)
        raise InvalidCase(f"inputs: shapes {shapes} do not broadcast") from None
    check_shape(shape)
    return shape


def _bounds(relu: bool) -> tuple[Fraction | None, Fraction | None]:
    return (Fraction(0), None) if relu else (None, None)


def sum_image(
    operands: Sequence[Operand],
    element: Element,
    *,
    subtract: bool = False,
    bounds: tuple[Fraction | None, Fraction | None] = (None, None),
) -> Image:
    """The image of `a + b`, or of `a - b`, clipped to `bounds` in output units."""
    a, b = operands
    m = [Multiplier.quotient(o.float_scale, float_scale(element)) for o in operands]
    (a_lo, a_hi), (b_lo, b_hi) = a.centered(), b.centered()
    if subtract:
        b_lo, b_hi = -b_hi, -b_lo
    integers = all(o.are_integers for o in operands)

    def terms(a_centered: Floats, b_centered: Floats) -> list[Term]:
        return [Term(c, k, are_integers=integers) for c, k in zip((a_centered, b_centered), m, strict=True)]

    def real() -> Floats:
        return a.magnitude() * m[0].approx + b.magnitude() * m[1].approx

    def affine() -> Floats:
        return a.affine_magnitude() * m[0].approx + b.affine_magnitude() * m[1].approx

    def fixed_point() -> Floats:
        largest = np.maximum(m[0].approx, m[1].approx)
        return (a.affine_magnitude() + b.affine_magnitude()) * largest + zero_point_magnitude(element)

    return linear_image(
        terms(a_lo, b_lo),
        None if a.is_point and b.is_point else terms(a_hi, b_hi),
        broadcast_shape([o.type for o in operands]),
        element,
        accumulator=real,
        real=real,
        affine=affine,
        fixed_point=fixed_point,
        n_summed=2,
        bounds=bounds,
    )


class Add(ExactOperator, frozen=True, kw_only=True, tag="add"):
    """`a + b`, with negative results made 0 where `relu` is set."""

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        for name, t in zip("ab", inputs, strict=True):
            check_multipliers(per_tensor(t, name).scale, element, name)
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        return sum_image(operands, element, bounds=_bounds(self.relu))


class Mul(ExactOperator, frozen=True, kw_only=True, tag="mul"):
    """`a * b`, with negative results made 0 where `relu` is set."""

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        scales = [per_tensor(t, name).scale[0] for name, t in zip("ab", inputs, strict=True)]
        check_multipliers([scales[0] * scales[1]], element, "inputs")
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        shape = broadcast_shape([a.type, b.type])
        m = Multiplier.quotient(a.float_scale * b.float_scale, float_scale(element))
        a_lo, a_hi = a.centered()
        b_lo, b_hi = b.centered()
        upper = None
        if a.is_point and b.is_point:
            lower = product_terms(a_lo, b_lo, m)
        else:
            # Where a product is rounded, it is so to a neighbour, and 2^-52 of it to either side bound it.
            corners = [a_lo * b_lo, a_lo * b_hi, a_hi * b_lo, a_hi * b_hi]
            least, most = np.minimum.reduce(corners), np.maximum.reduce(corners)
            exact = float(max(np.abs(least).max(initial=0.0), np.abs(most).max(initial=0.0))) < 2.0**53
            slack = 0.0 if exact else 2.0**-52
            lower = [Term(least - np.abs(least) * slack, m, are_integers=exact)]
            upper = [Term(most + np.abs(most) * slack, m, are_integers=exact)]

        def real() -> Floats:
            return a.magnitude() * b.magnitude() * m.approx

        return linear_image(
            lower,
            upper,
            shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: a.affine_magnitude() * b.affine_magnitude() * m.approx,
            bounds=_bounds(self.relu),
        )
