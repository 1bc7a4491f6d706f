"""linear_pointwise, conv_pointwise, linear_add, conv_add: a layer with what follows it, rounded once at the end.

Semantics: `onednn::qlinear_pointwise` and `onednn::qconv_pointwise`, to which exported graphs are lowered: "y =
post_op(x * w + bias)", the post operation being `torch.nn.functional`'s relu, leaky_relu, tanh, gelu, hardtanh,
hardswish or silu ("swish") of the layer's real result; `quantized::linear_leaky_relu`, `quantized::linear_tanh`,
`quantized::conv2d_add` and their kin; the binary forms add another activation to the layer's result.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import (
    Multiply,
    RealBounds,
    check_bias,
    check_finite,
    check_weight,
    contraction_image,
    linear_shape,
    require_int32,
    rows_times,
)
from qfuzz.ops.convolution import Correlation
from qfuzz.ops.post_operation import Activation, PostOperation, PostOperationImage
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    check_narrow,
    output_scale,
    per_tensor,
    quantized_output,
)

_T = TypeVar("_T")


def _check_layer(inputs: Sequence[TensorType], element: Element, channels: int, n_summed: int) -> None:
    """Raise `InvalidCase` unless the types of `x`, `weight` and `bias` are a layer's, and the output may be so."""
    x, weight = inputs[0], inputs[1]
    per_tensor(x, "x")
    if element in ("float32", "bfloat16"):
        check_finite(x.qtype, weight.qtype, n_summed)
    else:
        quantized_output(element)
    check_weight(x, weight, element)
    check_bias(inputs, channels, element)


def _check_addend(addend: TensorType, shape: tuple[int, ...], element: Element) -> None:
    """Raise `InvalidCase` unless `addend` is what a layer of that output adds."""
    if addend.shape != shape:
        raise InvalidCase(f"other: shape {addend.shape}; what is added has the layer's own, {shape}")
    check_narrow([addend], element)
    if addend.element != "float32":
        check_multipliers(per_tensor(addend, "other").scale, element, "other")


def _followed(
    post: PostOperation, layer: Sequence[Operand], element: Element, multiply: Multiply, shape: tuple[int, ...],
    channel_axis: int, n_summed: int,
) -> Image:  # fmt: skip
    """The image of a post operation of a layer's real result."""
    bounds = post.bounds()
    if bounds is not None:
        scale_y = output_scale(element)
        in_units: RealBounds = tuple(b if b is None else b / scale_y for b in bounds)  # type: ignore[assignment]
        return contraction_image(
            layer, element, multiply, shape, channel_axis=channel_axis, n_summed=n_summed, bounds=in_units
        )
    inner = contraction_image(layer, "float32", multiply, shape, channel_axis=channel_axis, n_summed=n_summed)
    return PostOperationImage.of(inner, post, element)


class LinearPointwise(ExactOperator, frozen=True, kw_only=True, tag="linear_pointwise"):
    """`activation` of ``x * weight^T + bias``, of `x` [..., K], `weight` [M, K] and `bias` [M].

    Attributes
    ----------
    activation
        What becomes of the real result; ``none`` leaves it.
    negative_slope
        Of leaky_relu.
    min, max
        Of hardtanh.
    """

    activation: Activation = "none"
    negative_slope: float = 0.5
    min: float = 0.0
    max: float = 6.0

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    @property
    def post(self) -> PostOperation:
        """What becomes of the layer's result."""
        return PostOperation(self.activation, self.negative_slope, self.min, self.max)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = linear_shape(inputs[0], inputs[1])
        _check_layer(inputs, element, shape[-1], inputs[1].shape[1])
        self.post.check(element)
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        shape = linear_shape(x, weight)
        return _followed(self.post, operands, element, rows_times, shape, len(shape) - 1, weight.shape[1])


class ConvPointwise(Correlation, frozen=True, kw_only=True, tag="conv_pointwise"):
    """`activation` of the cross-correlation of `x` [N, C, *spatial] with `weight` [M, C/groups, *kernel], plus `bias`.

    Attributes
    ----------
    strides, padding, dilations, groups
        As in every correlation.
    activation, negative_slope, min, max
        As in linear_pointwise.
    """

    activation: Activation = "none"
    negative_slope: float = 0.5
    min: float = 0.0
    max: float = 6.0

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    @property
    def post(self) -> PostOperation:
        """What becomes of the layer's result."""
        return PostOperation(self.activation, self.negative_slope, self.min, self.max)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        shape = self.output_shape(x, weight)
        _check_layer(inputs, element, weight.shape[0], math.prod(weight.shape[1:]))
        self.post.check(element)
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        shape = self.output_shape(x, weight)
        return _followed(self.post, operands, element, self.multiply(x, weight), shape, 1, math.prod(weight.shape[1:]))


class LinearAdd(ExactOperator, frozen=True, kw_only=True, tag="linear_add"):
    """``x * weight^T + bias + other``: `x` [..., K], `weight` [M, K], `other` [..., M], `bias` [M] in this order.

    `other` is another activation, or float32.

    Attributes
    ----------
    relu
        Negative results become 0 before quantization.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (3, 4)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 3)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = linear_shape(inputs[0], inputs[1])
        _check_layer(_layer(inputs), element, shape[-1], inputs[1].shape[1])
        _check_addend(inputs[2], shape, element)
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(_layer_constants(constants), _layer(inputs))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        shape = linear_shape(x, weight)
        return contraction_image(
            _layer(operands), element, rows_times, shape, channel_axis=len(shape) - 1, n_summed=weight.shape[1],
            relu=self.relu, addend=operands[2],
        )  # fmt: skip


class ConvAdd(Correlation, frozen=True, kw_only=True, tag="conv_add"):
    """A cross-correlation plus `other`: `x` [N, C, *spatial], `weight` [M, C/groups, *kernel], `other`, `bias` [M].

    `other` is another activation, or float32, of the output's shape.

    Attributes
    ----------
    strides, padding, dilations, groups
        As in every correlation.
    relu
        Negative results become 0 before quantization.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (3, 4)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 3)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        shape = self.output_shape(x, weight)
        _check_layer(_layer(inputs), element, weight.shape[0], math.prod(weight.shape[1:]))
        _check_addend(inputs[2], shape, element)
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(_layer_constants(constants), _layer(inputs))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0].type, operands[1].type
        return contraction_image(
            _layer(operands), element, self.multiply(x, weight), self.output_shape(x, weight), channel_axis=1,
            n_summed=math.prod(weight.shape[1:]), relu=self.relu, addend=operands[2],
        )  # fmt: skip


def _layer(inputs: Sequence[_T]) -> list[_T]:
    """x, weight and bias of what reads x, weight, other and bias."""
    return [*inputs[:2], *inputs[3:]]


def _layer_constants(constants: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
    return {1: constants[1], **({2: constants[3]} if 3 in constants else {})}
