"""linear_fp16: a layer on reals whose float32 weight is kept as float16.

Semantics: `torch.ao.nn.quantized.dynamic.Linear` of dtype float16, ``quantized::linear_dynamic_fp16``: the weight is
rounded to float16, and "if it is out of range, then the number will be saturated to max or min representable values by
FP16" (aten/src/ATen/native/quantized/cpu/QuantUtils.h); the rest is `torch.nn.functional.linear` of float32.
Results are defined where sums of magnitudes stay within float32.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import array_lsb
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.contraction import linear_shape
from qfuzz.ops.semantics import ExactOperator, Image, Operand
from qfuzz.ops.weight_only import WeightOnlyImage, largest_magnitude, real_product, smallest_place

FLOAT16_MAX = 65504.0


class LinearFp16(ExactOperator, frozen=True, kw_only=True, tag="linear_fp16"):
    """`x` [..., K] times a `weight` [M, K], rounded to float16, transposed, plus `bias` [M]; all float32.

    Attributes
    ----------
    relu
        Negative results become 0.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        if {element, *(t.element for t in inputs)} != {"float32"}:
            raise InvalidCase(f"x, weight, output: {x.dtype}, {weight.dtype}, {element}; linear_fp16 has float32 only")
        shape = linear_shape(x, weight, self.name)
        if len(inputs) == 3 and inputs[2].shape != weight.shape[:1]:
            raise InvalidCase(f"bias: shape {inputs[2].shape}; needs {weight.shape[:1]}")
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weights = operands[0], as_float16(operands[1].lo)
        bias = operands[2].lo if len(operands) == 3 else np.zeros(weights.shape[0])

        def real() -> Floats:
            return np.asarray(largest_magnitude(x) @ np.abs(weights).T + np.abs(bias))

        def float32_exact(_: bool, __: bool) -> npt.NDArray[np.bool_]:
            place = smallest_place(x, weights, bias)
            short = float(np.abs(weights).max(initial=0.0)) < 2.0**24 * array_lsb(weights)
            return np.asarray(real() < 2.0**24 * place) & (short and place >= 2.0**-149)

        def nothing(_: int) -> tuple[Floats, Floats]:
            raise AssertionError("activations are float32, whatever the weight is")

        lower = real_product(x, weights, bias, real(), upper=False)
        upper = lower if x.is_point else real_product(x, weights, bias, real(), upper=True)
        n_summed = weights.shape[1] + (len(operands) == 3)
        image = WeightOnlyImage(lower, upper, real, lambda _: real(), n_summed, float32_exact, nothing)
        if not self.relu:
            return image
        low = lower.clip(Fraction(0), None)
        return replace(image, lower=low, upper=low if x.is_point else upper.clip(Fraction(0), None))


def as_float16(weight: Floats) -> Floats:
    """The nearest float16 numbers, ties to even; beyond the largest, that."""
    return np.clip(weight, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float32).astype(np.float16).astype(np.float64)
