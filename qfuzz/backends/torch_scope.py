"""Operators of PyTorch that quantize and are not covered: each with the reason, an entry a line, sorted.

`torch_operators` says which are in question.
"""

from collections.abc import Mapping
from types import MappingProxyType

GENERATED = "torch generates it: a call of the overload that has the kernel, and a copy of the result"
"""The reason for all that torch says this of, without an entry of their own."""

NO_KERNEL = "is registered without a kernel for the CPU"
"""A reason that holds as long as the dispatcher says so, which a test looks at."""

_BFLOAT16 = "converts between float32 and bfloat16, whose bytes it calls quantized: no integers with a scale"
_GRADIENT = "computes the gradient of a fake quantization, for training: no result of a network"
_MEMORY = "makes or resizes memory, and leaves its values open"
_PROCESSOR = "tells what the processor can do"
_STEP = "a step of packing float16 weights, called there without the dispatcher: linear_fp16 is judged with it"
_SETTINGS = "tells a setting that a weight was packed with, and computes no values"
_LISTS = "always refuses: 'with List[Tensor] for parameters is no longer supported', for scripts of older releases"
_NO_ENGINE = "is refused on each engine: QNNPACK has no fused relu there, and the others no such kernel"

OUTDATED = "always refuses: it is there for scripts of older releases, which it says are to be upgraded"
"""A reason that a test looks at."""

OUT_OF_SCOPE: Mapping[str, str] = MappingProxyType(
    {
        "_quantized::conv3d": NO_KERNEL,
        "_quantized::conv3d_relu": NO_KERNEL,
        "_quantized::linear_prepack_fp16_legacy": OUTDATED,
        "_quantized::linear_prepack_legacy": NO_KERNEL,
        "aten::_convert_weight_to_int4pack": NO_KERNEL,
        "aten::_empty_affine_quantized": _MEMORY,
        "aten::_empty_per_channel_affine_quantized": _MEMORY,
        "aten::_fake_quantize_learnable_per_channel_affine_backward": _GRADIENT,
        "aten::_fake_quantize_learnable_per_tensor_affine_backward": _GRADIENT,
        "aten::_flash_attention_forward.quantized": NO_KERNEL,
        "aten::_saturate_weight_to_fp16": _STEP,
        "aten::_scaled_dot_product_flash_attention.quantized": NO_KERNEL,
        "aten::_scaled_grouped_mm": NO_KERNEL,
        "aten::_scaled_grouped_mm_v2": NO_KERNEL,
        "aten::_weight_int4pack_mm": NO_KERNEL,
        "aten::_weight_int4pack_mm_with_scales_and_zeros": NO_KERNEL,
        "aten::choose_qparams_optimized": "searches greedily, for a loss that only its code defines",
        "aten::empty.memory_format": _MEMORY,
        "aten::empty_like": _MEMORY,
        "aten::empty_quantized": _MEMORY,
        "aten::empty_strided": _MEMORY,
        "aten::equal": "tells by one Python bool whether all elements and types are equal: no tensor",
        "aten::fake_quantize_per_channel_affine_cachemask_backward": _GRADIENT,
        "aten::fake_quantize_per_tensor_affine_cachemask_backward": _GRADIENT,
        "aten::fbgemm_pack_quantized_matrix.KN": "calls the overload without sizes, and ignores them",
        "aten::quantized_gru.data_legacy": _LISTS,
        "aten::quantized_gru.input_legacy": _LISTS,
        "aten::quantized_lstm.data_legacy": _LISTS,
        "aten::quantized_lstm.input_legacy": _LISTS,
        "aten::resize_": _MEMORY,
        "aten::set_.source_Storage_storage_offset": _MEMORY,
        "mkldnn::_is_mkldnn_fp16_supported": _PROCESSOR,
        "quantization::_Bfloat16QuantizedToFloat": _BFLOAT16,
        "quantization::_FloatToBfloat16Quantized": _BFLOAT16,
        "quantized::conv2d_dilation": _SETTINGS,
        "quantized::conv2d_groups": _SETTINGS,
        "quantized::conv2d_output_padding": _SETTINGS,
        "quantized::conv2d_padding": _SETTINGS,
        "quantized::conv2d_stride": _SETTINGS,
        "quantized::conv2d_transpose": _SETTINGS,
        "quantized::conv2d_unpack_sizes": _SETTINGS,
        "quantized::conv3d_dilation": _SETTINGS,
        "quantized::conv3d_groups": _SETTINGS,
        "quantized::conv3d_output_padding": _SETTINGS,
        "quantized::conv3d_padding": _SETTINGS,
        "quantized::conv3d_stride": _SETTINGS,
        "quantized::conv3d_transpose": _SETTINGS,
        "quantized::conv_transpose2d_dilation": _SETTINGS,
        "quantized::conv_transpose2d_groups": _SETTINGS,
        "quantized::conv_transpose2d_output_padding": _SETTINGS,
        "quantized::conv_transpose2d_padding": _SETTINGS,
        "quantized::conv_transpose2d_stride": _SETTINGS,
        "quantized::conv_transpose2d_transpose": _SETTINGS,
        "quantized::conv_transpose3d_dilation": _SETTINGS,
        "quantized::conv_transpose3d_groups": _SETTINGS,
        "quantized::conv_transpose3d_output_padding": _SETTINGS,
        "quantized::conv_transpose3d_padding": _SETTINGS,
        "quantized::conv_transpose3d_stride": _SETTINGS,
        "quantized::conv_transpose3d_transpose": _SETTINGS,
        "quantized::linear_prepack_fp16_legacy": OUTDATED,
        "quantized::linear_prepack_legacy": OUTDATED,
        "quantized::linear_unpack.legacy": OUTDATED,
        "quantized::linear_unpack_fp16.legacy": OUTDATED,
        "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl": "another name of the one without _impl",
        "quantized_decomposed::convert_element_type.no_fuse": "converts a type as Tensor.to does: nothing is quantized",
        "sparse::qlinear_relu_dynamic": _NO_ENGINE,
        "static_runtime::dequantize_copy.self": NO_KERNEL,
    }
)
"""Operator to why it is out of scope."""

NOT_YET: Mapping[str, str] = MappingProxyType({})
"""Operator that is in scope and not drawn to what is meant to cover it."""
