"""The drawing side of scaled_mm: all kinds of float8 on either side, scales per tensor and row, each kind of result."""

import math

from qfuzz.exact.floating import FORMATS
from qfuzz.ir.qtype import REALS, Element, QType, QuantizedDType, Real, float32
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.layer_forms import ENTRIES

ROWS = (1, 2, 3, 4, 8, 17, 0)
FEATURES = (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 129, 0)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 65)
KINDS: tuple[QuantizedDType, ...] = (
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
)  # fmt: skip
STYLES = (fill.UNIFORM, fill.NARROW, fill.NARROW, fill.EDGES)
RESULTS: tuple[Real | None, ...] = ("float32", "bfloat16", "float16", None, None, None)
"""Types of results; None is a float8."""
OLDER = (("entry", "older"),)


def draw_scaled_mm(b: Builder) -> None:
    """A scaled_mm node, which ends a branch: it reads an input and a constant of its own."""
    d, source = b.d, b.current
    rows, features, channels = d.pick(ROWS), d.pick(FEATURES), d.pick(CHANNELS)
    by_rows = rows > 0 and d.rarely(3)
    around = 2.0 ** d.pick((0, -6, -10, 20, -40))
    q_x = _kind(b, d.pick(KINDS), around, rows if by_rows else 0)
    q_w = _kind(b, d.pick(KINDS), 1.0, channels if by_rows else 0)
    weight = fill.float8(d.key(), d.pick(STYLES), (channels, features), q_w.dtype)
    inputs: tuple[str, ...] = (b.add_input((rows, features), q_x), b.add_constant("w", q_w, weight))
    unit = max(q_x.scale) * max(q_w.scale)
    if d.integer(0, 1):
        real: Real = d.pick(REALS)
        step = unit * 2.0 ** d.integer(-4, 10)
        inputs = (*inputs, b.add_constant("b", real, fill.reals(d.key(), d.integer(1, 5), (channels,), step, real)))
    b.add_node(ScaledMm(), inputs, _result(b, unit * math.sqrt(max(features, 1))))
    if d.rarely(2):  # the older name has a scale of the output
        b.forms.append(d.pick((*OLDER * 3, *ENTRIES)))
    b.choose_call()
    b.current = source


def _kind(b: Builder, dtype: QuantizedDType, around: float, n_rows: int) -> QType:
    """A type with one scale, or with one for each of some rows."""
    scale = b.scale(around, 4)
    if not n_rows:
        return QType.per_tensor(dtype, scale, 0)
    steps = fill.below(fill.words(b.d.key(), n_rows), 5)
    return QType(dtype, tuple(float32(scale * 2.0 ** int(s - 2)) for s in steps), (0,) * n_rows, 0)


def _result(b: Builder, unit: float) -> Element:
    """Reals, or a float8: without a scale, or with one such that results fill its range, or leave it."""
    d = b.d
    real = d.pick(RESULTS)
    if real is not None:
        return real
    dtype = d.pick(KINDS)
    scale = 1.0 if d.integer(0, 1) else b.scale(unit * 2.0 ** d.integer(-6, 12) / FORMATS[dtype].largest, 3)
    return QType.per_tensor(dtype, scale, 0)
