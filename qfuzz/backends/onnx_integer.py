"""Products of stored integers that give plain int32: ONNX MatMulInteger and ConvInteger, in whatever form. Pure."""

from typing import Any

import numpy as np

from qfuzz.backends.onnx_builder import Builder
from qfuzz.backends.onnx_geometry import conv_attributes
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType


def linear_integer(b: Builder, node: Node) -> None:
    """MatMulInteger by the constant weight, stored [K, M]."""
    name = node.inputs[1]
    weight = b.initializer(f"{name}/transposed", np.ascontiguousarray(b.network.constant_data[name].array.T))
    _matmul_integer(b, node, weight)


def matmul_integer(b: Builder, node: Node) -> None:
    """MatMulInteger of two activations."""
    _matmul_integer(b, node, node.inputs[1])


def _matmul_integer(b: Builder, node: Node, second: str) -> None:
    dtypes = b.qtype(node).dtype, b.qtype(node, 1).dtype
    if dtypes == ("int8", "uint8"):
        raise Unsupported("inputs: int8 times uint8; MatMulInteger of int8 takes int8 as the second operand")
    b.emit("MatMulInteger", [node.inputs[0], *_trimmed(second, *_zero_points(b, node))], node.name)


def conv_integer(b: Builder, node: Node) -> None:
    """ConvInteger by the constant weight."""
    weight = b.constant(node.inputs[1])
    inputs = [node.inputs[0], *_trimmed(weight, *_zero_points(b, node))]
    b.emit("ConvInteger", inputs, node.name, conv_attributes(node.op, b.type(node, 1).shape[2:]))


def _zero_points(b: Builder, node: Node) -> tuple[str, ...]:
    """Names of the zero points of both inputs; empty for one that the network leaves out."""
    op: Any = node.op
    return tuple(_zero_point(b, b.qtype(node, position), omits=op.omits_zeros) for position in (0, 1))


def _zero_point(b: Builder, q: QType, *, omits: bool) -> str:
    """The zero point for all, or those of each channel."""
    if omits and not any(q.zero_point):
        return ""
    return b.shared(np.array(q.zero_point[0] if len(set(q.zero_point)) == 1 else q.zero_point, dtype=q.dtype))


def _trimmed(*names: str) -> list[str]:
    """Inputs without the last ones that are left out."""
    n = max(i + 1 for i, name in enumerate(names) if name)
    return list(names[:n])
