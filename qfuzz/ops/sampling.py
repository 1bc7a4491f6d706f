"""Where interpolation reads, exactly and as float32 kernels see it: per dimension, which elements with which weights.

A coordinate is a rational; `slack` bounds how far a float32 kernel is from it that computes it in the order of the
specification's text: (x_resized + 0.5) / scale - 0.5 and its like (core/providers/cpu/tensor/upsamplebase.h).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.qtype import float32

_HALF = Fraction(1, 2)
_GRID = Fraction(1, 2**12)
"""Coordinates on this grid below 2^11 leave a float32 room for every sum on the way: they are computed exactly."""
Taps = tuple[tuple[int, Fraction], ...]
"""Elements of one dimension, and their weights, which add up to 1."""


@dataclass(frozen=True)
class Sampling:
    """How one dimension is resized.

    Attributes
    ----------
    size, out
        Its lengths.
    scale
        The scale that is given, or else the quotient of the lengths.
    given
        Whether it is given: the length it stands for, ``size * scale``, may have a fraction then.
    """

    size: int
    out: int
    scale: Fraction
    given: bool

    def coordinate(self, i: int, mode: str, length: Fraction) -> Fraction:
        """x_original of x_resized `i`; `length` is that of the resized dimension for align_corners."""
        match mode:
            case "asymmetric":
                return i / self.scale
            case "align_corners":
                return Fraction(0) if length == 1 else i * (self.size - 1) / (length - 1)
            case "pytorch_half_pixel" if self.out == 1:
                return Fraction(0)
            case "half_pixel_symmetric":
                adjustment = self.out / (self.scale * self.size)
                return Fraction(self.size, 2) * (1 - adjustment) + (i + _HALF) / self.scale - _HALF
            case _:
                return (i + _HALF) / self.scale - _HALF

    def other_coordinate(self, i: int, mode: str) -> Fraction:
        """The coordinate under the other reading of a given scale: the first sentences of `qfuzz.ops.interpolation`."""
        if mode == "align_corners":
            return self.coordinate(i, mode, self.scale * self.size) if self.out > 1 else Fraction(0)
        return replace(self, scale=Fraction(self.out, self.size)).coordinate(i, mode, Fraction(self.out))

    def slack(self, i: int, mode: str) -> float:
        """How far a float32 kernel's coordinate may be from the exact one; 0 where it is exact.

        The scale is rounded (where it is a quotient), the quotient by it, and the difference to 1/2: by 2u of the
        quotient and u of the coordinate. Kernels that keep centers of pixels add 1/2 again, and subtract the coordinate
        from a position up to 3 away: u of the coordinate, and less than 6u.
        """
        c = self.coordinate(i, mode, Fraction(self.out))
        on_the_way = [c, c + _HALF]
        largest = abs(c) + i / self.scale + 3
        if mode == "half_pixel_symmetric":  # center * (1 - adjustment), and each of the two rounded twice
            width = self.scale * self.size
            on_the_way += [width, self.out / width]
            largest += self.size * (1 + 2 * self.out / width)
        # align_corners takes the lengths, and no scale.
        scale_exact = mode == "align_corners" or Fraction(float32(float(self.scale))) == self.scale
        if scale_exact and all(v % _GRID == 0 and abs(v) < 2**11 for v in on_the_way):
            return 0.0
        return 2 * gamma(1) * float(largest)

    def nearest(self, c: Fraction, rounding: str) -> int:
        """The element that coordinate `c` picks."""
        match rounding:
            case "floor":
                picked = math.floor(c)
            case "ceil":
                picked = math.ceil(c)
            case "round_prefer_ceil":
                picked = math.floor(c + _HALF)
            case _:
                picked = math.ceil(c - _HALF)
        return self.inside(picked)

    def inside(self, i: int) -> int:
        """The element closest to position `i`."""
        return min(max(i, 0), self.size - 1)


@dataclass(frozen=True)
class Rows:
    """All positions of one resized dimension.

    Attributes
    ----------
    taps
        Per position, exactly.
    weights, roundings
        [out, size] in float64: the weights, and by how many units of float32's roundoff u a cubic kernel's may be off
        that takes their polynomials of exact coordinates; other weights are off by one relatively, as a product is.
    other
        `weights` under another reading of the specification, where there is one.
    near
        [out, k]: the elements that a coordinate off by `slack` may read.
    spread
        [out]: by how much of the range of those elements the result can move by that slack; 0 where there is none.
    lsb
        [out]: a power of two that divides all weights; 0 where some are no short binary fractions.
    exact
        [out]: whether a float32 kernel's weights are the exact ones.
    """

    taps: tuple[Taps, ...]
    weights: Floats
    roundings: Floats
    other: Floats | None
    near: npt.NDArray[np.int64]
    spread: Floats
    lsb: Floats
    exact: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Kernel:
    """What an interpolation does in every dimension: the attributes of `interpolate`."""

    mode: str
    coordinates: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool


@lru_cache(maxsize=256)
def rows(sampling: Sampling, kernel: Kernel) -> Rows:
    """The positions of a dimension."""
    s = sampling
    own = Fraction(s.out)
    at = [s.coordinate(i, kernel.coordinates, own) for i in range(s.out)]
    slack = [s.slack(i, kernel.coordinates) for i in range(s.out)]
    taps = tuple(_taps(s, kernel, c) for c in at)
    other = None
    if s.given and s.scale * s.size != own:  # the text and the tests of ONNX say two things of it
        other = _matrix([_taps(s, kernel, s.other_coordinate(i, kernel.coordinates)) for i in range(s.out)], s)
    near, spread = [], []
    for c, d in zip(at, slack, strict=True):
        read, moved = _moved(s, kernel, c, d)
        near.append(read)
        spread.append(moved)
    weights = _matrix(taps, s)
    roundings = _matrix([_roundings(s, kernel, c) for c in at] if kernel.mode == "cubic" else [], s)
    lsb = np.array([_lsb([w for _, w in t]) for t in taps])
    exact = (lsb > 0) & np.array([_is_exact(s, kernel, c, d) for c, d in zip(at, slack, strict=True)])
    width = max((len(r) for r in near), default=1)
    padded = np.array([[*r, *[r[0]] * (width - len(r))] for r in near], dtype=np.int64).reshape(s.out, width)
    return Rows(taps, weights, roundings, other, padded, np.array(spread, dtype=np.float64), lsb, exact)


def _matrix(taps: Iterable[Iterable[tuple[int, Fraction | float]]], s: Sampling) -> Floats:
    a = np.zeros((s.out, s.size))
    for i, row in enumerate(taps):
        for j, w in row:
            a[i, j] += float(w)
    return a


def _merged(s: Sampling, taps: Sequence[tuple[int, Fraction]]) -> Taps:
    """Taps beyond the ends are those of the end elements."""
    sums: dict[int, Fraction] = {}
    for j, w in taps:
        sums[s.inside(j)] = sums.get(s.inside(j), Fraction(0)) + w
    return tuple((j, w) for j, w in sums.items() if w)


def _taps(s: Sampling, kernel: Kernel, c: Fraction) -> Taps:
    match kernel.mode:
        case "nearest":
            return ((s.nearest(c, kernel.nearest_mode), Fraction(1)),)
        case "linear":
            c = min(max(c, Fraction(0)), Fraction(s.size - 1))
            i = math.floor(c)
            return _merged(s, [(i, 1 - (c - i)), (i + 1, c - i)])
        case _:
            taps = [(j, keys(c - j, kernel.cubic_coeff_a)) for j in range(math.floor(c) - 1, math.floor(c) + 3)]
            if kernel.exclude_outside:
                taps = [(j, w) for j, w in taps if 0 <= j < s.size]
                total = sum((w for _, w in taps), Fraction(0))
                taps = [(j, w / total) for j, w in taps]
            return _merged(s, taps)


def keys(distance: Fraction, coefficient: float) -> Fraction:
    """The cubic convolution kernel of Robert Keys, equation (4) of https://ieeexplore.ieee.org/document/1163711."""
    d, a = abs(distance), Fraction(coefficient)
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else Fraction(0)


