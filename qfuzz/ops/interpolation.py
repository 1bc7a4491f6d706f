"""interpolate: a tensor resized, by the nearest element or by linear or cubic interpolation in every dimension.

Semantics: ONNX Resize (opset 19) without tf_crop_and_resize and its region; `torch.nn.functional.interpolate`, whose
modes nearest, nearest-exact and bilinear are asymmetric coordinates rounded down, half_pixel ones rounded to nearest,
and linear ones of half_pixel or align_corners (ATen/native/UpSample.h). What ONNX's text leaves open:

- With scales, a length times its scale may have a fraction, which the resized length lacks. Coordinates are then those
  of the given scale, as in ONNX's own tests; the text also says that the scale is the quotient of the lengths, and ONNX
  Runtime's Resize follows it where no length changes. Either is admissible.
- There, align_corners takes the resized length, an integer, as the text says; ONNX's own tests take the product of
  length and scale, with its fraction. Either is admissible.
- The coordinate that align_corners gives a single position is 0 / 0, and 0 here.
- The precision of coordinates: exact rationals decide here, and what a float32 kernel may make of them is admissible.
- The precision of length times scale: a product that float32 rounds to another integer is not defined here.
- PyTorch's text has "the passed-in scale_factor used in the interpolation computation", but its float kernels of modes
  nearest and bilinear copy where no length changes (UpSampleKernel.cpp: nearest_idx, compute_source_index_and_lambda).
- How a weighted average of integers is rounded to such: a contract says so (`rounding_open`), with both neighbours.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, Element, float32
from qfuzz.ir.tensor import MAX_ELEMENTS, TensorType, check_shape
from qfuzz.ops.rearrangement import normal_axes
from qfuzz.ops.sampling import Kernel, Rows, Sampling, rows
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_rescaling,
    float_scale,
    identity_image,
    is_power_of_two,
    zero_point_magnitude,
)

Coordinates = Literal["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
Aspect = Literal["stretch", "not_larger", "not_smaller"]

MAX_WEIGHTS = 2**20
"""No dimension has more weights, counted densely."""

_U64 = 2.0**-53


class Interpolate(ExactOperator, frozen=True, kw_only=True, tag="interpolate"):
    """A resized tensor.

    Attributes
    ----------
    scales, sizes
        One of the two, for each of `axes`: float32 factors, or new lengths. A length times a scale is rounded down.
    axes
        Dimensions they are for; all where empty. May be negative.
    mode
        How an element is made of those near its coordinate.
    coordinates
        ONNX's coordinate_transformation_mode.
    nearest_mode
        Which element is nearest, for mode ``nearest``.
    cubic_coeff_a
        The coefficient of the cubic kernel, a float32 in -1..0.
    exclude_outside
        For filters (mode ``cubic``, and antialiasing): whether weights outside the tensor are left out, and the others
        scaled up.
    antialias
        For the modes ``linear`` and ``cubic``: whether the filter is stretched where a dimension becomes shorter.
    aspect
        ONNX's keep_aspect_ratio_policy: ``not_larger`` and ``not_smaller`` take the least and the greatest quotient of
        `sizes` and lengths for the scale of all axes.
    """

    scales: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    mode: Literal["nearest", "linear", "cubic"] = "nearest"
    coordinates: Coordinates = "half_pixel"
    nearest_mode: NearestMode = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    aspect: Aspect = "stretch"

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        a = self.cubic_coeff_a
        if not -1 <= a <= 0 or float32(a) != a:
            raise InvalidCase(f"cubic_coeff_a: {a!r}; needs a float32 in -1..0")
        if self.antialias and self.mode == "nearest":
            raise InvalidCase("antialias: set for mode nearest; it is for the modes linear and cubic")
        if self.exclude_outside and self.mode != "cubic" and not self.antialias:
            raise InvalidCase(f"exclude_outside: set for mode {self.mode}; it is for mode cubic, and antialiasing")
        samplings = self.samplings(x.shape)
        out = tuple(s.out for s in samplings)
        check_shape(out)
        for d, s in enumerate(samplings):
            if s.out and not s.size:
                raise InvalidCase(f"sizes: dimension {d} of {x.shape} is empty, and cannot become {s.out}")
            if s.out * s.size > MAX_WEIGHTS:
                raise InvalidCase(f"sizes: dimension {d} from {s.size} to {s.out}; at most {MAX_WEIGHTS} weights")
        return out

    def samplings(self, shape: tuple[int, ...]) -> tuple[Sampling, ...]:
        """How each dimension of `shape` is resized."""
        axes = normal_axes("axes", self.axes, len(shape)) or tuple(range(len(shape)))
        given: Sequence[float | Sampling] = self.scales or self.sizes
        if bool(self.scales) == bool(self.sizes) or len(given) != len(axes):
            raise InvalidCase(f"scales, sizes: {self.scales}, {self.sizes}; need {len(axes)} of one of them")
        result = [Sampling(n, n, Fraction(1), False) for n in shape]
        if self.aspect != "stretch":
            given = self._kept_aspect([shape[d] for d in axes])
        for d, value in zip(axes, given, strict=True):
            if isinstance(value, Sampling):
                result[d] = value
            else:
                result[d] = self._by_scale(shape[d], value) if self.scales else self._by_size(shape[d], int(value))
        return tuple(result)

    def _kept_aspect(self, lengths: Sequence[int]) -> tuple[Sampling, ...]:
        """One scale for all axes, from the sizes that are asked for."""
        if self.scales or 0 in self.sizes or 0 in lengths:
            raise InvalidCase(f"aspect: {self.aspect}; needs sizes of at least 1, and no empty dimension")
        quotients = [Fraction(size, n) for size, n in zip(self.sizes, lengths, strict=True)]
        scale = min(quotients) if self.aspect == "not_larger" else max(quotients)
        result = []
        for n in lengths:
            out = math.floor(scale * n + Fraction(1, 2))
            if out != math.floor(float32(float32(float(scale)) * n) + 0.5) or out > MAX_ELEMENTS:
                raise InvalidCase(f"sizes: {self.sizes}; {float(scale)!r} times {n} is rounded otherwise in float32")
            result.append(Sampling(n, out, scale, True))
        return tuple(result)

    def _by_scale(self, n: int, scale: float) -> Sampling:
        if not FLOAT32_MIN_NORMAL <= scale <= FLOAT32_MAX or float32(scale) != scale:
            raise InvalidCase(f"scales: {scale!r}; needs a normal, positive float32")
        out = math.floor(n * Fraction(scale))
        if out != math.floor(float32(n * scale)):
            raise InvalidCase(f"scales: {scale!r}; times {n} is an integer in float32 only, or exactly only")
        if out > MAX_ELEMENTS:
            raise InvalidCase(f"scales: {scale!r}; makes {n} elements {out}; at most {MAX_ELEMENTS}")
        return Sampling(n, out, Fraction(scale), True)

    def _by_size(self, n: int, size: int) -> Sampling:
        if not 0 <= size <= MAX_ELEMENTS:
            raise InvalidCase(f"sizes: {size}; needs 0..{MAX_ELEMENTS}")
        return Sampling(n, size, Fraction(size, n) if n and size else Fraction(1), False)

    def rows(self, shape: tuple[int, ...], *, multiplied: bool = False) -> tuple[Rows | None, ...]:
        """Per dimension, where it is read; None where it stays. `multiplied` is `Contract.multiplies_scale`."""
        a = self.cubic_coeff_a
        kernel = Kernel(
            self.mode, self.coordinates, self.nearest_mode, a, self.exclude_outside, self.antialias, multiplied
        )
        # At scale 1 a cubic kernel's weights are 0, 1, 0, 0: exactly, where the coefficient has few bits.
        stays = self.mode != "cubic" or a * 2**8 == round(a * 2**8)
        return tuple(None if s.scale == 1 and stays else rows(s, kernel) for s in self.samplings(shape))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        if 0 in shape:
            nothing = np.zeros(shape)
            return identity_image(x, nothing, nothing, shape, element)
        axes = self.rows(x.type.shape)
        m = Multiplier.quotient(x.float_scale, float_scale(element))
        lo, hi = x.centered()
        low = _resized(lo, hi, axes)
        high = low if x.is_point else _resized(hi, lo, axes)
        magnitudes = [None if r is None else np.abs(r.weights) for r in axes]
        real, affine = (_applied(a, magnitudes) * m.approx for a in (x.magnitude(), x.affine_magnitude()))
        # Each weight, product and sum of a dimension is one float64 rounding (Higham, section 3.1); doubled for slack.
        roundings = 2 + sum(0 if r is None else r.weights.shape[1] + 2 for r in axes)
        lsb = _outer([None if r is None else r.lsb for r in axes]) * m.lsb
        error = np.where((lsb > 0) & (real < 2.0**52 * lsb), 0.0, real * (2 * roundings * _U64))
        lower = Reals(low * m.approx, error, _refine(lo, hi, axes, m))
        zero_point = zero_point_magnitude(element)
        short = (
            (lsb > 0) & is_power_of_two(float_scale(element)) & (affine + zero_point < 2.0**24 * np.minimum(lsb, 1.0))
        )

        @cache
        def seen(multiplied: bool) -> tuple[npt.NDArray[np.bool_], Floats]:
            own = self.rows(x.type.shape, multiplied=multiplied)
            exact = np.asarray((_outer([None if r is None else r.exact for r in own]) > 0) & short)
            drift = _drift(x, own, low, high, self.mode)
            if not multiplied or self.mode == "linear" or self.nearest_mode == "floor":
                drift = drift + _reading(lo, hi, own, low, high)
            if self.mode == "cubic" or self.antialias:
                drift = drift + np.where(exact, 0.0, _weights_off(x, own, magnitudes))
            return exact, np.asarray(drift * m.approx)

        return InterpolationImage(
            lower,
            lower if x.is_point else Reals(high * m.approx, error, _refine(hi, lo, axes, m)),
            real,
            affine,
            math.prod(1 if r is None else max(len(t) for t in r.taps) for r in axes),
            seen,
            zero_point,
        )


@dataclass(frozen=True)
class InterpolationImage(Image):
    """Weighted averages, and how far kernels may be from them.

    Attributes
    ----------
    real, affine
        Magnitudes that roundings are relative to.
    n_summed
        How many products are summed.
    seen
        Says of coordinates that are products, or quotients (`Contract.multiplies_scale`): where all of a kernel's
        arithmetic is exact, they among it; and how far the result moves by what a kernel may do to coordinates and
        weights, whatever the contract's terms.
    zero_point
        |zero_point| of the output.
    """

    lower: Reals
    upper: Reals
    real: Floats
    affine: Floats
    n_summed: int
    seen: Callable[[bool], tuple[npt.NDArray[np.bool_], Floats]]
    zero_point: float

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        magnitude = self.affine + self.zero_point if contract.terms == "affine" else self.real
        if contract.adds_zero_point or contract.tie in ("half_even_after_zero_point", "either_even"):
            magnitude = magnitude + self.zero_point
        k = contract.k + (self.n_summed if contract.accumulates_float else 0)
        exact, drift = self.seen(contract.multiplies_scale)
        rounding = np.where(exact, 0.0, gamma(k) * (1 + 2.0**-40) * magnitude)
        bound = rounding + drift * (1 + 2 * gamma(k))
        if contract.rounding_open:
            known = bound == 0
            for r in (self.lower, self.upper):
                known = known & (r.error == 0) & (r.approx == np.rint(r.approx))
            bound = bound + np.where(known, 0.0, 0.5)
        return np.asarray(bound)


Matrices = Sequence[Floats | None]
"""Per dimension, a matrix [out, size]; None for a dimension that stays."""
Vectors = Sequence[Floats | npt.NDArray[np.bool_] | None]
"""Per dimension, one number for each position."""


def _applied(a: Floats, matrices: Matrices) -> Floats:
    for d, matrix in enumerate(matrices):
        if matrix is not None:
            a = np.asarray(np.moveaxis(np.tensordot(matrix, a, axes=(1, d)), 0, d))
    return a


def _resized(own: Floats, others: Floats, axes: Sequence[Rows | None]) -> Floats:
    """Weighted averages of `own`, with those of `others` where a weight is negative."""
    if own is others:
        return _applied(own, [None if r is None else r.weights for r in axes])
    for d, r in enumerate(axes):
        if r is not None:
            up: list[Floats | None] = [None] * own.ndim
            down = list(up)
            up[d], down[d] = np.maximum(r.weights, 0.0), np.minimum(r.weights, 0.0)
            own, others = (
                _applied(own, up) + _applied(others, down),
                _applied(others, up) + _applied(own, down),
            )
    return own


def _outer(vectors: Vectors) -> Floats:
    """Products of one number of each dimension, laid out to broadcast."""
    product: Floats = np.ones((1,) * len(vectors))
    for d, v in enumerate(vectors):
        if v is not None:
            product = product * v.astype(np.float64).reshape((-1,) + (1,) * (len(vectors) - d - 1))
    return product


def _drift(x: Operand, axes: Sequence[Rows | None], low: Floats, high: Floats, mode: str) -> Floats:
    """How far the result moves by what a kernel's coordinates are off, in stored steps of the input."""
    least, greatest = x.centered()
    for d, r in enumerate(axes):
        if r is not None:
            least = np.take(least, r.near, axis=d).min(axis=d + 1)
            greatest = np.take(greatest, r.near, axis=d).max(axis=d + 1)
    if mode == "nearest":  # another element is picked, of those near
        return np.maximum(greatest - low, high - least)
    moved: Floats = np.zeros(())
    for d, r in enumerate(axes):
        if r is not None:
            own: list[Floats | None] = [None if s is None else np.abs(s.weights).sum(axis=1) for s in axes]
            own[d] = r.spread
            moved = moved + _outer(own)
    return np.asarray((greatest - least) * moved * 1.01)  # weights elsewhere move too, by parts in a million


