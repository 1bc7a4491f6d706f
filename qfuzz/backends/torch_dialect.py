"""Networks as calls of torch's eager quantized kernels, on quantized tensors. Pure: nothing here imports torch.

Every lowering is the one call that a user of `torch.ao.nn.quantized` makes. Where a kernel has only a special form (it
keeps its input's qparams, it takes quint8 only), every other form is `Unsupported`: nothing is emulated.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from qfuzz.backends.torch_builder import (
    Builder,
    Lowering,
    lower,
    once,
    refuse_factors,
    refuse_volumes,
    scale_of,
    symmetric,
    zero_point_of,
)
from qfuzz.backends.torch_calls import Arg, Array, CallList, Declared, literal, torch_name, variable, variables
from qfuzz.backends.torch_forms import fixed_output, refused_form
from qfuzz.backends.torch_limits import limit_of
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import Clamp, Elu, LeakyRelu
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, MaxPool
from qfuzz.ops.softmax import Softmax

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
QUANTIZED = {"uint8": "quint8", "int8": "qint8"}


def lower_eager(network: Network, engine: str, *, channels_last: bool = False) -> CallList:
    """The network as eager calls for `engine`.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return once(network, ("torch", engine, channels_last), lambda: _lowered(network, engine, channels_last))


def _lowered(network: Network, engine: str, channels_last: bool) -> CallList:
    """The calls that all engines share, unless this engine takes a node less."""
    for node in network.nodes:
        limit = limit_of(engine, network, node)
        if limit:
            raise Unsupported(f"{node.op.name} {node.name!r}: {limit.reason} ({limit.source})")
    common = network.once(("torch", channels_last), lambda: _common(network, channels_last))
    for node in network.nodes[: common.n_lowered + 1]:
        reason = refused_form(engine, network, node)
        if reason:
            raise Unsupported(f"{node.op.name} {node.name!r}: {reason}")
    if isinstance(common.calls, str):
        raise Unsupported(common.calls)
    return common.calls._replace(engine=engine)


class _Common(NamedTuple):
    """What all engines share: the calls, or why the node after the first `n_lowered` has none."""

    calls: CallList | str
    n_lowered: int


def _common(network: Network, channels_last: bool) -> _Common:
    b = Builder(network, channels_last=channels_last)
    try:
        return _Common(lower(b, LOWERINGS, _feed, _declare), b.n_lowered)
    except Unsupported as e:
        return _Common(str(e), b.n_lowered)


def _feed(b: Builder, name: str, type_: TensorType) -> None:
    q = type_.element
    if not isinstance(q, QType):
        b.inputs.append(Array(name, name))
        return
    array = b.fresh(f"{name}_array")
    b.inputs.append(Array(array, name))
    b.call(name, "torch._make_per_tensor_quantized_tensor", variable(array), scale_of(q), zero_point_of(q))
    if b.channels_last and len(type_.shape) == 4:
        b.call(name, ".contiguous", variable(name), memory_format=torch_name("torch.channels_last"))


def _declare(node: Node) -> Declared:
    q = node.element
    if isinstance(q, QType):
        return Declared(node.name, node.name, QUANTIZED[q.dtype], q.scale[0], q.zero_point[0])
    return Declared(node.name, node.name, str(q))


def qtype_in(b: Builder, node: Node, position: int = 0) -> QType:
    """Quantized type of an input of `node`."""
    return b.type(node, position).qtype


def qtype_out(node: Node) -> QType:
    """Quantized type of the output; raises `Unsupported` where it is none."""
    q = node.element
    if not isinstance(q, QType):
        raise Unsupported(f"output {q}: the kernel returns a quantized tensor")
    return q


# conv, linear


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    refuse_volumes(op)
    kernel = f"conv{len(op.strides)}d"
    q_y = qtype_out(node)
    settings = (list(op.strides), symmetric(op.padding), list(op.dilations))
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        f"torch.ops.quantized.{kernel}_prepack",
        _weight(b, node),
        _bias(b, node),
        *(literal(s) for s in settings),
        literal(op.groups),
    )
    suffix = "_relu" if op.relu else ""
    overload = ".new" if kernel == "conv2d" else ""
    b.call(
        node.name,
        f"torch.ops.quantized.{kernel}{suffix}{overload}",
        b.x(node),
        packed,
        scale_of(q_y),
        zero_point_of(q_y),
    )


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Linear)
    refuse_factors(node)
    q_y = qtype_out(node)
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), "torch.ops.quantized.linear_prepack", _weight(b, node), _bias(b, node)
    )
    kernel = "linear_relu" if op.relu else "linear"
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), packed, scale_of(q_y), zero_point_of(q_y))


