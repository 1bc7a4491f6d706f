"""The QOperator form of whole layers: one kernel of ONNX Runtime each (onnxruntime/docs/ContribOperators.md). Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.onnx_builder import MICROSOFT, Attribute, Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.attention import Attention


def _attention(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Attention)
    q_x, q_w = b.qtype(node), b.qtype(node, 1)
    if q_x.dtype != "uint8":
        raise Unsupported(f"x: {q_x.dtype}; the CPU kernel of QAttention takes uint8 (attention_quant.cc, T1)")
    scale_x, zero_point_x = b.qparams(q_x)
    scale_w, zero_point_w = b.qparams(q_w)
    weight, bias = b.constant(node.inputs[1]), b.constant(node.inputs[2])
    mask = b.constant(node.inputs[3]) if len(node.inputs) > 3 else ""
    attributes: dict[str, Attribute] = {"num_heads": op.num_heads, "unidirectional": op.unidirectional}
    if op.mask_filter_value != -10000.0:
        attributes["mask_filter_value"] = op.mask_filter_value
    if op.scale is not None:
        attributes["scale"] = op.scale
    inputs = [node.inputs[0], weight, bias, scale_x, scale_w, mask, zero_point_x, zero_point_w]
    b.emit("QAttention", inputs, node.name, attributes, MICROSOFT)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"attention": _attention})
"""Operator name to the function that writes its node, or says why there is none."""
