"""Scales, zero points and quantized types, biased to arithmetic edges."""

import math
from collections.abc import Sequence

from hypothesis.strategies import SearchStrategy

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, QType, QuantizedDType, float32
from qfuzz.strategies.draw import Draw, strategy_of

MIN_SCALE, MAX_SCALE = 2.0**-20, 2.0**20
"""Default bounds of scales: products of three and their quotients stay normal float32 numbers."""


def draw_scale(d: Draw, around: float, *, dyadic: bool, spread: int = 2, simplest: float | None = None) -> float:
    """A float32 scale within about `spread` powers of two of `around`.

    `dyadic`: a power of two, so that float32 arithmetic with it is exact. Else a power of two, one of its
    neighbours, or any mantissa. Shrinks to a power of two, and from there to `simplest` where that is given.
    """
    choice = d.integer(0, 2**32 - 1)
    if choice == 0 and simplest is not None:
        return simplest
    choice, step = divmod(choice, 2 * spread + 1)
    # 0, 1, -1, 2, -2, …: the choice 0 is the middle itself.
    exponent = round(math.log2(around)) + ((step + 1) // 2 if step % 2 else -(step // 2))
    power = 2.0 ** min(max(exponent, -100), 100)
    if dyadic:
        return power
    choice, kind = divmod(choice, 16)
    match kind:
        case 0 | 1:
            return power
        case 2:
            return float32(power * (1 + 2.0**-23))
        case 3:
            return float32(power * (1 - 2.0**-24))
        case 4:
            return float32(power * (1 + 1 / (1 + choice % 7 * 2)))
        case _:
            return float32(power * (1 + _spread(choice, 2**23) * 2.0**-23))


def _spread(choice: int, n: int) -> int:
    """`choice` spread over 0..n-1 (0 stays 0): Hypothesis prefers small numbers, which would cluster mantissas."""
    return (choice * 0x9E3779B1 % 2**32) * n >> 32


def near_ties(scale: float, unit: float) -> float:
    """The float32 scale near `scale` that puts multiples of `unit` next to rounding ties.

    ``2 * unit / odd``, or where the scale is much above the unit ``2 * unit * odd``: an odd multiple of a unit is then
    half a step, but for the rounding of the scale.
    """
    ratio = 2 * unit / scale
    odd = 2 * math.floor(max(ratio, 1 / ratio) / 2) + 1
    tied = float32(2 * unit / odd if ratio > 1 else 2 * unit * odd)
    return tied if FLOAT32_MIN_NORMAL <= tied <= FLOAT32_MAX else scale


def draw_zero_point(d: Draw, dtype: str) -> int:
    """Often an end or the middle of the range; shrinks to 0. Of int32 mostly within a power of two of 0."""
    lo, hi = INTEGER_RANGE[dtype]
    if dtype == "int32":
        value, bits = divmod(d.integer(0, 2**16 - 1), 16)
        if bits == 15:
            return (lo, hi, lo + 1, hi - 1)[value % 4]
        width = 2 ** (2 * bits)
        return _spread(value, width) - (width // 2 if value % 2 else 0)
    choices: Sequence[int] = (0, lo, hi, (lo + hi + 1) // 2, lo + 1, hi - 1)
    value, kind = divmod(d.integer(0, 2**16 - 1), 10)
    return choices[kind] if kind < len(choices) else lo + _spread(value, hi - lo + 1)


def scales(*, min_value: float = MIN_SCALE, max_value: float = MAX_SCALE) -> SearchStrategy[float]:
    """float32 scales: powers of two, just off them, and any between. Shrinks to 1 where it is allowed.

    Parameters
    ----------
    min_value, max_value
        Bounds, both included.
    """
    if not 0 < min_value <= max_value or math.isinf(max_value):
        raise InvalidCase(f"scales: min_value {min_value!r}, max_value {max_value!r}; needs 0 < min_value <= max_value")
    low, high = math.ceil(math.log2(min_value)), math.floor(math.log2(max_value))

    def build(d: Draw) -> float:
        if low > high:
            return float32(min_value)
        s = draw_scale(d, 2.0 ** d.integer(low, high), dyadic=False, spread=0)
        return float32(min(max(s, min_value), max_value))

    return strategy_of(build, f"scales(min_value={min_value!r}, max_value={max_value!r})")


def zero_points(
    dtype: QuantizedDType, *, min_value: int | None = None, max_value: int | None = None
) -> SearchStrategy[int]:
    """Zero points of `dtype`, often at the ends of the range. Shrinks to 0, or the legal value closest to it."""
    lo, hi = INTEGER_RANGE[dtype]
    low, high = lo if min_value is None else min_value, hi if max_value is None else max_value
    if not lo <= low <= high <= hi:
        raise InvalidCase(f"zero_points: {low}..{high}; needs a range within {lo}..{hi} of {dtype}")

    def build(d: Draw) -> int:
        return min(max(draw_zero_point(d, dtype), low), high)

    return strategy_of(build, f"zero_points({dtype!r})")


def qtypes(
    *,
    dtypes: Sequence[QuantizedDType] = ("uint8", "int8"),
    min_scale: float = MIN_SCALE,
    max_scale: float = MAX_SCALE,
) -> SearchStrategy[QType]:
    """Per-tensor quantized types. Shrinks to the first dtype, scale 1, zero point 0."""
    if not dtypes:
        raise InvalidCase("qtypes: no dtypes; one is needed")
    if not 0 < min_scale <= max_scale or math.isinf(max_scale):
        raise InvalidCase(f"qtypes: min_scale {min_scale!r}, max_scale {max_scale!r}; needs 0 < min_scale <= max_scale")
    low, high = math.ceil(math.log2(min_scale)), math.floor(math.log2(max_scale))

    def build(d: Draw) -> QType:
        dtype = d.pick(dtypes)
        s = draw_scale(d, 2.0 ** d.integer(low, max(low, high)), dyadic=False, spread=0)
        return QType.per_tensor(dtype, float32(min(max(s, min_scale), max_scale)), draw_zero_point(d, dtype))

    return strategy_of(build, "qtypes()")
