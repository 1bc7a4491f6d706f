"""The QOperator form: kernels on stored integers, each with its own scales and zero points. Pure.

QLinearConv, QLinearMatMul and QuantizeLinear are ONNX's; QGemm and the other QLinear operators are ONNX Runtime's own
(onnxruntime/docs/ContribOperators.md). Operators that move or compare stored integers are ONNX's plain ones. A relu
inside an operator is legal where saturation does it: where the output's zero point is qmin.
"""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.backends import onnx_dynamic, onnx_integer, onnx_qoperator_composite, onnx_rearrangement, onnx_weight_only
from qfuzz.backends.onnx_builder import MICROSOFT, NONE, Attributes, Builder, Lowering, quantized
from qfuzz.backends.onnx_geometry import conv_attributes
from qfuzz.backends.onnx_qdq import (
    avg_pool_attributes,
    condition,
    flatten_axis,
    gemm_factors,
    max_pool_attributes,
    slice_inputs,
)
from qfuzz.backends.onnx_quantization import dequantize, quantize
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType
from qfuzz.ops.activation import Clamp, LeakyRelu
from qfuzz.ops.convolution import Conv
from qfuzz.ops.movement import Concat, Pad, Reshape, Transpose
from qfuzz.ops.pooling import AvgPool, MaxPool
from qfuzz.ops.softmax import Softmax


def _same_dtype(b: Builder, node: Node) -> QType:
    """The output's type, for a kernel that has one dtype for all activations."""
    q = quantized(node.element)
    for position, name in enumerate(node.inputs):
        if position not in node.op.constant_inputs and b.network.types[name].dtype != q.dtype:
            dtype = b.network.types[name].dtype
            raise Unsupported(f"input {position}: {dtype} where the output is {q.dtype}; the kernel has one dtype")
    return q


def _same_qparams(b: Builder, node: Node) -> QType:
    """The type of input and output, for a kernel on stored integers that knows no scales."""
    if node.element != b.type(node).element:
        raise Unsupported("output: the kernel moves stored integers, so it keeps scale, zero point and dtype")
    return b.qtype(node)


def _check_relu(relu: bool, q: QType) -> None:
    if relu and q.zero_point[0] != q.qmin:
        raise Unsupported(
            "relu: QLinear kernels have none; "
            f"saturation does it where the output's zero point is {q.qmin}, not {q.zero_point[0]}"
        )


def _check_contraction(b: Builder, node: Node, kernel: str) -> QType:
    op: Any = node.op
    q_y = _same_dtype(b, node)
    _check_relu(op.relu, q_y)
    _check_factors(b, node, kernel, q_y)
    return q_y


def _check_factors(b: Builder, node: Node, kernel: str, q: QType) -> None:
    """What the kernel takes with activations of the type `q`."""
    q_w = b.qtype(node, 1)
    if q.dtype == "int8" and q_w.dtype != "int8":
        raise Unsupported(f"weight: {q_w.dtype}; {kernel} of int8 activations takes int8 weights")
    if len(node.inputs) == 3:
        _check_bias(b, node, kernel)


