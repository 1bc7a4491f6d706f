"""The drawing side of what is quantized as it comes: float32 data, what its range is like, and layers on it."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec.structs import replace

from qfuzz.ir.qtype import QType, QuantizedDType, Real, float32
from qfuzz.ops.dynamic import DynamicLinear, DynamicQuantize, Output
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_range import STORED
from qfuzz.ops.qparams import ChooseQparams, Stored
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder, RealRange
from qfuzz.strategies.contraction import (
    draw_channels,
    draw_transposed_windows,
    draw_windows,
    fits_conv,
)
from qfuzz.strategies.layer_forms import draw_entry

_KINDS = (
    fill.BOTH_SIGNS,
    fill.NEAR_TIES,
    fill.POSITIVE,
    fill.EXACT_SCALE,
    fill.NEAR_TIES,
    fill.NEGATIVE,
    fill.EXACT_SCALE,
    fill.OFFSET,
    fill.OUTLIER,
    fill.EQUAL,
    fill.NOTHING,
)
_MAGNITUDES = (0, 0, 1, -3, 5, -10, 12, -60, 60)
"""Exponents: products with a weight's scale stay far within float32."""


def draw_dynamic_quantize(b: Builder) -> None:
    """A dynamic_quantize node, which ends a branch: what follows reads what came before it."""
    source = b.current
    x = float_data(b, least_rank=1)
    output: Output = b.d.pick(("y", "y", "scale", "y", "zero_point"))
    by_torch = b.d.integer(0, 1) == 1
    op = DynamicQuantize(
        output=output,
        chosen_as="torch" if by_torch else "onnx",
        reduce_range=by_torch and b.d.rarely(2),
    )
    if by_torch and output == "scale" and b.d.rarely(2):
        b.forms.append(("entry", "older"))
    b.add_node(op, (x,), "float32" if output == "scale" else STORED)
    b.current = source


def draw_choose_qparams(b: Builder) -> None:
    """A choose_qparams node, which ends a branch, too."""
    d = b.d
    source = b.current
    x = float_data(b, least_rank=1)
    if not b.types[x].n_elements:
        x = ranged_input(b, (8, 4))
    output: Qparam = d.pick(("scale", "zero_point"))
    op = d.pick(_CHOICES)
    if not op.tokens:
        dtype, low, high = d.pick(_RANGES)
        least = 2.0 ** d.pick((-23, -23, -16, -40, -4, 0))
        op = ChooseQparams(
            dtype=dtype, quant_min=low, quant_max=high, least=float32(least), symmetric=op.symmetric, output=output
        )
    b.add_node(replace(op, output=output), (x,), "float32" if output == "scale" else "int32")
    b.current = source


Qparam: TypeAlias = Literal["scale", "zero_point"]
_CHOICES = (
    ChooseQparams(),
    ChooseQparams(symmetric=True),
    ChooseQparams(tokens=True, dtype="int8", quant_min=-128, quant_max=127),
    ChooseQparams(
        tokens=True, dtype="int8", quant_min=-127, quant_max=127, symmetric=True, least=float32(float32(1e-5) / 127)
    ),
)
"""The last two are what quantized_decomposed chooses for tokens."""
_RANGES: tuple[tuple[Stored, int, int], ...] = (
    ("uint8", 0, 255), ("int8", -128, 127), ("int8", -127, 127), ("uint8", 0, 127), ("int8", -8, 7), ("uint8", 0, 15),
    ("int16", -32768, 32767), ("uint16", 0, 65535), ("int8", 0, 127), ("int32", -(2**20), 2**20), ("int8", -1, 0),
)  # fmt: skip


def draw_dynamic_linear(b: Builder) -> None:
    """A dynamic_linear node, which ends a branch, too."""
    d = b.d
    source = b.current
    x = float_data(b, least_rank=2)
    shape = b.types[x].shape
    rows, features = math.prod(shape[:-1]), shape[-1]
    channels = draw_channels(b, rows, rows * features)
    choice, dtypes = _chosen(b)
    op = DynamicLinear(**choice, relu=choice["chosen_as"] == "torch" and d.rarely(4))
    draw_entry(b)
    b.add_node(op, (x, *_weights(b, x, (channels, features), channels, dtypes)), "float32")
    b.current = source


