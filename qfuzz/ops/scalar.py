"""add_scalar, mul_scalar: a number added to, or multiplied with, each element.

Semantics: `torch.ops.quantized.add_scalar` and `mul_scalar`, with a fused relu. Their kernels do not ask for the
output's type, but derive it from the input's (`derived`), as comments in aten's quantized/cpu/BinaryOps.cpp
(_add_scalar_out) and qmul.cpp (_mul_scalar_out) lay down; here any type may be asked for. What is added is the nearest
multiple of x's scale, ties to even: "c_q = round(c/s)".
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import check_float32
from qfuzz.ops.semantics import Image, Operand, check_multipliers, linear_image, output_scale, per_tensor
from qfuzz.ops.table import UnaryOperator

MAX_STEPS = 2**20
"""No more multiples of the scale are added: quotients in float64 are rounded as exact ones are up to there."""


class Derived(NamedTuple):
    """A type that follows from another: its scale is a float64."""

    scale: float
    zero_point: int

    def qtype(self, q: QType) -> QType:
        """As the type of a value, whose scale is the nearest float32."""
        return QType.per_tensor(q.dtype, float32(self.scale), self.zero_point)


class _Scalar(UnaryOperator, frozen=True, kw_only=True):
    """Attributes: the number, a float32, and whether negative results are made 0."""

    other: float
    relu: bool = False

    def derived(self, q: QType) -> Derived:
        """The output's type in PyTorch, for an input of type `q`."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[Fraction | None, Fraction | None]:
        """What the result is clipped to, in output units."""
        return (Fraction(0), None) if self.relu else (None, None)


class AddScalar(_Scalar, frozen=True, kw_only=True, tag="add_scalar"):
    """x plus the multiple of its scale that is nearest to `other`."""

    def steps(self, q: QType) -> int:
        """How many scales are added."""
        return round(Fraction(self.other) / q.exact_scale[0])

    def derived(self, q: QType) -> Derived:
        """The input's type with another zero point; where that is beyond the range, all integers for wider reals."""
        shifted = q.zero_point[0] - self.steps(q)
        if shifted < q.qmin:
            return Derived((q.qmax - shifted) / (q.qmax - q.qmin) * q.scale[0], q.qmin)
        if shifted > q.qmax:
            return Derived((shifted - q.qmin) / (q.qmax - q.qmin) * q.scale[0], q.qmax)
        return Derived(q.scale[0], shifted)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = super().infer(inputs, element)
        check_float32("other", self.other)
        q = per_tensor(inputs[0], "x")
        if abs(self.other) > MAX_STEPS * q.scale[0]:
            raise InvalidCase(f"other: {self.other!r}; at most {MAX_STEPS} times the scale of x, {q.scale[0]!r}")
        return shape

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        steps = self.steps(x.type.qtype)
        m = Multiplier.quotient(x.float_scale, float(output_scale(element)))

        def real() -> Floats:
            return np.abs(n + steps) * m.approx

        return linear_image(
            [Term(n + steps, m, are_integers=True)],
            None,
            x.type.shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: (x.affine_magnitude() + abs(steps)) * m.approx,
            bounds=self.bounds,
        )


class MulScalar(_Scalar, frozen=True, kw_only=True, tag="mul_scalar"):
    """x times `other`."""

    def derived(self, q: QType) -> Derived:
        """The input's scale times the number; mirrored where that is negative."""
        if self.other == 0:
            return Derived(1.0, 0)
        scale = abs(self.other) * q.scale[0]
        return Derived(scale, q.zero_point[0] if self.other > 0 else q.qmax + q.qmin - q.zero_point[0])

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = super().infer(inputs, element)
        check_float32("other", self.other)
        if self.other:
            factor = abs(self.other)
            check_multipliers([factor, factor * per_tensor(inputs[0], "x").scale[0]], element, "other")
        return shape

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        factor = Fraction(self.other) * x.scale / output_scale(element)
        m = Multiplier.of(abs(factor))

        def real() -> Floats:
            return np.abs(n) * m.approx

        return linear_image(
            [Term(n * math.copysign(1.0, factor) if factor else np.zeros_like(n), m, are_integers=True)],
            None,
            x.type.shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: x.affine_magnitude() * m.approx,
            bounds=self.bounds,
        )