def _is_exact(s: Sampling, kernel: Kernel, c: Fraction, slack: float) -> bool:
    """Whether float32 arithmetic gives the exact weights at `c`."""
    if kernel.mode == "nearest" or slack:
        return kernel.mode == "nearest"
    if kernel.mode == "linear":
        return True
    # Terms of the cubic polynomials are multiples of 2^-17 below 2^6, then; and nothing is divided.
    whole = not kernel.exclude_outside or 1 <= c < s.size - 2
    return whole and c % Fraction(1, 32) == 0 and Fraction(kernel.cubic_coeff_a) % Fraction(1, 4) == 0


def _roundings(s: Sampling, kernel: Kernel, c: Fraction) -> list[tuple[int, float]]:
    """By how many u each weight at `c` may be off; they are divided by their sum, in some kernels always."""
    taps = [(j, keys(c - j, kernel.cubic_coeff_a)) for j in range(math.floor(c) - 1, math.floor(c) + 3)]
    if kernel.exclude_outside:
        taps = [(j, w) for j, w in taps if 0 <= j < s.size]
    off = [_polynomial_roundings(abs(float(c - j)), kernel.cubic_coeff_a) for j, _ in taps]
    total = abs(float(sum((w for _, w in taps), Fraction(0))))
    magnitude = float(sum((abs(w) for _, w in taps), Fraction(0)))
    of_total = sum(off) + len(taps) * magnitude
    return [
        (s.inside(j), e / total + abs(float(w)) * (of_total / total + 2) / total)
        for (j, w), e in zip(taps, off, strict=True)
    ]


