"""Networks as the onednn int8 calls that torch.export graphs are lowered to (PT2E on x86), on plain integer tensors.

No quantized dtypes: scales and zero points are arguments of the calls. Pure: nothing here imports torch.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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
from qfuzz.backends.torch_calls import Arg, CallList, Declared, literal, torch_name, variables
from qfuzz.backends.torch_memory import place
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType, dtype_of
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Reshape, Slice, Transpose


def lower_export(network: Network) -> CallList:
    """The network as onednn calls.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return once(network, "torch export", lambda: lower(Builder(network), LOWERINGS, _feed, _declare))


def _feed(b: Builder, name: str, type_: TensorType) -> None:
    place(b, name, type_, None)


def _declare(node: Node) -> Declared:
    return Declared(node.name, node.name, dtype_of(node.element))


def _qtype_out(node: Node) -> QType:
    q = node.element
    if not isinstance(q, QType):
        raise Unsupported(f"output {q}: the kernel returns quantized integers")
    return q


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    refuse_volumes(op)
    q_x = b.type(node, 0).qtype
    if q_x.dtype != "uint8":
        raise Unsupported(f"x: {q_x.dtype}; qconv_pointwise takes uint8 activations")
    weight, scales, zero_points = _weight(b, node)
    settings = [literal(list(s)) for s in (op.strides, symmetric(op.padding), op.dilations)]
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        "torch.ops.onednn.qconv_prepack",
        weight,
        scales,
        scale_of(q_x),
        zero_point_of(q_x),
        *settings,
        literal(op.groups),
        literal(None),
    )
    b.call(
        node.name,
        "torch.ops.onednn.qconv_pointwise.default",
        b.x(node),
        scale_of(q_x),
        zero_point_of(q_x),
        packed,
        scales,
        zero_points,
        _bias(b, node),
        *settings,
        literal(op.groups),
        *_output(node),
        *_post_op(op.relu),
    )


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Linear)
    refuse_factors(node)
    q_x = b.type(node, 0).qtype
    weight, scales, zero_points = _weight(b, node)
    packed = b.prepare_call(b.fresh(f"{node.name}_packed"), "torch.ops.onednn.qlinear_prepack", weight, literal(None))
    b.call(
        node.name,
        "torch.ops.onednn.qlinear_pointwise.default",
        b.x(node),
        scale_of(q_x),
        zero_point_of(q_x),
        packed,
        scales,
        zero_points,
        _bias(b, node),
        *_output(node),
        *_post_op(op.relu),
    )


def _weight(b: Builder, node: Node) -> tuple[Arg, Arg, Arg]:
    """The plain integers, scales and zero points of the weight."""
    q = b.type(node, 1).qtype
    if q.dtype != "int8":
        raise Unsupported(f"weight: {q.dtype}; the kernel takes int8 weights")
    if any(q.zero_point):
        raise Unsupported("weight: onednn takes symmetric weights, whose zero point is 0")
    scales = b.numbers(f"{node.name}_scales", q.scale, "float32")
    return b.constant(node.inputs[1]), scales, b.numbers(f"{node.name}_zero_points", q.zero_point, "int64")


def _bias(b: Builder, node: Node) -> Arg:
    if len(node.inputs) < 3:
        return literal(None)
    if b.type(node, 2).element != "float32":
        raise Unsupported(f"bias: {b.type(node, 2).dtype}; the kernel takes a float32 bias")
    return b.constant(node.inputs[2])


def _output(node: Node) -> tuple[Arg, Arg, Arg]:
    q = _qtype_out(node)
    return scale_of(q), zero_point_of(q), torch_name(f"torch.{q.dtype}")


def _post_op(relu: bool) -> tuple[Arg, Arg, Arg]:
    return literal("relu" if relu else "none"), literal([]), literal("")


def _add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Add)
    _binary(b, node, "qadd_relu" if op.relu else "qadd")


def _mul(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mul)
    if op.relu:
        raise Unsupported("relu: onednn.qmul has no fused relu")
    _binary(b, node, "qmul")


def _binary(b: Builder, node: Node, kernel: str) -> None:
    if b.type(node, 0).shape != b.type(node, 1).shape:
        raise Unsupported("inputs: the kernel takes operands of one shape")
    operands: list[Arg] = []
    for position in range(2):
        q = b.type(node, position).qtype
        if q.dtype != "uint8" or _qtype_out(node).dtype != "uint8":
            raise Unsupported(f"input {position}: {q.dtype}; the kernel takes and returns uint8")
        operands += [b.x(node, position), scale_of(q), zero_point_of(q)]
    b.call(node.name, f"torch.ops.onednn.{kernel}.tensor", *operands, *_output(node))


def _keep_qparams(b: Builder, node: Node) -> None:
    for position in range(len(node.inputs)):
        if node.element != b.type(node, position).element:
            raise Unsupported("output: the call moves integers as they are; scale, zero point and dtype stay")


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    _keep_qparams(b, node)
    b.call(node.name, "torch.cat", variables(node.inputs), literal(op.axis))


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
    b.call(
        node.name,
        "torch.ops.aten.slice.Tensor",
        b.x(node),
        *(literal(v) for v in (op.axis, op.start, op.stop, op.step)),
    )


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv": _conv,
        "linear": _linear,
        "add": _add,
        "mul": _mul,
        "concat": _concat,
        "reshape": _reshape,
        "flatten": _flatten,
        "transpose": _transpose,
        "slice": _slice,
    }
)
"""Operator name to the function that writes its calls."""
