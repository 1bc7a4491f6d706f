"""The QOperator form of whole layers: one kernel of ONNX Runtime each (onnxruntime/docs/ContribOperators.md). Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.backends.onnx_builder import MICROSOFT, Attribute, Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.attention import Attention
from qfuzz.ops.embedding import EmbedLayerNorm
from qfuzz.ops.lstm import Lstm
from qfuzz.ops.mixture import Moe


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


def _lstm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Lstm)
    given = [b.constant(name) for name in node.inputs[3:]] + [""] * (7 - len(node.inputs))
    bias, initial_h, initial_c, peepholes = given
    qparams = []
    for position in (1, 2):
        q = b.qtype(node, position)
        if q.axis == 2 and set(q.zero_point) != {0 if q.dtype == "int8" else q.zero_point[0]}:
            raise Unsupported(
                f"input {position}: zero points {q.zero_point}; those of columns are 0 for int8, and all the same for "
                "uint8 (ZeroPointCheck of dynamic_quantize_lstm.cc)"
            )
        # [directions], or [directions, columns], which is one direction.
        shape = (1, -1) if q.axis == 2 else (op.n_directions,)
        scale, zero_point = np.array(q.scale, dtype=np.float32), np.array(q.zero_point, dtype=q.dtype)
        if q.axis is None:
            scale, zero_point = (np.repeat(a, op.n_directions) for a in (scale, zero_point))
        qparams += [b.shared(scale.reshape(shape)), b.shared(zero_point.reshape(shape))]
    weights = [b.constant(name) for name in node.inputs[1:3]]
    inputs = [node.inputs[0], *weights, bias, "", initial_h, initial_c, peepholes, *qparams]
    hidden = b.type(node, 2).shape[1]
    attributes: dict[str, Attribute] = {"hidden_size": hidden, "direction": op.direction}
    if op.input_forget:
        attributes["input_forget"] = 1
    if op.clip is not None:
        attributes["clip"] = op.clip
    b.emit("DynamicQuantizeLSTM", inputs, node.name, attributes, MICROSOFT)
    outputs = b.graph.node[-1].output
    for _ in range(("y", "y_h", "y_c").index(op.output)):
        outputs.insert(0, "")


def _embed_layer_norm(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, EmbedLayerNorm)
    named = dict(
        zip(("words", "ids", "positions", "gamma", "beta", "segment_ids", "segments"), node.inputs, strict=False)
    )
    stored = {key: b.constant(name) for key, name in named.items() if key != "words"} | {"words": node.inputs[0]}
    tables = ("words", "positions", "segments", "gamma", "beta")
    first = ("ids", "segment_ids", *tables)
    qparams = {t: b.qparams(b.network.types[named[t]].qtype) if t in named else ("", "") for t in tables}
    inputs = [stored.get(key, "") for key in first] + [""]  # no mask, which only mask_index_out depends on
    inputs += [qparams[t][0] for t in tables] + [qparams[t][1] for t in tables]
    b.emit("QEmbedLayerNormalization", inputs, node.name, {"epsilon": op.epsilon}, MICROSOFT)
    b.graph.node[-1].output.append(f"{node.name}/mask_index")


def _moe(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Moe)
    x, router, mixing, w1, w2 = node.inputs[:5]
    scales: list[str] = []
    zero_points: list[str] = []
    for name in (w1, w2):
        t = b.network.types[name]
        shape = (1, -1) if t.qtype.axis == 1 else (-1, 1)
        scale = np.array(t.qtype.scale, dtype=np.float32).reshape(shape)
        zero_point = np.array(t.qtype.zero_point, dtype=np.uint8).reshape(shape)
        scales.append(b.shared(np.ascontiguousarray(np.broadcast_to(scale, t.shape[:2]))))
        zero_points.append(b.shared(np.ascontiguousarray(np.broadcast_to(zero_point, t.shape[:2]))))
    b1, b2 = (b.constant(name) for name in node.inputs[5:]) if len(node.inputs) > 5 else ("", "")
    inputs = [x, router, b.constant(w1), scales[0], b1, b.constant(w2), scales[1], b2, "", "", "", *zero_points]
    attributes: dict[str, Attribute] = {
        "k": op.top,
        "activation_type": op.activation,
        "expert_weight_bits": 8,
        "normalize_routing_weights": op.normalized,
    }
    if op.activation == "swiglu":
        attributes |= {"swiglu_fusion": 1, "activation_alpha": op.alpha, "activation_beta": op.beta}
        attributes |= {} if op.limit is None else {"swiglu_limit": op.limit}
    b.emit("QMoE", [*inputs, "", b.constant(mixing)], node.name, attributes, MICROSOFT)


def _scaled_mm(b: Builder, node: Node) -> None:
    raise Unsupported("there is no kernel of products of float8; the QDQ form has one of real numbers")


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "attention": _attention,
        "lstm": _lstm,
        "embed_layer_norm": _embed_layer_norm,
        "moe": _moe,
        "scaled_mm": _scaled_mm,
    }
)
"""Operator name to the function that writes its node, or says why there is none."""
