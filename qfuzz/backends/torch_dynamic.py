"""Layers that quantize their data as they come, as torch's eager kernels have them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import literal
from qfuzz.backends.torch_layers import bias_of, weight_of
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.dynamic import DynamicLinear


def _dynamic_linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, DynamicLinear)
    _check_chooser(op)
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), "torch.ops.quantized.linear_prepack", weight_of(b, node), bias_of(b, node)
    )
    kernel = "linear_relu_dynamic" if op.relu else "linear_dynamic"
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), packed, literal(op.reduce_range))


def _check_chooser(op: Any) -> None:
    if op.chosen_as != "torch":
        raise Unsupported("chosen_as: torch chooses no scale below its SMALL_SCALE_THRESHOLD, ONNX does")


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"dynamic_linear": _dynamic_linear})