def _polynomial_roundings(d: float, a: float) -> float:
    """Running error, in u, of `keys` in Horner's form (Higham, section 5.1), with the distance itself rounded."""
    outer = d > 1
    first, constants = (a, (-5 * a, 8 * a, -4 * a)) if outer else (a + 2, (-(a + 3), 0.0, 1.0))
    value, off = first, abs(first)
    for constant in constants:
        product = value * d
        off = off * d + 2 * abs(product) + abs(constant) + abs(product + constant)
        value = product + constant
    return 1.5 * off  # the form without `a` inside, and second order


def _moved(s: Sampling, kernel: Kernel, c: Fraction, slack: float) -> tuple[list[int], float]:
    """The elements that a coordinate within `slack` of `c` reads, and how far it may move the result between them."""
    off = Fraction(slack)
    if kernel.mode == "nearest":
        picked = sorted({s.nearest(c - off, kernel.nearest_mode), s.nearest(c + off, kernel.nearest_mode)})
        return picked, float(len(picked) > 1)
    first, last = math.floor(c - off), math.floor(c + off)
    reach = 1 if kernel.mode == "linear" else 2
    read = sorted({s.inside(j) for j in range(first - reach + 1, last + reach + 1)})
    return read, 0.0 if not slack else slack * _steepness(s, kernel, c)


def _steepness(s: Sampling, kernel: Kernel, c: Fraction) -> float:
    """How fast the result moves with the coordinate, for elements whose values lie 1 apart.

    Weights add up to 1, so that their derivatives add up to 0, and half of their magnitudes counts. That of the cubic
    kernel is at most 3*|a+2| + 2*|a+3| between 0 and 1, and 8*|a| between 1 and 2.
    """
    if kernel.mode == "linear":
        return 1.0
    a = kernel.cubic_coeff_a
    derivatives = 2 * (3 * abs(a + 2) + 2 * abs(a + 3)) + 2 * 8 * abs(a)
    if not kernel.exclude_outside:
        return derivatives / 2
    inside = [keys(c - j, a) for j in range(math.floor(c) - 1, math.floor(c) + 3) if 0 <= j < s.size]
    total = abs(float(sum(inside, Fraction(0))))
    # (w/S)' = w'/S - w*S'/S^2; twice, for S moves too.
    return 2 * derivatives / total * (1 + float(sum(map(abs, inside), Fraction(0))) / total)


def _lsb(weights: Sequence[Fraction]) -> float:
    """A power of two that divides all weights, or 0."""
    largest = math.lcm(*(w.denominator for w in weights))
    return 1.0 / largest if largest & (largest - 1) == 0 and largest <= 2**30 else 0.0
