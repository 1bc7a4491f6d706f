"""Admissible sets: from the real result and a contract to the integers that a correct kernel may return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.qtype import Element, QType
from qfuzz.ops.semantics import Image


@dataclass(frozen=True)
class Admissible:
    """Per element, what a correct kernel may return.

    Attributes
    ----------
    lo, hi
        Inclusive bounds, in the storage dtype (float64 arrays of float32 values for a float32 result); one object where
        only one value is admissible everywhere.
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

    Almost all elements are decided at once: those whose real, give or take all errors, rounds to one integer. Only the
    others are looked at again, exactly.
    """
    error = image.error(contract)
    if not isinstance(element, QType):
        return _admissible_float32(image, np.broadcast_to(error, image.lower.approx.shape))
    (zero_point,) = element.zero_point
    low, has_margin = _outward(image.lower, error, -1.0)
    high = low if image.is_point and not has_margin else _outward(image.upper, error, 1.0)[0]
    count.elements += low.size
    even = low
    doubtful = np.abs(image.lower.approx - low) == 0.5
    if high is not low:
        doubtful |= (low != high) | (np.abs(image.upper.approx - high) == 0.5)
    at = np.flatnonzero(doubtful)
    if at.size:
        low, high, even = _looked_at(image, error, contract.tie, zero_point, low, high, at, count)

    def stored(x: Floats) -> npt.NDArray[Any]:
        return np.minimum(np.maximum(x + zero_point, element.qmin), element.qmax).astype(element.dtype)

    first = stored(low)
    last = first if high is low or np.array_equal(high, low) else stored(high)
    return Admissible(first, last, (first if even is low else stored(even)) if image.is_point else None)


def _outward(r: Reals, error: Floats, sign: float) -> tuple[Floats, bool]:
    """The integer that `r`, moved outward by all errors, rounds to; and whether there is any error."""
    margin = r.error + error
    if not margin.any():
        return np.rint(r.approx), False
    # Where there is any error, the float64 sums are widened by more than their own rounding.
    margin = np.where(margin > 0, margin + 4 * np.spacing(np.abs(r.approx) + margin + 1), 0.0)
    return np.rint(r.approx + sign * margin), True


def _looked_at(
    image: Image,
    error: Floats,
    tie: TieRule,
    zero_point: int,
    low: Floats,
    high: Floats,
    at: Ints,
    count: FilterCount,
) -> tuple[Floats, Floats, Floats]:
    """`low`, `high` and the correctly rounded value with the elements at flat indices `at` decided exactly."""
    low, high = low.copy(), high.copy()
    here = np.broadcast_to(error, low.shape).ravel()[at] > 0
    down, up = image.lower.take(at).nearest(count)
    count.elements -= at.size  # counted with all others already
    even = low.copy()
    even.reshape(-1)[at] = _even(down, up, 0)
    first, last = _by_tie_rule(down, up, _even(down, up, 0), tie, zero_point)
    if not image.is_point:
        down, up = image.upper.take(at).nearest(count)
        _, last = _by_tie_rule(down, up, _even(down, up, 0), tie, zero_point)
    # Where the kernel rounds before the final rounding, what its error reaches is admissible besides.
    low.reshape(-1)[at] = np.where(here, np.minimum(low.ravel()[at], first), first)
    high.reshape(-1)[at] = np.where(here, np.maximum(high.ravel()[at], last), last)
    return low, high, even


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


def _admissible_float32(image: Image, error: Floats) -> Admissible:
    """float32 results: rounding is monotone, so the rounded ends bound every rounded number between them."""
    with np.errstate(over="ignore"):  # beyond the largest float32 the rounded value is infinite
        lo = (image.lower.approx - image.lower.error - error).astype(np.float32).astype(np.float64)
        hi = (image.upper.approx + image.upper.error + error).astype(np.float32).astype(np.float64)
        exact = image.lower.approx.astype(np.float32).astype(np.float64) if image.is_point else None
    return Admissible(lo, hi, exact)
