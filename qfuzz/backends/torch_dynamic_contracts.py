"""What torch's layers promise that quantize their data as they come."""

from qfuzz.ir.contract import Contract

_CHOSEN = "QuantUtils.h ChooseQuantizationParams: in float64, the scale then a float32; x times its reciprocal"

FBGEMM = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    adds_zero_point=True,
    source=f"{_CHOSEN} (fbgemm/QuantUtils.h Quantize), zero point added before or after nearbyint; "
    "fbgemm/OutputProcessing-inl.h ReQuantizeForFloat: float(acc) times both scales, + bias",
)
ONEDNN = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    adds_zero_point=True,
    source=f"{_CHOSEN}; qlinear_dynamic.cpp, qlinear_prepack.cpp: reciprocals of scales in float32, of which ideep "
    "matmul.hpp do_prepare_dynamic_quant takes reciprocals (off by 1.42 u: below sqrt(2) times a power of two, none); "
    "a reorder to u8: x times 1/scale, + zero point, rounded; oneDNN matmul: float(acc) times fl(s_x * s_w), + bias",
)
QNNPACK = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    adds_zero_point=True,
    source=f"{_CHOSEN} (at::quantize_per_tensor); qnnpack/src/q8gemm-dq: float(acc) times fl(s_x * s_w), + bias",
)
BY_BYTES = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    adds_zero_point=True,
    source=f"{_CHOSEN} (at::quantize_per_tensor), as of dynamic layers. That qconv_dynamic.cpp apply_dynamic has the "
    "result stored in the input's scale and zero point, and dequantizes it, is not granted (\"TODO: optimized kernel "
    "that outputs fp32 so this step isn't necessary\")",
)
FLOAT16 = Contract(
    terms="real",
    k=1,
    tie="half_even",
    accumulates_float=True,
    source="QuantUtils.h HandleWeightsSaturation, then fbgemm/FloatConversion.h cpu_float2half_rn, to nearest even; "
    "fbgemm/FbgemmFP16.h cblas_gemm_compute: float32 sums of products, output.add_(bias); qlinear_dynamic.cpp "
    'linear_dynamic_fp16_with_onednn_weight: weights reordered to f32, as "onednn does not support f32f16f32 matmul"',
)
