"""add, mul: elementwise arithmetic of two activations, with NumPy broadcasting and fused relu.

Semantics: ONNX Add and Mul; com.microsoft QLinearAdd and QLinearMul; `torch.ops.quantized.add` and `mul`.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
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


def _broadcast(inputs: Sequence[TensorType]) -> tuple[int, ...]:
    a, b = inputs
    try:
        shape = tuple(int(d) for d in np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise InvalidCase(f"inputs: shapes {a.shape} and {b.shape} do not broadcast") from None
    check_shape(shape)
    return shape


def _bounds(relu: bool) -> tuple[Fraction | None, Fraction | None]:
    return (Fraction(0), None) if relu else (None, None)


class Add(ExactOperator, frozen=True, kw_only=True, tag="add"):
    """`a + b`, with negative results made 0 where `relu` is set."""

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        for name, t in zip("ab", inputs, strict=True):
            check_multipliers(per_tensor(t, name).scale, element, name)
        return _broadcast(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        shape = _broadcast([o.type for o in operands])
        m = [Multiplier.quotient(o.float_scale, float_scale(element)) for o in operands]
        centered = [o.centered() for o in operands]
        is_point = all(o.is_point for o in operands)
        integers = all(o.are_integers for o in operands)

        def real() -> Floats:
            a, b = operands
            return a.magnitude() * m[0].approx + b.magnitude() * m[1].approx

        def affine() -> Floats:
            a, b = operands
            return a.affine_magnitude() * m[0].approx + b.affine_magnitude() * m[1].approx

        def fixed_point() -> Floats:
            a, b = operands
            largest = np.maximum(m[0].approx, m[1].approx)
            return (a.affine_magnitude() + b.affine_magnitude()) * largest + zero_point_magnitude(element)

        return linear_image(
            [Term(c[0], k, are_integers=integers) for c, k in zip(centered, m, strict=True)],
            None if is_point else [Term(c[1], k, are_integers=integers) for c, k in zip(centered, m, strict=True)],
            shape,
            element,
            accumulator=real,
            real=real,
            affine=affine,
            fixed_point=fixed_point,
            n_summed=2,
            bounds=_bounds(self.relu),
        )


class Mul(ExactOperator, frozen=True, kw_only=True, tag="mul"):
    """`a * b`, with negative results made 0 where `relu` is set."""

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        scales = [per_tensor(t, name).scale[0] for name, t in zip("ab", inputs, strict=True)]
        check_multipliers([scales[0] * scales[1]], element, "inputs")
        return _broadcast(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        shape = _broadcast([a.type, b.type])
        m = Multiplier.quotient(a.float_scale * b.float_scale, float_scale(element))
        a_lo, a_hi = a.centered()
        b_lo, b_hi = b.centered()
        if a.is_point and b.is_point:
            lower, upper = a_lo * b_lo, None
        else:
            corners = [a_lo * b_lo, a_lo * b_hi, a_hi * b_lo, a_hi * b_hi]
            lower, upper = np.minimum.reduce(corners), np.maximum.reduce(corners)

        def real() -> Floats:
            return a.magnitude() * b.magnitude() * m.approx

        return linear_image(
            [Term(lower, m, are_integers=a.are_integers and b.are_integers)],
            None if upper is None else [Term(upper, m, are_integers=a.are_integers and b.are_integers)],
            shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: a.affine_magnitude() * b.affine_magnitude() * m.approx,
            bounds=_bounds(self.relu),
        )
