"""conv, conv_integer: cross-correlation with groups, strides, dilation and asymmetric padding; bias and fused relu.

Semantics: ONNX Conv, QLinearConv for its quantized form and ConvInteger for its sums alone (onnx/docs/Operators.md),
`torch.nn.functional.conv2d`.
Padding adds real zeros, that is, the input's zero point.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import (
    Multiply,
    accumulator_image,
    accumulators,
    check_accumulators,
    check_activation,
    check_bias,
    check_integers,
    check_weight,
    contraction_image,
    require_int32,
)
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_per_dimension,
    check_windows,
)
from qfuzz.ops.sliding import columns, padded


class Correlation(ExactOperator, frozen=True, kw_only=True):
    """Cross-correlation of `x` [N, C, *spatial] with a constant `weight` [M, C/groups, *kernel].

    Attributes
    ----------
    strides, dilations
        One per spatial dimension.
    padding
        Zeros before each spatial dimension, then after each: ``(top, left, bottom, right)``.
    groups
        Divides C and M.
    """

    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    def output_shape(self, x: TensorType, weight: TensorType) -> tuple[int, ...]:
        """Shape of the output; raises `InvalidCase` where a window is wrong."""
        spatial = len(x.shape) - 2
        if spatial not in (1, 2, 3):
            raise InvalidCase(
                f"x: shape {x.shape}; {self.name} is 1-d, 2-d or 3-d, on [N, C, L], [N, C, H, W] or [N, C, D, H, W]"
            )
        if len(weight.shape) != len(x.shape):
            raise InvalidCase(f"weight: shape {weight.shape}; needs rank {len(x.shape)} as x has")
        for attribute, value, length in (
            ("strides", self.strides, spatial),
            ("dilations", self.dilations, spatial),
            ("padding", self.padding, 2 * spatial),
        ):
            check_per_dimension(attribute, value, length, 0 if attribute == "padding" else 1)
        channels, filters = x.shape[1], weight.shape[0]
        if self.groups < 1 or channels % self.groups or filters % self.groups:
            raise InvalidCase(f"groups: {self.groups}; it divides {channels} channels and {filters} filters")
        if channels < 1 or filters < 1 or weight.shape[1] != channels // self.groups:
            raise InvalidCase(
                f"weight: shape {weight.shape}; dimension 1 is channels/groups = {channels // self.groups}"
            )
        out = []
        for i in range(spatial):
            kernel = weight.shape[2 + i]
            if kernel < 1:
                raise InvalidCase(f"weight: kernel {weight.shape[2:]}; at least 1")
            padded = x.shape[2 + i] + self.padding[i] + self.padding[spatial + i]
            reach = self.dilations[i] * (kernel - 1) + 1
            if x.shape[2 + i] < 1 or reach > padded:
                raise InvalidCase(f"weight: dilated kernel {reach} is larger than the padded input {padded}")
            out.append((padded - reach) // self.strides[i] + 1)
        check_windows(x.shape, weight.shape[2:], self.padding, tuple(out))
        return (x.shape[0], filters, *out)

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs, gives_sums=bool(self.plain_outputs))

    def multiply(self, x: TensorType, weight: TensorType) -> Multiply:
        """The correlation of two centered arrays of these types."""
        kernel, n_out = weight.shape[2:], self.output_shape(x, weight)
        return lambda a, w: _correlate(a, w, self, kernel, n_out)


class Conv(Correlation, frozen=True, kw_only=True, tag="conv"):
    """Cross-correlation of `x` [N, C, *spatial] with `weight` [M, C/groups, *kernel], plus `bias` [M].

    `x` is quantized, or float32: then the output may be so, too.

    Attributes
    ----------
    strides, padding, dilations, groups
        As in every correlation.
    relu
        Negative results become 0 before quantization.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        check_activation(x, element)
        shape = self.output_shape(x, weight)
        check_weight(x, weight, element)
        check_bias(inputs, weight.shape[0], element)
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        return contraction_image(
            operands,
            element,
            self.multiply(x, weight),
            self.output_shape(x, weight),
            channel_axis=1,
            n_summed=math.prod(weight.shape[1:]),
            relu=self.relu,
        )


class ConvInteger(Correlation, frozen=True, kw_only=True, tag="conv_integer"):
    """The correlation of ``x - zero_point_x`` with ``weight - zero_point_w`` as plain int32: ONNX ConvInteger.

    "The production MUST never overflow. The accumulation may overflow if and only if in 32 bits": what could overflow
    is no valid network here. Scales have no part in it; the weight has one zero point, or one for each of M channels.

    Attributes
    ----------
    strides, padding, dilations, groups
        As in every correlation.
    omits_zeros
        Zero points that are 0 are left out where the network is said, as ONNX allows.
    """

    omits_zeros: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)
    constant_inputs: ClassVar[tuple[int, ...]] = (1,)
    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("int32",)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs
        check_accumulators(element, inputs)
        check_integers(x, weight)
        return self.output_shape(x, weight)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands
        multiply = self.multiply(x.type, weight.type)
        lower, upper = accumulators(x, weight, multiply)
        return accumulator_image(lower, upper, x, weight, multiply)


def _correlate(a: Floats, w: Floats, op: Correlation, kernel: tuple[int, ...], n_out: tuple[int, ...]) -> Floats:
    """Cross-correlation of centered values (padding is 0), exact in float64 while magnitudes stay below 2^53."""
    spatial = len(kernel)
    a = padded(a, op.padding[:spatial], op.padding[spatial:])
    taken = columns(a, op.groups, kernel, op.strides, op.dilations, n_out[2:])
    filters = w.reshape(op.groups, w.shape[0] // op.groups, taken.shape[1])
    acc = np.matmul(filters, taken).reshape(w.shape[0], n_out[0], math.prod(n_out[2:]))
    return np.ascontiguousarray(acc.transpose(1, 0, 2)).reshape(n_out)


def unit_conv(spatial: int, **attributes: object) -> Conv:
    """A convolution with default attributes for `spatial` dimensions."""
    defaults: dict[str, object] = {
        "strides": (1,) * spatial,
        "padding": (0,) * (2 * spatial),
        "dilations": (1,) * spatial,
    }
    return Conv(**(defaults | attributes))  # type: ignore[arg-type]
