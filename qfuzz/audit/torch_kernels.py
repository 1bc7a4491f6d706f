"""Calls of torch's quantized kernels as qfuzz's operators: one short function for each family of calls.

The other direction of `qfuzz.backends.torch_dialect`. What a function cannot say as one operator is `InvalidCase`, and
its message is the reason that a report gives.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch

from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import STORAGE, Value, value_of
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.ops.softmax import Softmax


@dataclass(frozen=True)
class Work:
    """What a call computed, as one operator.

    Attributes
    ----------
    operands
        In the operator's order, constants included.
    got
        The output's elements, in the shape that the operator gives.
    family
        Whose kernel it is, where packed weights tell: fbgemm, onednn, qnnpack.
    contract
        Where it is another than the engine's for that operator.
    """

    op: Operator
    operands: tuple[Value, ...]
    element: Element
    got: Array
    family: str = ""
    contract: Contract | None = None


Reading: TypeAlias = Callable[[Call], Iterator[Work]]


_QPARAMS = (("output_scale", "output_zero_point"), ("Y_scale_i", "Y_zero_point_i"), ("scale", "zero_point"))
"""How schemas name the qparams of an output."""


def _asked(call: Call, x: Value) -> Element:
    """The output's type: scale and zero point as the call asks for them, else as the output says."""
    (y,) = call.outputs
    for scale, zero_point in (
        ("output_scale", "output_zero_point"),
        ("Y_scale_i", "Y_zero_point_i"),
        ("scale", "zero_point"),
    ):
        if call.arguments.get(scale) is not None:
            return QType.per_tensor(x.qtype.dtype, float32(call[scale]), int(call[zero_point]))
    return y.type.element


def _conv(spatial: int, relu: bool) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        packed = call["packed_weight"] if "packed_weight" in call.arguments else call["weight"]
        unpack = torch.ops.quantized.conv1d_unpack if spatial == 1 else torch.ops.quantized.conv2d_unpack
        strides, sides, dilations = (tuple(v())[-spatial:] for v in (packed.stride, packed.padding, packed.dilation))
        if packed.transpose():
            raise InvalidCase("a transposed convolution; qfuzz has no such operator yet")
        op = Conv(strides=strides, padding=sides * 2, dilations=dilations, groups=packed.groups(), relu=relu)
        x, got = _batched(call, spatial)
        zeros = torch.zeros((1, x.array.shape[1], *(1,) * spatial), dtype=torch.int32)
        kernel = torch.ops.quantized.conv1d if spatial == 1 else torch.ops.quantized.conv2d.new
        yield Work(op, (x, *_weights(*unpack(packed))), _asked(call, x), got, _family(kernel, zeros, packed))

    return read


def _linear(relu: bool) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        packed = call["W_prepack"]
        x, (y,) = call.x, call.outputs
        if x.array.ndim == 1:
            x, y = x.reshaped(1, -1), y.reshaped(1, -1)
        family = _family(torch.ops.quantized.linear, torch.zeros((1, x.array.shape[-1]), dtype=torch.int32), packed)
        operands = (x, *_weights(*torch.ops.quantized.linear_unpack(packed)))
        yield Work(Linear(relu=relu), operands, _asked(call, x), y.array, family)

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


def _batched(call: Call, spatial: int) -> tuple[Value, Array]:
    """The first input and the output of an operator on images, with a batch dimension."""
    x, (y,) = call.x, call.outputs
    if x.array.ndim == spatial + 1:
        return x.reshaped(1, *x.array.shape), y.array.reshape(1, *y.array.shape)
    return x, y.array


def _binary(op: Operator) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        a, b = list(call.arguments.values())[:2]
        if not isinstance(a, Value) or not isinstance(b, Value):
            raise InvalidCase("one operand is a number; qfuzz judges two tensors")
        yield Work(op, (a, b), _asked(call, a), call.outputs[0].array)

    return read


def _concat(call: Call) -> Iterator[Work]:
    """Of more inputs than qfuzz's operator takes, some at a time."""
    parts, (y,) = list(call.x), call.outputs
    if call.op == "aten::stack":
        axis = int(call["dim"]) % (parts[0].array.ndim + 1)
        parts = [p.reshaped(*p.array.shape[:axis], 1, *p.array.shape[axis:]) for p in parts]
    axis = int(call["dim"]) % parts[0].array.ndim
    element = _asked(call, parts[0])
    most = Concat.arity[1]
    for first in range(0, len(parts), most):
        some = parts[first : first + most]
        start = sum(p.array.shape[axis] for p in parts[:first])
        stop = start + sum(p.array.shape[axis] for p in some)
        yield Work(Concat(axis=axis), tuple(some), element, y.array.take(range(start, stop), axis=axis))


