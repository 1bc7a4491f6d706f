"""grid_sample: an image read at places that a grid of coordinates names, bilinearly.

Semantics: `torch.nn.functional.grid_sample` of images, mode ``bilinear``. The coordinate -1 stands for one end of a
dimension and 1 for the other (ATen/native/GridSampler.h: grid_sampler_unnormalize, reflect_coordinates); what lies
outside is 0, the outermost element, or the mirror image. An average of elements moves with its coordinates by at most
the greatest difference of elements for each position, which bounds what their roundings do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import UNIT_ROUNDOFF, Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import TensorType, check_shape
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_narrow,
    check_rescaling,
    float_scale,
    zero_point_magnitude,
)

MAX_PLACES = 2**14
"""No grid names more places: each is a rational."""

_U64 = 2.0**-53
Padding = Literal["zeros", "border", "reflection"]


class Place(NamedTuple):
    """One coordinate, in elements.

    Attributes
    ----------
    at
        Exactly.
    slack
        How far a float32 kernel may be from it: 0 where all its operations are exact.
    """

    at: Fraction
    slack: float


def place(grid: float, size: int, padding: Padding, *, align_corners: bool) -> Place:
    """Where the coordinate `grid` of a dimension of `size` lies."""
    one = Fraction(grid) + 1
    steps = [one, one / 2, one / 2 * (size - 1)] if align_corners else [one, one * size, one * size - 1]
    at = steps[-1] if align_corners else steps[-1] / 2
    slack = UNIT_ROUNDOFF * float(abs(one) * size * 2 + abs(at) + 1)
    if padding == "reflection":
        low, span = (Fraction(0), Fraction(size - 1)) if align_corners else (Fraction(-1, 2), Fraction(size))
        if span == 0:
            return Place(Fraction(0), 0.0)
        times, extra = divmod(abs(at - low), span)
        slack += 3 * UNIT_ROUNDOFF * float(abs(at) + 2 * span + 1)
        steps += [at - low, extra, span - extra]
        at = (extra if times % 2 == 0 else span - extra) + low
    if padding != "zeros":
        at = min(max(at, Fraction(0)), Fraction(size - 1))
    return Place(at, 0.0 if all(float32(float(v)) == v for v in (*steps, at)) else slack)


class GridSample(ExactOperator, frozen=True, kw_only=True, tag="grid_sample"):
    """Elements of the images [N, C, H, W] at the places of the grid [N, *, *, 2], a constant: x and y in -1..1.

    Attributes
    ----------
    padding_mode
        What lies outside.
    align_corners
        Whether -1 and 1 are the centers of the outermost elements; else their outer edges.
    """

    padding_mode: Padding = "zeros"
    align_corners: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)
    constant_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, grid = inputs
        check_narrow([x], element)
        check_rescaling(x, element)
        if len(x.shape) != 4 or 0 in x.shape[2:]:
            raise InvalidCase(f"x: shape {x.shape}; needs [N, C, H, W], height and width not empty")
        if grid.element != "float32" or len(grid.shape) != 4 or (grid.shape[0], grid.shape[3]) != (x.shape[0], 2):
            raise InvalidCase(f"grid: {grid.dtype}, shape {grid.shape}; needs float32 of ({x.shape[0]}, *, *, 2)")
        if grid.n_elements > 2 * MAX_PLACES:
            raise InvalidCase(f"grid: shape {grid.shape}; at most {MAX_PLACES} places")
        shape = (*x.shape[:2], *grid.shape[1:3])
        check_shape(shape)
        return shape

    def places(self, grid: Floats, sizes: tuple[int, int]) -> list[tuple[Place, Place]]:
        """Row and column of every place, in row-major order."""
        height, width = sizes
        aligned = self.align_corners
        return [
            (
                place(float(y), height, self.padding_mode, align_corners=aligned),
                place(float(x), width, self.padding_mode, align_corners=aligned),
            )
            for x, y in grid.reshape(-1, 2)
        ]

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, grid = operands
        shape = self.infer([x.type, grid.type], element)
        m = Multiplier.quotient(x.float_scale, float_scale(element))
        n, _, height, width = x.type.shape
        sizes = (height, width)
        places = self.places(grid.lo, sizes)
        taps = [taps_of(row.at, column.at, sizes) for row, column in places]
        rows, columns, weights = _laid_out(taps)
        batch = np.repeat(np.arange(n), len(places) // n)[:, None] if n else np.zeros((0, 1), dtype=np.int64)

        def averaged(a: Floats) -> Floats:
            """[N, C, H', W'] of values [N, C, H, W]."""
            read = a[batch, :, rows, columns]  # [places, 4, C]
            total = (read * weights[:, :, None]).sum(axis=1)
            return np.ascontiguousarray(total.reshape(n, *shape[2:], shape[1]).transpose(0, 3, 1, 2))

        lo, hi = x.centered()
        affine = averaged(x.affine_magnitude()) * m.approx
        # Each weight, product and sum is one float64 rounding (Higham, section 3.1); doubled for slack.
        error = np.where(_per_place([_is_short(t) for t in taps], shape), 0.0, averaged(x.magnitude()) * (24 * _U64))
        exact = _per_place([r.slack == c.slack == 0 and _is_short(t) for (r, c), t in zip(places, taps, strict=True)],
                           shape)  # fmt: skip
        slack = np.array([_slack(r, c, sizes) for r, c in places], dtype=np.float64)
        moved = _per_place(slack, shape) * _spread(lo, hi, self.padding_mode)[:, :, None, None]
        lower = _reals(averaged(lo), error, lo, taps, m, shape)
        return GridImage(
            lower,
            lower if x.is_point else _reals(averaged(hi), error, hi, taps, m, shape),
            affine,
            moved * m.approx,
            exact.astype(bool) & (float(m.approx) == 1.0),
            zero_point_magnitude(element),
        )


@dataclass(frozen=True)
class GridImage(Image):
    """Averages of four elements.

    Attributes
    ----------
    affine
        Magnitudes that roundings are relative to, without the output's zero point.
    drift
        How far the result moves by the roundings of coordinates, whatever the contract's terms.
    float32_exact
        Where every operation of a float32 kernel is exact.
    zero_point
        |zero_point| of the output.
    """

    lower: Reals
    upper: Reals
    affine: Floats
    drift: Floats
    float32_exact: npt.NDArray[np.bool_]
    zero_point: float

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        rounded = gamma(contract.k) * (1 + 2.0**-40) * (self.affine + self.zero_point)
        return np.where(self.float32_exact, 0.0, rounded + self.drift * (1 + 2 * gamma(contract.k)))


Taps = tuple[tuple[int, int, Fraction], ...]
"""Rows, columns and weights of the elements inside the image that a place reads."""


def taps_of(row: Fraction, column: Fraction, sizes: tuple[int, int]) -> Taps:
    """What is read at a place."""
    top, left = math.floor(row), math.floor(column)
    down, right = row - top, column - left
    corners = (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    )
    return tuple((i, j, w) for i, j, w in corners if w and 0 <= i < sizes[0] and 0 <= j < sizes[1])


def _laid_out(taps: Sequence[Taps]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Rows, columns and weights [places, 4]; weights of 0 where there are fewer taps."""
    rows, columns = np.zeros((len(taps), 4), dtype=np.int64), np.zeros((len(taps), 4), dtype=np.int64)
    weights = np.zeros((len(taps), 4))
    for p, own in enumerate(taps):
        for k, (i, j, w) in enumerate(own):
            rows[p, k], columns[p, k], weights[p, k] = i, j, float(w)
    return rows, columns, weights


