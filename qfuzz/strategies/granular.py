"""The drawing side of quantize and dequantize: every storage type, of one scale, one an axis or one a block."""

import math

import numpy as np

from qfuzz.exact.floating import FORMATS, nearest_exactly
from qfuzz.ir.forms import CHOICES
from qfuzz.ir.qtype import BYTES, FLOAT8, INTEGER_RANGE, QType, QuantizedDType, Real, float32
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder

STORED: tuple[QuantizedDType, ...] = (
    "uint8", "int8", "uint16", "int16", "uint4", "int4", "uint2", "int2",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
)  # fmt: skip
BLOCKS = (2, 16, 3, 1, 32)
MAX_SCALES = 256
EAGER: tuple[QuantizedDType, ...] = ("int32", "uint8", "int8", "int32", "uint8", "int8")
"""What torch's quantized tensors hold on axes."""
QUANTIZERS = tuple(c for c in CHOICES if c[0] == "quantizer")
FORMS = ("quantizer",)
"""Dimensions of form that are about these operators only."""
REAL: tuple[Real, ...] = ("float32", "float32", "float32", "float16", "float16", "bfloat16")


def draw_quantize(b: Builder) -> None:
    """A quantize node on new reals. Where what it gives is no common activation, what follows reads another value."""
    d = b.d
    shape = b.type.shape if b.current else (8, 4)
    if d.rarely(3 if b.flavour.common else 2):
        b.forms.append(d.pick(QUANTIZERS))
    if b.flavour.common or d.rarely(3):
        b.add_node(Quantize(), (b.add_input(shape, "float32"),), b.output(1.0, spread=6))
        return
    real = d.pick(REAL)
    q = _granular(b, shape, d.pick((*STORED, *EAGER, "uint4")), real)
    before = b.current
    saturate = not (q.is_float and d.rarely(2))
    b.add_node(Quantize(saturate=saturate), (b.add_input(shape, real),), q)
    if not q.is_per_tensor or q.dtype not in BYTES:
        if b.room and not q.is_float and d.rarely(3):  # a stored NaN has no number
            b.add_node(Dequantize(), (b.current,), real)
        fits = before in b.types and b.types[before].is_quantized
        b.current = before if fits else b.add_input(shape, QType.per_tensor("uint8", 1.0, 0))


def draw_dequantize(b: Builder) -> None:
    """A dequantize node, which ends a branch: what follows reads its input, or what that was drawn beside."""
    d = b.d
    source = b.current
    if d.rarely(6 if b.flavour.common else 2):
        b.forms.append(d.pick(QUANTIZERS))
    if b.flavour.common or d.rarely(3):
        b.add_node(Dequantize(), (source,), "float32")
    else:
        real = d.pick(REAL)
        stored = d.pick((*STORED, *EAGER))
        q = _granular(b, b.type.shape, stored, real)
        b.add_node(Dequantize(), (b.add_input(b.type.shape, q),), real)
    b.current = source


def _granular(b: Builder, shape: tuple[int, ...], dtype: QuantizedDType, real: Real) -> QType:
    """A type of values of `shape` whose scales mostly are numbers of type `real`."""
    d = b.d
    axis, block, n = _granularity(b, shape)
    # The largest stored number, times a scale that is 2^5 times larger, stays finite in float16.
    largest = FORMATS[dtype].largest if dtype in FLOAT8 else 2.0 * INTEGER_RANGE[dtype][1]
    base = b.scale(min(2.0**10 / largest, 1.0) * 2.0 ** -d.integer(0, 8), 3)
    if real != "float32" and d.integer(0, 3):
        base = nearest_exactly(QType.per_tensor("uint8", base, 0).exact_scale[0], FORMATS[real]) or base
    key = d.key()
    steps = fill.below(fill.words(key, n, stream=5), 5)
    scales = tuple(float32(base * 2.0 ** int(s - 2)) if n > 1 else base for s in steps)
    if dtype in FLOAT8 or (dtype == "int32" and not d.rarely(3)):
        return QType(dtype, scales, (0,) * n, axis, block)
    lo, hi = INTEGER_RANGE[dtype]
    ends = np.array([0, lo, hi, (lo + hi + 1) // 2])
    picks = fill.words(key, n, stream=6)
    zero_points = np.where(fill.below(picks, 2) == 0, ends[fill.below(picks, 4)], lo + fill.below(picks, hi - lo + 1))
    return QType(dtype, scales, tuple(int(z) for z in zero_points) if key else (0,) * n, axis, block)


def _granularity(b: Builder, shape: tuple[int, ...]) -> tuple[int | None, int, int]:
    """Axis, block size, and how many scales."""
    d = b.d
    kind = d.integer(0, 3)
    axes = [a for a, size in enumerate(shape) if 0 < size <= MAX_SCALES]
    if kind == 0 or not axes:
        return None, 0, 1
    axis = axes[min(d.integer(0, len(axes) - 1), len(axes) - 1)]
    if ("quantizer", "tokens") in b.forms and len(shape) == 2 and 0 in axes:
        axis, kind = 0, 1
    if kind < 3:
        return axis, 0, shape[axis]
    block = d.pick(BLOCKS)
    equal = [size for size in BLOCKS if size > 1 and shape[-1] % size == 0]
    if equal and len(shape) == 2 and shape[-1] and d.rarely(2):  # torch's groups
        axis, block = 1, equal[-1]
    n = math.prod(-(-size // block) if a == axis else size for a, size in enumerate(shape))
    return (axis, block, n) if 0 < n <= MAX_SCALES else (axis, 0, shape[axis])