def _check_bias(b: Builder, node: Node, kernel: str) -> None:
    """Raise `Unsupported` unless the bias counts units of scale_x * scale_w, whatever its type says."""
    bias = b.type(node, 2)
    if isinstance(bias.element, QType):
        q_x, q_w = b.qtype(node), b.qtype(node, 1)
        channels = bias.shape[0]
        units = [s * q_x.exact_scale[0] for s in q_w.exact_scale]
        own = bias.element.exact_scale
        same = [u == s for u, s in zip(units * (channels // len(units)), own * (channels // len(own)), strict=True)]
        if bias.dtype != "int32" or not all(same):
            raise Unsupported(
                f"bias: {bias.dtype} with a scale of its own; {kernel} takes int32 in units of scale_x * scale_w"
            )
    elif bias.element != "int32":
        raise Unsupported(f"bias: float32; {kernel} takes an int32 bias in units of scale_x * scale_w")


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    q_y = _check_contraction(b, node, "QLinearConv")
    weight = b.constant(node.inputs[1])
    bias = [b.constant(node.inputs[2])] if len(node.inputs) == 3 else []
    inputs = [node.inputs[0], *b.qparams(b.qtype(node)), weight, *b.qparams(b.qtype(node, 1)), *b.qparams(q_y), *bias]
    b.emit("QLinearConv", inputs, node.name, conv_attributes(op, b.type(node, 1).shape[2:]))


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    is_matrix, to_float = len(b.type(node).shape) == 2, node.element == "float32"
    has_int32_bias = len(node.inputs) == 3 and b.type(node, 2).element == "int32"
    if is_matrix and (not to_float or gemm_factors(op) or has_int32_bias):
        _gemm(b, node)
        return
    if gemm_factors(op):
        raise Unsupported(f"alpha or beta: x has rank {len(b.type(node).shape)}; QGemm, which has alpha, takes rank 2")
    if to_float:
        _linear_to_float(b, node)
        return
    q_y = _check_contraction(b, node, "QLinearMatMul")
    if len(node.inputs) == 3:
        raise Unsupported(
            f"bias: x has rank {len(b.type(node).shape)}; QGemm takes a bias with rank 2 only, QLinearMatMul takes none"
        )
    weight = onnx_dynamic.transposed_weight(b, node)
    qparams_x, qparams_w = b.qparams(b.qtype(node)), b.qparams(b.qtype(node, 1))
    b.emit("QLinearMatMul", [node.inputs[0], *qparams_x, weight, *qparams_w, *b.qparams(q_y)], node.name)


def _gemm(b: Builder, node: Node) -> None:
    """QGemm, whose output is float32 where it is given no scale for it."""
    op: Any = node.op
    has_bias, to_float = len(node.inputs) == 3, node.element == "float32"
    qparams_x, qparams_w = b.qparams(b.qtype(node)), b.qparams(b.qtype(node, 1))
    if to_float:
        _check_factors(b, node, "QGemm", b.qtype(node))
        qparams_y: tuple[str, ...] = ()
    else:
        qparams_y = b.qparams(_check_contraction(b, node, "QGemm"))
    if has_bias and op.beta != op.alpha:
        raise Unsupported(
            f"beta {op.beta}: QGemm has none; its int32 bias has scale alpha / beta * scale_x * scale_w, which is "
            f"scale_x * scale_w for alpha {op.alpha} only"
        )
    alpha = {} if op.alpha == 1.0 else {"alpha": op.alpha}
    bias = [b.constant(node.inputs[2])] if has_bias else [""] * bool(qparams_y)
    inputs = [node.inputs[0], *qparams_x, b.constant(node.inputs[1]), *qparams_w, *bias, *qparams_y]
    out = f"{node.name}/float" if to_float and op.relu else node.name
    b.emit("QGemm", inputs, out, {"transB": 1, **alpha}, MICROSOFT)
    if out != node.name:
        b.emit("Relu", [out], node.name)


def _matmul(b: Builder, node: Node) -> None:
    op: Any = node.op
    q_y, q_a, q_b = quantized(node.element), b.qtype(node), b.qtype(node, 1)
    _check_relu(op.relu, q_y)
    if q_a.dtype != q_y.dtype:
        raise Unsupported(f"a: {q_a.dtype} where the output is {q_y.dtype}; QLinearMatMul has one dtype for both")
    if q_a.dtype == "int8" and q_b.dtype != "int8":
        raise Unsupported(f"b: {q_b.dtype}; QLinearMatMul of int8 takes int8 as the second operand")
    a, other = node.inputs
    b.emit("QLinearMatMul", [a, *b.qparams(q_a), other, *b.qparams(q_b), *b.qparams(q_y)], node.name)


def _linear_to_float(b: Builder, node: Node) -> None:
    op: Any = node.op
    has_bias = len(node.inputs) == 3
    if has_bias and b.type(node, 2).element != "float32":
        raise Unsupported(
            f"bias: {b.type(node, 2).dtype}; MatMulIntegerToFloat, for x of any rank, takes a float32 bias"
        )
    if b.qtype(node).dtype == "int8" and b.qtype(node, 1).dtype != "int8":
        raise Unsupported("weight: uint8; MatMulIntegerToFloat of int8 activations takes int8 weights")
    (scale_x, zero_x), (scale_w, zero_w) = b.qparams(b.qtype(node)), b.qparams(b.qtype(node, 1))
    inputs = [node.inputs[0], onnx_dynamic.transposed_weight(b, node), scale_x, scale_w, zero_x, zero_w]
    bias = [b.constant(node.inputs[2])] if has_bias else []
    out = f"{node.name}/float" if op.relu else node.name
    b.emit("MatMulIntegerToFloat", [*inputs, *bias], out, domain=MICROSOFT)
    if op.relu:
        b.emit("Relu", [out], node.name)


def _binary(kernel: str) -> Lowering:
    def lowering(b: Builder, node: Node) -> None:
        op: Any = node.op
        q_y = _same_dtype(b, node)
        _check_relu(op.relu, q_y)
        operands = [n for i, name in enumerate(node.inputs) for n in (name, *b.qparams(b.qtype(node, i)))]
        b.emit(kernel, [*operands, *b.qparams(q_y)], node.name, domain=MICROSOFT)

    return lowering


def _unary(b: Builder, node: Node, kernel: str, attributes: Attributes = NONE) -> None:
    q_y = _same_dtype(b, node)
    b.emit(kernel, [node.inputs[0], *b.qparams(b.qtype(node)), *b.qparams(q_y)], node.name, attributes, MICROSOFT)


def _sigmoid(b: Builder, node: Node) -> None:
    _unary(b, node, "QLinearSigmoid")


def _leaky_relu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LeakyRelu)
    _unary(b, node, "QLinearLeakyRelu", {"alpha": op.negative_slope})


def _softmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Softmax)
    _unary(b, node, "QLinearSoftmax", {"axis": op.axis, "opset": 13})


def _avg_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AvgPool)
    _unary(b, node, "QLinearAveragePool", {"channels_last": 0, **avg_pool_attributes(op)})


