"""minimum, maximum, where: each element is one of two activations' elements, with NumPy broadcasting.

Semantics: ONNX Min and Max (opset 13) and Where (opset 16) on dequantized operands; com.microsoft QLinearWhere. With
equal types of all three, Min and Max of stored integers are the same, for dequantizing increases.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.binary import check_operands
from qfuzz.ops.elementwise import broadcast_shape
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    float_scale,
    linear_image,
    quantized_output,
)

Bools = npt.NDArray[np.bool_]


class _Extreme(ExactOperator, frozen=True, kw_only=True):
    """The smaller or the larger of `a` and `b`."""

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def takes_a(self, a: Floats, b: Floats) -> Bools:
        """Whether the result is `a`, of real numbers."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_operands(inputs, element)
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        shape = broadcast_shape([a.type, b.type])
        # Real values are exact in float64: a stored integer less a zero point times the 24 bits of a scale.
        ends = [
            self.takes_a(x * a.float_scale, y * b.float_scale) for x, y in zip(a.centered(), b.centered(), strict=True)
        ]
        m = [Multiplier.quotient(o.float_scale, float_scale(element)) for o in operands]

        def affine() -> Floats:
            # A kernel may see either operand moved, and then take the other: by the larger of the two at most.
            return np.maximum(*(o.affine_magnitude() * k.approx for o, k in zip(operands, m, strict=True)))

        return _selected(operands, ends, m, shape, element, affine, is_point=a.is_point and b.is_point)


class Minimum(_Extreme, frozen=True, kw_only=True, tag="minimum"):
    """The smaller of `a` and `b`."""

    def takes_a(self, a: Floats, b: Floats) -> Bools:
        return np.asarray(a <= b)


class Maximum(_Extreme, frozen=True, kw_only=True, tag="maximum"):
    """The larger of `a` and `b`."""

    def takes_a(self, a: Floats, b: Floats) -> Bools:
        return np.asarray(a >= b)


class Where(ExactOperator, frozen=True, kw_only=True, tag="where"):
    """`a` where the third input, the condition, is true, else `b`. All three broadcast.

    ONNX has the condition first; here activations come before what is none, as everywhere. It is an input of the
    network or a constant of it.
    """

    arity: ClassVar[tuple[int, int]] = (3, 3)
    free_inputs: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_operands(inputs[:2], element)
        if inputs[2].element != "bool":
            raise InvalidCase(f"condition: needs bool elements, got {inputs[2].dtype}")
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        *values, condition = operands
        surely, maybe = condition.lo != 0, condition.hi != 0
        (a_lo, a_hi), (b_lo, b_hi) = ([c * o.float_scale for c in o.centered()] for o in values)
        # Where the condition is uncertain, either is: the smaller lower and the larger upper bound.
        ends = [surely | (maybe & (a_lo <= b_lo)), surely | (maybe & (a_hi >= b_hi))]
        m = [Multiplier.quotient(o.float_scale, float_scale(element)) for o in values]
        shape = broadcast_shape([o.type for o in operands])

        def affine() -> Floats:
            a, b = (o.affine_magnitude() * k.approx for o, k in zip(values, m, strict=True))
            return np.where(surely, a, np.where(maybe, np.maximum(a, b), b))

        is_point = all(o.is_point for o in operands)
        return _selected(values, ends, m, shape, element, affine, is_point=is_point)


def _selected(
    operands: Sequence[Operand],
    takes_a: Sequence[Bools],
    m: Sequence[Multiplier],
    shape: tuple[int, ...],
    element: Element,
    affine: Callable[[], Floats],
    *,
    is_point: bool,
) -> Image:
    """The image of the operand that is taken, by `takes_a` for the lower and for the upper bound.

    Roundings keep the order of real numbers, so that a kernel's result is off by roundings of the operand it takes.
    """
    a, b = operands
    integers = a.are_integers and b.are_integers

    def terms(end: int) -> list[Term]:
        take = np.broadcast_to(takes_a[end], shape)
        values = (np.where(take, a.centered()[end], 0.0), np.where(take, 0.0, b.centered()[end]))
        return [Term(v, k, are_integers=integers) for v, k in zip(values, m, strict=True)]

    lower = terms(0)
    upper = None if is_point else terms(1)

    def real() -> Floats:
        low, high = ([np.abs(t.values) * t.multiplier.approx for t in end] for end in (lower, upper or lower))
        return np.maximum(low[0] + low[1], high[0] + high[1])

    return linear_image(lower, upper, shape, element, accumulator=real, real=real, affine=affine)
