"""The QDQ form: DequantizeLinear before a float32 operator, QuantizeLinear after it. Pure.

This is what quantization tools write for every operator. At opt=disable the float32 kernels run; from opt=extended on
ONNX Runtime fuses a part of it into integer kernels. A relu inside an operator is a Relu between it and QuantizeLinear.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.backends import onnx_dynamic, onnx_integer, onnx_qdq_composite, onnx_rearrangement, onnx_weight_only
from qfuzz.backends.onnx_builder import NONE, Attribute, Attributes, Builder, Lowering
from qfuzz.backends.onnx_geometry import conv_attributes
from qfuzz.backends.onnx_quantization import dequantize, quantize
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.activation import Clamp, Elu, LeakyRelu
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Pad, Reshape, Slice, Transpose
from qfuzz.ops.normalization import InstanceNorm, LayerNorm
from qfuzz.ops.pooling import AvgPool, MaxPool
from qfuzz.ops.reduction import Mean
from qfuzz.ops.softmax import Softmax

ONE_SIXTH = float32(1 / 6)


def _real(b: Builder, name: str) -> str:
    """The float32 value of an activation: itself, or dequantized once, for all who read it."""
    q = b.network.types[name].element
    if q == "float32":
        return name
    real = f"{name}/real"
    if b.is_new(real):
        assert isinstance(q, QType)
        b.emit("DequantizeLinear", [name, *b.qparams(q)], real)
    return real


def _finish(b: Builder, node: Node, real: str, *, relu: bool = False) -> None:
    """Quantize the float32 value `real` to the node's output."""
    if relu:
        real = b.emit("Relu", [real], f"{node.name}/relu")
    assert isinstance(node.element, QType)
    b.emit("QuantizeLinear", [real, *b.qparams(node.element)], node.name)


def _through(
    b: Builder, node: Node, op_type: str, *more: str, relu: bool = False, attributes: Attributes = NONE
) -> None:
    """One float32 operator on all inputs of the node, then `more`."""
    inputs = [_real(b, name) for name in node.inputs]
    _finish(b, node, b.emit(op_type, [*inputs, *more], f"{node.name}/float", attributes), relu=relu)


def _weight(b: Builder, node: Node, *, transposed: bool = False) -> str:
    """The dequantized weight; stored [K, M] where `transposed`."""
    name, q = node.inputs[1], b.qtype(node, 1)
    real = f"{name}/transposed_real" if transposed else f"{name}/real"
    if b.is_new(real):
        stored = b.constant(name)
        if transposed:
            stored = b.initializer(f"{name}/transposed", np.ascontiguousarray(b.network.constant_data[name].array.T))
        axis = NONE if q.axis is None else {"axis": 1 if transposed else q.axis}
        b.emit("DequantizeLinear", [stored, *b.qparams(q)], real, axis)
    return real


