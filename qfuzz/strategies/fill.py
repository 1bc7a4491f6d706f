"""Arrays as a pure function of a 64-bit key: a frozen counter-based generator. It never changes, or corpora would.

The generator is SplitMix64 on a counter (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.floating import FORMATS
from qfuzz.ir.qtype import INTEGER_RANGE

Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]

FLAT, UNIFORM, EDGES, EXTREMES, NARROW, MIXED = range(6)
"""Styles: all zero point; uniform; edge values only; smallest and largest; close to the zero point; half and half."""
N_STYLES = 6

INT32_BITS = (4, 8, 8, 12, 12, 16, 24, 32)
"""How far int32 data reach from their zero point: products of few bits do not wrap, and of 24 a float32 has all."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def words(key: int, n: int, stream: int = 0) -> Words:
    """`n` independent 64-bit words of `key`; streams of one key are independent."""
    base = np.uint64((key + stream * 0xD1342543DE82EF95) % 2**64)
    with np.errstate(over="ignore"):
        z = base + _GAMMA * np.arange(1, n + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def below(w: Words, n: int) -> npt.NDArray[np.int64]:
    """Words as integers 0..n-1 (n far below 2^32, so that the bias is below 2^-32 * n)."""
    return ((w >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def quantized(key: int, style: int, shape: tuple[int, ...], dtype: str, zero_point: int) -> Array:
    """Stored integers of `dtype`. Key 0 is all zero point, whatever the style.

    Those of int32 keep within a power of two of the zero point (`INT32_BITS`).
    """
    lo, hi = INTEGER_RANGE[dtype]
    n = int(np.prod(shape))
    if style == FLAT or key == 0 or n == 0:
        return np.full(shape, zero_point, dtype=dtype)
    if dtype == "int32":
        reach = 2 ** INT32_BITS[below(words(key, 1, stream=2), len(INT32_BITS))[0]]
        lo, hi = max(lo, zero_point - reach), min(hi, zero_point + reach)
    w = words(key, n)
    uniform = lo + below(w, hi - lo + 1)
    match style:
        case _ if style == EDGES:
            values = _edges(lo, hi, zero_point)[below(w, 11)]
        case _ if style == EXTREMES:
            values = np.where(below(w, 2) == 0, lo, hi)
        case _ if style == NARROW:
            values = np.clip(zero_point + below(w, 9) - 4, lo, hi)
        case _ if style == MIXED:
            second = words(key, n, stream=1)
            values = np.where(below(second, 2) == 0, uniform, _edges(lo, hi, zero_point)[below(w, 11)])
        case _:
            values = uniform
    return values.astype(dtype).reshape(shape)


def with_ends(data: Array) -> Array:
    """Stored integers, of which the first and the last are the smallest and the largest of their type."""
    whole = data.copy()
    ends = INTEGER_RANGE[str(data.dtype)]
    whole.reshape(-1)[:1], whole.reshape(-1)[1:][-1:] = ends
    return whole


def _edges(lo: int, hi: int, zero_point: int) -> npt.NDArray[np.int64]:
    edges = [lo, hi, zero_point, zero_point + 1, zero_point - 1, 0, 1, -1, lo + 1, hi - 1, (lo + hi) // 2]
    return np.clip(np.array(edges, dtype=np.int64), lo, hi)


def float8(key: int, style: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Finite numbers of a float8 kind, of all magnitudes alike, or a few small ones. Key 0 is all 0."""
    n = int(np.prod(shape))
    if style == FLAT or key == 0:
        return np.zeros(shape, dtype=dtype)
    w = words(key, n)
    if style == NARROW:  # whose products, and sums of some, are float32 numbers
        return np.asarray(((below(w, 31) - 15) * 0.5).reshape(shape).astype(dtype))
    bits = np.array([0, 1, 0x81, 0x7E, 0xFE, 0x38], dtype=np.int64)[below(w, 6)] if style == EDGES else below(w, 256)
    numbers = bits.astype(np.uint8).view(dtype).reshape(shape)
    return np.where(np.isfinite(numbers), numbers, np.zeros((), dtype=dtype))


def reals(key: int, style: int, shape: tuple[int, ...], step: float, dtype: str = "float32") -> Array:
    """Numbers around multiples and half multiples of `step`, as floating-point numbers. Key 0 is all 0."""
    n = int(np.prod(shape))
    if style == FLAT or key == 0:
        return np.zeros(shape, dtype=dtype)
    w = words(key, n)
    halves = (below(w, 1024) - 512) * 0.5
    noise = below(words(key, n, stream=1), 2**20) / 2**20 - 0.5 if style in (UNIFORM, NARROW) else 0.0
    values = (halves + noise) * step
    if dtype != "float32":
        values = np.clip(values, -FORMATS[dtype].largest, FORMATS[dtype].largest)
    return values.astype(dtype).reshape(shape)


def conditions(key: int, shape: tuple[int, ...]) -> Array:
    """Truth values: half and half, or seldom all true. Key 0 is all false."""
    n = int(np.prod(shape))
    if key == 0:
        return np.zeros(shape, dtype=np.bool_)
    w = words(key, n)
    all_true = int(below(words(key, 1, stream=1), 8)[0]) == 7
    return np.asarray((below(w, 2) == 1) | all_true).reshape(shape)


BOTH_SIGNS, POSITIVE, NEGATIVE, EXACT_SCALE, NEAR_TIES, OFFSET, OUTLIER, EQUAL, NOTHING = range(9)
"""What a range of float32 data is like, for those whose quantization follows from it (`ranged`)."""
N_RANGES = 9


def ranged(key: int, kind: int, shape: tuple[int, ...], magnitude: float) -> Array:
    """float32 numbers of about `magnitude`, a power of two, whose range is of a kind. Key 0 is all 0.

    ``EXACT_SCALE``: the range is 255 * magnitude, and elements are multiples of half of that. ``NEAR_TIES``: elements
    lie on half steps of a 255th of their range, but for a few ulps. ``OFFSET``: far from 0, for their spread.
    """
    n = int(np.prod(shape))
    if kind == NOTHING or key == 0 or n == 0:
        return np.zeros(shape, dtype=np.float32)
    w = words(key, n)
    second = words(key, n + 4, stream=1)
    uniform = below(w, 2**24) * 2.0**-23 - 1.0
    share = float(second[-1] >> np.uint64(11)) * 2.0**-53
    match kind:
        case _ if kind == POSITIVE:
            values = np.abs(uniform)
        case _ if kind == NEGATIVE:
            values = -np.abs(uniform)
        case _ if kind == EXACT_SCALE:
            low = -float(below(second[-3:-2], 511)[0]) * 0.5
            values = low + below(w, 511) * 0.5
            _place(values, second, low, low + 255.0)
        case _ if kind == NEAR_TIES:
            low, high = -share, 1.0 + share
            values = (below(w, 256) - 128 + 0.5) * ((high - low) / 255)
            values = values * (1 + (below(second[:n], 5) - 2) * 2.0**-24)
            values = np.clip(values, low, high)
            _place(values, second, low, high)
        case _ if kind == OFFSET:
            values = (4.0 + share + np.abs(uniform) * 2.0**-8) * (1.0 if share < 0.5 else -1.0)
        case _ if kind == OUTLIER:
            values = uniform * 2.0**-9
            _place(values, second, 1.0 if share < 0.5 else -1.0)
        case _ if kind == EQUAL:
            values = np.full(n, uniform[0])
        case _:
            values = uniform
    return np.asarray(values * magnitude).astype(np.float32).reshape(shape)


def _place(values: Array, w: Words, *extremes: float) -> None:
    """Put `extremes` somewhere among `values`, as far as there is room."""
    at = below(w[:1], values.size)[0]
    for i, extreme in enumerate(extremes[: values.size]):
        values[(at + i * (1 + values.size // 2)) % values.size] = extreme


def biases(key: int, style: int, n: int, largest: int) -> npt.NDArray[np.int64]:
    """Integers within +/- `largest`."""
    if style == FLAT or key == 0:
        return np.zeros(n, dtype=np.int64)
    w = words(key, n)
    if style in (EDGES, EXTREMES):
        return np.array([largest, -largest, 1, -1, 0], dtype=np.int64)[below(w, 5)]
    return below(w, 2 * largest + 1) - largest