def _global_avg_pool(b: Builder, node: Node) -> None:
    _unary(b, node, "QLinearGlobalAveragePool", {"channels_last": 0})


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    q_y = _same_dtype(b, node)
    operands = [n for i, name in enumerate(node.inputs) for n in (name, *b.qparams(b.qtype(node, i)))]
    b.emit("QLinearConcat", [*b.qparams(q_y), *operands], node.name, {"axis": op.axis}, MICROSOFT)


def _relu(b: Builder, node: Node) -> None:
    q = _same_qparams(b, node)
    if q.dtype == "int8" and q.zero_point[0] == 0:
        b.emit("Relu", [node.inputs[0]], node.name)
    else:  # Relu's 0 is the integer 0, so a real 0 elsewhere is a bound of Clip
        b.emit("Clip", [node.inputs[0], b.qparams(q)[1]], node.name)


def _clamp(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Clamp)
    q = _same_qparams(b, node)
    bounds = []
    for bound in (op.min, op.max):
        steps = Fraction(bound) / Fraction(q.scale[0])
        if steps.denominator != 1 and q.qmin <= steps + q.zero_point[0] <= q.qmax:
            raise Unsupported(
                f"bound {bound!r}: Clip on stored integers has bounds that are such, not {float(steps)!r} steps"
            )
        stored = min(max(int(steps) + q.zero_point[0], q.qmin), q.qmax)
        bounds.append(b.shared(np.array(stored, dtype=q.dtype)))
    b.emit("Clip", [node.inputs[0], *bounds], node.name)


def _max_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MaxPool)
    _same_qparams(b, node)
    b.emit("MaxPool", [node.inputs[0]], node.name, max_pool_attributes(op))


def _reshape(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Reshape)
    _same_qparams(b, node)
    b.emit("Reshape", [node.inputs[0], b.integers(*op.shape)], node.name, {"allowzero": 1})


def _flatten(b: Builder, node: Node) -> None:
    _same_qparams(b, node)
    b.emit("Flatten", [node.inputs[0]], node.name, {"axis": flatten_axis(b, node)})


