"""The onednn kernels that PT2E graphs are lowered to on x86: plain integers; scales and zero points are arguments."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.audit.torch_readings import Reading, Work, batched, each
from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import STORAGE, Value
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear

FAMILY = "export"
"""The engine of `qfuzz.backends.torch_contracts` that these kernels are."""


def _number(value: Any) -> float:
    return float(value.array.item() if isinstance(value, Value) else value)


def _activation(value: Value, scale: Any, zero_point: Any) -> Value:
    """Plain integers, as what the call's arguments say that they are."""
    dtype = value.stored
    if dtype is None:
        raise InvalidCase(value.problem)
    q = QType.per_tensor(dtype, float32(_number(scale)), int(_number(zero_point)))
    return replace(value, element=q)


def _output(call: Call) -> QType:
    dtype = STORAGE.get(call["output_dtype"])
    if dtype is None:
        raise InvalidCase(f"output of {call['output_dtype']}: it is not quantized")
    return QType.per_tensor(dtype, float32(_number(call["output_scale"])), int(_number(call["output_zero_point"])))


def _weights(call: Call, stored: Any) -> tuple[Value, ...]:
    """Symmetric int8 weights: the kernels ignore their zero points; a float32 bias, if any."""
    scales = tuple(float32(float(s)) for s in call["w_scale"].array.ravel())
    q = QType("int8", scales, (0,) * len(scales), None if len(scales) == 1 else 0)
    weight = Value(np.ascontiguousarray(stored), q)
    return (weight,) if call["bias"] is None else (weight, call["bias"])


def _relu(call: Call, argument: str) -> bool:
    post_op = call[argument]
    if post_op not in ("none", "relu"):
        raise InvalidCase(f"post operation {post_op!r}; qfuzz fuses relu only")
    return bool(post_op == "relu")


def _conv(call: Call) -> Iterator[Work]:
    if "binary" in call.overload:
        raise InvalidCase("a sum is fused into it; qfuzz has no operator of both")
    weight = call["qw"].array
    n = weight.ndim - 2
    x, got = batched(call, n)
    op = Conv(
        strides=each(call["stride"], n),
        padding=each(call["padding"], n) * 2,
        dilations=each(call["dilation"], n),
        groups=int(call["groups"]),
        relu=_relu(call, "attr"),
    )
    operands = (_activation(x, call["x_scale"], call["x_zero_point"]), *_weights(call, weight))
    yield Work(op, operands, _output(call), got, FAMILY)


def _linear(call: Call) -> Iterator[Work]:
    if "binary" in call.overload:
        raise InvalidCase("a sum is fused into it; qfuzz has no operator of both")
    x, (y,) = call.x, call.outputs
    if x.array.ndim == 1:
        x, y = x.reshaped(1, -1), y.reshaped(1, -1)
    # The packed weight is the transposed one.
    operands = (_activation(x, call["x_scale"], call["x_zero_point"]), *_weights(call, call["qw"].array.T))
    yield Work(Linear(relu=_relu(call, "post_op_name")), operands, _output(call), y.array, FAMILY)


def _binary(op: Operator) -> Reading:
    def read(call: Call) -> Iterator[Work]:
        a = _activation(call["self"], call["self_scale"], call["self_zero_point"])
        b = _activation(call["other"], call["other_scale"], call["other_zero_point"])
        yield Work(op, (a, b), _output(call), call.outputs[0].array, FAMILY)

    return read


LOWERED: Mapping[str, Reading] = MappingProxyType(
    {
        "onednn::qconv_pointwise": _conv,
        "onednn::qconv1d_pointwise": _conv,
        "onednn::qconv2d_pointwise": _conv,
        "onednn::qlinear_pointwise": _linear,
        "onednn::qadd": _binary(Add()),
        "onednn::qadd_relu": _binary(Add(relu=True)),
        "onednn::qmul": _binary(Mul()),
    }
)
"""The dispatcher's operator to what it computed."""
