"""Admissible sets: from the real result and a contract to the integers that a correct kernel may return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.exact.rounding import Floats, Ints, round_half_even, saturate
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


@dataclass(frozen=True)
class Settled:
    """What of an image holds under every contract, computed once.

    Attributes
    ----------
    nearest
        The integer (as float64) that each element's real is nearest to, as float64 sees it.
    gap
        A lower bound of each element's distance to a tie; a kernel whose error stays below has one right answer.
    stored
        `nearest` with the zero point, saturated, in the storage dtype.
    """

    nearest: Floats
    gap: Floats
    stored: npt.NDArray[Any]


_SLACK = 2.0**-50
"""More than what a few float64 sums round away, relatively."""


def settle(image: Image, element: QType) -> Settled:
    """Decide all elements of a known image that are not next to a tie."""
    nearest, gap = _nearest(image.lower)
    return Settled(nearest, gap, _stored(nearest, element))


def _nearest(r: Reals) -> tuple[Floats, Floats]:
    """`Settled.nearest` and `Settled.gap` of `r`."""
    nearest = np.rint(r.approx)
    gap = 0.5 - np.abs(r.approx - nearest)
    # The sums here are float64's: what they may round away is taken off, unless the gap is a tie's exact 0.
    gap -= r.error + (np.abs(nearest) + 1.0) * _SLACK
    return nearest, gap


def admissible(
    image: Image, contract: Contract, element: Element, count: FilterCount, settled: Settled | None = None
) -> Admissible:
    """The admissible set of `image` under `contract`.

    A kernel computes some real within ``image.error(contract)`` of the exact one, then rounds it. Where that error is
    zero, ties follow the contract's rule; elsewhere both sides of a tie that the error reaches are admissible.

    Almost all elements are settled at once, whatever the contract; only those next to a tie are decided exactly.

    Parameters
    ----------
    settled
        ``settle(image, element)``, where the caller keeps it for several contracts.
    """
    if not isinstance(element, QType):
        return _admissible_float32(image, contract)
    error = image.error(contract)
    count.elements += image.lower.approx.size
    if not image.is_point:
        return _admissible_interval(image, error, contract.tie, element, count)
    settled = settle(image, element) if settled is None else settled
    at = np.flatnonzero(error >= settled.gap)
    if not at.size:
        return Admissible(settled.stored, settled.stored, settled.stored)
    lo, hi, exact = settled.stored.copy(), settled.stored.copy(), settled.stored.copy()
    r = image.lower.take(at)
    low, high, even = _decided(
        r, np.broadcast_to(error, lo.shape).ravel()[at], contract.tie, element.zero_point[0], count
    )
    for whole, part in ((lo, low), (hi, high), (exact, even)):
        whole.reshape(-1)[at] = _stored(part, element)
    return Admissible(lo, hi, exact)


def _stored(x: npt.NDArray[Any], element: QType) -> npt.NDArray[Any]:
    """Integers with the zero point, saturated, in the storage dtype."""
    return saturate(x + element.zero_point[0], element.qmin, element.qmax, element.dtype)


def _decided(r: Reals, error: Floats, tie: TieRule, zero_point: int, count: FilterCount) -> tuple[Ints, Ints, Ints]:
    """Lowest and highest admissible integers, and the correctly rounded ones, decided exactly."""
    elements = count.elements
    down, up = r.nearest(count)
    count.elements = elements  # counted with all others already
    even = _even(down, up, 0)
    first, last = _by_tie_rule(down, up, even, tie, zero_point)
    # Where the kernel rounds before the final rounding, what its error reaches is admissible; the float64 sums are
    # widened by more than their own rounding.
    margin = r.error + error + (np.abs(r.approx) + error + 1.0) * _SLACK
    low = np.where(error > 0, np.minimum(round_half_even(r.approx - margin), first), first)
    high = np.where(error > 0, np.maximum(round_half_even(r.approx + margin), last), last)
    return low, high, even


def _admissible_interval(image: Image, error: Floats, tie: TieRule, element: QType, count: FilterCount) -> Admissible:
    """The set of an image of uncertain operands: from the least of its lower to the greatest of its upper bounds."""

    def bound(r: Reals, side: int) -> npt.NDArray[Any]:
        nearest, gap = _nearest(r)
        at = np.flatnonzero(error >= gap)
        if at.size:
            nearby = np.broadcast_to(error, nearest.shape).ravel()[at]
            nearest = np.array(nearest, order="C")
            nearest.reshape(-1)[at] = _decided(r.take(at), nearby, tie, element.zero_point[0], count)[side]
        return _stored(nearest, element)

    return Admissible(bound(image.lower, 0), bound(image.upper, 1), None)


def _even(down: Ints, up: Ints, zero_point: int) -> Ints:
    """Of two neighbours (or one integer twice), the one that is even once `zero_point` is added."""
    return np.where((down + zero_point) % 2 == 0, down, up)


def _by_tie_rule(down: Ints, up: Ints, even: Ints, tie: TieRule, zero_point: int) -> tuple[Ints, Ints]:
    """What may become of exact ties. The correctly rounded value is never a violation, whatever the rule."""
    match tie:
        case "half_even":
            return even, even
        case "half_even_after_zero_point" | "either_even":
            after = _even(down, up, zero_point)
            return np.minimum(even, after), np.maximum(even, after)
        case "any":
            return down, up


def _admissible_float32(image: Image, contract: Contract) -> Admissible:
    """float32 results: rounding is monotone, so the rounded ends bound every rounded number between them."""
    with np.errstate(over="ignore"):  # beyond the largest float32 the rounded value is infinite
        lo, hi = (end.astype(np.float32).astype(np.float64) for end in image.ends(contract))
        exact = image.lower.approx.astype(np.float32).astype(np.float64) if image.is_point else None
    return Admissible(lo, hi, exact)
