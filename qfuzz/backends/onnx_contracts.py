"""What ONNX Runtime's kernels promise: operator to contract, for each form and level of graph optimizations.

Every k counts the float32 operations of the named source, and is held by the near-tie tests of `tests/backends`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from qfuzz.ir.contract import Contract

_MATMUL = Contract(
    terms="accumulator",
    k=4,
    tie="half_even",
    source="mlas/lib/quantize.cpp MlasRequantizeOutput: float(int32 acc) * fl(fl(s_x*s_w)/s_y), clamp, nearest even, "
    "+ zero point; to float32, mlas/lib/qpostprocessor.cpp: float(int32 acc) * fl(s_x*s_w) + bias",
)
_ELEMENTWISE = Contract(
    terms="affine",
    k=4,
    tie="either_even",
    source="mlas/lib/qladd.cpp, qlmul.cpp on x86: fl(s_a/s_y)*q_a + (fl(s_b/s_y)*q_b + (zero point - offsets)), "
    "nearest even; tails nearbyint(value + zero point)",
)
_QUANTIZE = Contract(
    terms="real",
    k=1,
    tie="half_even",
    in_real_type=True,
    source="mlas/lib/quantize.cpp MlasQuantizeLinear: x / scale, nearest even, + zero point; QuantizeLinear-23: "
    "'the type of y_scale determines the precision of the division', which float16 scales make that of float16",
)
_DEQUANTIZE = Contract(
    terms="real",
    k=1,
    tie="half_even",
    source="quantize_linear.cc DequantizeLinear: float(q - zero_point) * scale",
)
_MOVED = Contract(terms="exact", k=0, tie="half_even", source="stored integers are moved or compared, none is computed")
_LOOKUP = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    function_ulps=4.0,
    source="contrib_ops/cpu/quantization/qlinear_lookup_table.cc: dequantize, float32 function, "
    "MlasQuantizeLinear, per stored integer",
)
_SIGMOID = msgspec.structs.replace(
    _LOOKUP,
    function_addend=1.0,
    source=_LOOKUP.source + "; mlas/lib/logistic.cpp: sigmoid is p(x)/q(x) + 1/2, off by roundings of 1/2 everywhere",
)
_POOL = Contract(
    terms="affine",
    k=4,
    tie="either_even",
    accumulates_float=True,
    source="contrib_ops/cpu/quantization/qlinear_pool.cc quantize_value: float32 mean of dequantized values, "
    "nearbyint(mean / s_y + zero point)",
)
_GLOBAL_POOL = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    source="mlas/lib/qlgavgpool.cpp: int32 sum, times fl(s_x/(s_y*n)), nearest even, + zero point",
)
_CONCAT = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    source="contrib_ops/cpu/quantization/qlinear_concat.cc: a table per input whose qparams differ: "
    "dequantize, MlasQuantizeLinear",
)

_SOFTMAX = Contract(
    terms="real",
    k=4,
    tie="half_even",
    function_ulps=1.0,
    source="contrib_ops/cpu/quantization/qlinear_softmax.cc: a table of exp rounded to float32, float32 sum, "
    "nearbyint(exp * (1/s_y) / sum), + zero point",
)

_WHERE = Contract(
    terms="real",
    k=2,
    tie="half_even",
    source="contrib_ops/cpu/quantization/qlinear_where.cc: an operand of the output's scale and zero point is copied; "
    "else a table per operand: s_x * (q - zero point), MlasQuantizeLinear",
)

_RESIZED = Contract(
    terms="affine",
    k=7,
    tie="half_even",
    accumulates_float=True,
    rounding_open=True,
    source="core/providers/cpu/tensor/upsample.h, upsample.cc: float32 coordinates and weights of stored integers; "
    "ONNX Resize says nothing of how a weighted average of integers is rounded",
)

MOVED = (
    *("split", "squeeze", "unsqueeze", "expand", "gather", "depth_to_space", "space_to_depth", "argmax"),
    *("tile", "gather_elements", "amax", "amin"),
)
"""Operators whose ONNX kernels copy or compare."""

_INTEGER = Contract(
    terms="exact",
    k=0,
    tie="half_even",
    source="core/providers/cpu/quantization/matmul_integer.cc, conv_integer.cc: int32 sums of products as they are",
)
_DYNAMIC_QUANTIZE = Contract(
    terms="real",
    k=3,
    tie="half_even",
    source="core/util/qmath.h GetQuantizationParameter: (max - min) / 255, 0 - min / scale, clamped, nearest even; "
    "mlas/lib/quantize.cpp MlasQuantizeLinear: x / scale, nearest even, + zero point",
)
_DYNAMIC_LINEAR = Contract(
    terms="accumulator",
    k=6,
    tie="half_even",
    source="contrib_ops/cpu/quantization/dynamic_quantize_matmul.cc, mlas/lib/qpostprocessor.cpp: quantized as by "
    "DynamicQuantizeLinear, then float(int32 acc) * fl(s_x*s_w) + bias; MatMulInteger, ConvInteger, Cast, Mul, Add too",
)
_ATTENTION = Contract(
    terms="accumulator",
    k=4,
    tie="half_even",
    function_ulps=4.0,
    source="contrib_ops/cpu/quantization/attention_quant.cc: float(int32 acc) * fl(s_x*s_w) + bias; "
    "contrib_ops/cpu/bert/attention_cpu_base.h: fl(1/fl(sqrt(d))) * sgemm + mask, mlas/lib/compute.cpp softmax, sgemm",
)

_LSTM = Contract(
    terms="real",
    k=8,
    tie="half_even",
    function_ulps=4.0,
    function_addend=1.0,
    source="core/util/qmath.h GetQuantizationParameter: fl(fl(max - min) / 255), x / scale; rnn_helpers.cc: "
    "float(int32 acc) * fl(scale * weight scale), the second added to the first; uni_directional_lstm.cc: + peephole, "
    "+ fl(Wb + Rb), mlas/lib/logistic.cpp and tanh.cpp, C * f + i * g, tanh * o",
)

_EMBED_LAYER_NORM = Contract(
    terms="real",
    k=4,
    tie="half_even",
    source="contrib_ops/cpu/quantization/qembed_layer_norm.cc: (q - zp) * scale, two sums, the mean of n of them, "
    "a sum of squares, sqrt(sum / n + epsilon), a / root * gamma + beta",
)

_MOE = Contract(
    terms="real",
    k=4,
    tie="half_even",
    function_ulps=1.0,
    source="contrib_ops/cpu/moe/moe_quantization_cpu.cc: weights dequantized to float32, MlasGemm, + bias; "
    "moe_utils.cc: std::exp, 1 / (1 + e) or e / (1 + e), g * sigmoid * (l + beta); sum of weight * (product + bias)",
)
_MATMUL_REALS = Contract(
    terms="real",
    k=1,
    tie="half_even",
    accumulates_float=True,
    source="docs/ContribOperators.md MatMulNBits, accuracy_level: 0 and 1 are fp32; mlas/lib/sqnbitgemm_kernel_*.cpp, "
    "q4_dq.cpp: fl((q - zp) * s), times x, summed in any order, the bias added",
)


_MATMUL_REAL_ZERO_POINTS = msgspec.structs.replace(
    _MATMUL_REALS,
    terms="affine",
    k=2,
    source="contrib_ops/cpu/quantization/matmul_nbits_impl.cc Dequantize4BitsKernelReOrder: q * s + (-s * zp), "
    "times x, summed in any order, the bias added",
)


def _int8_activations(block: int) -> Contract:
    """Where MatMulNBits may round its activations to int8."""
    return Contract(
        terms="affine",
        k=4,
        tie="half_even",
        accumulates_float=True,
        activation_block=block,
        source="docs/ContribOperators.md MatMulNBits: accuracy_level 4 'means input A can be quantized with the same "
        "block_size to int8'; mlas/lib/sqnbitgemm_kernel_avx512.cpp QuantizeARow_CompInt8_avx512: scale of the largest "
        "magnitude / 127, nearest integer; blocks' integer sums times fl(s_a * s_b), and fl(s_a * sum) * fl(-s_b * zp)",
    )


NBITS_BLOCKS: Mapping[str, int] = MappingProxyType({"16": 16, "64": 64, "128": 128, "256": 256, "fitting": 256})
"""Form to a multiple of the blocks that MatMulNBits has for weights without them; 32 where no form says else."""

_FUSED_NBITS: Mapping[str, Contract] = MappingProxyType(
    {
        "weight_only_linear": _int8_activations(32),
        "weight_only_linear?accuracy=0": _MATMUL_REALS,
        "weight_only_linear?accuracy=1": _MATMUL_REALS,
        **{f"weight_only_linear?nbits_block={form}": _int8_activations(n) for form, n in NBITS_BLOCKS.items()},
    }
)
"""DequantizeLinear and MatMul as MatMulNBits: session.qdq_matmulnbits_accuracy_level is 4 where nothing is said."""

_QOPERATOR: Mapping[str, Contract] = MappingProxyType(
    {
        "quantize": _QUANTIZE,
        "dequantize": _DEQUANTIZE,
        "conv": _MATMUL,
        "linear": _MATMUL,
        "add": _ELEMENTWISE,
        "mul": _ELEMENTWISE,
        "relu": _MOVED,
        "clamp": _MOVED,
        "max_pool": _MOVED,
        "avg_pool": _POOL,
        "global_avg_pool": _GLOBAL_POOL,
        "concat": _CONCAT,
        "reshape": _MOVED,
        "transpose": _MOVED,
        "slice": _MOVED,
        "pad": _MOVED,
        "flatten": _MOVED,
        "sigmoid": _SIGMOID,
        "leaky_relu": _LOOKUP,
        "softmax": _SOFTMAX,
        "minimum": _MOVED,
        "maximum": _MOVED,
        "where": _WHERE,
        **dict.fromkeys(MOVED, _MOVED),
        "interpolate": _RESIZED,
        "matmul": _MATMUL,
        "conv_integer": _INTEGER,
        "linear_integer": _INTEGER,
        "matmul_integer": _INTEGER,
        "dynamic_quantize": _DYNAMIC_QUANTIZE,
        "dynamic_linear": _DYNAMIC_LINEAR,
        "dynamic_conv": _DYNAMIC_LINEAR,
        "attention": _ATTENTION,
        "lstm": _LSTM,
        "embed_layer_norm": _EMBED_LAYER_NORM,
        "moe": _MOE,
        "weight_only_linear": _MATMUL_REALS,
        "weight_only_linear?nbits_zero_points=reals": _MATMUL_REAL_ZERO_POINTS,
        "weight_only_linear?accuracy=4": _int8_activations(32),
        **{
            f"weight_only_linear?accuracy=4&nbits_block={form}": _int8_activations(block)
            for form, block in NBITS_BLOCKS.items()
        },
        "embedding": _DEQUANTIZE,
    }
)


def _float(k: int, kernel: str, *, sums: bool = False, ulps: float = 0.0, addend: float = 0.0) -> Contract:
    return Contract(
        terms="real",
        k=k,
        tie="half_even",
        accumulates_float=sums,
        function_ulps=ulps,
        function_addend=addend,
        source=f"DequantizeLinear, float32 {kernel}, QuantizeLinear: one rounding each, and those of the kernel",
    )


_ELU = Contract(
    terms="affine",
    k=4,
    tie="half_even",
    function_ulps=4.0,
    source="DequantizeLinear, core/providers/cpu/activation/activations.h Elu: alpha * (exp(x) - 1), QuantizeLinear",
)

_LAYER_NORM = Contract(
    terms="real",
    k=9,
    tie="half_even",
    accumulates_float=True,
    exact_mean=True,
    source="DequantizeLinear; rows of 8 elements and more with AVX2: mlas/lib/layernorm_kernel_avx2.cpp, a float64 "
    "mean rounded to float32, a float32 sum of centered squares, (x - mean) * (1 / sqrt(variance + epsilon)) * scale "
    "+ bias; others: core/providers/cpu/nn/layer_norm_impl.cc, Welford's update in float32, (x - mean) / "
    "sqrt(variance + epsilon) * scale + bias; QuantizeLinear",
)
_INSTANCE_NORM = Contract(
    terms="real",
    k=9,
    tie="half_even",
    accumulates_float=True,
    distributes=True,
    source="DequantizeLinear, core/providers/cpu/nn/instance_norm.cc: float32 mean, then sum of centered squares; "
    "c = 1 / sqrt(variance + epsilon) * scale, x * c + (bias - mean * c), QuantizeLinear",
)

_UNFUSED: Mapping[str, Contract] = MappingProxyType(
    {
        "quantize": _QUANTIZE,
        "dequantize": _DEQUANTIZE,
        "requantize": _float(2, "nothing"),
        "conv": _float(6, "Conv (MLAS sgemm or direct; an int32 bias times fl(s_x*s_w))", sums=True),
        "linear": _float(6, "Gemm, or MatMul and Add (MLAS sgemm; an int32 bias times fl(s_x*s_w))", sums=True),
        "scaled_mm": _float(4, "Gemm (MLAS sgemm)", sums=True),
        "add": _float(3, "Add"),
        "mul": _float(4, "Mul"),
        "relu": _float(2, "Relu"),
        "clamp": _float(2, "Clip"),
        "max_pool": _float(2, "MaxPool"),
        "avg_pool": _float(4, "AveragePool", sums=True),
        "global_avg_pool": _float(4, "GlobalAveragePool", sums=True),
        "concat": _float(2, "Concat"),
        "reshape": _float(2, "Reshape"),
        "transpose": _float(2, "Transpose"),
        "slice": _float(2, "Slice"),
        "pad": _float(2, "Pad"),
        "flatten": _float(2, "Flatten"),
        "sigmoid": _float(4, "Sigmoid (mlas/lib/logistic.cpp: p(x)/q(x) + 1/2)", ulps=4.0, addend=1.0),
        "tanh": _float(4, "Tanh (mlas/lib/tanh.cpp, a rational approximation)", ulps=4.0),
        "leaky_relu": _float(3, "LeakyRelu"),
        "elu": _ELU,
        "hardsigmoid": _float(6, "HardSigmoid (alpha is fl(1/6))"),
        "hardswish": _float(7, "HardSigmoid and Mul, the function body of HardSwish"),
        "softmax": _float(4, "Softmax (mlas/lib/compute.cpp)", ulps=4.0),
        "sub": _float(3, "Sub"),
        "div": _float(4, "Div: each operand is dequantized with a rounding, and a divisor's counts, too"),
        "minimum": _float(2, "Min"),
        "maximum": _float(2, "Max"),
        "where": _float(2, "Where"),
        "gelu": _float(
            4,
            "Gelu (core/providers/cpu/tensor/gelu.cc, mlas/lib/gelu.cpp: 0.5x * (erf(x * fl(sqrt(1/2))) + 1), erf "
            "faithful; 0.5x * (tanh(x * (C*x*x + B)) + 1), a rational approximation of tanh off by 2.4 ulps)",
            ulps=3.0,
        ),
        "layer_norm": _LAYER_NORM,
        "instance_norm": _INSTANCE_NORM,
        "mean": _float(
            3, "ReduceMean (core/providers/cpu/reduction/reduction_ops.h: a float32 sum, divided)", sums=True
        ),
        **dict.fromkeys(MOVED, _float(2, "copies")),
        "interpolate": _float(8, "Resize (upsample.h: weights of three dimensions, their product, the sum)", sums=True),
        "matmul": _float(3, "MatMul (MLAS sgemm)", sums=True),
        "conv_transpose": _float(
            3, "ConvTranspose (core/providers/cpu/nn/conv_transpose.cc: MLAS sgemm, then sums of taps)", sums=True
        ),
        "conv_integer": _INTEGER,
        "linear_integer": _INTEGER,
        "matmul_integer": _INTEGER,
        "dynamic_quantize": _DYNAMIC_QUANTIZE,
        "dynamic_linear": _DYNAMIC_LINEAR,
        "dynamic_conv": _DYNAMIC_LINEAR,
        "attention": _float(
            4, "MatMul, Add, MatMul, Mul, Add, Softmax (mlas/lib/compute.cpp), MatMul", sums=True, ulps=4.0
        ),
        "weight_only_linear": _MATMUL_REALS,
        "embedding": _DEQUANTIZE,
    }
)


def _looser(unfused: Contract, fused: Contract) -> Contract:
    """A contract that admits what either admits."""
    order = ("exact", "accumulator", "real", "affine")
    return msgspec.structs.replace(
        unfused,
        terms=max(unfused.terms, fused.terms, key=order.index),
        k=max(unfused.k, fused.k),
        tie=unfused.tie if unfused.tie == fused.tie else "either_even",
        accumulates_float=unfused.accumulates_float or fused.accumulates_float,
        function_ulps=max(unfused.function_ulps, fused.function_ulps),
        function_addend=max(unfused.function_addend, fused.function_addend),
        distributes=unfused.distributes or fused.distributes,
        bias_steps=max(unfused.bias_steps, fused.bias_steps),
        in_real_type=unfused.in_real_type or fused.in_real_type,
        exact_mean=unfused.exact_mean and fused.exact_mean,
        rounding_open=unfused.rounding_open or fused.rounding_open,
        activation_block=max(unfused.activation_block, fused.activation_block),
        source=f"unfused: {unfused.source}; where qdq_selectors.cc fuses: {fused.source}",
    )


def _with_rounded_bias(contract: Contract) -> Contract:
    return msgspec.structs.replace(
        contract,
        bias_steps=0.5,
        source=f"{contract.source}; weight_bias_quantization.cc rounds a float32 bias to int32 of s_x*s_w",
    )


_BASIC: Mapping[str, Contract] = MappingProxyType(
    dict(_UNFUSED)
    | {name: _with_rounded_bias(_UNFUSED[name]) for name in ("conv", "linear", "conv_transpose")}
    | {
        "weight_only_linear?accuracy=0": _MATMUL_REALS,
        "weight_only_linear?accuracy=1": _MATMUL_REALS,
        "weight_only_linear?nbits_fusion=on": _int8_activations(32),  # of weights with blocks of their own
    }
)
_FUSED_PLAIN: Mapping[str, Contract] = MappingProxyType(
    {name: _looser(c, _QOPERATOR[name]) if name in _QOPERATOR else c for name, c in _BASIC.items()}
)


MATMUL_OF_REALS = (*(f"x={x}" for x in ("int16", "uint16", "int4", "uint4", "int2", "uint2")), "qdq_cleanup=on")
"""No kernel takes activations that are no bytes with weights of 8 bits, and nothing is quantized once that was cleaned
up: then DequantizeLinear and MatMul become MatMulNBits, as reals times weights do."""


def _as_of_reals(op: str) -> Mapping[str, Contract]:
    plain = _FUSED_PLAIN[op]
    contracts = {}
    for said in MATMUL_OF_REALS:
        contracts[f"{op}?{said}"] = _looser(plain, _int8_activations(32))
        for level in ("0", "1"):
            contracts[f"{op}?accuracy={level}&{said}"] = _looser(plain, _MATMUL_REALS)
        for form, block in NBITS_BLOCKS.items():
            contracts[f"{op}?nbits_block={form}&{said}"] = _looser(plain, _int8_activations(block))
    return contracts


_FUSED: Mapping[str, Contract] = MappingProxyType(
    dict(_FUSED_PLAIN)
    | {key: c for op in ("linear", "attention") for key, c in _as_of_reals(op).items()}
    # qdq_selectors.cc makes Resize one on stored integers in mode nearest only, where that copies.
    | {"interpolate": _BASIC["interpolate"]}
    | dict(_FUSED_NBITS)
)

_QDQ: Mapping[str, Mapping[str, Contract]] = MappingProxyType(
    {"disable": _UNFUSED, "basic": _BASIC, "extended": _FUSED, "all": _FUSED}
)


def contracts_of(form: str, optimization: str) -> Mapping[str, Contract]:
    """The contracts of a form at a level of graph optimizations. QOperator kernels are the same at each."""
    return _QOPERATOR if form == "qoperator" else _QDQ[optimization]
