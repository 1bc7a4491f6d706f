"""What torch's quantized kernels promise: per engine, operator to contract, with the source of the promise."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from qfuzz.backends import torch_activation_contracts, torch_norms_contracts
from qfuzz.backends import torch_dynamic_contracts as dynamic
from qfuzz.backends.torch_export_contracts import EXPORT_CONTRACTS
from qfuzz.backends.torch_int32 import of_int32
from qfuzz.backends.torch_recurrent_contracts import RECURRENT
from qfuzz.ir.contract import Contract

_FBGEMM_GEMM = Contract(
    terms="accumulator",
    k=8,
    tie="half_even",
    source="fbgemm/OutputProcessing-inl.h ReQuantizeOutput: int32 accumulator exact; float(acc) + bias/(s_x*s_w), "
    "times multiplier, nearbyint, then + zero point",
)
_ONEDNN_LINEAR = Contract(
    terms="accumulator",
    k=12,
    tie="half_even_after_zero_point",
    adds_zero_point=True,
    source="qlinear.cpp, ideep matmul.hpp do_prepare_static_quant: three scales as fl(1/fl(1/s)), each off by 1.42 u "
    "at most; oneDNN reference attributes: float(acc) * fl(s_x * s_w) + bias, post-ops, times fl(1/s_y), + zero point, "
    "then round",
)
_ONEDNN_CONV = replace(
    _ONEDNN_LINEAR,
    k=10,
    source="qconv.cpp, qconv_prepack.cpp, ideep conv.hpp prepare_parameters: scales of activations as fl(1/fl(1/s)), "
    "each off by 1.42 u at most; oneDNN reference attributes: float(acc) * fl(s_x * s_w) + bias, post-ops, times "
    "fl(1/s_y), + zero point, then round",
)
_QNNPACK_GEMM = Contract(
    terms="accumulator",
    k=8,
    tie="half_even",
    bias_steps=0.5,
    source="pytorch_qnnp_compute_scales, q8gemm: bias rounded to int32 of s_x*s_w; lrint(float(acc) * scale), then "
    "+ zero point",
)
_X86_CONV = Contract(
    terms="accumulator",
    k=10,
    tie="either_even",
    adds_zero_point=True,
    source="aten qconv_prepack.cpp: onednn where the CPU has VNNI and the weight is symmetric, else fbgemm",
)

_KERNELS = "aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp"
_VECTORS = (
    "vec256_qint.h dequantize: fma(scale, q, fl(-scale*zp)); quantize: x * fl(1/scale), nearest, then + zero point; "
    "scalar tails quantize_val: nearbyint(zero point + x * fl(1/scale))"
)
_ELEMENTWISE = Contract(terms="affine", k=6, tie="either_even", source=f"{_KERNELS}; {_VECTORS}")
_FUNCTION = Contract(
    terms="affine",
    k=6,
    tie="either_even",
    function_ulps=4.0,
    source=f"{_KERNELS}, float32 functions of sleef (1 ulp) between; {_VECTORS}",
)
_QUANTIZE = Contract(
    terms="affine",
    k=3,
    tie="either_even",
    source="fbgemm/QuantUtils.h Quantize: x * fl(1/scale), + zero point before nearbyint in tails, after it in bodies",
)
_DEQUANTIZE = Contract(
    terms="affine",
    k=2,
    tie="half_even",
    source="vec256_qint.h dequantize: fma(scale, q, fl(-scale*zp)); tails (q - zp) * scale",
)
_DYNAMIC_QUANTIZE = Contract(
    terms="affine",
    k=4,
    tie="either_even",
    source="QuantUtils.h ChooseQuantizationParams: in float64, the scale then a float32; fbgemm/QuantUtils.h Quantize: "
    "x * fl(1/scale), + zero point before or after nearbyint; QuantUtils.cc for weights of older layers likewise",
)
_CHOOSE = Contract(
    terms="real",
    k=2,
    tie="half_even",
    source="torch/ao/quantization/utils.py determine_qparams, _decomposed.py: float32 (max - min) / steps; min / scale "
    "rounded, from quant_min, or of tokens after that is taken off",
)
_FAKE_QUANTIZE = Contract(
    terms="affine",
    k=3,
    tie="half_even",
    source=f"{_KERNELS} _fake_quantize_tensor_helper: nearbyint(x * fl(1/scale)), + zero point, less it, * scale; "
    "_fake_quant_per_channel_cachemask_cpu_helper likewise, lrintf(zero point + x * fl(1/scale)) of float zero points. "
    "That it converts to int64 before it cuts is not granted",
)
_CLAMP = Contract(
    terms="affine",
    k=3,
    tie="either_even",
    source=f"{_KERNELS} qclamp_kernel: integers clipped to quantize_val of the bounds, which rounds them",
)
_POOL = Contract(
    terms="affine",
    k=5,
    tie="either_even",
    source=f"{_KERNELS} _qavg_pool_nhwc_kernel, _qadaptive_avg_pool_kernel: int32 sum of q - zp, quantized with scale "
    "1 / fl(1 / count), whose reciprocal is taken again, + zero point; AdaptiveAveragePooling.cpp: sum of q times "
    "fl(fl(fl(1/kD)/kH)/kW), nearbyint; AveragePool2d.cpp: sum of q - zp times fl(1 / count), + zero point, nearbyint",
)
_MOVED = Contract(
    terms="exact", k=0, tie="half_even", source="stored integers are moved, compared or clipped; none is computed"
)
_PICKED = replace(
    _MOVED, tie="any", source=f"{_MOVED.source}; torch.topk says nothing of which of equal elements are among the k"
)
_FILLED = Contract(
    terms="affine",
    k=3,
    tie="either_even",
    source=f"{_KERNELS} masked_fill_kernel_quantized_cpu, index_put_kernel_quantized_cpu: quantize_val of it, as "
    "fbgemm/QuantUtils.h Quantize; constant_pad_nd, an entry set: fill_ copies from float32, as a tensor is quantized",
)
_RESIZED = Contract(
    terms="affine",
    k=10,
    tie="either_even",
    multiplies_scale=True,
    source="UpSample.h area_pixel_compute_source_index, nearest_idx: fl(1/scale) or fl(in/out) times (i + 1/2), - 1/2; "
    "UpSampleBilinear2d.cpp: 1 - w and h, products and sums of stored integers, - zp; quantize_val",
)
_GRID = Contract(
    terms="affine",
    k=8,
    tie="half_even_after_zero_point",
    source="native/GridSampler.cpp _grid_sampler_2d_cpu_quantized: float32 weights of two differences, products with "
    "stored integers or the zero point, four sums, nearbyint",
)
_QNNPACK_ADD = Contract(
    terms="fixed_point",
    k=8,
    tie="any",
    source="qnnpack/src/qnnpack/params.h pytorch_qnnp_compute_add_quantization_params: the larger multiplier has "
    "22 bits (off by 2^-22, 4 u), both share its shift, and the product is shifted with rounding, ties away from zero",
)

_ROWS = Contract(
    terms="affine",
    k=2,
    tie="half_even",
    source="qembeddingbag_prepack.cpp: bias = fl(-zero point * scale); fbgemm/src/EmbeddingSpMDM.cc: 0 + bias, "
    "vfmadd231ps(bias, q, scale)",
)
_OF_ROWS = Contract(
    terms="affine",
    k=5,
    tie="either_even",
    source="fbgemm/src/QuantUtilsAvx2.cc FloatOrHalfToFused8BitRowwiseQuantizedSBFloatAvx2: (x - min) * (255 / "
    "(range + 1e-8)), in float32; ...NBit...: (x - min) * (1 / scale); then q * scale + min",
)
_BAGS = Contract(
    terms="affine",
    k=1,
    tie="half_even",
    accumulates_float=True,
    source="fbgemm/src/EmbeddingSpMDM.cc and EmbeddingSpMDMNBit.cc: scale and bias of a row times its weight, rounded; "
    "then vaddps(sum, bias) and vfmadd231ps(sum, q, scale) for each row: twice the rows, and one",
)

_SHARED: dict[str, Contract] = {
    "quantize": _QUANTIZE,
    "dequantize": _DEQUANTIZE,
    "dynamic_quantize": _DYNAMIC_QUANTIZE,
    "choose_qparams": _CHOOSE,
    "fake_quantize": _FAKE_QUANTIZE,
    "fake_quantize?fake_quantizer=float_zero_points": replace(_FAKE_QUANTIZE, tie="either_even"),
    "add": _ELEMENTWISE,
    "mul": _ELEMENTWISE,
    "relu": _MOVED,
    "clamp": _CLAMP,
    "max_pool": _MOVED,
    "avg_pool": _POOL,
    "global_avg_pool": _POOL,
    "adaptive_avg_pool": _POOL,
    "concat_relu": _ELEMENTWISE,
    "interpolate": _RESIZED,
    "grid_sample": _GRID,
    **dict.fromkeys(("split", "squeeze", "unsqueeze", "expand", "gather", "depth_to_space", "space_to_depth"), _MOVED),
    **dict.fromkeys(("tile", "amax", "amin", "argmax", "sort"), _MOVED),
    "topk": _PICKED,
    **dict.fromkeys(("flip", "channel_shuffle", "unfold", "reflection_pad"), _MOVED),
    **dict.fromkeys(("masked_fill", "index_put", "constant_pad"), _FILLED),
    "concat": _ELEMENTWISE,
    "reshape": _MOVED,
    "transpose": _MOVED,
    "slice": _MOVED,
    "pad": _MOVED,
    "flatten": _MOVED,
    "sigmoid": _FUNCTION,
    "tanh": _FUNCTION,
    "leaky_relu": _ELEMENTWISE,
    "elu": _FUNCTION,
    "hardsigmoid": _ELEMENTWISE,
    "hardswish": _ELEMENTWISE,
    "softmax": _FUNCTION,
    "linear_fp16": dynamic.FLOAT16,
    **dict.fromkeys(("dynamic_conv", "dynamic_conv_transpose"), dynamic.BY_BYTES),
    **torch_norms_contracts.CONTRACTS,
    "embedding": _ROWS,
    "embedding_bag": _BAGS,
    "embedding_rows": _OF_ROWS,
    **torch_activation_contracts.CONTRACTS,
    "recurrent": RECURRENT,
}
"""Kernels that are the same whatever the engine."""

_FBGEMM = (
    _SHARED
    | of_int32(_SHARED)
    | {
        "conv": _FBGEMM_GEMM,
        "conv_transpose": _FBGEMM_GEMM,
        "linear": _FBGEMM_GEMM,
        "dynamic_linear": dynamic.FBGEMM,
        "linear_pointwise": _FBGEMM_GEMM,
        "conv_pointwise": _FBGEMM_GEMM,
    }
)
_ONEDNN = {
    "conv": _ONEDNN_CONV,
    "conv_transpose": _ONEDNN_CONV,
    "linear": _ONEDNN_LINEAR,
    "dynamic_linear": dynamic.ONEDNN,
    "linear_pointwise": replace(
        EXPORT_CONTRACTS["linear_pointwise"],
        k=13,
        source=f"{_ONEDNN_LINEAR.source}; {EXPORT_CONTRACTS['linear_pointwise'].source}",
    ),
    "conv_pointwise": _ONEDNN_CONV,
    "conv_add": replace(
        EXPORT_CONTRACTS["conv_add"],
        k=11,
        source=f"{_ONEDNN_CONV.source}; {EXPORT_CONTRACTS['conv_add'].source}",
    ),
}
_QNNPACK = {
    "conv": _QNNPACK_GEMM,
    "conv_transpose": _QNNPACK_GEMM,
    "linear": _QNNPACK_GEMM,
    "dynamic_linear": dynamic.QNNPACK,
    "linear_pointwise": _QNNPACK_GEMM,
    "conv_pointwise": _QNNPACK_GEMM,
    "add": _QNNPACK_ADD,
}

CONTRACTS: Mapping[str, Mapping[str, Contract]] = MappingProxyType(
    {
        "fbgemm": MappingProxyType(_FBGEMM),
        "x86": MappingProxyType(
            _FBGEMM | {"conv": _X86_CONV, "conv_transpose": _X86_CONV, "conv_pointwise": _X86_CONV}
        ),
        "onednn": MappingProxyType(_FBGEMM | _ONEDNN),
        "export": MappingProxyType(_SHARED | _ONEDNN | dict(EXPORT_CONTRACTS)),
        "qnnpack": MappingProxyType(_FBGEMM | _QNNPACK),
    }
)
"""Engine to its contracts."""