def _weights_off(x: Operand, axes: Sequence[Rows | None], magnitudes: Matrices) -> Floats:
    """How far the result moves by the roundings of cubic weights, in stored steps of the input."""
    moved: Floats = np.zeros(())
    for d, r in enumerate(axes):
        if r is not None:
            own = list(magnitudes)
            own[d] = r.roundings * gamma(1)
            moved = moved + _applied(x.affine_magnitude(), own)
    return moved


def _reading(lo: Floats, hi: Floats, axes: Sequence[Rows | None], low: Floats, high: Floats) -> Floats:
    """How far the result is from that under another reading of the specification."""
    if all(r is None or r.other is None for r in axes):
        return np.zeros(())
    others = [r if r is None or r.other is None else replace(r, weights=r.other) for r in axes]
    other_low = _resized(lo, hi, others)
    other_high = other_low if lo is hi else _resized(hi, lo, others)
    return np.maximum(other_high - low, high - other_low)


def _refine(own: Floats, others: Floats, axes: Sequence[Rows | None], m: Multiplier) -> Callable[[int, int], Bounds]:
    """One element as a rational."""
    shape = tuple(n if r is None else len(r.taps) for n, r in zip(own.shape, axes, strict=True))

    def refine(i: int, bits: int) -> Bounds:
        index = np.unravel_index(i, shape)
        taps = [((int(j), Fraction(1)),) if r is None else r.taps[j] for j, r in zip(index, axes, strict=True)]
        total = Fraction(0)
        for chosen in itertools.product(*taps):
            weight = math.prod((w for _, w in chosen), start=Fraction(1))
            values = own if weight > 0 else others
            total += weight * Fraction(float(values[tuple(j for j, _ in chosen)]))
        return total * m.fraction(0), total * m.fraction(0)

    return refine
