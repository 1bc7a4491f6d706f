"""What runs when a PT2E-converted graph is not lowered: float32 operators between dequantizing and quantizing.

The contracts are counted from torch's own source. Every chain begins with ``(q.to(float32) - zero_point) * scale``, one
rounding for each operand, and ends with ``round(y * (1.0 / scale)) + zero_point``, two roundings: the reciprocal as
float32, and the product. Rounding comes before the zero point.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace as replaced

from qfuzz.audit.torch_kernels import READINGS
from qfuzz.audit.torch_readings import (
    Reading,
    Work,
    adaptive_avg_pool,
    avg_pool,
    batched,
    binary,
    each,
    elu,
    max_pool,
    pad_zeros,
    softmax,
    unary,
)
from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import Value
from qfuzz.ir.contract import Contract, Terms
from qfuzz.ir.errors import InvalidCase
from qfuzz.ops.activation import Clamp, Hardswish
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear

_ENDS = "torch/ao/quantization/fx/_decomposed.py: dequantize 1 rounding an operand, quantize 2"


_SAME_AS_QUANTIZED = (
    *("relu", "hardtanh", "clamp", "leaky_relu", "hardsigmoid", "sigmoid", "tanh"),
    *("avg_pool2d", "_adaptive_avg_pool2d", "mean", "cat", "constant_pad_nd"),
)
"""Operators whose calls read alike on quantized tensors."""


def _float32(k: int, between: str, *, sums: bool = False, ulps: float = 0.0, terms: Terms = "real") -> Contract:
    source = f"{_ENDS}; between: {between}"
    return Contract(terms=terms, k=k, tie="half_even", source=source, accumulates_float=sums, function_ulps=ulps)


_CONTRACTION = _float32(5, "aten float32 product, 1 rounding; sums in any order, a bias one more", sums=True)
_POOL = _float32(4, "aten/native/cpu/AvgPoolKernel.cpp, mean: a float32 sum, then divided, 1 rounding", sums=True)
_SAME = _float32(3, "elements are moved or compared")

DECOMPOSED: Mapping[str, Contract] = MappingProxyType(
    {
        "quantize": Contract(
            terms="real", k=2, tie="half_even", source="torch/ao/quantization/fx/_decomposed.py quantize_per_tensor"
        ),
        "dequantize": Contract(
            terms="exact", k=0, tie="half_even", source="torch/ao/quantization/fx/_decomposed.py dequantize_per_tensor"
        ),
        "requantize": _SAME,
        "conv": _CONTRACTION,
        "linear": _CONTRACTION,
        "add": _float32(4, "one addition"),
        "mul": _float32(5, "one product"),
        "relu": _SAME,
        "clamp": _SAME,
        "max_pool": _SAME,
        "concat": _SAME,
        "pad": _SAME,
        "avg_pool": _POOL,
        "global_avg_pool": _POOL,
        "adaptive_avg_pool": _float32(5, "aten/native/cpu/AdaptiveAvgPoolKernel.cpp: a sum / kh / kw", sums=True),
        "leaky_relu": _float32(4, "aten/native/cpu/Activation.cpp: x * slope"),
        "hardsigmoid": _float32(6, "aten/native/cpu/Activation.cpp: (x + 3) clamped, times fl(1/6)"),
        "hardswish": _float32(7, "aten/native/cpu/Activation.cpp: x * (x + 3) clamped, times fl(1/6)"),
        "elu": _float32(4, "ATen/native/cpu/Elu.h: expm1(x) (sleef, 1 ulp) * alpha", ulps=1.0),
        "sigmoid": _float32(5, "aten: 1 / (1 + exp(-x)), 2 roundings, sleef's exp within 1 ulp", ulps=1.0),
        "tanh": _float32(3, "aten: sleef's tanh within 1 ulp", ulps=1.0),
        "softmax": _float32(6, "aten: exp(x - max) (sleef, 1 ulp) over its sum", ulps=1.0),
    }
)
"""Operator to what its unlowered form promises."""


def _conv(call: Call) -> Iterator[Work]:
    if call.arguments.get("transposed"):
        raise InvalidCase("a transposed convolution; qfuzz has no such operator yet")
    kernel = call["weight"].array.shape[2:]
    n, (y,) = len(kernel), call.outputs
    x, got = batched(call, n)
    dilations = each(call["dilation"], n)
    op = Conv(
        strides=each(call["stride"], n),
        padding=_sides(call["padding"], kernel, dilations),
        dilations=dilations,
        groups=int(call["groups"]),
    )
    yield Work(op, (x, *_weights(call["weight"], call["bias"])), y.type.element, got)


def _sides(padding: Any, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> tuple[int, ...]:
    """Padding before and after each dimension; of `same`, the odd one comes after."""
    if padding == "valid":
        return (0,) * 2 * len(kernel)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        return (*(t // 2 for t in total), *(t - t // 2 for t in total))
    return each(padding, len(kernel)) * 2


def _linear(call: Call) -> Iterator[Work]:
    yield _product(call, call.x, call["weight"], call["bias"])


def _addmm(call: Call) -> Iterator[Work]:
    if (call["alpha"], call["beta"]) != (1, 1):
        raise InvalidCase("alpha and beta are not 1; qfuzz's linear has neither")
    yield _product(call, call["mat1"], _transposed(call["mat2"]), call["self"])


def _mm(call: Call) -> Iterator[Work]:
    yield _product(call, call["self"], _transposed(call["mat2"]), None)


def _product(call: Call, x: Value, weight: Value, bias: Value | None) -> Work:
    (y,) = call.outputs
    if x.array.ndim == 1:
        x, y = x.reshaped(1, -1), y.reshaped(1, -1)
    return Work(Linear(), (x, *_weights(weight, bias)), y.type.element, y.array)


def _transposed(weight: Value) -> Value:
    """The matrix whose transpose is `weight`."""
    q = weight.qtype
    return replace(weight, array=weight.array.T, element=q if q.axis is None else replaced(q, axis=1 - q.axis))


def _weights(weight: Value, bias: Value | None) -> tuple[Value, ...]:
    return (weight,) if bias is None else (weight, bias)


FLOAT_READINGS: Mapping[str, Reading] = MappingProxyType(
    {
        "aten::conv1d": _conv,
        "aten::conv2d": _conv,
        "aten::convolution": _conv,
        "aten::linear": _linear,
        "aten::addmm": _addmm,
        "aten::mm": _mm,
        "aten::add": binary(Add()),
        "aten::mul": binary(Mul()),
        "aten::relu6": unary(lambda call: Clamp(min=0.0, max=6.0)),
        "aten::elu": unary(elu),
        "aten::hardswish": unary(lambda call: Hardswish()),
        "aten::softmax": unary(softmax),
        "aten::_softmax": unary(softmax),
        "aten::max_pool1d": max_pool(1),
        "aten::max_pool2d": max_pool(2),
        "aten::max_pool2d_with_indices": max_pool(2),
        "aten::avg_pool1d": avg_pool(1),
        "aten::adaptive_avg_pool1d": adaptive_avg_pool(1),
        "aten::adaptive_avg_pool2d": adaptive_avg_pool(2),
        "aten::pad": pad_zeros,
        **{f"aten::{op}": READINGS[f"aten::{op}"] for op in _SAME_AS_QUANTIZED},
    }
)
"""The dispatcher's operator on float32 (no underscore for in place) to what it computes of dequantized values."""
