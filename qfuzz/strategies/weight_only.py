"""The drawing side of weight_only_linear and embedding, and of the forms that are about them."""

from collections.abc import Sequence

import numpy as np

from qfuzz.ir.forms import CHOICES
from qfuzz.ir.qtype import FLOAT8, REALS, PlainInteger, QType, QuantizedDType, float32
from qfuzz.ir.tensor import DTYPES, laid_out
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.ops.weight_only import Embedding, WeightOnlyLinear
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder

FORMS = ("accuracy", "weight_graph", "nbits_block", "nbits_zero_points", "table", "nbits_fusion")
"""Dimensions of form that are about these operators only."""
_LINEAR_FORMS = tuple(c for c in CHOICES if c[0] in FORMS and c[0] != "table")
_OF_MEANING = tuple(c for c in CHOICES if c[0] == "accuracy")

ROWS = (1, 2, 3, 4, 8, 17, 0)
FEATURES = (1, 2, 16, 32, 64, 3, 7, 8, 15, 17, 31, 33, 63, 65, 96, 127, 128, 129, 160, 255, 256, 257, 300, 520)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 129)
BLOCKS = (16, 32, 64, 128, 256, 16, 32, 64, 128, 16, 32, 64, 512, 1, 8, 24)
"""Those that MatMulNBits takes come first."""
MAX_WEIGHTS = 2**14

WEIGHTS: tuple[QuantizedDType, ...] = ("uint4", "int4", "uint8", "uint4", "int8", "uint2", "int2")
TABLES: tuple[QuantizedDType, ...] = (
    "uint4", "uint8", "int4", "int8", "uint2", "int2", "uint4", "uint8", "int4", "int8",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "int16",
)  # fmt: skip


def fits(b: Builder) -> bool:
    """They read inputs and constants of their own."""
    return True


def draw_weight_only_linear(b: Builder) -> None:
    """A weight_only_linear node, which mostly ends a branch; its input may be dequantized, its output quantized."""
    d = b.d
    if d.rarely(3):
        _draw_packed(b)
        return
    source, x = b.current, _activation(b)
    k = b.types[x].shape[-1]
    n = d.pick([c for c in CHANNELS if c * k <= MAX_WEIGHTS])
    q = granular(b, d.pick(WEIGHTS), (n, k), (None, 0, 1))
    weight = b.add_constant("w", q, stored(b, q, (n, k)))
    inputs: tuple[str, ...] = (x, weight)
    if d.rarely(3):
        unit = float(np.median(q.scale)) * 2.0 ** d.integer(0, 8)
        inputs = (*inputs, b.add_constant("b", "float32", fill.reals(d.key(), d.integer(1, 5), (n,), unit)))
    y = b.add_node(WeightOnlyLinear(), inputs, "float32")
    for choices in (_OF_MEANING,) * d.integer(0, 1) + (_LINEAR_FORMS,) * d.pick((0, 1, 2)):
        b.forms.append(d.pick(choices))
    if b.room and d.rarely(4):
        spread = max(q.scale) * (q.qmax - q.qmin) * 16.0
        b.add_node(Quantize(), (y,), b.output(spread, spread=4))
    else:
        b.current = source