def draw_dynamic_conv(b: Builder) -> None:
    """A dynamic_conv node, which ends a branch."""
    source = b.current
    b.current = x = _image(b)
    windows, weight = draw_windows(b)
    choice, dtypes = _chosen(b)
    b.add_node(DynamicConv(**windows, **choice), (x, *_weights(b, x, weight, weight[0], dtypes)), "float32")
    b.current = source


def draw_dynamic_conv_transpose(b: Builder) -> None:
    """A dynamic_conv_transpose node, which ends a branch."""
    source = b.current
    b.current = x = _image(b)
    windows, weight, _ = draw_transposed_windows(b)
    choice, dtypes = _chosen(b)
    op = DynamicConvTranspose(**windows, **choice)
    b.add_node(op, (x, *_weights(b, x, weight, weight[1] * op.groups, dtypes, axis=1)), "float32")
    b.current = source


def _chosen(b: Builder) -> tuple[dict[str, Any], tuple[QuantizedDType, ...]]:
    """How the data's scale is chosen, and what weights may be then."""
    by_torch = b.d.integer(0, 1) == 1
    choice = {"chosen_as": "torch" if by_torch else "onnx", "reduce_range": by_torch and b.d.rarely(4)}
    return choice, ("int8", "int8") if by_torch else ("int8", "uint8")


def _weights(
    b: Builder,
    x: str,
    shape: tuple[int, ...],
    n_channels: int,
    dtypes: tuple[QuantizedDType, ...],
    axis: int = 0,
) -> tuple[str, ...]:
    """A weight, per channel on `axis` now and then, and mostly a bias."""
    d = b.d
    kind = d.integer(0, 7)
    dtype = dtypes[kind >= 6]
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    middle = (low + high + 1) // 2
    zero_point = middle if kind < 5 else d.pick((middle, low, high, middle + 1))
    style = d.pick((fill.UNIFORM, fill.UNIFORM, fill.NARROW, fill.EXTREMES, fill.EDGES))
    data = fill.quantized(d.key(), style, shape, dtype, zero_point)
    if ("entry", "unpacked") in b.forms:
        data = fill.with_ends(data)
    scale = b.scale(2.0**-6, 4)
    q = QType.per_tensor(dtype, scale, zero_point)
    if kind in (1, 3, 6) and shape[axis] > 1:
        steps = fill.below(fill.words(d.key(), shape[axis]), 5)
        q = QType(dtype, tuple(float32(scale * 2.0 ** int(s - 2)) for s in steps), (zero_point,) * shape[axis], axis)
    weight = b.add_constant("w", q, data)
    if not d.integer(0, 1):
        return (weight,)
    largest = b.ranges[x].magnitude * scale * 16 if x in b.ranges else scale
    steps = fill.below(fill.words(d.key(), n_channels), 257) - 128
    return weight, b.add_constant("b", "float32", (steps / 128 * largest).astype(np.float32))


def _image(b: Builder) -> str:
    """A new float32 input of the current value's shape, where that is an image's."""
    shape = b.type.shape
    if not fits_conv(b):
        shape = (1, 2, 4, 4)
    return ranged_input(b, shape)


def float_data(b: Builder, least_rank: int) -> str:
    """A float32 value: one that is there, read or given by a node; else a new input with a range of its own."""
    d = b.d
    names = [*b.ranges, *(n.name for n in b.nodes if n.element == "float32")]
    given = [n for n in names if len(b.types[n].shape) >= least_rank]
    given = [n for n in given if 0 < b.types[n].shape[-1] <= 512]
    if given and d.integer(0, 1) == 0:
        return d.pick(given)
    shape = b.type.shape if b.current else (8, 4)
    if len(shape) < least_rank or not 0 < shape[-1] <= 512:
        shape = (8, 4)
    return ranged_input(b, shape)


def ranged_input(b: Builder, shape: tuple[int, ...], real: Real = "float32", *, by_row: bool = False) -> str:
    """A new input of reals with a range of its own, or with one for each row."""
    x = b.add_input(shape, real)
    b.ranges[x] = RealRange(b.d.pick(_KINDS), 2.0 ** b.d.pick(_MAGNITUDES), by_row)
    return x
