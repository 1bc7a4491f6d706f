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

    def slack(self, i: int, mode: str, *, multiplied: bool = False) -> float:
        """How far a float32 kernel's coordinate may be from the exact one; 0 where it is exact.

        `multiplied`: it multiplies by the rounded quotient of lengths, or the rounded reciprocal of the scale.

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
        if multiplied:
            corners = Fraction(self.size - 1, self.out - 1) if self.out > 1 else Fraction(0)
            factor = corners if mode == "align_corners" else 1 / self.scale
            scale_exact = Fraction(float32(float(factor))) == factor
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
        [out, size] in float64: the weights, and by how many units of float32's roundoff u a kernel's may be off that
        evaluates a filter at exact coordinates; plain linear weights are off by one relatively, as a product is.
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
    """What an interpolation does in every dimension: the attributes of `interpolate`; and how coordinates are made."""

    mode: str
    coordinates: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool = False
    multiplied: bool = False

    @property
    def is_filter(self) -> bool:
        """Whether weights are values of a filter, and not those of two neighbours or one."""
        return self.mode == "cubic" or self.antialias

    @property
    def steepest(self) -> float:
        """The greatest derivative of the filter: of the cubic one, up to 1 and up to 2, term by term."""
        a = self.cubic_coeff_a
        return max(3 * abs(a + 2) + 2 * abs(a + 3), 8 * abs(a)) if self.mode == "cubic" else 1.0

    def filter(self, distance: Fraction) -> Fraction:
        """The filter's value."""
        return keys(distance, self.cubic_coeff_a) if self.mode == "cubic" else max(1 - abs(distance), Fraction(0))


@lru_cache(maxsize=256)
def rows(sampling: Sampling, kernel: Kernel) -> Rows:
    """The positions of a dimension."""
    s = sampling
    own = Fraction(s.out)
    at = [s.coordinate(i, kernel.coordinates, own) for i in range(s.out)]
    slack = [s.slack(i, kernel.coordinates, multiplied=kernel.multiplied) for i in range(s.out)]
    taps = tuple(_taps(s, kernel, c) for c in at)
    other = None
    if s.given and s.scale * s.size != own and (s.out == s.size or not kernel.multiplied):
        # The text and the tests of ONNX say two things of it; the text and the float kernels of PyTorch, too.
        other = _matrix([_taps(s, kernel, s.other_coordinate(i, kernel.coordinates)) for i in range(s.out)], s)
    near, spread = [], []
    for c, d in zip(at, slack, strict=True):
        read, moved = _moved(s, kernel, c, d)
        near.append(read)
        spread.append(moved)
    weights = _matrix(taps, s)
    roundings = _matrix([_roundings(s, kernel, c) for c in at] if kernel.is_filter else [], s)
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
    if kernel.mode == "nearest":
        return ((s.nearest(c, kernel.nearest_mode), Fraction(1)),)
    if not kernel.is_filter:
        c = min(max(c, Fraction(0)), Fraction(s.size - 1))
        i = math.floor(c)
        return _merged(s, [(i, 1 - (c - i)), (i + 1, c - i)])
    taps = _filtered(s, kernel, c)
    total = sum((w for _, w in taps), Fraction(0))  # 1 where nothing is left out, and the filter is not stretched
    return _merged(s, [(j, w / total) for j, w in taps])


def _stretch(s: Sampling, kernel: Kernel) -> Fraction:
    """What distances are multiplied with: less than 1 where antialiasing stretches the filter."""
    return min(s.scale, Fraction(1)) if kernel.antialias else Fraction(1)


def _window(s: Sampling, kernel: Kernel, c: Fraction, slack: Fraction = Fraction(0)) -> range:
    """Positions that the filter around `c`, or around coordinates within `slack` of it, reaches, its ends included."""
    reach = (2 if kernel.mode == "cubic" else 1) / _stretch(s, kernel) + slack
    return range(math.ceil(c - reach), math.floor(c + reach) + 1)


def _filtered(s: Sampling, kernel: Kernel, c: Fraction) -> list[tuple[int, Fraction]]:
    """Positions and values of the filter, which are still to be divided by their sum."""
    stretch = _stretch(s, kernel)
    taps = [(j, kernel.filter((c - j) * stretch)) for j in _window(s, kernel, c)]
    return [(j, w) for j, w in taps if 0 <= j < s.size] if kernel.exclude_outside else taps


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
    if not kernel.is_filter:
        return True
    # Terms of the polynomials are multiples of 2^-17 below 2^6, and quotients by a power of two stay such.
    stretch = _stretch(s, kernel)
    total = sum((w for _, w in _filtered(s, kernel, c)), Fraction(0))
    steps = (stretch, c * stretch, Fraction(kernel.cubic_coeff_a) / 8)
    return all(v % Fraction(1, 32) == 0 for v in steps) and _lsb([total]) > 0 and _lsb([1 / total]) > 0


def _roundings(s: Sampling, kernel: Kernel, c: Fraction) -> list[tuple[int, float]]:
    """By how many u each weight at `c` may be off; they are divided by their sum, in some kernels always."""
    taps = _filtered(s, kernel, c)
    stretch = _stretch(s, kernel)
    off = []
    for j, _ in taps:
        d = abs(float((c - j) * stretch))
        value = _polynomial_roundings(d, kernel.cubic_coeff_a) if kernel.mode == "cubic" else 2.0 + d
        # The stretch is the reciprocal of a reciprocal, and a factor of the distance.
        off.append(value + (4 * d * kernel.steepest if kernel.antialias else 0.0))
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
    plain = range(math.floor(c - off), math.floor(c + off) + 2)
    positions = _window(s, kernel, c, off) if kernel.is_filter else plain
    return sorted({s.inside(j) for j in positions}), slack * _steepness(s, kernel, c) if slack else 0.0


def _steepness(s: Sampling, kernel: Kernel, c: Fraction) -> float:
    """How fast the result moves with the coordinate, for elements whose values lie 1 apart."""
    if not kernel.is_filter:
        return 1.0
    stretch = float(_stretch(s, kernel))
    derivatives = (len(_window(s, kernel, c)) + 2) * stretch * kernel.steepest
    taps = _filtered(s, kernel, c)
    total = abs(float(sum((w for _, w in taps), Fraction(0))))
    # (w/S)' = w'/S - w*S'/S^2; twice, for S moves too.
    return 2 * derivatives / total * (1 + float(sum((abs(w) for _, w in taps), Fraction(0))) / total)


def _lsb(weights: Sequence[Fraction]) -> float:
    """A power of two that divides all weights, or 0."""
    largest = math.lcm(*(w.denominator for w in weights))
    return 1.0 / largest if largest & (largest - 1) == 0 and largest <= 2**30 else 0.0
