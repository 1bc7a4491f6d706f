"""dynamic_conv, dynamic_conv_transpose: convolutions of float32 data that are quantized as they come.

Semantics: what `quantize_dynamic` of ONNX Runtime writes, DynamicQuantizeLinear, ConvInteger and their scales; and
`torch.ao.nn.quantized.dynamic.Conv2d`, ConvTranspose2d and their kin: "a dynamically quantized conv module with
floating point tensors as inputs and outputs". Padding adds real zeros.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import Multiply, channel_magnitudes
from qfuzz.ops.conv_transpose import ConvTranspose, scattered
from qfuzz.ops.convolution import Conv
from qfuzz.ops.dynamic import DynamicLayer, ProductSteps, check_sums
from qfuzz.ops.semantics import Image, Operand


class _DynamicConvolution(DynamicLayer, frozen=True, kw_only=True):
    """A convolution of `x` [N, C, *spatial], float32, with a stored weight, plus a float32 `bias` [M]; float32.

    Attributes
    ----------
    strides, dilations, padding, groups
        As in conv.
    """

    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    weight_axis: ClassVar[int] = 0

    @property
    @abstractmethod
    def plain(self) -> Conv | ConvTranspose:
        """The convolution itself."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        self.check_data(inputs[0])
        shape = self.plain.infer(inputs, element)
        self.check_layer(inputs, element, shape[1], axis=self.weight_axis)
        return shape


class DynamicConv(_DynamicConvolution, frozen=True, kw_only=True, tag="dynamic_conv"):
    """Cross-correlation of `x` with `weight` [M, C/groups, *kernel].

    Attributes
    ----------
    strides, padding, dilations, groups
        As in conv.
    chosen_as, reduce_range
        As in dynamic_linear.
    """

    @property
    def plain(self) -> Conv:
        """The same of quantized data."""
        return Conv(strides=self.strides, padding=self.padding, dilations=self.dilations, groups=self.groups)

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        check_sums(channel_magnitudes(constants, inputs))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        n_summed = math.prod(weight.shape[1:])
        spatial = (1,) * len(self.strides)
        multiply = self.plain.multiply(x, weight)
        return ProductSteps(self.quantization(operands[0]), operands, multiply, (weight.shape[0], *spatial), n_summed)


class DynamicConvTranspose(_DynamicConvolution, frozen=True, kw_only=True, tag="dynamic_conv_transpose"):
    """Transposed convolution of `x` with `weight` [C, M/groups, *kernel].

    Attributes
    ----------
    strides, padding, dilations, groups, output_padding
        As in conv_transpose.
    chosen_as, reduce_range
        As in dynamic_linear.
    """

    output_padding: tuple[int, ...]

    weight_axis: ClassVar[int] = 1

    @property
    def plain(self) -> ConvTranspose:
        """The same of quantized data."""
        return ConvTranspose(
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilations,
            output_padding=self.output_padding,
            groups=self.groups,
        )

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        check_sums(self.plain.channel_magnitudes(constants[1], inputs[1].qtype))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        plain, weight = self.plain, operands[1].type
        shape = plain.infer([o.type for o in operands], element)
        multiply: Multiply = lambda a, w: scattered(a, w, plain, shape)  # noqa: E731
        n_summed = weight.shape[0] // self.groups * math.prod(weight.shape[2:])
        channel_shape = (shape[1], *(1 for _ in self.strides))
        return ProductSteps(
            self.quantization(operands[0]),
            operands,
            multiply,
            channel_shape,
            n_summed,
            scales=plain.channel_scales(weight),
        )
