"""Quantization that follows the data, said in ONNX: DynamicQuantizeLinear, and products of what it gives. Pure.

This is what `quantize_dynamic` of ONNX Runtime writes, and what its optimizer makes of it from opt=extended on.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto

from qfuzz.backends.onnx_builder import MICROSOFT, Builder, Lowering
from qfuzz.backends.onnx_geometry import conv_attributes
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.dynamic import DynamicQuantize

_OUTPUTS = ("y", "scale", "zero_point")


def _dynamic_quantize(b: Builder, node: Node) -> None:
    """The operator has three outputs, of which the node's carries its name."""
    op: Any = node.op
    assert isinstance(op, DynamicQuantize)
    if op.chosen_as != "onnx":
        raise Unsupported("chosen_as: DynamicQuantizeLinear has no smallest scale")
    outputs = [node.name if o == op.output else f"{node.name}/{o}" for o in _OUTPUTS]
    b.emit_all("DynamicQuantizeLinear", [node.inputs[0]], outputs)


def transposed_weight(b: Builder, node: Node) -> str:
    """The stored weight, [K, M]."""
    name = node.inputs[1]
    return b.initializer(f"{name}/transposed", np.ascontiguousarray(b.network.constant_data[name].array.T))


def _check_chooser(node: Node) -> None:
    """Raise `Unsupported` for a layer that is not ONNX's."""
    op: Any = node.op
    if op.chosen_as != "onnx" or getattr(op, "relu", False):
        raise Unsupported("chosen_as, relu: DynamicQuantizeLinear has no smallest scale, and no product has a relu")


def _as_integers(b: Builder, node: Node) -> None:
    """Data are quantized once, for all who read them."""
    _check_chooser(node)
    y, scale, zero_point = _quantized(b, node)
    scale_w, zero_point_w = b.qparams(b.qtype(node, 1))
    acc = b.emit("MatMulInteger", [y, transposed_weight(b, node), zero_point, zero_point_w], f"{node.name}/acc")
    _scaled(b, node, acc, scale, scale_w, b.constant(node.inputs[2]) if len(node.inputs) == 3 else "")


def _conv_as_integers(b: Builder, node: Node) -> None:
    """The same with ConvInteger; scales and bias of channels are laid out for images."""
    _check_chooser(node)
    y, scale, zero_point = _quantized(b, node)
    q_w = b.qtype(node, 1)
    inputs = [y, b.constant(node.inputs[1]), zero_point, b.qparams(q_w)[1]]
    attributes = conv_attributes(node.op, b.type(node, 1).shape[2:])
    acc = b.emit("ConvInteger", inputs, f"{node.name}/acc", attributes)
    channels = (-1, *(1 for _ in b.type(node, 1).shape[2:]))
    scales = np.array(q_w.scale, dtype=np.float32)
    scale_w = b.shared(scales.reshape(channels) if len(q_w.scale) > 1 else scales[0])
    bias = ""
    if len(node.inputs) == 3:
        name = node.inputs[2]
        bias = b.initializer(f"{name}/channels", b.network.constant_data[name].array.reshape(channels))
    _scaled(b, node, acc, scale, scale_w, bias)


def _quantized(b: Builder, node: Node) -> tuple[str, str, str]:
    y, scale, zero_point = (f"{node.inputs[0]}/{o}" for o in _OUTPUTS)
    if b.is_new(y):
        b.emit_all("DynamicQuantizeLinear", [node.inputs[0]], [y, scale, zero_point])
    return y, scale, zero_point


def _scaled(b: Builder, node: Node, acc: str, scale: str, scale_w: str, bias: str) -> None:
    """Accumulators times both scales, and the bias if there is one."""
    real = b.emit("Cast", [acc], f"{node.name}/acc_float", {"to": int(TensorProto.FLOAT)})
    scales = b.emit("Mul", [scale, scale_w], f"{node.name}/scales")
    product = b.emit("Mul", [real, scales], f"{node.name}/product" if bias else node.name)
    if bias:
        b.emit("Add", [product, bias], node.name)


def _fused(b: Builder, node: Node) -> None:
    _check_chooser(node)
    bias = [b.constant(node.inputs[2])] if len(node.inputs) == 3 else []
    inputs = [node.inputs[0], transposed_weight(b, node), *b.qparams(b.qtype(node, 1)), *bias]
    b.emit("DynamicQuantizeMatMul", inputs, node.name, domain=MICROSOFT)


QDQ: Mapping[str, Lowering] = MappingProxyType(
    {"dynamic_quantize": _dynamic_quantize, "dynamic_linear": _as_integers, "dynamic_conv": _conv_as_integers}
)
"""As ONNX's own operators say it."""

QOPERATOR: Mapping[str, Lowering] = MappingProxyType(
    {"dynamic_quantize": _dynamic_quantize, "dynamic_linear": _fused, "dynamic_conv": _conv_as_integers}
)
"""As one kernel where ONNX Runtime has one."""
