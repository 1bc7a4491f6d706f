"""The drawing side of conv and linear."""

import math

import numpy as np

from qfuzz.ir.qtype import QType, QuantizedDType, float32
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.strategies import fill
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Kernel edges: the widths that vector code handles in blocks, and their neighbours."""
MAX_PRODUCTS = 400_000


def fits_linear(b: Builder) -> bool:
    """Whether the current value can be multiplied with a matrix."""
    return len(b.type.shape) >= 2 and 0 < b.type.shape[-1] <= 512


def draw_linear(b: Builder) -> None:
    """A linear node; seldom one that gives real numbers."""
    features = b.type.shape[-1]
    rows = math.prod(b.type.shape[:-1])
    out = _channels(b, rows, rows * features)
    relu = _relu(b)
    inputs, element = _operands(b, (out, features), out, relu)
    source = b.current
    if not b.flavour.common and b.d.rarely(4):  # ends a branch, as dequantize does
        b.add_node(Linear(relu=relu), inputs, "float32")
        b.current = source
    else:
        b.add_node(Linear(relu=relu), inputs, element)


def fits_conv(b: Builder) -> bool:
    """Whether the current value is a signal or an image."""
    return len(b.type.shape) in (3, 4) and 0 not in b.type.shape[1:]


def draw_conv(b: Builder) -> None:
    """A conv node: plain, grouped or depthwise; strided, dilated, padded, also unevenly."""
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
    relu = _relu(b)
    inputs, element = _operands(b, (filters, channels // groups, *kernel), filters, relu)
    op = Conv(
        strides=tuple(strides),
        padding=(*before, *after),
        dilations=tuple(dilations),
        groups=groups,
        relu=relu,
    )
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
    return 1, _channels(b, positions, positions * channels * taps)


def _channels(b: Builder, elements_each: int, products_each: int) -> int:
    """Output channels, within the bounds of work and size."""
    most = min(MAX_PRODUCTS // max(products_each, 1), MAX_VALUE_ELEMENTS // max(elements_each, 1))
    return b.d.pick([c for c in CHANNELS if c <= max(most, 1)])


def _relu(b: Builder) -> bool:
    return b.d.rarely(4)


def _operands(b: Builder, shape: tuple[int, ...], channels: int, relu: bool) -> tuple[tuple[str, ...], QType]:
    """Names of x, weight and bias, and the output's type."""
    d = b.d
    q_x = b.qtype
    common = b.flavour.common
    kind = d.integer(0, 15)
    dtype: QuantizedDType = "uint8" if kind == 15 and not common else "int8"
    lo, hi = (0, 255) if dtype == "uint8" else (-128, 127)
    zero_point = d.pick((0, lo, hi, 1, 128 if dtype == "uint8" else -1)) if kind >= 14 and not common else 0
    scale_w = b.scale(2.0**-6, 4)
    style = d.pick((fill.UNIFORM, fill.UNIFORM, fill.EXTREMES, fill.NARROW, fill.EDGES))
    data = fill.quantized(d.key(), style, shape, dtype, zero_point)
    q_w = QType.per_tensor(dtype, scale_w, zero_point)
    if kind in (1, 3, 5, 7, 9) and channels > 1:
        steps = fill.below(fill.words(d.key(), channels), 5)
        scales = tuple(float32(scale_w * 2.0 ** int(s - 2)) for s in steps)
        q_w = QType(dtype, scales, (zero_point,) * channels, 0)
    weight = b.add_constant("w", q_w, data)
    centered = np.abs(data.astype(np.int64) - zero_point).reshape(channels, -1)
    spread_x = (q_x.qmax - q_x.qmin) / 4
    spread = float(np.sqrt((centered.astype(np.float64) ** 2).sum(axis=1).max(initial=1.0))) * spread_x
    inputs: tuple[str, ...] = (b.current, weight)
    bias = d.integer(0, 15)
    if bias >= 10:
        largest = max(1, int(min(spread, 2.0**24)))
        integers = fill.biases(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), channels, largest)
        units = np.array(q_w.scale) * q_x.scale[0]
        if bias >= 13:
            inputs = (*inputs, b.add_constant("b", "int32", integers.astype(np.int32)))
        else:
            exact = 0.0 if bias == 10 else 0.25
            floats = ((integers + exact) * units).astype(np.float32)
            inputs = (*inputs, b.add_constant("b", "float32", floats))
    # The output's scale makes the accumulator's spread fill the range, up to a few powers of two.
    around = q_x.scale[0] * max(q_w.scale) * max(spread, 1.0) / 64
    element = b.output(around, spread=3, unit=q_x.scale[0] * q_w.scale[0])
    if relu and b.flavour.integer:
        element = QType.per_tensor(element.dtype, element.scale[0], element.qmin)
    return inputs, element
