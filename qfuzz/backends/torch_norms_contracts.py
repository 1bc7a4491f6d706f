"""What torch's quantized normalizations promise."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.ir.contract import Contract

_KERNELS = "aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp"

_BATCH_NORM = Contract(
    terms="real",
    k=8,
    tie="half_even",
    source="aten/src/ATen/native/quantized/cpu/Normalization.cpp compute_fused_params: alpha = 1/sqrt(var + eps) * "
    "weight * (s_x/s_y), beta = (bias - mean * 1/sqrt(var + eps) * weight) / s_y, each rounded to float32 (7.5 "
    f"roundings at most); {_KERNELS} q_batch_norm_kernel: fma(alpha, q - zp, beta), or the product and the sum, "
    "to the nearest integer, then + zero point",
)
_NORMALIZE = Contract(
    terms="affine",
    k=9,
    tie="either_even",
    source=f"{_KERNELS} quantized_normalize_kernel: integer sums of q and q*q; (q - mean) * (s_x / sqrt(variance * "
    "s_x * s_x + eps)) * weight + bias in float32, quantized in vectors or by quantize_val. That its variance is "
    "E[q*q] - mean*mean in float32, which cancels, is not granted",
)
_NORMALIZE_BY_CHANNEL = Contract(
    terms="affine",
    k=9,
    tie="either_even",
    distributes=True,
    source=f"{_NORMALIZE.source}; qnormalization.cpp: of images in channels_last, one channel or one pixel too, "
    "quantized_groupnorm_nhwc_kernel: q * scale + (bias - mean * scale), where scale is s_x / sqrt(...) * weight",
)

CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        "batch_norm": _BATCH_NORM,
        "layer_norm": _NORMALIZE,
        "instance_norm": _NORMALIZE_BY_CHANNEL,
        "group_norm": _NORMALIZE_BY_CHANNEL,
    }
)
"""Kernels that are the same whatever the engine."""
