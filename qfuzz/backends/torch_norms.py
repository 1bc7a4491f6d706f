"""Normalizations as torch's eager quantized kernels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, literal
from qfuzz.backends.torch_kernels import qtype_in, qtype_out
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import form_of
from qfuzz.ir.network import Node
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm


def _batch_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, BatchNorm)
    rank = len(b.type(node, 0).shape)
    kernel = f"batch_norm{max(rank - 2, 1)}d" + ("_relu" if op.relu else "")
    if rank > 5:
        raise Unsupported(f"x: {rank} dimensions; the kernels take 2 to 5")
    call = form_of(b.network.forms, "call")
    if call == "aten" and rank == 4 and not op.relu:
        kernel = "aten"
    elif call == "overload":
        kernel = "batch_norm_relu" if op.relu else "batch_norm"
    parameters = [b.constant(name) for name in node.inputs[1:]]
    _call(b, node, kernel, *parameters, literal(op.epsilon))


def _layer_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LayerNorm)
    shape = b.type(node, 0).shape[op.axis :]
    for name in node.inputs[1:]:
        own = b.network.types[name].shape
        if own != shape:
            raise Unsupported(f"{name}: shape {own}; torch's layer_norm takes exactly normalized_shape, {shape}")
    _call(b, node, "layer_norm", literal(list(shape)), *_affine(b, node), literal(op.epsilon))


def _group_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, GroupNorm)
    _call(b, node, "group_norm", literal(op.groups), *_affine(b, node), literal(op.epsilon))


def _instance_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, InstanceNorm)
    _call(b, node, "instance_norm", *_affine(b, node), literal(op.epsilon))


def _affine(b: Builder, node: Node) -> tuple[Arg, Arg]:
    """Weight and bias, or None in their place."""
    given: list[Arg] = []
    for position, name in enumerate(node.inputs[1:], 1):
        if b.type(node, position).element != "float32":
            raise Unsupported(f"{name}: {b.type(node, position).dtype}; the kernel takes float32 weights and biases")
        given.append(b.constant(name))
    weight, bias = (*given, literal(None), literal(None))[:2]
    return weight, bias


def _call(b: Builder, node: Node, kernel: str, *arguments: Arg) -> None:
    q = qtype_out(node)
    if qtype_in(b, node).dtype != q.dtype:
        raise Unsupported(f"output: {q.dtype}; the kernel returns the dtype of its input")
    target = "torch.quantized_batch_norm" if kernel == "aten" else f"torch.ops.quantized.{kernel}"
    b.call(node.name, target, b.x(node), *arguments, scale_of(q), zero_point_of(q))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "batch_norm": _batch_norm,
        "layer_norm": _layer_norm,
        "instance_norm": _instance_norm,
        "group_norm": _group_norm,
    }
)