def _bias(b: Builder, node: Node) -> list[str]:
    """The float32 bias, if there is one: integers are dequantized.

    Plain int32 is dequantized with the float32 product of the scales, other integers with scales of their own.
    """
    if len(node.inputs) < 3:
        return []
    name = b.constant(node.inputs[2])
    own = b.type(node, 2).element
    if isinstance(own, QType):
        real = f"{name}/real"
        if b.is_new(real):
            b.emit("DequantizeLinear", [name, *b.qparams(own)], real, NONE if own.axis is None else {"axis": 0})
        return [real]
    if b.type(node, 2).element == "float32":
        return [name]
    q_x, q_w = b.qtype(node), b.qtype(node, 1)
    scale = np.array(q_x.scale, dtype=np.float32) * np.array(q_w.scale, dtype=np.float32)
    if q_w.axis is not None:
        scale = np.tile(scale, b.type(node, 2).shape[0] // len(scale))  # groups of a transposed convolution share them
    axis = NONE if q_w.axis is None else {"axis": 0}
    return [b.emit("DequantizeLinear", [name, b.shared(scale.reshape(() if q_w.axis is None else (-1,)))],
                   f"{node.name}/bias", axis)]  # fmt: skip


def _finish_layer(b: Builder, node: Node, op_type: str, inputs: Sequence[str], attributes: Attributes) -> None:
    """A float32 layer, its relu, and QuantizeLinear where the output is quantized."""
    op: Any = node.op
    if isinstance(node.element, QType):
        _finish(b, node, b.emit(op_type, inputs, f"{node.name}/float", attributes), relu=op.relu)
    elif op.relu:
        b.emit("Relu", [b.emit(op_type, inputs, f"{node.name}/float", attributes)], node.name)
    else:
        b.emit(op_type, inputs, node.name, attributes)


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    inputs = [_real(b, node.inputs[0]), _weight(b, node), *_bias(b, node)]
    attributes = conv_attributes(op, b.type(node, 1).shape[2:])
    _finish_layer(b, node, "Conv", inputs, attributes)


def gemm_factors(op: Linear) -> Attributes:
    """Factors of Gemm, where they say something."""
    return {name: value for name, value in (("alpha", op.alpha), ("beta", op.beta)) if value != 1.0}


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    x = _real(b, node.inputs[0])
    if isinstance(node.element, QType):
        _finish(b, node, _product(b, node, x, f"{node.name}/float"), relu=op.relu)
    elif op.relu:
        b.emit("Relu", [_product(b, node, x, f"{node.name}/float")], node.name)
    else:
        _product(b, node, x, node.name)


def _product(b: Builder, node: Node, x: str, out: str) -> str:
    """The float32 value `out`: `x` times the weight, and the bias added."""
    op: Any = node.op
    if len(b.type(node).shape) == 2:
        b.emit("Gemm", [x, _weight(b, node), *_bias(b, node)], out, {"transB": 1, **gemm_factors(op)})
    else:
        if gemm_factors(op):
            raise Unsupported(f"alpha or beta: x has rank {len(b.type(node).shape)}; Gemm, of rank 2, has them")
        bias = _bias(b, node)
        product = b.emit("MatMul", [x, _weight(b, node, transposed=True)], f"{node.name}/product" if bias else out)
        if bias:
            b.emit("Add", [product, *bias], out)
    return out


def _matmul(b: Builder, node: Node) -> None:
    op: Any = node.op
    _through(b, node, "MatMul", relu=op.relu)


def _conv_transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvTranspose)
    sizes = b.network.types[node.name].shape[2:]
    attributes: dict[str, Attribute] = {
        "kernel_shape": b.type(node, 1).shape[2:],
        "strides": op.strides,
        "dilations": op.dilations,
        "output_padding": op.output_padding,
        "group": op.groups,
        **({"output_shape": sizes} if op.says_sizes else {"pads": op.padding}),
    }
    inputs = [_real(b, node.inputs[0]), _weight(b, node), *_bias(b, node)]
    _finish_layer(b, node, "ConvTranspose", inputs, attributes)


def _add(b: Builder, node: Node) -> None:
    op: Any = node.op
    _through(b, node, "Add", relu=op.relu)


def _mul(b: Builder, node: Node) -> None:
    op: Any = node.op
    _through(b, node, "Mul", relu=op.relu)


def condition(b: Builder, node: Node) -> str:
    """The condition of a where node: an input of the graph, or an initializer."""
    name = node.inputs[2]
    return b.constant(name) if name in b.network.constant_data else name


def _where(b: Builder, node: Node) -> None:
    operands = [_real(b, name) for name in node.inputs[:2]]
    _finish(b, node, b.emit("Where", [condition(b, node), *operands], f"{node.name}/float"))


def _requantize(b: Builder, node: Node) -> None:
    _finish(b, node, _real(b, node.inputs[0]))


def _plain(op_type: str, attributes: Attributes = NONE) -> Lowering:
    """A float32 operator without attributes of its own."""

    def lowering(b: Builder, node: Node) -> None:
        _through(b, node, op_type, attributes=attributes)

    return lowering


def _clamp(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Clamp)
    _through(b, node, "Clip", b.shared(np.array(op.min, np.float32)), b.shared(np.array(op.max, np.float32)))


def _leaky_relu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LeakyRelu)
    _through(b, node, "LeakyRelu", attributes={"alpha": op.negative_slope})


def _elu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Elu)
    if (op.scale, op.input_scale) != (1.0, 1.0):
        raise Unsupported("scale, input_scale: ONNX Elu has no such factors")
    _through(b, node, "Elu", attributes={"alpha": op.alpha})


def _softmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Softmax)
    _through(b, node, "Softmax", attributes={"axis": op.axis})


def max_pool_attributes(op: MaxPool) -> Attributes:
    """Attributes of MaxPool."""
    return {
        "kernel_shape": op.kernel,
        "strides": op.strides,
        "pads": op.padding,
        "dilations": op.dilations,
        "ceil_mode": op.ceil_mode,
    }


def avg_pool_attributes(op: AvgPool) -> Attributes:
    """Attributes of AveragePool and QLinearAveragePool."""
    if op.divisor_override:
        raise Unsupported("divisor_override: ONNX has none, PyTorch has")
    return {
        "kernel_shape": op.kernel,
        "strides": op.strides,
        "pads": op.padding,
        "ceil_mode": op.ceil_mode,
        "count_include_pad": op.count_include_pad,
    }