def _unary(op_of: Callable[[Call], Operator]) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        yield Work(op_of(call), (call.x,), _asked(call, call.x), call.outputs[0].array)

    return read


def _clamp(low: str, high: str) -> Callable[[Call], Operator]:
    def op_of(call: Call) -> Operator:
        bounds = (call.arguments.get(low), call.arguments.get(high))
        if any(isinstance(b, Value) for b in bounds):
            raise InvalidCase("bounds are tensors; qfuzz's clamp has numbers")
        q = call.x.qtype
        beyond = 2.0 ** (np.ceil(np.log2(q.scale[0])) + 9)  # no stored integer reaches it
        return Clamp(
            min=-beyond if bounds[0] is None else float32(float(bounds[0])),
            max=beyond if bounds[1] is None else float32(float(bounds[1])),
        )

    return op_of


def _leaky_relu(call: Call) -> Operator:
    return LeakyRelu(negative_slope=float32(float(call["negative_slope"])))


def _elu(call: Call) -> Operator:
    if (float(call["scale"]), float(call["input_scale"])) != (1.0, 1.0):
        raise InvalidCase("scale and input_scale are not 1; qfuzz's elu has neither")
    return Elu(alpha=float32(float(call["alpha"])))


def _softmax(call: Call) -> Operator:
    return Softmax(axis=int(call["dim"]) % call.x.array.ndim)


def _pool_settings(call: Call, n: int) -> dict[str, Any]:
    """Kernel, strides, padding (and dilations) of a pool: one number may stand for all dimensions."""
    kernel = _each(call["kernel_size"], n)
    stride = _each(call["stride"], n) if call["stride"] else kernel
    return {"kernel": kernel, "strides": stride, "padding": _each(call["padding"], n) * 2}


def _each(value: Any, n: int) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * n if len(numbers) == 1 else numbers


def _max_pool(spatial: int) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        x, got = _batched(call, spatial)
        dilations = _each(call["dilation"], spatial)
        op = MaxPool(**_pool_settings(call, spatial), dilations=dilations, ceil_mode=bool(call["ceil_mode"]))
        yield Work(op, (x,), _asked(call, x), got)

    return read


def _avg_pool(call: Call) -> Iterator[Work]:
    if call["divisor_override"] is not None:
        raise InvalidCase("divisor_override is given; qfuzz's avg_pool divides by the window")
    x, got = _batched(call, 2)
    ceil, include = bool(call["ceil_mode"]), bool(call["count_include_pad"])
    op = AvgPool(**_pool_settings(call, 2), ceil_mode=ceil, count_include_pad=include)
    yield Work(op, (x,), _asked(call, x), got)


def _adaptive_avg_pool(call: Call) -> Iterator[Work]:
    if set(call["output_size"]) != {1}:
        raise InvalidCase(f"output size {list(call['output_size'])}; qfuzz judges adaptive pools to size 1")
    x, got = _batched(call, 2)
    yield Work(GlobalAvgPool(), (x,), _asked(call, x), got)


_MEAN = Contract(
    terms="affine",
    k=6,
    tie="either_even",
    accumulates_float=True,
    source="aten/src/ATen/native/quantized/ReduceOps.cpp mean_out_quantized_cpu: dequantized, averaged in float32 and "
    "quantized again (an inner dimension: integers are summed, as in avg_pool)",
)


def _mean(call: Call) -> Iterator[Work]:
    x, (y,) = call.x, call.outputs
    n = x.array.ndim
    dims = {int(d) % n for d in call["dim"] or range(n)}
    if n not in (3, 4) or dims != set(range(2, n)):
        raise InvalidCase(f"a mean over dimensions {sorted(dims)} of {n}; qfuzz judges means over all spatial ones")
    got = y.array.reshape(*x.array.shape[:2], *(1,) * (n - 2))
    yield Work(GlobalAvgPool(), (x,), _asked(call, x), got, contract=_MEAN)


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


# Movement: the output's own qparams hold, for a view has those of its base.


def _reshape(call: Call) -> Iterator[Work]:
    (y,) = call.outputs
    yield Work(Reshape(shape=y.array.shape), (call.x,), y.type.element, y.array)


def _transpose(perm_of: Callable[[Call, int], Sequence[int]]) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        n, (y,) = call.x.array.ndim, call.outputs
        perm = tuple(int(p) % n for p in perm_of(call, n))
        yield Work(Transpose(perm=perm), (call.x,), y.type.element, y.array)

    return read


def _swapped(n: int, a: int, b: int) -> list[int]:
    perm = list(range(n))
    if n:
        perm[a], perm[b] = perm[b], perm[a]
    return perm