def _draw_packed(b: Builder) -> None:
    """A node that ends a branch, of reals of any kind and a weight as torch's kernels pack it.

    Scales of 4 bits at most, so that they, and multiples of them, are of the activation's type.
    """
    d = b.d
    source, real = b.current, d.pick(REALS)
    dtype: QuantizedDType = d.pick(("int8", "uint4", "int4"))
    block = 0 if dtype == "int8" else d.pick((32, 32, 64, 128))
    k = d.pick(FEATURES) if not block else block * d.integer(1, 3)
    n = d.pick([c for c in CHANNELS if c * k <= MAX_WEIGHTS]) if not block else 16 * d.integer(1, 5)
    x = b.add_input((d.pick(ROWS), k), real)
    axis = 1 if block else d.pick((0, None))
    count = n * (k // block) if block else n if axis == 0 else 1
    bits = fill.words(d.key(), count)
    scales: tuple[float, ...] = (b.scale(2.0**-6, 4),)
    if count > 1 or real != "float32":
        scales = tuple((8 + int(m)) * 2.0 ** (int(e) - 10) for m, e in zip(bits % 8, bits // 8 % 4, strict=True))
    zero_points = _zero_points(b, dtype, count) if block else (0,) * count
    q = QType(dtype, scales, zero_points, axis, block)
    weight = b.add_constant("w", q, stored(b, q, (n, k)))
    b.add_node(WeightOnlyLinear(), (x, weight), real)
    b.current = source


def _activation(b: Builder) -> str:
    """A float32 input, or the current value dequantized where it can be read."""
    d = b.d
    shape = b.type.shape
    reads = len(shape) >= 2 and 0 < shape[-1] <= 600 and b.type.is_quantized and b.qtype.scale[0] < 2.0**40
    if reads and b.room >= 2 and d.rarely(4):
        return b.add_node(Dequantize(), (b.current,), "float32")
    rows = (d.pick(ROWS),) if not d.rarely(4) else (d.pick(ROWS), d.integer(1, 3))
    return b.add_input((*rows, d.pick(FEATURES)), "float32")


def draw_embedding(b: Builder) -> None:
    """An embedding node, which ends a branch: it reads constants only."""
    d = b.d
    source = b.current
    by_rows = d.rarely(4)  # as torch has them
    rank = 2 if by_rows else d.pick((2, 2, 2, 2, 2, 3, 3, 1))
    last = d.pick((16, 1, 2, 3, 8, 15, 17, 31, 32, 33, 48, 63, 64, 80, 130, 272))
    shape = (*(d.integer(1, 9) for _ in range(rank - 1)), last)
    axis = d.integer(0, rank - 1) if not by_rows and d.rarely(4) else 0
    granularities = (0,) if by_rows else (None, 0, *((rank - 1,) * 3 if rank > 1 else ()), -1)
    q = granular(b, d.pick(("uint8", "uint4") if by_rows else TABLES), shape, granularities)
    table = b.add_constant("t", q, stored(b, q, shape))
    counted = tuple(d.integer(0, 4) for _ in range(d.pick((1, 2, 0))))
    at = fill.below(fill.words(d.key(), int(np.prod(counted))), 2 * shape[axis]) - shape[axis]
    at = np.where(at < 0, at + shape[axis], at) if by_rows else at
    dtype: PlainInteger = d.pick(("int64", "int32"))
    indices = b.add_constant("i", dtype, at.astype(DTYPES[dtype]).reshape(counted))
    b.add_node(Embedding(axis=axis), (table, indices), "float32")
    if d.integer(0, 1):
        b.forms.append(("table", "bytes"))
    b.current = source


def granular(b: Builder, dtype: QuantizedDType, shape: tuple[int, ...], axes: Sequence[int | None]) -> QType:
    """A type with scales per tensor, per index of an axis, or in blocks: the last of `axes`, or -1 for any axis."""
    d = b.d
    axis = d.pick(axes)
    if axis == -1:
        axis = d.integer(0, len(shape) - 1)
    blocked = axis is not None and (axis == len(shape) - 1 or (axis != 0 and d.integer(0, 1) == 1))
    block = d.pick(BLOCKS) if blocked else 0
    lengths = [-(-s // block) if block and i == axis else s for i, s in enumerate(shape)]
    count = 1 if axis is None else int(np.prod(lengths)) if block else shape[axis]
    scale = b.scale(2.0**-6, 6)
    steps = fill.below(fill.words(d.key() if count > 1 else 0, count), 5)
    scales = tuple(float32(scale * 2.0 ** int(s - 2)) for s in steps) if count > 1 else (scale,)
    return QType(dtype, scales, _zero_points(b, dtype, count), axis, block)


def _zero_points(b: Builder, dtype: QuantizedDType, count: int) -> tuple[int, ...]:
    """The middle, which kernels take for granted where none are given; 0; any, all of their own."""
    d = b.d
    if dtype in FLOAT8:
        return (0,) * count
    probe = QType.per_tensor(dtype, 1.0, 0)
    low, high = probe.qmin, probe.qmax
    kind = d.integer(0, 5)
    if kind >= 3:
        return tuple(int(z) for z in low + fill.below(fill.words(d.key(), count), high - low + 1))
    return ((low + high + 1) // 2 if kind == 0 else (0, 0, high)[kind],) * count


def stored(b: Builder, q: QType, shape: tuple[int, ...]) -> fill.Array:
    """Stored numbers of a type."""
    key = b.d.key()
    if q.is_float:
        halves = fill.reals(key, fill.MIXED, shape, 0.25)
        return np.asarray(halves.astype(DTYPES[q.dtype]))
    style = b.d.pick((fill.UNIFORM, fill.UNIFORM, fill.EXTREMES, fill.NARROW, fill.EDGES))
    if key == 0 or style == fill.FLAT:
        zero = np.broadcast_to(laid_out(q, q.zero_point, shape), shape)
        return np.asarray(zero.astype(DTYPES[q.dtype]))
    return np.asarray(fill.quantized(key, style, shape, q.dtype, q.zero_point[0]).astype(DTYPES[q.dtype]))
