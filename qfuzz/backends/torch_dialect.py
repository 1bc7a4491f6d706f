"""Networks as calls of torch's eager quantized kernels, on quantized tensors. Pure: nothing here imports torch.

Every lowering is the one call that a user of `torch.ao.nn.quantized` makes. Where a kernel has only a special form (it
keeps its input's qparams, it takes quint8 only), every other form is `Unsupported`: nothing is emulated.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, lower, scale_of, symmetric, zero_point_of
from qfuzz.backends.torch_calls import Arg, Array, Call, CallList, Declared, literal, torch_name, variable
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
QUANTIZED = {"uint8": "quint8", "int8": "qint8"}


def lower_eager(network: Network, engine: str, *, channels_last: bool = False) -> CallList:
    """The network as eager calls for `engine`.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return lower(Builder(network, engine, channels_last=channels_last), LOWERINGS, _feed, _declare)


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
    return b.type(node, position).qtype


def qtype_out(node: Node) -> QType:
    q = node.element
    if not isinstance(q, QType):
        raise Unsupported(f"output {q}: the kernel returns a quantized tensor")
    return q


# conv, linear


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    kernel = f"conv{len(op.strides)}d"
    q_y = _contraction_types(b, node, kernel)
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
    q_y = _contraction_types(b, node, "linear")
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), "torch.ops.quantized.linear_prepack", _weight(b, node), _bias(b, node)
    )
    kernel = "linear_relu" if op.relu else "linear"
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), packed, scale_of(q_y), zero_point_of(q_y))


def _contraction_types(b: Builder, node: Node, kernel: str) -> QType:
    """The output's type, where the kernel takes and returns such types."""
    q_x, q_w, q_y = qtype_in(b, node), qtype_in(b, node, 1), qtype_out(node)
    signed_too = b.engine == "onednn" and kernel == "linear"
    if q_x.dtype != "uint8" and not signed_too:
        raise Unsupported(f"x: {q_x.dtype}; {kernel} of {b.engine} takes quint8 activations")
    if q_y.dtype != q_x.dtype:
        raise Unsupported(f"output: {q_y.dtype}; {kernel} returns the dtype of its input, {q_x.dtype}")
    if q_w.dtype != "int8":
        raise Unsupported(f"weight: {q_w.dtype}; {kernel} is documented for qint8 weights only")
    if b.engine == "onednn" and any(q_w.zero_point):
        raise Unsupported("weight: onednn takes symmetric weights, whose zero point is 0")
    return q_y


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
        raise Unsupported("bias: int32; torch's eager kernels take a float32 bias")
    return b.constant(node.inputs[2])


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv": _conv,
        "linear": _linear,
    }
)
"""Operator name to the function that writes its calls."""
