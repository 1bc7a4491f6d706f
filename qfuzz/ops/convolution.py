"""conv: 1-d and 2-d cross-correlation with groups, strides, dilation, asymmetric padding, bias and fused relu.

Semantics: ONNX Conv, and QLinearConv for its quantized form (onnx/docs/Operators.md), `torch.nn.functional.conv2d`.
Padding adds real zeros, that is, the input's zero point.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import check_bias, check_weight, contraction_image, require_int32
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_per_dimension,
    check_windows,
    per_tensor,
    quantized_output,
)
from qfuzz.ops.sliding import columns, padded


class Conv(ExactOperator, frozen=True, kw_only=True, tag="conv"):
    """Cross-correlation of `x` [N, C, *spatial] with `weight` [M, C/groups, *kernel], plus `bias` [M].

    Attributes
    ----------
    strides, dilations
        One per spatial dimension.
    padding
        Zeros before each spatial dimension, then after each: ``(top, left, bottom, right)``.
    groups
        Divides C and M.
    relu
        Negative results become 0 before quantization.
    """

    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1
    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        spatial = len(x.shape) - 2
        per_tensor(x, "x")
        if spatial not in (1, 2):
            raise InvalidCase(f"x: shape {x.shape}; conv is 1-d or 2-d, on [N, C, L] or [N, C, H, W]")
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
        quantized_output(element)
        check_weight(x, weight, element)
        check_bias(inputs, filters)
        return (x.shape[0], filters, *out)

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        weight = operands[1]
        kernel = weight.type.shape[2:]
        n_out = self.infer([o.type for o in operands], element)

        def multiply(a: Floats, w: Floats) -> Floats:
            return _correlate(a, w, self, kernel, n_out)

        return contraction_image(
            operands,
            element,
            multiply,
            n_out,
            channel_axis=1,
            n_summed=math.prod(weight.type.shape[1:]),
            relu=self.relu,
        )


def _correlate(a: Floats, w: Floats, op: Conv, kernel: tuple[int, ...], n_out: tuple[int, ...]) -> Floats:
    """Exact cross-correlation of centered values (padding is 0): float64 while magnitudes stay below 2^53."""
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
