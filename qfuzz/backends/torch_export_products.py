"""Products of plain integers, and of reals with stored weights: aten's own calls, which know no zero points."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node


def _matmul_integer(b: Builder, node: Node) -> None:
    _check_integers(b, node)
    b.call(node.name, "torch._int_mm", b.x(node), b.x(node, 1))


def _linear_integer(b: Builder, node: Node) -> None:
    _check_integers(b, node)
    weight = b.prepare_call(b.fresh(f"{node.name}_weight"), ".t", b.constant(node.inputs[1]))
    b.call(node.name, "torch._int_mm", b.x(node), weight)


def _check_integers(b: Builder, node: Node) -> None:
    for position in range(2):
        t = b.type(node, position)
        if len(t.shape) != 2:
            raise Unsupported(f"input {position}: rank {len(t.shape)}; _int_mm multiplies matrices")
        if any(t.qtype.zero_point):
            raise Unsupported(f"input {position}: zero point {t.qtype.zero_point[0]}; _int_mm knows none")
    if b.type(node, 1).dtype != "int8":
        raise Unsupported("input 1: uint8; _int_mm takes an int8 right operand")


def _weight_only_linear(b: Builder, node: Node) -> None:
    x, weight = b.type(node, 0), b.type(node, 1)
    q = weight.qtype
    if len(x.shape) != 2:
        raise Unsupported(f"x: rank {len(x.shape)}; the kernel multiplies matrices")
    if len(node.inputs) > 2:
        raise Unsupported("bias: the kernel adds none")
    if q.dtype != "int8" or q.block or any(q.zero_point):
        raise Unsupported(f"weight: {q.dtype}; _weight_int8pack_mm takes int8 without zero points and blocks")
    scales = q.scale if q.axis == 0 else q.scale * weight.shape[0]
    b.call(
        node.name,
        "torch._weight_int8pack_mm",
        b.x(node),
        b.constant(node.inputs[1]),
        b.numbers(f"{node.name}_scales", scales, "float32"),
    )


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "matmul_integer": _matmul_integer,
        "linear_integer": _linear_integer,
        "weight_only_linear": _weight_only_linear,
    }
)
"""Operator name to the function that writes its calls."""
