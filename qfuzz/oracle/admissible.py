"""Admissible sets: from the real result and a contract to the integers that a correct kernel may return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount
from qfuzz.exact.rounding import Floats, Ints, saturate
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.qtype import Element, QType
from qfuzz.ops.semantics import Image


@dataclass(frozen=True)
class Admissible:
    """Per element, what a correct kernel may return.

    Attributes
    ----------
    lo, hi
        Inclusive bounds, in stored integers (float64 arrays of float32 values for a float32 result).
    exact
        The correctly rounded value; None where the operands were not known exactly.
    """

    lo: npt.NDArray[Any]
    hi: npt.NDArray[Any]
    exact: npt.NDArray[Any] | None


def admissible(image: Image, contract: Contract, element: Element, count: FilterCount) -> Admissible:
    """The admissible set of `image` under `contract`.

    A kernel computes some real within ``image.error(contract)`` of the exact one, then rounds it. Where that error is
    zero, ties follow the contract's rule; elsewhere both sides of a tie that the error reaches are admissible.
    """
    error = np.broadcast_to(image.error(contract), image.lower.approx.shape)
    if not isinstance(element, QType):
        return _admissible_float32(image, error)
    (zero_point,) = element.zero_point
    down, up = image.lower.nearest(count)
    even = _even(down, up, 0)
    low, high = _by_tie_rule(down, up, even, contract.tie, zero_point)
    if not image.is_point:
        _, high = _by_tie_rule(*(b := image.upper.nearest(count)), _even(*b, 0), contract.tie, zero_point)
    if error.any():
        low = np.where(error > 0, np.minimum(low, _floor_bound(image, error)), low)
        high = np.where(error > 0, np.maximum(high, _ceil_bound(image, error)), high)

    def stored(x: Ints) -> Ints:
        return saturate(x + zero_point, element.qmin, element.qmax)

    return Admissible(stored(low), stored(high), stored(even) if image.is_point else None)


def _even(down: Ints, up: Ints, zero_point: int) -> Ints:
    """Of two neighbours (or one integer twice), the one that is even once `zero_point` is added."""
    return np.where((down + zero_point) % 2 == 0, down, up)


def _by_tie_rule(down: Ints, up: Ints, even: Ints, tie: TieRule, zero_point: int) -> tuple[Ints, Ints]:
    match tie:
        case "half_even":
            return even, even
        case "half_even_after_zero_point":
            after = _even(down, up, zero_point)
            return after, after
        case "either_even":
            after = _even(down, up, zero_point)
            return np.minimum(even, after), np.maximum(even, after)
        case "any":
            return down, up


def _floor_bound(image: Image, error: Floats) -> Ints:
    """Smallest integer that rounding may give; float64 sums are widened by their own rounding."""
    r = image.lower
    bound = r.approx - r.error - error - 0.5
    return np.ceil(np.clip(bound - 4 * np.spacing(np.abs(bound) + 1), -(2.0**62), 2.0**62)).astype(np.int64)


def _ceil_bound(image: Image, error: Floats) -> Ints:
    r = image.upper
    bound = r.approx + r.error + error + 0.5
    return np.floor(np.clip(bound + 4 * np.spacing(np.abs(bound) + 1), -(2.0**62), 2.0**62)).astype(np.int64)


def _admissible_float32(image: Image, error: Floats) -> Admissible:
    """float32 results: rounding is monotone, so the rounded ends bound every rounded number between them."""
    with np.errstate(over="ignore"):  # beyond the largest float32 the rounded value is infinite
        lo = (image.lower.approx - image.lower.error - error).astype(np.float32).astype(np.float64)
        hi = (image.upper.approx + image.upper.error + error).astype(np.float32).astype(np.float64)
        exact = image.lower.approx.astype(np.float32).astype(np.float64) if image.is_point else None
    return Admissible(lo, hi, exact)