def _transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Transpose)
    _same_qparams(b, node)
    b.emit("Transpose", [node.inputs[0]], node.name, {"perm": op.perm})


def _slice(b: Builder, node: Node) -> None:
    op: Any = node.op
    _same_qparams(b, node)
    b.emit("Slice", [node.inputs[0], *slice_inputs(b, op)], node.name)


def _pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Pad)
    q = _same_qparams(b, node)
    b.emit("Pad", [node.inputs[0], b.integers(*op.padding), b.qparams(q)[1]], node.name)


def _extreme(op_type: str) -> Lowering:
    """Min or Max of stored integers: legal where all stand for the same real numbers."""

    def lowering(b: Builder, node: Node) -> None:
        if any(b.type(node, i).element != node.element for i in range(len(node.inputs))):
            raise Unsupported("inputs: the kernel compares stored integers, so all have the output's type")
        b.emit(op_type, node.inputs, node.name)

    return lowering


def _where(b: Builder, node: Node) -> None:
    q_y = quantized(node.element)
    for position in (0, 1):
        if b.qtype(node, position).dtype != q_y.dtype:
            dtype = b.qtype(node, position).dtype
            raise Unsupported(f"input {position}: {dtype} where the output is {q_y.dtype}; QLinearWhere has one dtype")
    operands = [n for i in (0, 1) for n in (node.inputs[i], *b.qparams(b.qtype(node, i)))]
    b.emit("QLinearWhere", [condition(b, node), *operands, *b.qparams(q_y)], node.name, domain=MICROSOFT)


def _moved(b: Builder, node: Node) -> str:
    _same_qparams(b, node)
    return node.inputs[0]


def _stored(b: Builder, node: Node) -> str:
    return node.inputs[0]


def _no_kernel(reason: str) -> Lowering:
    def lowering(b: Builder, node: Node) -> None:
        raise Unsupported(reason)

    return lowering


def _no_integer_kernel(op_type: str) -> Lowering:
    return _no_kernel(f"there is no kernel of {op_type} on stored integers; the QDQ form has it")


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "quantize": quantize,
        "dequantize": dequantize,
        "requantize": _no_kernel("there is no kernel from stored integers to such; the QDQ form has two"),
        "conv": _conv,
        "linear": _linear,
        "add": _binary("QLinearAdd"),
        "mul": _binary("QLinearMul"),
        "relu": _relu,
        "clamp": _clamp,
        "max_pool": _max_pool,
        "avg_pool": _avg_pool,
        "global_avg_pool": _global_avg_pool,
        "concat": _concat,
        "reshape": _reshape,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
        "flatten": _flatten,
        "sigmoid": _sigmoid,
        "tanh": _no_integer_kernel("Tanh"),
        "leaky_relu": _leaky_relu,
        "elu": _no_integer_kernel("Elu"),
        "hardsigmoid": _no_integer_kernel("HardSigmoid"),
        "hardswish": _no_integer_kernel("HardSwish"),
        "softmax": _softmax,
        "sub": _no_integer_kernel("Sub"),
        "div": _no_integer_kernel("Div"),
        "minimum": _extreme("Min"),
        "maximum": _extreme("Max"),
        "where": _where,
        "gelu": _no_integer_kernel("Gelu"),
        "layer_norm": _no_integer_kernel("LayerNormalization"),
        "instance_norm": _no_integer_kernel("InstanceNormalization"),
        "mean": _no_kernel("QLinearReduceMean is a schema of com.microsoft without a CPU kernel; the QDQ form has one"),
        **onnx_rearrangement.lowerings(_moved, None, _stored),
        "matmul": _matmul,
        "conv_transpose": _no_integer_kernel("ConvTranspose"),
        "conv_integer": onnx_integer.conv_integer,
        "linear_integer": onnx_integer.linear_integer,
        "matmul_integer": onnx_integer.matmul_integer,
        **onnx_dynamic.QOPERATOR,
        **onnx_qoperator_composite.LOWERINGS,
        **onnx_weight_only.QOPERATOR,
    }
)
"""Operator name to the function that writes its nodes, or says why there are none."""
