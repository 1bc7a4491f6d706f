"""Networks as the onednn int8 calls that torch.export graphs are lowered to (PT2E on x86), on plain integer tensors.

No quantized dtypes: scales and zero points are arguments of the calls. Pure: nothing here imports torch.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends import (
    torch_decomposed,
    torch_export_layers,
    torch_export_products,
    torch_fake_quantization,
    torch_qparams,
    torch_scaled_mm,
)
from qfuzz.backends.torch_builder import Builder, Lowering, lower, once, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, CallList, literal, variables
from qfuzz.backends.torch_decomposed import declared, feed
from qfuzz.backends.torch_export_layers import output_arguments
from qfuzz.backends.torch_kernels import qtype_out
from qfuzz.backends.torch_movement import moved
from qfuzz.backends.torch_variants import EXPORTED, say_calls
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.movement import Concat


def lower_export(network: Network) -> CallList:
    """The network as onednn calls.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return once(network, "torch export", lambda: _lowered(network))


def _lowered(network: Network) -> CallList:
    b = Builder(network)
    calls = lower(b, LOWERINGS, feed, declared)
    say_calls(b, EXPORTED)
    return calls._replace(run=tuple(b.run))


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
        if q.dtype != "uint8" or qtype_out(node).dtype != "uint8":
            raise Unsupported(f"input {position}: {q.dtype}; the kernel takes and returns uint8")
        operands += [b.x(node, position), scale_of(q), zero_point_of(q)]
    b.call(node.name, f"torch.ops.onednn.{kernel}.tensor", *operands, *output_arguments(node))


def _batch_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, BatchNorm)
    x = b.type(node, 0)
    if len(x.shape) != 4:
        raise Unsupported(f"x: {len(x.shape)} dimensions; the kernel takes 4")
    if op.relu:
        raise Unsupported("relu: onednn.qbatch_norm2d has no fused relu")
    for which, dtype in (("x", x.qtype.dtype), ("output", qtype_out(node).dtype)):
        if dtype != "uint8":
            raise Unsupported(f"{which}: {dtype}; the kernel takes and returns uint8")
    parameters = (b.constant(name) for name in node.inputs[1:])
    q = (scale_of(x.qtype), zero_point_of(x.qtype))
    epsilon = literal(op.epsilon)
    b.call(node.name, "torch.ops.onednn.qbatch_norm2d", b.x(node), *q, *parameters, epsilon, *output_arguments(node))


def _keep_qparams(b: Builder, node: Node) -> None:
    for position in range(len(node.inputs)):
        if node.element != b.type(node, position).element:
            raise Unsupported("output: the call moves integers as they are; scale, zero point and dtype stay")


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    _keep_qparams(b, node)
    b.call(node.name, "torch.cat", variables(node.inputs), literal(op.axis))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        **torch_export_layers.LOWERINGS,
        **torch_decomposed.LOWERINGS,
        **torch_fake_quantization.DECOMPOSED,
        **torch_qparams.DECOMPOSED,
        **torch_export_products.LOWERINGS,
        **torch_scaled_mm.LOWERINGS,
        "add": _add,
        "mul": _mul,
        "batch_norm": _batch_norm,
        "concat": _concat,
        **moved(_keep_qparams),
    }
)
"""Operator name to the function that writes its calls."""
