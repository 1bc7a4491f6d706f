"""Movement as torch's eager quantized kernels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import literal, variables
from qfuzz.backends.torch_kernels import keep_qparams, qtype_out, same_dtype
from qfuzz.ir.network import Node
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(
        node.name, "torch.ops.quantized.cat", variables(node.inputs), literal(op.axis), scale_of(q), zero_point_of(q)
    )


def _reshape(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Reshape)
    keep_qparams(b, node)
    b.call(node.name, ".reshape", b.x(node), literal(list(op.shape)))


def _flatten(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Flatten)
    keep_qparams(b, node)
    b.call(node.name, "torch.flatten", b.x(node), literal(op.start_axis))


def _transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Transpose)
    keep_qparams(b, node)
    b.call(node.name, ".permute", b.x(node), literal(list(op.perm)))


def _slice(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Slice)
    keep_qparams(b, node)
    limits = (op.axis, op.start, op.stop, op.step)
    b.call(node.name, "torch.ops.aten.slice.Tensor", b.x(node), *(literal(v) for v in limits))


def _pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Pad)
    keep_qparams(b, node)
    n = len(op.padding) // 2
    sides = [side for i in reversed(range(n)) for side in (op.padding[i], op.padding[n + i])]
    b.call(node.name, "torch.nn.functional.pad", b.x(node), literal(sides), literal("constant"), literal(0.0))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "concat": _concat,
        "reshape": _reshape,
        "flatten": _flatten,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
    }
)
