"""masked_fill, index_put, constant_pad: some elements are a real number, the others what they were.

Semantics: `torch.Tensor.masked_fill`, `torch.Tensor.index_put` of one number, `torch.nn.functional.pad` with mode
``constant``. The number is quantized as the output is.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import TensorType, check_shape
from qfuzz.ops.elementwise import broadcast_shape
from qfuzz.ops.movement import Pad
from qfuzz.ops.rearrangement import check_indices
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    check_rescaling,
    float_scale,
    linear_image,
    output_scale,
)

Mask = npt.NDArray[np.bool_]


class _Filled(ExactOperator, frozen=True, kw_only=True):
    """An operator whose output elements are an input's, or `value`, a float32."""

    value: float = 0.0

    def shape_of(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        """The output's shape."""
        raise NotImplementedError

    def filled(self, operands: Sequence[Operand]) -> tuple[Mask, Mask]:
        """Which output elements surely are `value`, and which can be; one object where that is the same."""
        raise NotImplementedError

    def placed(self, a: Floats, operands: Sequence[Operand]) -> Floats:
        """The elements `a` of the input where they stand in the output; anything where it is filled."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_rescaling(inputs[0], element)
        if not abs(self.value) < np.inf or float32(self.value) != self.value:
            raise InvalidCase(f"value: {self.value!r}; needs a finite float32")
        if self.value:
            check_multipliers([abs(self.value)], element, "value")
        shape = self.shape_of(inputs)
        check_shape(shape)
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x = operands[0]
        shape = self.shape_of([o.type for o in operands])
        surely, maybe = (np.broadcast_to(m, shape) for m in self.filled(operands))
        own = Multiplier.quotient(x.float_scale, float_scale(element))
        fill = Multiplier.of(Fraction(self.value) / output_scale(element))

        def terms(end: int) -> list[Term]:
            a = self.placed(x.centered()[end], operands)
            real = a * x.float_scale
            filled = surely | (maybe & ((self.value >= real) if end else (self.value <= real)))
            return [
                Term(np.where(filled, 0.0, a), own, are_integers=x.are_integers),
                Term(np.where(filled, 1.0, 0.0), fill),
            ]

        def magnitude(a: Floats) -> Floats:
            kept, put = self.placed(a, operands) * own.approx, np.abs(fill.approx)
            return np.where(surely, put, np.where(maybe, np.maximum(kept, put), kept))

        return linear_image(
            terms(0),
            None if all(o.is_point for o in operands) else terms(1),
            shape,
            element,
            accumulator=lambda: magnitude(x.magnitude()),
            real=lambda: magnitude(x.magnitude()),
            affine=lambda: magnitude(x.affine_magnitude()),
        )


class MaskedFill(_Filled, frozen=True, kw_only=True, tag="masked_fill"):
    """`value` where the second input, the mask, is true. Both broadcast; the mask is an input or a constant."""

    arity: ClassVar[tuple[int, int]] = (2, 2)
    free_inputs: ClassVar[tuple[int, ...]] = (1,)

    def shape_of(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        if inputs[1].element != "bool":
            raise InvalidCase(f"mask: needs bool elements, got {inputs[1].dtype}")
        return broadcast_shape(inputs)

    def filled(self, operands: Sequence[Operand]) -> tuple[Mask, Mask]:
        return operands[1].lo != 0, operands[1].hi != 0

    def placed(self, a: Floats, operands: Sequence[Operand]) -> Floats:
        return np.broadcast_to(a, broadcast_shape([o.type for o in operands]))


class IndexPut(_Filled, frozen=True, kw_only=True, tag="index_put"):
    """`value` in the whole of the entries `indices` of the first dimension; negative ones count from the back."""

    indices: tuple[int, ...]

    def shape_of(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        (x,) = inputs
        if not x.shape:
            raise InvalidCase("x: a scalar has no dimension whose entries could be set")
        check_indices(self.indices, 0, x.shape)
        return x.shape

    def filled(self, operands: Sequence[Operand]) -> tuple[Mask, Mask]:
        mask = np.zeros(operands[0].type.shape, dtype=bool)
        mask[list(self.indices)] = True
        return mask, mask

    def placed(self, a: Floats, operands: Sequence[Operand]) -> Floats:
        return a


class ConstantPad(_Filled, frozen=True, kw_only=True, tag="constant_pad"):
    """`value` around: before each dimension, then after each."""

    padding: tuple[int, ...]

    def shape_of(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return Pad(padding=self.padding).shape_of(inputs[0].shape)

    def filled(self, operands: Sequence[Operand]) -> tuple[Mask, Mask]:
        outside = Pad(padding=self.padding).move(np.ones(operands[0].type.shape), 0.0) == 0
        return outside, outside

    def placed(self, a: Floats, operands: Sequence[Operand]) -> Floats:
        return Pad(padding=self.padding).move(a, 0.0)
