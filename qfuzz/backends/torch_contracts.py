"""What torch's quantized kernels promise: per engine, operator to contract, with the source of the promise."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.ir.contract import Contract

_FBGEMM_GEMM = Contract(
    terms="accumulator",
    k=8,
    tie="half_even",
    source="fbgemm/OutputProcessing-inl.h ReQuantizeOutput: int32 accumulator exact; float(acc) + bias/(s_x*s_w), times "
    "multiplier, nearbyint, then + zero point",
)
_ONEDNN_GEMM = Contract(
    terms="accumulator",
    k=8,
    tie="half_even_after_zero_point",
    source="oneDNN reference attributes: float(acc)*s_x*s_w + bias, post-ops, times 1/s_y, + zero point, then round",
)
_QNNPACK_GEMM = Contract(
    terms="accumulator",
    k=8,
    tie="half_even",
    bias_steps=0.5,
    source="pytorch_qnnp_compute_scales, q8gemm: bias rounded to int32 of s_x*s_w; lrint(float(acc) * scale), then + zero point",
)
_X86_CONV = Contract(
    terms="accumulator",
    k=8,
    tie="either_even",
    source="aten qconv_prepack.cpp: onednn where the CPU has VNNI and the weight is symmetric, else fbgemm",
)

_FBGEMM: dict[str, Contract] = {"conv": _FBGEMM_GEMM, "linear": _FBGEMM_GEMM}

CONTRACTS: Mapping[str, Mapping[str, Contract]] = MappingProxyType(
    {
        "fbgemm": MappingProxyType(_FBGEMM),
        "x86": MappingProxyType(_FBGEMM | {"conv": _X86_CONV}),
        "onednn": MappingProxyType(_FBGEMM | {"conv": _ONEDNN_GEMM, "linear": _ONEDNN_GEMM}),
        "export": MappingProxyType({"conv": _ONEDNN_GEMM, "linear": _ONEDNN_GEMM}),
        "qnnpack": MappingProxyType(_FBGEMM | {"conv": _QNNPACK_GEMM, "linear": _QNNPACK_GEMM}),
    }
)
"""Engine to its contracts."""
