"""minimum, maximum, where: each element is one of several activations' elements, with NumPy broadcasting.

Semantics: ONNX Min and Max (opset 13) and Where (opset 16) on dequantized operands; com.microsoft QLinearWhere. Where
all have one type, Min and Max of stored integers are the same, for dequantizing increases.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats, Ints
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


class _Extreme(ExactOperator, frozen=True, kw_only=True):
    """The smallest or the largest of one or more operands."""

    arity: ClassVar[tuple[int, int]] = (1, 8)

    def first(self, reals: Floats) -> Ints:
        """Which of the operands is the result, along the first axis of real numbers."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_operands(inputs, element)
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        shape = broadcast_shape([o.type for o in operands])

        def choice(end: int) -> Ints:
            # Real values are exact in float64: a stored integer less a zero point times the 24 bits of a scale.
            reals = [o.centered()[end] * o.float_scale for o in operands]
            return self.first(np.stack([np.broadcast_to(r, shape) for r in reals]))

        is_point = all(o.is_point for o in operands)
        return _selected(operands, choice, _largest, shape, element, is_point=is_point)


def _largest(magnitudes: Sequence[Floats]) -> Floats:
    """A kernel may see any operand moved, and then take another one: by the largest magnitude of all at most."""
    return functools.reduce(np.maximum, magnitudes)


class Minimum(_Extreme, frozen=True, kw_only=True, tag="minimum"):
    """The smallest of the operands."""

    def first(self, reals: Floats) -> Ints:
        return np.asarray(reals.argmin(axis=0))


class Maximum(_Extreme, frozen=True, kw_only=True, tag="maximum"):
    """The largest of the operands."""

    def first(self, reals: Floats) -> Ints:
        return np.asarray(reals.argmax(axis=0))


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

        def choice(end: int) -> Ints:
            # Where the condition is uncertain, either is taken: the smaller lower and the larger upper bound.
            a, b = (o.centered()[end] * o.float_scale for o in values)
            return np.where(surely | (maybe & ((a >= b) if end else (a <= b))), 0, 1)

        def magnitude(both: Sequence[Floats]) -> Floats:
            return np.where(surely, both[0], np.where(maybe, np.maximum(*both), both[1]))

        shape = broadcast_shape([o.type for o in operands])
        return _selected(values, choice, magnitude, shape, element, is_point=all(o.is_point for o in operands))


def _selected(
    operands: Sequence[Operand],
    choice: Callable[[int], Ints],
    affine: Callable[[Sequence[Floats]], Floats],
    shape: tuple[int, ...],
    element: Element,
    *,
    is_point: bool,
) -> Image:
    """The image of one operand of several per element.

    Roundings keep the order of real numbers, so that a kernel's result is off by roundings of the operand it takes.

    Parameters
    ----------
    choice
        Which operand gives the lower (0) or the upper bound (1).
    affine
        What the operands' affine magnitudes come to.
    """
    m = [Multiplier.quotient(o.float_scale, float_scale(element)) for o in operands]
    integers = all(o.are_integers for o in operands)

    def terms(end: int) -> list[Term]:
        taken = np.broadcast_to(choice(end), shape)
        return [
            Term(np.where(taken == i, o.centered()[end], 0.0), k, are_integers=integers)
            for i, (o, k) in enumerate(zip(operands, m, strict=True))
        ]

    lower = terms(0)
    upper = None if is_point else terms(1)

    def real() -> Floats:
        ends = [[np.abs(t.values) * t.multiplier.approx for t in end] for end in (lower, upper or lower)]
        return np.maximum(*(functools.reduce(np.add, end) for end in ends))

    return linear_image(
        lower,
        upper,
        shape,
        element,
        accumulator=real,
        real=real,
        affine=lambda: affine([o.affine_magnitude() * k.approx for o, k in zip(operands, m, strict=True)]),
    )
