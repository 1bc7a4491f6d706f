"""Values quantized as they come, on intervals: ONNX DynamicQuantizeLinear (opset 11), to uint8 with 255 steps.

    scale = (max(x, 0) - min(x, 0)) / 255       zero point = saturate(round(-min(x, 0) / scale))
    stored = saturate(round(x / scale) + zero point)

A stored integer less the zero point is round(x / scale), cut where the stored one saturates; 0 where all x are 0.
"""

from fractions import Fraction

import numpy as np

from qfuzz.exact.arithmetic_model import Rounding
from qfuzz.exact.intervals import Interval
from qfuzz.exact.rounding import Floats

STEPS = 255
TINY_RANGE = 2.0**-80
"""Below this float32 scales are, or their products may be, subnormal: no step is known then but that it is small."""
_FAR = 1e6


def quantized(x: Interval, rounding: Rounding, steps: int = STEPS, smallest: float = 0.0) -> tuple[Interval, Interval]:
    """Bounds of the stored integers less the zero point, and of the scale, for any numbers within `x`.

    The range has `steps`, and the scale is not below `smallest`; the zero point is that of the scale without this.

    The scale comes without roundings of its own: they count in what is made of it. They do count in x / scale and in
    the zero point, which are off by gamma_k. Known numbers (one object for both sides) that lie on a tie are decided
    in rationals, unless `rounding` is a float32 kernel's.
    """
    lo, hi = x
    below = max(0.0, -float(hi.min(initial=0.0))), max(0.0, -float(lo.min(initial=0.0)))
    above = max(0.0, float(lo.max(initial=0.0))), max(0.0, float(hi.max(initial=0.0)))
    least, greatest = (max((below[i] + above[i]) / steps, smallest) for i in (0, 1))
    zero = np.zeros_like(lo)
    if lo.size == 0 or below[1] + above[1] == 0.0:
        return (zero, zero), (np.zeros(()), np.zeros(()))
    off = rounding.gamma(rounding.k)
    if rounding.tiny > 2.0**-200 and least * steps < TINY_RANGE:
        return (zero - STEPS, zero + STEPS), (np.zeros(()), np.array(2 * greatest + rounding.tiny))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        first = np.where(lo >= 0, lo / greatest, np.where(lo < 0, lo / least, 0.0))
        last = np.where(hi <= 0, hi / greatest, np.where(hi > 0, hi / least, 0.0))
    first, last = np.clip(first, -_FAR, _FAR), np.clip(last, -_FAR, _FAR)
    if not rounding.unit:
        first, last = _snapped(first), _snapped(last)
    q_lo, q_hi = np.ceil(first - off * np.abs(first) - 0.5), np.floor(last + off * np.abs(last) + 0.5)
    z = [steps * below[0] / (below[0] + above[1]) if below[0] else 0.0]
    z.append(steps * below[1] / (below[1] + above[0]) if below[1] else 0.0)
    z_lo, z_hi = float(np.ceil(z[0] * (1 - off) - 0.5)), float(np.floor(z[1] * (1 + off) + 0.5))
    if lo is hi and rounding.tiny < 2.0**-200:
        span = Fraction(below[0]) + Fraction(above[0])
        z_lo, z_hi = (float(round(steps * Fraction(below[0]) / span)),) * 2 if z_lo != z_hi else (z_lo, z_hi)
        q_lo, q_hi = _decided(lo, max(span / steps, Fraction(smallest)), q_lo, q_hi)
    elif not rounding.unit:
        z_lo = z_hi = float(np.rint(_snapped(np.array(z[0]))))
        q_lo = q_hi = np.rint(first)
    return (
        (np.clip(q_lo, -z_hi, STEPS - z_hi), np.clip(q_hi, -z_lo, STEPS - z_lo)),
        (np.array(least), np.array(greatest)),
    )


def _snapped(t: Floats) -> Floats:
    """Halves for what float64 cannot tell from them: numbers that differ in sign only give such ties exactly."""
    halves = np.rint(2 * t) / 2
    return np.where(np.abs(t - halves) <= 1e-12 * np.abs(t), halves, t)


def _decided(x: Floats, scale: Fraction, lo: Floats, hi: Floats) -> Interval:
    """`lo` and `hi` where they agree, the nearest integer to x / scale elsewhere."""
    lo, hi = lo.copy(), hi.copy()
    for i in np.flatnonzero(lo != hi).tolist():
        nearest = round(Fraction(float(x.reshape(-1)[i])) / scale)
        lo.reshape(-1)[i] = hi.reshape(-1)[i] = float(nearest)
    return lo, hi