def _weight(b: Builder, node: Node) -> Arg:
    """The quantized weight tensor, made in the prepare part."""
    name = node.inputs[1]
    q = qtype_in(b, node, 1)
    array = b.constant(name)
    out = b.fresh(f"{node.name}_weight")
    if q.axis is None:
        return b.prepare_call(out, "torch._make_per_tensor_quantized_tensor", array, scale_of(q), zero_point_of(q))
    return b.prepare_call(
        out,
        "torch._make_per_channel_quantized_tensor",
        array,
        b.numbers(f"{out}_scales", q.scale, "float64"),
        b.numbers(f"{out}_zero_points", q.zero_point, "int64"),
        literal(q.axis),
    )


def _bias(b: Builder, node: Node) -> Arg:
    if len(node.inputs) < 3:
        return literal(None)
    if b.type(node, 2).element != "float32":
        raise Unsupported(f"bias: {b.type(node, 2).dtype}; torch's eager kernels take a float32 bias")
    return b.constant(node.inputs[2])


# quantize, dequantize


def _quantize(b: Builder, node: Node) -> None:
    q = qtype_out(node)
    dtype = torch_name(f"torch.{QUANTIZED[q.dtype]}")
    b.call(node.name, "torch.quantize_per_tensor", b.x(node), scale_of(q), zero_point_of(q), dtype)


def _dequantize(b: Builder, node: Node) -> None:
    b.call(node.name, ".dequantize", b.x(node))


def _requantize(b: Builder, node: Node) -> None:
    raise Unsupported("torch has no kernel from quantized to quantized; dequantize and quantize are two")


# elementwise


def _add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Add)
    _binary(b, node, "add_relu" if op.relu else "add")


def _mul(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mul)
    _binary(b, node, "mul_relu" if op.relu else "mul")


def _binary(b: Builder, node: Node, kernel: str) -> None:
    q = qtype_out(node)
    _same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node, 0), b.x(node, 1), scale_of(q), zero_point_of(q))


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    q = qtype_out(node)
    _same_dtype(b, node, q)
    b.call(
        node.name, "torch.ops.quantized.cat", variables(node.inputs), literal(op.axis), scale_of(q), zero_point_of(q)
    )


def _same_dtype(b: Builder, node: Node, q: QType) -> None:
    """Every kernel here takes operands of one dtype and returns it."""
    for position in range(len(node.inputs)):
        dtype = qtype_in(b, node, position).dtype
        if dtype != q.dtype:
            raise Unsupported(
                f"input {position}: {dtype} where the output is {q.dtype}; the kernel has one dtype for all"
            )


# activations


def _keep_qparams(b: Builder, node: Node) -> None:
    """Raise `Unsupported` unless the output's type is the input's."""
    if node.element != b.type(node, 0).element:
        raise Unsupported("output: the kernel keeps the scale, zero point and dtype of its input")


def _fixed_qparams(b: Builder, node: Node, scale: float, unsigned: int, signed: int) -> None:
    """Raise `Unsupported` unless the output has the one scale and zero point that the kernel gives."""
    q = qtype_out(node)
    _same_dtype(b, node, q)
    zero_point = unsigned if q.dtype == "uint8" else signed
    if (q.scale[0], q.zero_point[0]) != (scale, zero_point):
        raise Unsupported(fixed_output(scale, zero_point, q.dtype))


def _relu(b: Builder, node: Node) -> None:
    _keep_qparams(b, node)
    b.call(node.name, "torch.relu", b.x(node))


def _clamp(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Clamp)
    _keep_qparams(b, node)
    if (op.min, op.max) == (0.0, 6.0):
        b.call(node.name, "torch.ops.quantized.relu6", b.x(node))
    else:
        b.call(node.name, "torch.clamp", b.x(node), literal(op.min), literal(op.max))


def _leaky_relu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LeakyRelu)
    _activation(b, node, "leaky_relu", literal(op.negative_slope), literal(False))


def _elu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Elu)
    q = qtype_out(node)
    _same_dtype(b, node, q)
    b.call(node.name, "torch.ops.quantized.elu", b.x(node), scale_of(q), zero_point_of(q), literal(op.alpha))


