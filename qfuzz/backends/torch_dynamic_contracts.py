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
    source=f"{_CHOSEN} (ideep matmul_forward, is_dynamic: a reorder to u8), + zero point, rounded; oneDNN reference "
    "attributes: float(acc) times both scales, + bias",
)
QNNPACK = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    adds_zero_point=True,
    source=f"{_CHOSEN} (at::quantize_per_tensor); qnnpack/src/q8gemm-dq: float(acc) times fl(s_x * s_w), + bias",
)
FLOAT16 = Contract(
    terms="real",
    k=1,
    tie="half_even",
    accumulates_float=True,
    source="QuantUtils.h: weights saturated, then fbgemm/FloatConversion.h FloatToFloat16_simd, to nearest even; "
    "fbgemm/FbgemmFP16.h cblas_gemm_compute: float32 sums of products; + bias; oneDNN matmul of f32 and f16 likewise",
)
