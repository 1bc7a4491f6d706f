"""The drawing side of what multiplies an activation with a constant weight: conv, linear and their kin."""

import math
from typing import Any

import numpy as np

from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import BYTES, INTEGER_RANGE, QType, QuantizedDType, float32
from qfuzz.ops.contraction import OWN_BIASES
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger
from qfuzz.strategies import fill
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.fill import Array
from qfuzz.strategies.layer_forms import draw_entry
from qfuzz.strategies.qtypes import draw_zero_point

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Kernel edges: the widths that vector code handles in blocks, and their neighbours."""
MAX_PRODUCTS = 400_000
OTHER_WEIGHTS: tuple[QuantizedDType, ...] = ("int4", "uint4", "int4", "uint4", "int16", "uint16", "int2", "uint2")
"""Types of weights that no kernel on stored integers takes; those of 4 bits are what tools write."""


def fits_linear(b: Builder) -> bool:
    """Whether the current value can be multiplied with a matrix."""
    return len(b.type.shape) >= 2 and 0 < b.type.shape[-1] <= 512


def draw_linear(b: Builder) -> None:
    """A linear node; seldom with the factors of ONNX Gemm, seldom one that gives real numbers."""
    if _draw_again(b, Linear):
        return
    features = b.type.shape[-1]
    rows = math.prod(b.type.shape[:-1])
    out = draw_channels(b, rows, rows * features)
    relu = draw_relu(b)
    alpha, beta = _factors(b)
    inputs, element = draw_operands(b, (out, features), relu, alpha=alpha)
    op = Linear(relu=relu, alpha=alpha, beta=beta)
    draw_entry(b)
    source = b.current
    if not b.flavour.common and b.d.rarely(4):  # ends a branch, as dequantize does
        b.add_node(op, inputs, "float32")
        b.current = source
    else:
        b.add_node(op, inputs, element)


def _draw_again(b: Builder, kind: type[Operator]) -> bool:
    """Seldom: an earlier node of that kind once more, with its weight and bias, on its input or another of that shape.

    Returns whether there is one.
    """
    d = b.d
    earlier = (
        [] if b.flavour.common else [n for n in b.nodes if isinstance(n.op, kind) and isinstance(n.element, QType)]
    )
    if not earlier or not d.rarely(3):
        return False
    node = d.pick(earlier)
    x = b.types[node.inputs[0]]
    if not x.is_quantized:
        return False
    q_x, q_y = x.qtype, b.types[node.name].qtype
    source = node.inputs[0]
    if d.rarely(2):
        source = b.add_input(x.shape, QType.per_tensor(q_x.dtype, b.scale(q_x.scale[0], 1), q_x.zero_point[0]))
    inputs = (source, *(node.inputs[1:] if d.integer(0, 3) else node.inputs[1:2]))
    b.add_node(node.op, inputs, b.output(q_y.scale[0], spread=1, unit=q_x.scale[0]))
    return True


def _factors(b: Builder) -> tuple[float, float]:
    """Factors of a Gemm: of matrices only, as Gemm has them."""
    d = b.d
    if b.flavour.common or len(b.type.shape) != 2 or not d.rarely(4):
        return 1.0, 1.0
    others = (0.5, 2.0, -1.0, 1.5) if b.flavour.dyadic else (0.5, float32(0.1), -1.0, float32(1.7), float32(-0.3))
    alpha = d.pick((1.0, *others))
    return alpha, d.pick((alpha, 1.0, 0.0, *others))


def draw_linear_integer(b: Builder) -> None:
    """A linear_integer node, which ends a branch."""
    reads_bytes(b, plain=b.d.integer(0, 1) == 1)
    features = b.type.shape[-1]
    rows = math.prod(b.type.shape[:-1])
    out = draw_channels(b, rows, rows * features)
    weight, _, _ = draw_weight(b, (out, features), apart=True)
    _ended(b, LinearInteger(omits_zeros=b.d.rarely(3)), (b.current, weight))


def draw_conv_integer(b: Builder) -> None:
    """A conv_integer node, which ends a branch."""
    reads_bytes(b)
    attributes, shape = draw_windows(b)
    weight, _, _ = draw_weight(b, shape, apart=True)
    _ended(b, ConvInteger(**attributes, omits_zeros=b.d.rarely(3)), (b.current, weight))


def reads_bytes(b: Builder, *, plain: bool = False) -> None:
    """The current value becomes another input of its shape where it holds no bytes, which is what kernels take.

    Or where it has a zero point though it shall be `plain`, as some kernels know none.
    """
    q = b.qtype
    if q.dtype not in BYTES or (plain and any(q.zero_point)):
        dtype = q.dtype if q.dtype in BYTES else "uint8"
        zero_point = 0 if plain else draw_zero_point(b.d, dtype)
        b.current = b.add_input(b.type.shape, QType.per_tensor(dtype, q.scale[0], zero_point))


def _ended(b: Builder, op: Operator, inputs: tuple[str, ...]) -> None:
    """A node that gives plain int32: what follows reads its input."""
    source = b.current
    b.add_node(op, inputs, "int32")
    b.current = source


def fits_conv(b: Builder) -> bool:
    """Whether the current value is a signal, an image or a volume."""
    return len(b.type.shape) in (3, 4, 5) and 0 not in b.type.shape[1:]


def draw_conv(b: Builder) -> None:
    """A conv node: plain, grouped or depthwise; strided, dilated, padded, also unevenly."""
    if _draw_again(b, Conv):
        return
    attributes, shape = draw_windows(b)
    relu = draw_relu(b)
    draw_entry(b)
    _add_layer(b, Conv(**attributes, relu=relu), shape, relu)


def draw_windows(b: Builder) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Attributes of a correlation with the current value, and the weight's shape."""
    d = b.d
    shape = b.type.shape
    channels = shape[1]
    kernel, strides, dilations, before, after = [], [], [], [], []
    shape_kind = d.integer(0, 7)
    for size in shape[2:]:
        k = d.integer(1, min(3, size + 2) if shape_kind < 7 else min(5, size + 2))
        dilation = d.integer(1, 2) if shape_kind in (3, 4) and (k - 1) * 2 + 1 <= size + 2 else 1
        reach = dilation * (k - 1) + 1
        least = max(0, -(-(reach - size) // 2))
        pad = max(least, d.integer(0, 1) if shape_kind in (0, 1, 2, 3) else 0)
        pad = max(pad, least)
        uneven = 1 if shape_kind == 5 and not b.flavour.common else 0
        kernel.append(k)
        dilations.append(dilation)
        strides.append(d.integer(1, 3) if shape_kind in (2, 4, 6) else 1)
        before.append(pad)
        after.append(pad + uneven)
    groups, filters = _groups(b, channels, math.prod(shape[2:]) * max(shape[0], 1), math.prod(kernel))
    attributes = {
        "strides": tuple(strides),
        "padding": (*before, *after),
        "dilations": tuple(dilations),
        "groups": groups,
    }
    return attributes, (filters, channels // groups, *kernel)


def fits_conv_transpose(b: Builder) -> bool:
    """Whether the current value is a signal, an image or a small volume."""
    return len(b.type.shape) in (3, 4, 5) and 0 not in b.type.shape[1:]


def draw_conv_transpose(b: Builder) -> None:
    """A conv_transpose node: plain, grouped or depthwise; padded at either end, or said with the output's sizes."""
    if _draw_again(b, ConvTranspose):
        return
    attributes, weight, says_sizes = draw_transposed_windows(b)
    relu = draw_relu(b)
    op = ConvTranspose(**attributes, relu=relu, says_sizes=says_sizes)
    _add_layer(b, op, weight, relu, axis=1, groups=op.groups)


def draw_transposed_windows(b: Builder) -> tuple[dict[str, Any], tuple[int, ...], bool]:
    """Attributes of a transposed convolution of the current value, the weight's shape, and whether it says sizes."""
    d = b.d
    shape = b.type.shape
    channels, spatial = shape[1], len(shape) - 2
    kind = d.integer(0, 7)
    says_sizes = d.rarely(4)
    kernel = tuple(d.integer(1, 3) for _ in range(spatial))
    dilations = tuple(d.integer(1, 2) if kind in (3, 4) else 1 for _ in range(spatial))
    strides = tuple(d.integer(1, 3) if kind in (1, 2, 4, 6) else 1 for _ in range(spatial))
    if math.prod(shape) * math.prod(strides) * 2 > MAX_VALUE_ELEMENTS:
        strides = (1,) * spatial
    more = tuple(d.integer(0, s - 1) if kind in (2, 4) else 0 for s in strides)
    before, after, out = [], [], []
    for size, k, s, r, m in zip(shape[2:], kernel, strides, dilations, more, strict=True):
        full = s * (size - 1) + r * (k - 1) + 1 + m
        uneven = (1 if says_sizes else d.integer(-1, 1)) if kind in (5, 6) and full > 3 else 0
        pad = min(d.integer(0, 2), (full - 1 - abs(uneven)) // 2)
        before.append(pad + max(uneven, 0))
        after.append(pad + max(-uneven, 0))
        out.append(full - before[-1] - after[-1])
    groups, filters = _groups(b, channels, math.prod(out) * max(shape[0], 1), math.prod(kernel))
    attributes = {
        "strides": strides,
        "padding": (*before, *after),
        "dilations": dilations,
        "output_padding": more,
        "groups": groups,
    }
    return attributes, (channels, filters // groups, *kernel), says_sizes


def _add_layer(
    b: Builder, op: Operator, weight: tuple[int, ...], relu: bool, *, axis: int = 0, groups: int = 1
) -> None:
    """A node of `op`; seldom one that reads real numbers, in place of the current value, and may give some."""
    if b.flavour.common or not b.d.rarely(8):
        inputs, element = draw_operands(b, weight, relu, axis=axis, groups=groups)
        b.add_node(op, inputs, element)
        return
    source = b.current
    b.current = b.add_input(b.type.shape, "float32")
    inputs, element = draw_operands(b, weight, relu, axis=axis, groups=groups)
    if b.d.rarely(3):
        b.add_node(op, inputs, "float32")
        b.current = source
    else:
        b.add_node(op, inputs, element)


def _groups(b: Builder, channels: int, positions: int, taps: int) -> tuple[int, int]:
    """Groups and filters."""
    d = b.d
    kind = d.integer(0, 5)
    if kind == 4 and channels > 1:
        return channels, channels * d.integer(1, 2)  # depthwise
    if kind == 5:
        divisors = [g for g in (2, 3, 4, 8) if channels % g == 0]
        if divisors:
            groups = d.pick(divisors)
            return groups, groups * d.integer(1, 3)
    return 1, draw_channels(b, positions, positions * channels * taps)


def draw_channels(b: Builder, elements_each: int, products_each: int) -> int:
    """Output channels, within the bounds of work and size."""
    most = min(MAX_PRODUCTS // max(products_each, 1), MAX_VALUE_ELEMENTS // max(elements_each, 1))
    return b.d.pick([c for c in CHANNELS if c <= max(most, 1)])


def draw_relu(b: Builder) -> bool:
    """Whether a relu is fused."""
    return b.d.rarely(4)


def draw_weight(b: Builder, shape: tuple[int, ...], axis: int = 0, *, apart: bool = False) -> tuple[str, QType, Array]:
    """Name, type and data of a weight; per output channel, on `axis`, now and then.

    Where `apart`, channels may have zero points of their own.
    """
    d = b.d
    common = b.flavour.common
    kind = d.integer(0, 15)
    dtype: QuantizedDType = "uint8" if kind == 15 and not common else "int8"
    if not common and not apart and d.rarely(6):
        dtype = d.pick(OTHER_WEIGHTS)
    lo, hi = INTEGER_RANGE[dtype]
    middle = -1 if lo < 0 else (hi + 1) // 2
    zero_point = d.pick((0, lo, hi, 1, middle)) if kind >= 14 and not common else 0
    scale_w = b.scale(2.0**-6, 4)
    style = d.pick((fill.UNIFORM, fill.UNIFORM, fill.EXTREMES, fill.NARROW, fill.EDGES))
    data = fill.quantized(d.key(), style, shape, dtype, zero_point)
    q_w = QType.per_tensor(dtype, scale_w, zero_point)
    if kind in (1, 3, 5, 7, 9) and shape[axis] > 1:
        steps = fill.below(fill.words(d.key(), shape[axis]), 5)
        scales = tuple(float32(scale_w * 2.0 ** int(s - 2)) for s in steps)
        zero_points = (zero_point,) * shape[axis]
        if apart and not common:
            zero_points = tuple(int(z) for z in lo + fill.below(fill.words(d.key(), shape[axis]), hi - lo + 1))
        q_w = QType(dtype, scales, zero_points, axis)
    return b.add_constant("w", q_w, data), q_w, data


_AS_REALS = QType.per_tensor("uint8", 1.0, 0)
"""Real activations are about as large as these."""


def draw_operands(
    b: Builder, shape: tuple[int, ...], relu: bool, *, axis: int = 0, groups: int = 1, alpha: float = 1.0
) -> tuple[tuple[str, ...], QType]:
    """Names of x, weight and bias, and the output's type; a weight's channels on axis 1 are those of one group."""
    d = b.d
    q_x = b.qtype if b.type.is_quantized else _AS_REALS
    weight, q_w, data = draw_weight(b, shape, axis)
    of_group = np.moveaxis(data.astype(np.int64) - q_w.zero_point[0], axis, 0).reshape(shape[axis], -1)
    spread_x = (q_x.qmax - q_x.qmin) / 4
    spread = float(np.sqrt((of_group.astype(np.float64) ** 2).sum(axis=1).max(initial=1.0))) * spread_x
    inputs: tuple[str, ...] = (b.current, weight)
    bias = d.integer(0, 15)
    channels = shape[axis] * (groups if axis else 1)
    if bias >= 10:
        largest = max(1, int(min(spread, 2.0**24)))
        integers = fill.biases(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), channels, largest)
        units = np.tile(q_w.scale, channels // len(q_w.scale)) * q_x.scale[0]
        if bias >= 11 and not b.flavour.common and d.rarely(2):
            inputs = (*inputs, _own_bias(b, units, integers))
        elif bias >= 13 and b.type.is_quantized:
            inputs = (*inputs, b.add_constant("b", "int32", integers.astype(np.int32)))
        else:
            exact = 0.0 if bias == 10 else 0.25
            floats = ((integers + exact) * units).astype(np.float32)
            inputs = (*inputs, b.add_constant("b", "float32", floats))
    # The output's scale makes the accumulator's spread fill the range, up to a few powers of two.
    unit = q_x.scale[0] * abs(alpha)
    element = b.output(unit * max(q_w.scale) * max(spread, 1.0) / 64, spread=3, unit=unit * q_w.scale[0])
    if relu and b.flavour.integer:
        element = QType.per_tensor(element.dtype, element.scale[0], element.qmin)
    return inputs, element


def _own_bias(b: Builder, units: Array, integers: Array) -> str:
    """A bias with scales and zero points of its own, near `integers` times `units`, scale_x * scale_w, if it can be.

    Its scale is that unit (rounded to float32), less than one percent off it, powers of two off, or anything.
    """
    d = b.d
    dtype = d.pick(OWN_BIASES)
    kind = d.integer(0, 7)
    per_channel = (kind % 2 == 1) == bool((units == units[0]).all())  # mostly as the weight's scales are
    of = units if per_channel else units[:1]
    match kind // 2:
        case 1 if not b.flavour.dyadic:
            of = of * (1 + d.pick((2.0**-20, 0.001, -0.001, 0.005, -0.005, 0.009, -0.009)))
        case 1 | 2:
            of = of * 2.0 ** d.integer(-8, 8)
        case 3:
            about = float(of[0]) * (1.0 if dtype == "int32" else max(1.0, float(np.abs(integers).max()) / 100))
            of = of * (b.scale(about, 4) / float(of[0]))
        case _:
            pass
    scales = tuple(float32(float(s)) for s in of)
    axis = 0 if per_channel else None
    if dtype == "int32":
        counts = np.clip(np.rint(integers * units / np.array(scales)), -(2**24), 2**24).astype(np.int32)
        return b.add_constant("b", QType(dtype, scales, (0,) * len(scales), axis), counts)
    zero_point = draw_zero_point(d, dtype)
    data = fill.quantized(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), integers.shape, dtype, zero_point)
    return b.add_constant("b", QType(dtype, scales, (zero_point,) * len(scales), axis), data)
