"""What torch's quantized activations, scalar forms, products and reductions promise."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.ir.contract import Contract

_KERNELS = "aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp"
_QUANTIZED = "dequantized and quantized as by all pointwise kernels (vec256_qint.h; scalar tails by quantize_val)"

CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        "requantize": Contract(
            terms="exact", k=0, tie="half_even", source="quantized/cpu/qdropout.cpp: the input is returned as it is"
        ),
        "add_scalar": Contract(
            terms="real",
            k=4,
            tie="half_even",
            source="quantized/cpu/BinaryOps.cpp _add_scalar_out: the input with another zero point, or "
            f"requantize_from_int(q - zp + round(c/s)) with fl(s * fl(1/s')) ({_KERNELS} qadd_scalar_kernel)",
        ),
        "mul_scalar": Contract(
            terms="exact",
            k=0,
            tie="half_even",
            source="quantized/cpu/qmul.cpp _mul_scalar_out: stored integers are copied, or mirrored; the type changes",
        ),
        "matmul": Contract(
            terms="affine",
            k=8,
            tie="either_even",
            accumulates_float=True,
            source="quantized/cpu/qmatmul.cpp without ruy: dequantize both, at::matmul in float32, quantize_per_tensor",
        ),
        **dict.fromkeys(
            ("compare", "compare_scalar"),
            Contract(
                terms="affine",
                k=3,
                tie="half_even",
                source="quantized/cpu/TensorOperators.cpp: both are dequantized, and compared as float32",
            ),
        ),
        "celu": Contract(
            terms="affine",
            k=6,
            tie="either_even",
            function_ulps=4.0,
            source=f"quantized/cpu/qelu.cpp: elu with input_scale = fl(1 / alpha); {_KERNELS} qelu_kernel: expm1 of "
            f"sleef (1 ulp) of the product, times alpha, {_QUANTIZED}",
        ),
        "threshold": Contract(
            terms="affine",
            k=6,
            tie="either_even",
            source=f"{_KERNELS} qthreshold_kernel: x > threshold ? x : value on float32, {_QUANTIZED}",
        ),
        "prelu": Contract(
            terms="real",
            k=4,
            tie="half_even",
            source=f"{_KERNELS} qprelu_out_kernel: integer products, times fl(s_x * s_w * fl(1/s_y)), to the nearest "
            "integer, then + zero point. That x is multiplied with the quantized number nearest to 1 is not granted",
        ),
        "gelu": Contract(
            terms="affine",
            k=6,
            tie="either_even",
            function_ulps=4.0,
            source=f"{_KERNELS} qgelu_kernel: x * 0.5 * (1 + erf(x * fl(sqrt(1/2)))), or 0.5 * x * (1 + "
            f"tanh(fl(sqrt(2/pi)) * (x + 0.044715 * x^3))), of sleef (1 ulp); tails in double; {_QUANTIZED}",
        ),
        "mean": Contract(
            terms="affine",
            k=6,
            tie="either_even",
            accumulates_float=True,
            source="quantized/cpu/ReduceOps.cpp: of the last dimensions of a contiguous tensor, the integer sum of q "
            f"over n in float32, to the nearest integer ({_KERNELS} qmean_inner_dim_kernel); else dequantize, "
            "at::mean, quantize_per_tensor",
        ),
        "std": Contract(
            terms="affine",
            k=6,
            tie="either_even",
            source="quantized/cpu/ReduceOps.cpp: of the last dimensions of a contiguous tensor, sums of q and q*q, the "
            f"variance and its root in double, quantize_val ({_KERNELS} qstd_inner_dim_kernel); else dequantize, "
            "at::std (Welford's update in double), quantize_per_tensor",
        ),
    }
)
"""Kernels that are the same whatever the engine."""
