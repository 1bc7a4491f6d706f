"""The kernels of torch's eager quantized dtypes, by the dispatcher's names: what each computed on what it received."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from qfuzz.audit.torch_lowered import LOWERED
from qfuzz.audit.torch_readings import (
    Reading,
    Work,
    adaptive_avg_pool,
    asked,
    avg_pool,
    batched,
    binary,
    clamp_between,
    concat,
    elu,
    leaky_relu,
    max_pool,
    mean,
    pad_zeros,
    reshape,
    select,
    slice_along,
    softmax,
    split,
    swapped,
    transpose,
    unary,
)
from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import STORAGE, Value, value_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.activation import Clamp, Hardsigmoid, Hardswish, Relu, Sigmoid, Tanh
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.quantization import Dequantize, Quantize


def _conv(spatial: int, relu: bool) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        packed = call["packed_weight"] if "packed_weight" in call.arguments else call["weight"]
        unpack = torch.ops.quantized.conv1d_unpack if spatial == 1 else torch.ops.quantized.conv2d_unpack
        strides, sides, dilations = (tuple(v())[-spatial:] for v in (packed.stride, packed.padding, packed.dilation))
        if packed.transpose():
            raise InvalidCase("a transposed convolution; qfuzz has no such operator yet")
        op = Conv(strides=strides, padding=sides * 2, dilations=dilations, groups=packed.groups(), relu=relu)
        x, got = batched(call, spatial)
        zeros = torch.zeros((1, x.array.shape[1], *(1,) * spatial), dtype=torch.int32)
        kernel = torch.ops.quantized.conv1d if spatial == 1 else torch.ops.quantized.conv2d.new
        yield Work(op, (x, *_weights(*unpack(packed))), asked(call, x), got, _family(kernel, zeros, packed))

    return read


def _linear(relu: bool) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        packed = call["W_prepack"]
        x, (y,) = call.x, call.outputs
        if x.array.ndim == 1:
            x, y = x.reshaped(1, -1), y.reshaped(1, -1)
        family = _family(torch.ops.quantized.linear, torch.zeros((1, x.array.shape[-1]), dtype=torch.int32), packed)
        operands = (x, *_weights(*torch.ops.quantized.linear_unpack(packed)))
        yield Work(Linear(relu=relu), operands, asked(call, x), y.array, family)

    return read


def _weights(weight: Any, bias: Any) -> tuple[Value, ...]:
    return (value_of(weight),) if bias is None else (value_of(weight), value_of(bias))


def _family(kernel: Any, zeros: Any, packed: Any) -> str:
    """Whose packed weights these are: each family refuses 32-bit activations, by its own name."""
    x = torch._make_per_tensor_quantized_tensor(zeros, 1.0, 0)
    try:
        kernel(x, packed, 1.0, 0)
    except RuntimeError as e:
        message = str(e)
        if "qnnpack" in message:
            return "qnnpack"
        if "ONEDNN" in message:
            return "onednn"
        if "QUInt8 but got QInt32" in message:
            return "fbgemm"
    raise InvalidCase("the packed weights do not say whose they are: fbgemm, onednn or qnnpack")


def _quantize(call: Call) -> Iterator[Work]:
    scale, zero_point = (v.array.item() if isinstance(v, Value) else v for v in (call["scale"], call["zero_point"]))
    dtype = STORAGE.get(call["dtype"])
    if dtype is None:
        raise InvalidCase(f"quantized to {call['dtype']}; quint8 and qint8 are judged")
    yield Work(Quantize(), (call.x,), QType.per_tensor(dtype, float32(scale), int(zero_point)), call.outputs[0].array)


def _dequantize(call: Call) -> Iterator[Work]:
    xs = call.x if isinstance(call.x, Sequence) else [call.x]
    for x, y in zip(xs, call.outputs, strict=True):
        yield Work(Dequantize(), (x,), y.type.element, y.array)


_MOVES = (
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "expand"),
    *("clone", "detach", "alias"),
)

_ENDINGS = ("", "_relu")

READINGS: Mapping[str, Reading] = MappingProxyType(
    {
        **{f"quantized::conv{n}d{end}": _conv(n, bool(end)) for n in (1, 2) for end in _ENDINGS},
        **{f"quantized::linear{end}": _linear(bool(end)) for end in _ENDINGS},
        **{f"quantized::add{end}": binary(Add(relu=bool(end))) for end in _ENDINGS},
        **{f"quantized::mul{end}": binary(Mul(relu=bool(end))) for end in _ENDINGS},
        "quantized::cat": concat,
        "aten::cat": concat,
        "aten::stack": concat,
        "aten::relu": unary(lambda call: Relu()),
        "quantized::relu6": unary(lambda call: Clamp(min=0.0, max=6.0)),
        "aten::hardtanh": unary(clamp_between("min_val", "max_val")),
        "aten::clamp": unary(clamp_between("min", "max")),
        "quantized::clamp": unary(clamp_between("min", "max")),
        "quantized::leaky_relu": unary(leaky_relu),
        "aten::leaky_relu": unary(leaky_relu),
        "quantized::elu": unary(elu),
        "quantized::hardswish": unary(lambda call: Hardswish()),
        "aten::hardsigmoid": unary(lambda call: Hardsigmoid()),
        "quantized::sigmoid": unary(lambda call: Sigmoid()),
        "aten::sigmoid": unary(lambda call: Sigmoid()),
        "aten::tanh": unary(lambda call: Tanh()),
        "quantized::softmax": unary(softmax),
        "quantized::max_pool1d": max_pool(1),
        "quantized::max_pool2d": max_pool(2),
        "aten::quantized_max_pool1d": max_pool(1),
        "aten::quantized_max_pool2d": max_pool(2),
        "aten::avg_pool2d": avg_pool(2),
        "aten::_adaptive_avg_pool2d": adaptive_avg_pool(2),
        "aten::mean": mean,
        "aten::quantize_per_tensor": _quantize,
        "aten::dequantize": _dequantize,
        **{f"aten::{op}": reshape for op in _MOVES},
        "aten::permute": transpose(lambda call, n: call["dims"]),
        "aten::transpose": transpose(swapped),
        "aten::t": transpose(lambda call, n: tuple(reversed(range(n)))),
        "aten::slice": slice_along,
        "aten::select": select,
        "aten::split": split,
        "aten::split_with_sizes": split,
        "aten::constant_pad_nd": pad_zeros,
        **LOWERED,
    }
)
"""The dispatcher's operator (no underscore for in place) to what it computed, or `InvalidCase` with why not."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "aten::int_repr": "reads the stored integers; what is computed from them is outside the quantized operators",
        "aten::_make_per_tensor_quantized_tensor": "calls integers that were made elsewhere a quantized tensor",
        "aten::_make_per_channel_quantized_tensor": "calls integers that were made elsewhere a quantized tensor",
        "quantized::linear_dynamic": "dynamic quantization: the activation's scale is chosen while it runs",
        "quantized::linear_relu_dynamic": "dynamic quantization: the activation's scale is chosen while it runs",
        "aten::quantize_per_tensor_dynamic": "the scale is chosen while it runs",
    }
)
"""Why an operator without a reading is not judged, where more can be said than that qfuzz has no such operator."""

NO_OPERATOR = "qfuzz has no such operator"
"""The reason of all others."""
