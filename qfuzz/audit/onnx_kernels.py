"""Nodes that compute on stored integers, said as operators: one short function each."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.audit.onnx_movement import MOVEMENT, max_pool
from qfuzz.audit.onnx_values import (
    Call,
    Operand,
    Reading,
    Work,
    attributes_only,
    channels_first,
    plain,
    single,
    windows,
)
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType
from qfuzz.ops.activation import Clamp, LeakyRelu, Relu, Sigmoid
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.ops.softmax import Softmax


def _output(call: Call, scale: int, zero_point: int) -> QType:
    return call.qtype(call.result().dtype, scale, zero_point)


def _qlinear_conv(call: Call) -> Iterator[Work]:
    x = call.quantized(0, 1, 2)
    weight = call.constant(3, "the weight")
    q_w = call.qtype(weight.dtype, 4, 5, axis=0)
    got, layout = call.result(), ""
    if call.attribute("channels_last", 0):
        x, got, layout = replace(x, array=channels_first(x.array)), channels_first(got), "channels_last"
    strides, padding, dilations = windows(call, x.array.shape[2:], weight.shape[2:])
    op = Conv(strides=strides, padding=padding, dilations=dilations, groups=call.attribute("group", 1))
    bias = (Operand(call.constant(8, "the bias"), "int32"),) if call.has(8) else ()
    yield Work(op, (x, Operand(weight, q_w), *bias), _output(call, 6, 7), got, layout)


def _qlinear_matmul(call: Call) -> Iterator[Work]:
    weight = _matrix(call, 3)
    q_w = call.qtype(weight.dtype, 4, 5, axis=0)
    yield single(call, Linear(), (call.quantized(0, 1, 2), Operand(weight.T, q_w)), _output(call, 6, 7))


def _matrix(call: Call, position: int) -> Any:
    if call.node.input[position] not in call.trace.constants:
        raise InvalidCase("a product of two activations: qfuzz has no such operator")
    weight = call.array(position)
    if weight.ndim != 2:
        raise InvalidCase(f"a stack of matrices of shape {weight.shape}: qfuzz has no such operator")
    return weight


def _qgemm(call: Call) -> Iterator[Work]:
    if not call.has(7):
        raise InvalidCase("it returns float32, without an output scale: qfuzz has no such operator")
    attributes_only(call, transA=0, alpha=1.0)
    weight = _matrix(call, 3)
    if not call.attribute("transB", 0):
        weight = weight.T
    q_w = call.qtype(weight.dtype, 4, 5, axis=0)
    bias: tuple[Operand, ...] = ()
    if call.has(6):
        c = call.constant(6, "the bias")
        if c.size not in (1, weight.shape[0]) or (c.ndim and c.shape[-1] != c.size):
            raise InvalidCase(f"bias: shape {c.shape}; one for each of {weight.shape[0]} output channels is judged")
        bias = (Operand(np.broadcast_to(c.reshape(-1), (weight.shape[0],)), "int32"),)
    yield single(call, Linear(), (call.quantized(0, 1, 2), Operand(weight, q_w), *bias), _output(call, 7, 8))


def _binary(op: Any) -> Reading:
    def reading(call: Call) -> Iterator[Work]:
        yield single(call, op(), (call.quantized(0, 1, 2), call.quantized(3, 4, 5)), _output(call, 6, 7))

    return reading


def _sigmoid(call: Call) -> Iterator[Work]:
    yield single(call, Sigmoid(), (call.quantized(0, 1, 2),), _output(call, 3, 4))


def _leaky_relu(call: Call) -> Iterator[Work]:
    slope = float(np.float32(call.attribute("alpha", 0.01)))
    yield single(call, LeakyRelu(negative_slope=slope), (call.quantized(0, 1, 2),), _output(call, 3, 4))


def _softmax(call: Call) -> Iterator[Work]:
    x, got = call.quantized(0, 1, 2), call.result()
    opset = call.attribute("opset", 13)
    axis = call.attribute("axis", -1 if opset >= 13 else 1) % max(x.array.ndim, 1)
    if opset < 13:  # dimensions from the axis on are one
        matrix = (math.prod(x.array.shape[:axis]), math.prod(x.array.shape[axis:]))
        x, got, axis = replace(x, array=x.array.reshape(matrix)), got.reshape(matrix), 1
    yield Work(Softmax(axis=axis), (x,), _output(call, 3, 4), got)


def _concat(call: Call) -> Iterator[Work]:
    operands = tuple(call.quantized(i, i + 1, i + 2) for i in range(2, len(call.node.input), 3))
    axis = call.attribute("axis") % operands[0].array.ndim
    yield single(call, Concat(axis=axis), operands, _output(call, 0, 1))


def _average_pool(call: Call) -> Iterator[Work]:
    x, got, layout = call.quantized(0, 1, 2), call.result(), ""
    if call.attribute("channels_last", 0):
        x, got, layout = replace(x, array=channels_first(x.array)), channels_first(got), "channels_last"
    kernel = call.attribute("kernel_shape")
    strides, padding, dilations = windows(call, x.array.shape[2:], kernel)
    if any(d != 1 for d in dilations):
        raise InvalidCase(f"dilations = {dilations}: qfuzz has no such average pool")
    op = AvgPool(
        kernel=kernel,
        strides=strides,
        padding=padding,
        ceil_mode=bool(call.attribute("ceil_mode", 0)),
        count_include_pad=bool(call.attribute("count_include_pad", 0)),
    )
    yield Work(op, (x,), _output(call, 3, 4), got, layout)


def _global_average_pool(call: Call) -> Iterator[Work]:
    x, got, layout = call.quantized(0, 1, 2), call.result(), ""
    if call.attribute("channels_last", 0):
        x, got, layout = replace(x, array=channels_first(x.array)), channels_first(got), "channels_last"
    yield Work(GlobalAvgPool(), (x,), _output(call, 3, 4), got, layout)


def _quantize(call: Call) -> Iterator[Work]:
    x, got = call.array(0), call.result()
    if x.dtype != np.float32:
        raise InvalidCase(f"elements of {x.dtype} are quantized; float32 is judged")
    yield single(call, Quantize(), (Operand(x, "float32"),), call.qtype(got.dtype, 1, 2))


def _dequantize(call: Call) -> Iterator[Work]:
    if call.result().dtype != np.float32:
        raise InvalidCase(f"it returns {call.result().dtype}; float32 is judged")
    yield single(call, Dequantize(), (call.quantized(0, 1, 2),), "float32")


def _relu(call: Call) -> Iterator[Work]:
    x = plain(call.array(0))
    yield single(call, Relu(), (x,), x.element)


def _clip(call: Call) -> Iterator[Work]:
    x = plain(call.array(0))
    assert isinstance(x.element, QType)
    low = float(call.array(1).reshape(())) if call.has(1) else float(x.element.qmin)
    high = float(call.array(2).reshape(())) if call.has(2) else float(x.element.qmax)
    yield single(call, Clamp(min=low, max=high), (x,), x.element)


def _nhwc_max_pool(call: Call) -> Iterator[Work]:
    x = plain(call.array(0))
    first = replace(x, array=channels_first(x.array))
    work = max_pool(call, first, x.element, channels_first(call.result()))
    yield replace(work, layout="channels_last")


KERNELS: Mapping[str, Reading] = MappingProxyType(
    dict(MOVEMENT)
    | {
        "QLinearConv": _qlinear_conv,
        "QLinearMatMul": _qlinear_matmul,
        "QGemm": _qgemm,
        "QLinearAdd": _binary(Add),
        "QLinearMul": _binary(Mul),
        "QLinearSigmoid": _sigmoid,
        "QLinearLeakyRelu": _leaky_relu,
        "QLinearSoftmax": _softmax,
        "QLinearConcat": _concat,
        "QLinearAveragePool": _average_pool,
        "QLinearGlobalAveragePool": _global_average_pool,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        "Relu": _relu,
        "Clip": _clip,
        "NhwcMaxPool": _nhwc_max_pool,
    }
)
"""Operator, of whatever domain, to its reading where it is given stored integers (QuantizeLinear: float32)."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "MatMulInteger": "it returns int32 sums, which a float32 kernel scales: qfuzz has no such operator",
        "ConvInteger": "it returns int32 sums, which a float32 kernel scales: qfuzz has no such operator",
        "MatMulIntegerToFloat": "it returns float32, without an output scale: qfuzz has no such operator",
        "DynamicQuantizeMatMul": "scales are computed while it runs, and it returns float32",
        "DynamicQuantizeLinear": "scale and zero point are computed from the data: qfuzz has no such operator",
        "DynamicQuantizeLSTM": "a recurrent layer: qfuzz has no such operator",
        "QAttention": "attention as one kernel: qfuzz has no such operator",
    }
)
"""Why the operators of that name are listed, not judged."""