def _is_short(taps: Taps) -> bool:
    """Whether weights have so few bits that a float32 holds all their products with bytes, and sums of those."""
    return all(2**15 % w.denominator == 0 for *_, w in taps)


def _slack(row: Place, column: Place, sizes: tuple[int, int]) -> float:
    """By how many positions a kernel may be off; none where it surely is outside as well."""
    for p, size in zip((row, column), sizes, strict=True):
        if p.at + Fraction(p.slack) <= -1 or p.at - Fraction(p.slack) >= size:
            return 0.0
    return row.slack + column.slack


def _per_place(values: Sequence[float] | Floats, shape: tuple[int, ...]) -> Floats:
    """One number a place, laid out to broadcast against the output."""
    return np.asarray(values, dtype=np.float64).reshape(shape[0], 1, *shape[2:])


def _spread(lo: Floats, hi: Floats, padding: Padding) -> Floats:
    """[N, C]: the greatest difference of elements of an image; a real 0 beside it is one of them."""
    least, greatest = lo.min(axis=(2, 3)), hi.max(axis=(2, 3))
    if padding == "zeros":
        least, greatest = np.minimum(least, 0.0), np.maximum(greatest, 0.0)
    return np.asarray(greatest - least)


def _reals(
    total: Floats, error: Floats, values: Floats, taps: Sequence[Taps], m: Multiplier, shape: tuple[int, ...]
) -> Reals:
    per_image = math.prod(shape[2:])

    def refine(i: int, bits: int) -> Bounds:
        n, c, *at = (int(v) for v in np.unravel_index(i, shape))
        own = taps[n * per_image + at[0] * shape[3] + at[1]]
        exactly = sum((w * Fraction(float(values[n, c, y, x])) for y, x, w in own), Fraction(0)) * m.fraction(0)
        return exactly, exactly

    scaled = total * m.approx
    # Where the product with the multiplier rounds, it is one more rounding of the magnitudes.
    own_error = error * m.approx if float(m.approx) == 1.0 else error * m.approx + np.abs(scaled) * (4 * _U64)
    return Reals(scaled, np.broadcast_to(own_error, shape), refine)
