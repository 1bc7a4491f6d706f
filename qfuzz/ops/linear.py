"""linear: the product of activations with a constant weight matrix, with bias and fused relu.

Semantics: `torch.nn.functional.linear`; ONNX Gemm with transB = 1, "Y = alpha * A' * B' + beta * C", and com.microsoft
QGemm for its quantized form, whose int32 C has scale alpha / beta * a_scale * b_scale. An output of float32 elements is
the real number itself: com.microsoft MatMulIntegerToFloat, and QGemm without an output scale.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import (
    Factors,
    check_bias,
    check_finite,
    check_normal,
    check_weight,
    contraction_image,
    linear_shape,
    require_int32,
    rows_times,
)
from qfuzz.ops.rounded_activations import rounded_product
from qfuzz.ops.semantics import ExactOperator, Image, Operand, float_scale, per_tensor, quantized_output


class Linear(ExactOperator, frozen=True, kw_only=True, tag="linear"):
    """``alpha * (x * weight^T) + beta * bias`` of `x` [..., K], `weight` [M, K] and `bias` [M].

    A plain int32 bias counts units of scale_x * scale_w, whatever the factors.

    Where activations are no bytes, but weights have 8 bits at most, MatMul may be computed as MatMulNBits, and that as
    with activations of int8: a contract says whether they may be.

    Attributes
    ----------
    alpha, beta
        float32; 1 everywhere but in ONNX Gemm.
    relu
        Negative results become 0, before quantization where there is one.
    """

    relu: bool = False
    alpha: float = 1.0
    beta: float = 1.0

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        per_tensor(x, "x")
        shape = linear_shape(x, weight)
        for name, factor in (("alpha", self.alpha), ("beta", self.beta)):
            if not math.isfinite(factor) or float32(factor) != factor:
                raise InvalidCase(f"{name}: {factor!r}; needs a float32 number")
        if element == "float32":
            check_finite(x.qtype, weight.qtype, x.shape[-1])
        else:
            quantized_output(element)
        # Kernels multiply by the factors early or late: what they have before it must be a normal float32, too.
        check_weight(x, weight, element)
        if self.alpha != 1.0:
            check_weight(x, weight, element, factor=self.alpha)
            check_normal(abs(self.alpha) * x.qtype.scale[0], "alpha * scale_x")
        if self.beta not in (0.0, 1.0) and len(inputs) > 2:
            check_weight(x, weight, element, factor=self.beta)
        check_bias(inputs, weight.shape[0], element, beta=self.beta)
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs)
        if self.beta != 1.0 and 2 in constants and constants[2].dtype == "float32":
            largest = float(np.abs(constants[2].array).max(initial=0.0)) * abs(self.beta)
            if largest > FLOAT32_MAX:
                raise InvalidCase(f"beta: {self.beta!r} times a bias is {largest!r}; float32 ends at {FLOAT32_MAX!r}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0], operands[1]
        shape = (*x.type.shape[:-1], weight.type.shape[0])
        image = contraction_image(
            operands,
            element,
            rows_times,
            shape,
            channel_axis=len(shape) - 1,
            n_summed=weight.type.shape[1],
            relu=self.relu,
            factors=Factors(self.alpha, self.beta),
        )
        if len(shape) == 2:
            return image  # Gemm, of which there is no kernel that rounds activations
        to_output = abs(self.alpha) * x.float_scale / float_scale(element)

        def rounded(block: int) -> tuple[Floats, Floats]:
            moved, summed = rounded_product(x.magnitude(), weight, block, summed=1)
            return moved * to_output, summed * to_output

        return replace(image, rounded=rounded)
