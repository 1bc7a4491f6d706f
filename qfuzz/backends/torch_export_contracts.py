"""What the calls that exported graphs are lowered to promise, where they are not those of the eager dialect."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import structs

from qfuzz.ir.contract import Contract, Terms

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
_DYNAMIC_NBITS = Contract(
    terms="accumulator",
    k=7,
    tie="any",
    source="aten/src/ATen/native/cpu/int4mm_kernel.cpp ref_dyn_quant_matmul_4bit_*: fl(max - min), 255 by it, x times "
    "that to the nearest integer, half away from zero, the reciprocal of that the scale; float(acc) times the scale of "
    "the group, summed in float32, times the scale of the row, + bias",
)

_SCALED_MM = Contract(
    terms="real",
    k=4,
    tie="half_even",
    accumulates_float=True,
    source="aten/src/ATen/native/ScaledBlas.cpp _scaled_mm_out_cpu_emulated: both factors to float32 and times their "
    "scales, matmul and + bias in float32, times 1 / scale of the output; Linear.cpp mkldnn_scaled_mm: scales after it",
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
        "scaled_mm": _SCALED_MM,
        "dynamic_nbits_linear": _DYNAMIC_NBITS,
    }
)
"""Operator to contract."""

_QUANTIZE = "quantized_decomposed: fl(fl(q - zp) * s); x * fl(1/s), nearest even, + zero point"


def _float(k: int, kernel: str, *, sums: bool = False, ulps: float = 0.0, terms: Terms = "real") -> Contract:
    """A float32 operator between quantized_decomposed calls."""
    return Contract(
        terms=terms,
        k=k,
        tie="half_even",
        accumulates_float=sums,
        function_ulps=ulps,
        source=f"{_QUANTIZE}; between, float32 {kernel}: one rounding each, and those of the kernel",
    )


_COPIES = ("requantize", "relu", "clamp", "max_pool", "concat", "reshape", "flatten", "transpose", "slice", "pad",
           "minimum", "maximum")  # fmt: skip
_FOLLOWED = _float(
    10, "convolution or product, and a function of sleef (1 ulp) or cpu/Activation.cpp", sums=True, ulps=4.0
)

QDQ_CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        **dict.fromkeys(_COPIES, _float(3, "copies and comparisons")),
        "conv": _float(5, "convolution (oneDNN direct, or im2col and sgemm)", sums=True),
        "linear": _float(5, "product (sgemm)", sums=True),
        "conv_transpose": _float(5, "transposed convolution (oneDNN, or sgemm and col2im)", sums=True),
        "conv_pointwise": _FOLLOWED,
        "linear_pointwise": _FOLLOWED,
        "conv_add": _float(6, "convolution and sum", sums=True),
        "linear_add": _float(6, "product and sum", sums=True),
        "matmul": _float(5, "product (sgemm)", sums=True),
        "add": _float(4, "sum"),
        "sub": _float(4, "difference"),
        "mul": _float(5, "product"),
        "div": _float(5, "quotient"),
        "avg_pool": _float(4, "cpu/AvgPoolKernel.cpp: sum / divide_factor", sums=True),
        "global_avg_pool": _float(4, "mean of the inner dimensions: a sum, divided", sums=True),
        "adaptive_avg_pool": _float(6, "cpu/AdaptiveAvgPoolKernel.cpp: sum / kd / kh / kw", sums=True),
        "mean": _float(4, "cpu/SumKernel.cpp: a sum, divided", sums=True),
        "sigmoid": _float(5, "1 / (1 + exp(-x)) (sleef, 1 ulp)", ulps=1.0),
        "tanh": _float(3, "tanh (sleef, 1 ulp)", ulps=1.0),
        "leaky_relu": _float(4, "product"),
        "elu": _float(6, "cpu/Elu.h: expm1(x * input_scale) (sleef, 1 ulp) * fl(alpha * scale)", ulps=1.0),
        "hardsigmoid": _float(6, "cpu/Activation.cpp: min(max(x + 3, 0), 6) * fl(1/6)"),
        "hardswish": _float(7, "cpu/Activation.cpp: x * min(max(x + 3, 0), 6) * fl(1/6)"),
        "softmax": _float(5, "exp(x - max) / sum (sleef, 1 ulp)", sums=True, ulps=1.0),
        "gelu": _float(6, "x * 0.5 * (1 + erf(x * fl(sqrt(1/2)))), or of tanh (sleef, 1 ulp)", ulps=4.0),
    }
)
"""Operator to contract, where nothing is fused."""

COMPILED_CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        op: structs.replace(
            c,
            k=max(c.k, 10),
            tie="either_even",
            adds_zero_point=True,
            function_ulps=4.0 if c.function_ulps else 0.0,
            terms="affine" if op == "elu" else c.terms,  # expm1, or exp - 1
            source=f"{c.source}; torch/_inductor/fx_passes/quantization.py fuses some to the onednn kernels: {_CHAIN}",
        )
        for op, c in QDQ_CONTRACTS.items()
    }
)
"""The same, where inductor may fuse."""