def _hardswish(b: Builder, node: Node) -> None:
    _activation(b, node, "hardswish")


def _sigmoid(b: Builder, node: Node) -> None:
    _activation(b, node, "sigmoid")


def _softmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Softmax)
    _activation(b, node, "softmax", literal(op.axis))


def _activation(b: Builder, node: Node, kernel: str, *settings: Arg) -> None:
    q = qtype_out(node)
    _same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), *settings, scale_of(q), zero_point_of(q))


def _hardsigmoid(b: Builder, node: Node) -> None:
    _fixed_qparams(b, node, 2.0**-8, 0, -128)
    b.call(node.name, "torch.nn.functional.hardsigmoid", b.x(node))


def _tanh(b: Builder, node: Node) -> None:
    _fixed_qparams(b, node, 2.0**-7, 128, 0)
    b.call(node.name, "torch.tanh", b.x(node))


# pools


def _max_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MaxPool)
    _keep_qparams(b, node)
    settings = (op.kernel, op.strides, _half_kernel(op.kernel, op.padding, op.dilations), op.dilations)
    target = f"torch.ops.quantized.max_pool{len(op.kernel)}d"
    b.call(node.name, target, b.x(node), *(literal(list(s)) for s in settings), literal(op.ceil_mode))


def _avg_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AvgPool)
    _keep_qparams(b, node)
    settings = (op.kernel, op.strides, _half_kernel(op.kernel, op.padding))
    flags = (literal(op.ceil_mode), literal(op.count_include_pad))
    target = f"torch.nn.functional.avg_pool{len(op.kernel)}d"
    b.call(node.name, target, b.x(node), *(literal(list(s)) for s in settings), *flags)


def _half_kernel(kernel: tuple[int, ...], padding: tuple[int, ...], dilations: tuple[int, ...] = (1, 1)) -> list[int]:
    """Symmetric padding of at most half the dilated kernel, as torch's pools take it."""
    sides = symmetric(padding)
    for side, size, dilation in zip(sides, kernel, dilations, strict=False):
        if side > (dilation * (size - 1) + 1) // 2:
            raise Unsupported(f"padding {side}: torch's pools pad at most half of the effective kernel size")
    return sides


def _global_avg_pool(b: Builder, node: Node) -> None:
    _keep_qparams(b, node)
    spatial = len(b.type(node, 0).shape) - 2
    b.call(node.name, f"torch.nn.functional.adaptive_avg_pool{spatial}d", b.x(node), literal([1] * spatial))


# movement


def _reshape(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Reshape)
    _keep_qparams(b, node)
    b.call(node.name, ".reshape", b.x(node), literal(list(op.shape)))


def _flatten(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Flatten)
    _keep_qparams(b, node)
    b.call(node.name, "torch.flatten", b.x(node), literal(op.start_axis))


def _transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Transpose)
    _keep_qparams(b, node)
    b.call(node.name, ".permute", b.x(node), literal(list(op.perm)))


def _slice(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Slice)
    _keep_qparams(b, node)
    limits = (op.axis, op.start, op.stop, op.step)
    b.call(node.name, "torch.ops.aten.slice.Tensor", b.x(node), *(literal(v) for v in limits))


def _pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Pad)
    _keep_qparams(b, node)
    n = len(op.padding) // 2
    sides = [side for i in reversed(range(n)) for side in (op.padding[i], op.padding[n + i])]
    b.call(node.name, "torch.nn.functional.pad", b.x(node), literal(sides), literal("constant"), literal(0.0))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "quantize": _quantize,
        "dequantize": _dequantize,
        "requantize": _requantize,
        "conv": _conv,
        "linear": _linear,
        "add": _add,
        "mul": _mul,
        "relu": _relu,
        "clamp": _clamp,
        "max_pool": _max_pool,
        "avg_pool": _avg_pool,
        "global_avg_pool": _global_avg_pool,
        "concat": _concat,
        "reshape": _reshape,
        "flatten": _flatten,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
        "sigmoid": _sigmoid,
        "tanh": _tanh,
        "leaky_relu": _leaky_relu,
        "elu": _elu,
        "hardsigmoid": _hardsigmoid,
        "hardswish": _hardswish,
        "softmax": _softmax,
    }
)
"""Operator name to the function that writes its calls, or says why there are none."""