def _slice(call: Call) -> Iterator[Work]:
    axis = int(call["dim"]) % call.x.array.ndim
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(call.x.array.shape[axis])
    (y,) = call.outputs
    yield Work(Slice(axis=axis, start=start, stop=max(start, stop), step=step), (call.x,), y.type.element, y.array)


def _select(call: Call) -> Iterator[Work]:
    axis, (y,) = int(call["dim"]) % call.x.array.ndim, call.outputs
    start = int(call["index"]) % call.x.array.shape[axis]
    got = np.expand_dims(y.array, axis)
    yield Work(Slice(axis=axis, start=start, stop=start + 1), (call.x,), y.type.element, got)


def _split(call: Call) -> Iterator[Work]:
    axis, start = int(call["dim"]) % call.x.array.ndim, 0
    for y in call.outputs:
        stop = start + y.array.shape[axis]
        yield Work(Slice(axis=axis, start=start, stop=stop), (call.x,), y.type.element, y.array)
        start = stop


def _pad(call: Call) -> Iterator[Work]:
    if float(call["value"] or 0) != 0.0:
        raise InvalidCase(f"padded with {call['value']}; qfuzz's pad adds zeros")
    n, sides, (y,) = call.x.array.ndim, list(call["pad"]), call.outputs
    before, after = [0] * n, [0] * n
    for i, side in enumerate(sides):
        (before if i % 2 == 0 else after)[n - 1 - i // 2] = int(side)
    if min(sides, default=0) < 0:
        raise InvalidCase(f"padding {sides}: a negative side crops; qfuzz's pad only adds")
    yield Work(Pad(padding=(*before, *after)), (call.x,), y.type.element, y.array)


def _expand(call: Call) -> Iterator[Work]:
    if call.x.array.size != call.outputs[0].array.size:
        raise InvalidCase("elements are repeated; qfuzz has no such operator")
    yield from _reshape(call)


_MOVES = ("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "clone", "detach", "alias")

_ENDINGS = ("", "_relu")

READINGS: Mapping[str, Reading] = MappingProxyType(
    {
        **{f"quantized::conv{n}d{end}": _conv(n, bool(end)) for n in (1, 2) for end in _ENDINGS},
        **{f"quantized::linear{end}": _linear(bool(end)) for end in _ENDINGS},
        **{f"quantized::add{end}": _binary(Add(relu=bool(end))) for end in _ENDINGS},
        **{f"quantized::mul{end}": _binary(Mul(relu=bool(end))) for end in _ENDINGS},
        "quantized::cat": _concat,
        "aten::cat": _concat,
        "aten::stack": _concat,
        **{f"aten::relu{end}": _unary(lambda call: Relu()) for end in ("", "_")},
        "quantized::relu6": _unary(lambda call: Clamp(min=0.0, max=6.0)),
        **{f"aten::hardtanh{end}": _unary(_clamp("min_val", "max_val")) for end in ("", "_")},
        **{f"aten::clamp{end}": _unary(_clamp("min", "max")) for end in ("", "_")},
        "quantized::clamp": _unary(_clamp("min", "max")),
        "quantized::leaky_relu": _unary(_leaky_relu),
        **{f"aten::leaky_relu{end}": _unary(_leaky_relu) for end in ("", "_")},
        "quantized::elu": _unary(_elu),
        "quantized::hardswish": _unary(lambda call: Hardswish()),
        "aten::hardsigmoid": _unary(lambda call: Hardsigmoid()),
        "quantized::sigmoid": _unary(lambda call: Sigmoid()),
        "aten::sigmoid": _unary(lambda call: Sigmoid()),
        "aten::tanh": _unary(lambda call: Tanh()),
        "quantized::softmax": _unary(_softmax),
        "quantized::max_pool1d": _max_pool(1),
        "quantized::max_pool2d": _max_pool(2),
        "aten::quantized_max_pool1d": _max_pool(1),
        "aten::quantized_max_pool2d": _max_pool(2),
        "aten::avg_pool2d": _avg_pool,
        "aten::_adaptive_avg_pool2d": _adaptive_avg_pool,
        "aten::mean": _mean,
        "aten::quantize_per_tensor": _quantize,
        "aten::dequantize": _dequantize,
        **{f"aten::{op}": _reshape for op in _MOVES},
        "aten::expand": _expand,
        "aten::permute": _transpose(lambda call, n: call["dims"]),
        "aten::transpose": _transpose(lambda call, n: _swapped(n, call["dim0"], call["dim1"])),
        "aten::t": _transpose(lambda call, n: tuple(reversed(range(n)))),
        "aten::slice": _slice,
        "aten::select": _select,
        "aten::split": _split,
        "aten::split_with_sizes": _split,
        "aten::constant_pad_nd": _pad,
    }
)
"""The dispatcher's operator to what it computed, or `InvalidCase` with why that cannot be said as one operator."""

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