def _max_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MaxPool)
    _through(b, node, "MaxPool", attributes=max_pool_attributes(op))


def _avg_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AvgPool)
    _through(b, node, "AveragePool", attributes=avg_pool_attributes(op))


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    _through(b, node, "Concat", attributes={"axis": op.axis})


def _reshape(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Reshape)
    _through(b, node, "Reshape", b.integers(*op.shape), attributes={"allowzero": 1})


def flatten_axis(b: Builder, node: Node) -> int:
    """The axis of ONNX Flatten, which always makes a matrix."""
    op: Any = node.op
    rank = len(b.type(node).shape)
    if op.start_axis != 1 or rank < 2:
        raise Unsupported(
            f"start_axis {op.start_axis} of rank {rank}: ONNX Flatten makes a matrix, which is start_axis 1"
        )
    return 1


def _flatten(b: Builder, node: Node) -> None:
    _through(b, node, "Flatten", attributes={"axis": flatten_axis(b, node)})


def _transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Transpose)
    _through(b, node, "Transpose", attributes={"perm": op.perm})


def slice_inputs(b: Builder, op: Slice) -> list[str]:
    """Inputs of Slice after the data: starts, ends, axes, steps."""
    return [b.integers(op.start), b.integers(op.stop), b.integers(op.axis), b.integers(op.step)]


def _slice(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Slice)
    _through(b, node, "Slice", *slice_inputs(b, op))


def _pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Pad)
    _through(b, node, "Pad", b.integers(*op.padding))


def _gelu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Gelu)
    _through(b, node, "Gelu", attributes={"approximate": op.approximate})


def _normalized(b: Builder, node: Node, op_type: str, attributes: Attributes) -> None:
    """Scale and bias as they are, or dequantized."""
    quantized = isinstance(b.type(node, 1).element, QType)
    weight = _weight(b, node) if quantized else b.constant(node.inputs[1])
    inputs = [_real(b, node.inputs[0]), weight, *_bias(b, node)]
    _finish(b, node, b.emit(op_type, inputs, f"{node.name}/float", attributes))


def _layer_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LayerNorm)
    if len(node.inputs) < 2:
        raise Unsupported("scale: ONNX LayerNormalization needs one")
    _normalized(b, node, "LayerNormalization", {"axis": op.axis, "epsilon": op.epsilon, "stash_type": 1})


def _instance_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, InstanceNorm)
    if len(node.inputs) < 3:
        raise Unsupported("scale, bias: ONNX InstanceNormalization needs both")
    _normalized(b, node, "InstanceNormalization", {"epsilon": op.epsilon})


def _mean(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mean)
    axes = [b.integers(*op.axes)] if op.axes else []
    noop = (
        {"noop_with_empty_axes": True} if op.noop_with_empty_axes else NONE
    )  # before opset 18, there is no such thing
    _through(b, node, "ReduceMean", *axes, attributes={"keepdims": op.keepdims, **noop})


def _read(b: Builder, node: Node) -> str:
    return _real(b, node.inputs[0])


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "quantize": quantize,
        "dequantize": dequantize,
        "requantize": _requantize,
        "conv": _conv,
        "linear": _linear,
        "add": _add,
        "mul": _mul,
        "relu": _plain("Relu"),
        "clamp": _clamp,
        "max_pool": _max_pool,
        "avg_pool": _avg_pool,
        "global_avg_pool": _plain("GlobalAveragePool"),
        "concat": _concat,
        "reshape": _reshape,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
        "flatten": _flatten,
        "sigmoid": _plain("Sigmoid"),
        "tanh": _plain("Tanh"),
        "leaky_relu": _leaky_relu,
        "elu": _elu,
        "hardsigmoid": _plain("HardSigmoid", {"alpha": ONE_SIXTH, "beta": 0.5}),
        "hardswish": _plain("HardSwish"),
        "softmax": _softmax,
        "sub": _plain("Sub"),
        "div": _plain("Div"),
        "minimum": _plain("Min"),
        "maximum": _plain("Max"),
        "where": _where,
        "gelu": _gelu,
        "layer_norm": _layer_norm,
        "instance_norm": _instance_norm,
        "mean": _mean,
        **onnx_rearrangement.lowerings(_read, _finish, _read),
        "matmul": _matmul,
        "conv_transpose": _conv_transpose,
        "conv_integer": onnx_integer.conv_integer,
        "linear_integer": onnx_integer.linear_integer,
        "matmul_integer": onnx_integer.matmul_integer,
        **onnx_dynamic.QDQ,
        **onnx_qdq_composite.LOWERINGS,
        **onnx_weight_only.QDQ,
    }
)
"""Operator name to the function that writes its nodes, or says why there are none."""
