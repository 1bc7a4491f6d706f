"""The drawing side of layers with what follows them: linear_pointwise, conv_pointwise, linear_add, conv_add."""

import math
from typing import Any, get_args

from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, QuantizedDType, float32
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.post_operation import Activation
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.contraction import draw_channels, draw_operands, draw_relu, draw_windows
from qfuzz.strategies.qtypes import draw_zero_point

_ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
_FUSED: dict[int, tuple[Activation, ...]] = {
    3: ("none", "relu"),
    4: ("none", "relu", "hardtanh", "hardswish", "swish"),
    5: ("none",),
}
"""What kernels fuse with convolutions, by rank."""
_SLOPES = (0.5, 0.0, float32(0.01), float32(0.1), 1.0, float32(-0.3), 2.0)
_RANGES = ((0.0, 6.0), (-1.0, 1.0), (0.0, 0.0), (float32(-0.1), float32(1.7)), (1.0, 2.0), (-2.0, -0.5))


def draw_linear_pointwise(b: Builder) -> None:
    """A linear_pointwise node; now and then one that gives real numbers."""
    shape = _matrix(b)
    attributes = _activation(b, _ACTIVATIONS)
    inputs, element = draw_operands(b, shape, relu=attributes["activation"] == "relu")
    _ended(b, LinearPointwise(**attributes), inputs, _stored(b, attributes, element))


def draw_conv_pointwise(b: Builder) -> None:
    """A conv_pointwise node; now and then one that gives real numbers."""
    windows, shape = draw_windows(b)
    attributes = _activation(b, _ACTIVATIONS if b.d.rarely(8) else _FUSED[len(shape)])
    inputs, element = draw_operands(b, shape, relu=attributes["activation"] == "relu")
    _ended(b, ConvPointwise(**windows, **attributes), inputs, _stored(b, attributes, element))


def draw_linear_add(b: Builder) -> None:
    """A linear_add node."""
    inputs, element = draw_operands(b, _matrix(b), relu := draw_relu(b))
    _add(b, LinearAdd(relu=relu), (*b.type.shape[:-1], b.types[inputs[1]].shape[0]), inputs, element)


def draw_conv_add(b: Builder) -> None:
    """A conv_add node."""
    windows, shape = draw_windows(b)
    inputs, element = draw_operands(b, shape, relu := draw_relu(b))
    op = ConvAdd(**windows, relu=relu)
    _add(b, op, op.output_shape(b.type, b.types[inputs[1]]), inputs, element)


def _matrix(b: Builder) -> tuple[int, int]:
    features = b.type.shape[-1]
    rows = math.prod(b.type.shape[:-1])
    return draw_channels(b, rows, rows * features), features


def _activation(b: Builder, activations: tuple[Activation, ...]) -> dict[str, Any]:
    activation = b.d.pick(activations)
    attributes: dict[str, Any] = {"activation": activation}
    if activation == "leaky_relu":
        attributes["negative_slope"] = b.d.pick(_SLOPES)
    if activation == "hardtanh":
        attributes["min"], attributes["max"] = b.d.pick(_RANGES)
    return attributes


def _stored(b: Builder, attributes: dict[str, Any], element: QType) -> Element:
    """The output's type: a scale that the activation's values fill; seldom float32 or bfloat16."""
    if b.d.rarely(4):
        return "bfloat16" if b.d.rarely(3) else "float32"
    if attributes["activation"] in ("tanh", "hardtanh") and b.d.rarely(2):
        largest = max(abs(attributes.get("min", 1.0)), abs(attributes.get("max", 1.0)), 2.0**-4)
        scale = b.scale(largest / 128, 2)
        return QType.per_tensor(element.dtype, scale, draw_zero_point(b.d, element.dtype))
    return element


def _ended(b: Builder, op: Operator, inputs: tuple[str, ...], element: Element) -> None:
    """A node; what follows reads its input where it gives real numbers."""
    source = b.current
    b.add_node(op, inputs, element)
    _says_tensors(b)
    if not isinstance(element, QType):
        b.current = source


def _says_tensors(b: Builder) -> None:
    """Seldom: scales and zero points of activations are tensors."""
    if b.d.rarely(4):
        b.forms.append(("quantizer", "tensors"))


def _add(b: Builder, op: Operator, shape: tuple[int, ...], inputs: tuple[str, ...], element: QType) -> None:
    """A node that adds another activation: of the output's type, as an in-place sum has it, or of any; or float32."""
    d = b.d
    source, kind = b.current, d.integer(0, 7)
    q: Element = element
    y: Element = element
    if kind == 6:
        q, y = "float32", "float32" if d.integer(0, 1) else element
    elif kind:
        dtype: QuantizedDType = element.dtype if kind < 6 else d.pick(("uint8", "int8"))
        q = QType.per_tensor(dtype, b.scale(element.scale[0], 4), draw_zero_point(d, dtype))
    b.add_node(op, (*inputs[:2], b.add_input(shape, q), *inputs[2:]), y)
    _says_tensors(b)
    if y == "float32":
        b.current = source
