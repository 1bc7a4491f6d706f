"""What the calls that exported graphs are lowered to promise, where they are not those of the eager dialect."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.ir.contract import Contract

_ELTWISE = "oneDNN src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp"
_CHAIN = (
    "oneDNN reference attributes: float(acc)*s_x*s_w + bias, post-ops in float32, times 1/s_y, + zero point, then round"
)

_POINTWISE = Contract(
    terms="accumulator",
    k=10,
    tie="half_even_after_zero_point",
    adds_zero_point=True,
    function_ulps=8.0,
    source=f"{_CHAIN}; {_ELTWISE}: exp by a polynomial of degree 5, tanh by one of degree 6 in 32 intervals, erf by "
    "Abramowitz and Stegun 7.1.26 (off by 1.5e-7) or minimax, swish x / (1 + e^-x), hardswish x * clip(x/6 + 1/2)",
)
_ADD = Contract(
    terms="accumulator",
    k=10,
    tie="half_even_after_zero_point",
    adds_zero_point=True,
    source=f"{_CHAIN}; post-op sum: + scale * (destination - zero point), both as float32",
)

_DECOMPOSED = "torch/ao/quantization/fx/_decomposed.py"
_DECOMPOSED_QUANTIZE = Contract(
    terms="affine",
    k=3,
    tie="either_even",
    source=f"{_DECOMPOSED}: x * fl(1/scale); round and + zero point in float32, for tokens and groups the other way",
)
_DECOMPOSED_DEQUANTIZE = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    in_real_type=True,
    source=f"{_DECOMPOSED}: (q - zero point) * scale in the type of the reals, both integers rounded to it",
)
_INTEGERS = Contract(
    terms="exact",
    k=0,
    tie="half_even",
    source="aten/src/ATen/native/LinearAlgebra.cpp _int_mm_out_cpu: sums in int32",
)
_WEIGHT_ONLY = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    from_middle=True,
    source="aten/src/ATen/native/cpu/int8mm_kernel.cpp tinygemm_kernel: x * (float(weight) * scale) summed in float32; "
    "int4mm_kernel.cpp: x * (float(q - 8) * scale + zero), in AVX2 float(q) * scale + (zero - 8 * scale)",
)

EXPORT_CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        "linear_pointwise": _POINTWISE,
        "conv_pointwise": _POINTWISE,
        "linear_add": _ADD,
        "conv_add": _ADD,
        "quantize": _DECOMPOSED_QUANTIZE,
        "dequantize": _DECOMPOSED_DEQUANTIZE,
        "matmul_integer": _INTEGERS,
        "linear_integer": _INTEGERS,
        "weight_only_linear": _WEIGHT_ONLY,
    }
)
"""Operator to contract."""
