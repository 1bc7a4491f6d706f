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
        "_quantized::_wrapped_linear_prepack": _eager("linear"),
        "_quantized::_wrapped_quantized_linear_prepacked": _eager("linear"),
        "_quantized::wrapped_fbgemm_linear_fp16_weight": _eager("linear_fp16"),
        "_quantized::wrapped_fbgemm_pack_gemm_matrix_fp16": _eager("linear_fp16"),
        "_quantized::wrapped_quantized_linear": _eager("linear"),
        "aten::_adaptive_avg_pool2d": _eager("global_avg_pool", "adaptive_avg_pool"),
        "aten::_adaptive_avg_pool3d": _eager("adaptive_avg_pool"),
        "aten::_convert_weight_to_int4pack_for_cpu": _export("weight_only_linear"),
        "aten::_index_put_impl_": _eager("index_put"),
        "aten::_int_mm": _export("linear_integer", "matmul_integer"),
        "aten::_make_per_channel_quantized_tensor": _eager(
            "dequantize", "conv", "linear", "conv_transpose", "dynamic_linear", "embedding", "embedding_bag"
        ),
        "aten::_make_per_tensor_quantized_tensor": _EVERY,
        "aten::_prelu_kernel": _eager("prelu"),
        "aten::_weight_int4pack_mm_for_cpu": _export("weight_only_linear"),
        "aten::_weight_int8pack_mm": _export("weight_only_linear"),
        "aten::_wrapped_linear_prepack": _eager("linear"),
        "aten::_wrapped_quantized_linear_prepacked": _eager("linear"),
        "aten::as_strided": _eager("transpose", "expand", "tile", "masked_fill"),
        "aten::avg_pool2d": _eager("avg_pool"),
        "aten::avg_pool3d": _eager("avg_pool"),
        "aten::channel_shuffle": _eager("channel_shuffle"),
        "aten::clamp": _eager("clamp"),
        "aten::clone": _eager("pad", "masked_fill", "index_put", "constant_pad"),
        "aten::dequantize.self": _eager("dequantize"),
        "aten::dequantize.tensors": _eager("dequantize"),
        "aten::fbgemm_linear_fp16_weight": _eager("linear_fp16"),
        "aten::fbgemm_linear_fp16_weight_fp32_activation": _eager("linear_fp16"),
        "aten::fbgemm_linear_int8_weight": _eager("dynamic_linear"),
        "aten::fbgemm_linear_int8_weight_fp32_activation": _eager("dynamic_linear"),
        "aten::fbgemm_pack_gemm_matrix_fp16": _eager("linear_fp16"),
        "aten::fbgemm_pack_quantized_matrix": _eager("dynamic_linear"),
        "aten::fill_.Scalar": _eager("pad", "constant_pad"),
        "aten::flip": _eager("flip"),
        "aten::gelu": _eager("gelu"),
        "aten::hardsigmoid": _eager("hardsigmoid"),
        "aten::hardtanh": _eager("clamp"),
        "aten::index.Tensor": _eager("gather"),
        "aten::index_select": _eager("gather"),
        "aten::int_repr": _EVERY,
        "aten::leaky_relu": _eager("leaky_relu"),
        "aten::masked_fill_.Scalar": _eager("masked_fill"),
        "aten::max": _eager("amax"),
        "aten::max.dim": _eager("argmax", "amax"),
        "aten::mean.dim": _eager("mean"),
        "aten::min": _eager("amin"),
        "aten::min.dim": _eager("amin"),
        "aten::q_per_channel_axis": _eager("quantize"),
        "aten::q_per_channel_scales": _eager("quantize"),
        "aten::q_per_channel_zero_points": _eager("quantize"),
        "aten::q_scale": _EVERY,
        "aten::q_zero_point": _EVERY,
        "aten::qscheme": _EVERY,
        "aten::quantize_per_channel": _eager("quantize", "embedding", "embedding_bag"),
        "aten::quantize_per_tensor": _eager("quantize"),
        "aten::quantize_per_tensor.tensor_qparams": _eager("quantize"),
        "aten::quantize_per_tensor.tensors": _eager("quantize"),
        "aten::quantized_batch_norm": _eager("batch_norm"),
        "aten::quantized_max_pool3d": _eager("max_pool"),
        "aten::reflection_pad2d": _eager("reflection_pad"),
        "aten::relu": _eager("relu"),
        "aten::sigmoid": _eager("sigmoid"),
        "aten::sort.stable": _eager("sort"),
        "aten::squeeze": _eager("squeeze"),
        "aten::squeeze.dim": _eager("avg_pool", "global_avg_pool", "adaptive_avg_pool"),
        "aten::squeeze.dims": _eager("squeeze"),
        "aten::std.correction": _eager("std"),
        "aten::tanh": _eager("tanh"),
        "aten::threshold": _eager("threshold"),
        "aten::topk": _eager("topk"),
        "aten::unfold": _eager("tile", "unfold"),
        "aten::unsqueeze": _eager("avg_pool", "global_avg_pool", "unsqueeze", "adaptive_avg_pool"),
        "aten::view": _eager("reshape", "flatten", "tile"),
        "onednn::linear_dynamic_fp16": _eager("linear_fp16"),
        "onednn::linear_prepack_fp16": _eager("linear_fp16"),
        "onednn::linear_relu_dynamic_fp16": _eager("linear_fp16"),
        "onednn::qadd.tensor": _export("add"),
        "onednn::qadd_relu.tensor": _export("add"),
        "onednn::qbatch_norm2d": _export("batch_norm"),
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
        "quantized::batch_norm": _eager("batch_norm"),
        "quantized::batch_norm1d": _eager("batch_norm"),
        "quantized::batch_norm1d_relu": _eager("batch_norm"),
        "quantized::batch_norm2d": _eager("batch_norm"),
        "quantized::batch_norm2d_relu": _eager("batch_norm"),
        "quantized::batch_norm3d": _eager("batch_norm"),
        "quantized::batch_norm3d_relu": _eager("batch_norm"),
        "quantized::batch_norm_relu": _eager("batch_norm"),
        "quantized::cat": _eager("concat"),
        "quantized::cat_relu": _eager("concat_relu"),
        "quantized::celu": _eager("celu"),
        "quantized::clamp": _eager("clamp"),
        "quantized::conv1d": _eager("conv"),
        "quantized::conv1d_prepack": _eager("conv"),
        "quantized::conv1d_relu": _eager("conv"),
        "quantized::conv2d": _eager("conv"),
        "quantized::conv2d.new": _eager("conv"),
        "quantized::conv2d_prepack": _eager("conv"),
        "quantized::conv2d_relu": _eager("conv"),
        "quantized::conv2d_relu.new": _eager("conv"),
        "quantized::conv3d": _eager("conv"),
        "quantized::conv3d.new": _eager("conv"),
        "quantized::conv3d_prepack": _eager("conv"),
        "quantized::conv3d_relu": _eager("conv"),
        "quantized::conv3d_relu.new": _eager("conv"),
        "quantized::conv_prepack": _eager("conv"),
        "quantized::conv_transpose1d": _eager("conv_transpose"),
        "quantized::conv_transpose1d_prepack": _eager("conv_transpose"),
        "quantized::conv_transpose2d": _eager("conv_transpose"),
        "quantized::conv_transpose2d_prepack": _eager("conv_transpose"),
        "quantized::conv_transpose3d": _eager("conv_transpose"),
        "quantized::conv_transpose3d_prepack": _eager("conv_transpose"),
        "quantized::dropout": _eager("requantize"),
        "quantized::elu": _eager("elu"),
        "quantized::embedding_4bit": _eager("embedding"),
        "quantized::embedding_bag_2bit_rowwise_offsets": _eager("embedding_bag"),
        "quantized::embedding_bag_4bit": _eager("embedding_bag"),
        "quantized::embedding_bag_4bit_rowwise_offsets": _eager("embedding_bag"),
        "quantized::embedding_bag_byte": _eager("embedding_bag"),
        "quantized::embedding_bag_byte_rowwise_offsets": _eager("embedding_bag"),
        "quantized::embedding_bag_prepack": _eager("embedding", "embedding_bag"),
        "quantized::embedding_byte": _eager("embedding"),
        "quantized::group_norm": _eager("group_norm"),
        "quantized::hardswish": _eager("hardswish"),
        "quantized::instance_norm": _eager("instance_norm"),
        "quantized::int4mm_packed_weight_cpu": _export("weight_only_linear"),
        "quantized::layer_norm": _eager("layer_norm"),
        "quantized::leaky_relu": _eager("leaky_relu"),
        "quantized::linear": _eager("linear"),
        "quantized::linear_dynamic": _eager("dynamic_linear"),
        "quantized::linear_dynamic_fp16": _eager("linear_fp16"),
        "quantized::linear_dynamic_fp16_unpacked_weight": _eager("linear_fp16"),
        "quantized::linear_prepack": _eager("linear", "dynamic_linear"),
        "quantized::linear_prepack_fp16": _eager("linear_fp16"),
        "quantized::linear_relu": _eager("linear"),
        "quantized::linear_relu_dynamic": _eager("dynamic_linear"),
        "quantized::linear_relu_dynamic_fp16": _eager("linear_fp16"),
        "quantized::linear_with_input_q_dq_qweight_dq_output_fp32": _eager("linear"),
        "quantized::linear_with_input_q_dq_qweight_dq_relu_output_fp32": _eager("linear"),
        "quantized::max_pool1d": _eager("max_pool"),
        "quantized::max_pool2d": _eager("max_pool"),
        "quantized::mul": _eager("mul"),
        "quantized::mul_relu": _eager("mul"),
        "quantized::prelu": _eager("prelu"),
        "quantized::relu6": _eager("clamp"),
        "quantized::sigmoid": _eager("sigmoid"),
        "quantized::softmax": _eager("softmax"),
        "quantized::threshold": _eager("threshold"),
        "quantized_decomposed::dequantize_per_channel": _export("dequantize"),
        "quantized_decomposed::dequantize_per_channel_group": _export("dequantize"),
        "quantized_decomposed::dequantize_per_tensor": _export("dequantize"),
        "quantized_decomposed::dequantize_per_tensor.tensor": _export("dequantize"),
        "quantized_decomposed::dequantize_per_tensor.tensor2": _export("dequantize"),
        "quantized_decomposed::dequantize_per_token": _export("dequantize"),
        "quantized_decomposed::quantize_per_channel": _export("quantize"),
        "quantized_decomposed::quantize_per_channel_group": _export("quantize"),
        "quantized_decomposed::quantize_per_tensor": _export("quantize"),
        "quantized_decomposed::quantize_per_tensor.tensor": _export("quantize"),
        "quantized_decomposed::quantize_per_tensor.tensor2": _export("quantize"),
        "quantized_decomposed::quantize_per_token": _export("quantize"),
    }
)
"""Operator of torch, with its overload, to what of qfuzz covers it."""
