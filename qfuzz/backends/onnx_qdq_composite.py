"""The QDQ form of whole layers: their definitions in operators of ONNX, between quantized values. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.backends.onnx_builder import NONE, Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.attention import Attention
from qfuzz.ops.scaled_mm import SATURATING

LOWEST = np.finfo(np.float32).min


def dequantized(b: Builder, name: str) -> str:
    """The float32 value of an activation or a constant, for all who read it."""
    q = b.network.types[name].element
    assert isinstance(q, QType)
    real = f"{name}/real"
    if b.is_new(real):
        stored = b.constant(name) if name in b.network.constant_data else name
        b.emit("DequantizeLinear", [stored, *b.qparams(q)], real, NONE if q.axis is None else {"axis": q.axis})
    return real


def _attention(b: Builder, node: Node) -> None:
    """Projections, then per head softmax(scale Q K^T + mask) V.

    Values inside have shapes of their own, so that their names begin with no value's (`onnx_forms.Said.shape`).
    """
    op: Any = node.op
    assert isinstance(op, Attention)
    batch, length, _ = b.type(node).shape
    hidden = b.type(node, 1).shape[1] // 3
    head = hidden // op.num_heads

    def emit(op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return b.emit(op_type, inputs, f"/{node.name}/{name}", attributes)

    weight = dequantized(b, node.inputs[1])
    product = emit("MatMul", [dequantized(b, node.inputs[0]), weight], "product")
    projected = emit("Add", [product, b.constant(node.inputs[2])], "projected")
    split = b.integers(batch, length, 3, op.num_heads, head)
    parts = emit("Reshape", [projected, split], "parts", allowzero=1)
    parts = emit("Transpose", [parts], "heads", perm=(2, 0, 3, 1, 4))
    q, k, v = (
        emit("Gather", [parts, b.shared(np.array(i, dtype=np.int64))], name, axis=0) for i, name in enumerate("qkv")
    )
    scores = emit("MatMul", [q, emit("Transpose", [k], "k_transposed", perm=(0, 1, 3, 2))], "scores")
    scale = op.scale if op.scale is not None else float32(head**-0.5)
    scores = emit("Mul", [scores, b.shared(np.array(scale, dtype=np.float32))], "scaled")
    if len(node.inputs) > 3 or op.unidirectional:
        mask = b.network.constant_data[node.inputs[3]].array if len(node.inputs) > 3 else None
        added = np.where(op.filtered(mask, batch, length), np.float32(op.mask_filter_value), np.float32(0.0))
        added = np.where(op.attended(length), added, LOWEST)[:, None]
        scores = emit("Add", [scores, b.shared(np.ascontiguousarray(added, dtype=np.float32))], "masked")
    shares = emit("Softmax", [scores], "shares", axis=-1)
    output = emit("Transpose", [emit("MatMul", [shares, v], "mixed")], "rows", perm=(0, 2, 1, 3))
    b.emit("Reshape", [output, b.integers(batch, length, hidden)], node.name, {"allowzero": 1})


def _lstm(b: Builder, node: Node) -> None:
    raise Unsupported("ONNX LSTM takes no quantized hidden state: a QDQ form would quantize it once, not at each step")


def _embed_layer_norm(b: Builder, node: Node) -> None:
    raise Unsupported("the QDQ form of it is several operators: gathered rows, sums and a layer normalization")


def _moe(b: Builder, node: Node) -> None:
    raise Unsupported("ONNX has no operator that mixes experts; the QDQ form would be a network of others")


def _scaled_mm(b: Builder, node: Node) -> None:
    """Gemm of dequantized factors; QuantizeLinear saturates where `torch.Tensor.to` does."""
    if len(node.inputs) == 3 and b.type(node, 2).element != "float32":
        raise Unsupported(f"bias: {b.type(node, 2).dtype}; Gemm of float32 adds such a one")
    y = node.element
    if not isinstance(y, QType) and y != "float32":
        raise Unsupported(f"output: {y}; Gemm of float32 gives such")
    factors = [dequantized(b, name) for name in node.inputs[:2]]
    bias = [b.constant(name) for name in node.inputs[2:]]
    name = f"{node.name}/float" if isinstance(y, QType) else node.name
    real = b.emit("Gemm", [*factors, *bias], name, {"transB": 1})
    if isinstance(y, QType):
        saturate = NONE if y.dtype == SATURATING else {"saturate": 0}
        b.emit("QuantizeLinear", [real, *b.qparams(y)], node.name, saturate)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "attention": _attention,
        "lstm": _lstm,
        "embed_layer_norm": _embed_layer_norm,
        "moe": _moe,
        "scaled_mm": _scaled_mm,
    }
)
"""Operator name to the function that writes its nodes."""
