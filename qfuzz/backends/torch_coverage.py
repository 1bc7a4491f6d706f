"""Operators of PyTorch that are covered, and by which of qfuzz: one literal table, an entry a line, sorted.

Every claim is proven by tests: drawn cases of the operators named are lowered and executed, and torch's profiler
records that the lowering's calls dispatch to the operator, directly or as a part of what torch composes of others.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Covered(NamedTuple):
    """Operators of qfuzz whose lowering calls an operator of torch.

    Attributes
    ----------
    eager
        In the dialect of quantized tensors, on an engine at least.
    export
        In the dialect of plain integers, scales and zero points.
    every
        Whether every quantized value of the eager dialect is made or read with it.
    """

    eager: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    every: bool = False

    @property
    def operators(self) -> tuple[str, ...]:
        """All that are named, once each."""
        return tuple(dict.fromkeys((*self.eager, *self.export)))


def _eager(*operators: str) -> Covered:
    return Covered(eager=operators)


def _export(*operators: str) -> Covered:
    return Covered(export=operators)


_EVERY = Covered(every=True)

COVERED: Mapping[str, Covered] = MappingProxyType(
    {
        "aten::_adaptive_avg_pool2d": _eager("global_avg_pool"),
        "aten::_int_mm": _export("matmul_integer", "linear_integer"),
        "aten::_make_per_channel_quantized_tensor": _eager("conv", "linear"),
        "aten::_make_per_tensor_quantized_tensor": _EVERY,
        "aten::_weight_int8pack_mm": _export("weight_only_linear"),
        "aten::as_strided": _eager("transpose"),
        "aten::avg_pool2d": _eager("avg_pool"),
        "aten::clamp": _eager("clamp"),
        "aten::clone": _eager("conv", "concat", "transpose", "pad"),
        "aten::dequantize.self": _eager("dequantize"),
        "aten::fill_.Scalar": _eager("pad"),
        "aten::hardsigmoid": _eager("hardsigmoid"),
        "aten::int_repr": _EVERY,
        "aten::q_scale": _EVERY,
        "aten::q_zero_point": _EVERY,
        "aten::quantize_per_tensor": _eager("quantize"),
        "aten::relu": _eager("relu"),
        "aten::squeeze.dim": _eager("avg_pool", "global_avg_pool"),
        "aten::tanh": _eager("tanh"),
        "aten::unsqueeze": _eager("avg_pool", "global_avg_pool"),
        "aten::view": _eager("reshape", "flatten"),
        "onednn::qadd.tensor": _export("add"),
        "onednn::qadd_relu.tensor": _export("add"),
        "onednn::qconv1d_pointwise": _export("conv_pointwise"),
        "onednn::qconv2d_pointwise": _export("conv_pointwise"),
        "onednn::qconv2d_pointwise.binary": _export("conv_add"),
        "onednn::qconv3d_pointwise": _export("conv_pointwise"),
        "onednn::qconv_pointwise": _export("conv"),
        "onednn::qconv_prepack": _export("conv", "conv_pointwise", "conv_add"),
        "onednn::qlinear_pointwise": _export("linear", "linear_pointwise"),
        "onednn::qlinear_pointwise.binary": _export("linear_add"),
        "onednn::qlinear_prepack": _export("linear", "linear_pointwise", "linear_add"),
        "onednn::qmul.tensor": _export("mul"),
        "quantized::add": _eager("add"),
        "quantized::add_relu": _eager("add"),
        "quantized::cat": _eager("concat"),
        "quantized::conv1d": _eager("conv"),
        "quantized::conv1d_prepack": _eager("conv"),
        "quantized::conv1d_relu": _eager("conv"),
        "quantized::conv2d.new": _eager("conv"),
        "quantized::conv2d_prepack": _eager("conv"),
        "quantized::conv2d_relu.new": _eager("conv"),
        "quantized::elu": _eager("elu"),
        "quantized::hardswish": _eager("hardswish"),
        "quantized::leaky_relu": _eager("leaky_relu"),
        "quantized::linear": _eager("linear"),
        "quantized::linear_prepack": _eager("linear"),
        "quantized::linear_relu": _eager("linear"),
        "quantized::max_pool1d": _eager("max_pool"),
        "quantized::max_pool2d": _eager("max_pool"),
        "quantized::mul": _eager("mul"),
        "quantized::mul_relu": _eager("mul"),
        "quantized::relu6": _eager("clamp"),
        "quantized::sigmoid": _eager("sigmoid"),
        "quantized::softmax": _eager("softmax"),
    }
)
"""Operator of torch, with its overload, to what of qfuzz covers it."""
