"""The drawing side of dynamic_nbits_linear: rows with ranges of their own, weights of 4 bits by channel or by group."""

from qfuzz.ir.qtype import QType, Real, float32
from qfuzz.ops.dynamic_nbits import GROUP, DynamicNbitsLinear
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.dynamic import ranged_input
from qfuzz.strategies.weight_only import CHANNELS, FEATURES, MAX_WEIGHTS, ROWS, stored


def draw_dynamic_nbits_linear(b: Builder) -> None:
    """A node that ends a branch, of rows that it brings."""
    d = b.d
    source = b.current
    grouped = d.integer(0, 2) == 2
    group = GROUP * d.pick((1, 1, 2, 3, 4)) if grouped else 0
    k = group * d.integer(1, 4) if grouped else d.pick(FEATURES)
    n = d.pick([c for c in CHANNELS if c * k <= MAX_WEIGHTS])
    real: Real = "bfloat16" if not grouped and d.rarely(6) else "float32"
    x = ranged_input(b, (d.pick(ROWS), k), real, by_row=True)
    q = _weight_type(b, n, k, group)
    inputs: tuple[str, ...] = (x, b.add_constant("w", q, stored(b, q, (n, k))))
    if d.integer(0, 1):
        largest = b.ranges[x].magnitude * max(q.scale) * 2.0 ** d.integer(0, 8)
        steps = fill.below(fill.words(d.key(), n), 257) - 128
        inputs = (*inputs, b.add_constant("b", "float32", (steps / 128 * largest).astype("float32")))
    b.add_node(DynamicNbitsLinear(), inputs, real)
    b.current = source


def _weight_type(b: Builder, n: int, k: int, group: int) -> QType:
    """Scales of few bits, as bfloat16 has them, or, also of groups, of any."""
    d = b.d
    axis = 1 if group else d.pick((0, None))
    count = n * (k // group) if group else n if axis == 0 else 1
    scale = b.scale(2.0**-6, 4)
    if d.integer(0, 1):
        scale = 2.0 ** d.integer(-10, 0)
    scales: tuple[float, ...] = (scale,)
    if count > 1:
        eighths, powers = (fill.below(fill.words(key, count, i), 8).tolist() for i, key in enumerate((d.key(),) * 2))
        scales = tuple(float32(scale * (1 + m / 8) * 2.0 ** (e - 4)) for m, e in zip(eighths, powers, strict=True))
    return QType("int4", scales, (0,) * len(scales), axis, group)
