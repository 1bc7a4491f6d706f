"""Admissible sets: from the real result and a contract to the integers that a correct kernel may return."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.floating import FORMATS, Format, nearest, nearest_exactly
from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.exact.rounding import Floats, Ints, round_half_even, saturate
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.qtype import FLOAT8, Element, QType, dtype_of, integer_range
from qfuzz.ir.tensor import DTYPES, laid_out
from qfuzz.ops.semantics import Image, SteppedImage


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


def settle(image: Image, element: Element) -> Settled | None:
    """Decide all elements of a known image that are not next to a tie; nothing where no integers are stored."""
    if integer_range(element) is None:
        return None
    middle, gap = _middle(image.lower)
    return Settled(middle, gap, _stored(middle, element))


def _middle(r: Reals) -> tuple[Floats, Floats]:
    """`Settled.nearest` and `Settled.gap` of `r`."""
    middle = np.rint(r.approx)
    gap = 0.5 - np.abs(r.approx - middle)
    # The sums here are float64's: what they may round away is taken off, unless the gap is a tie's exact 0.
    gap -= r.error + (np.abs(middle) + 1.0) * _SLACK
    return middle, gap


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
    if isinstance(image, SteppedImage):
        return _admissible_steps(image, contract, element, count)
    if image.nan is not None:
        return _with_nan(image, image.nan, contract, element, count)
    count.elements += image.lower.approx.size
    if integer_range(element) is None:
        return _admissible_floats(image, contract, dtype_of(element), count)
    error = image.error(contract)
    if not image.is_point:
        return _admissible_interval(image, error, contract.tie, element, count)
    settled = settle(image, element) if settled is None else settled
    assert settled is not None
    at = np.flatnonzero(error >= settled.gap)
    if not at.size:
        return Admissible(settled.stored, settled.stored, settled.stored)
    lo, hi, exact = settled.stored.copy(), settled.stored.copy(), settled.stored.copy()
    r = image.lower.take(at)
    zero_point = _at(_zero_points(element, lo.shape), lo.shape, at)
    low, high, even = _decided(r, _at(error, lo.shape, at), contract.tie, zero_point, count)
    for whole, part in ((lo, low), (hi, high), (exact, even)):
        whole.reshape(-1)[at] = _saturated(part + zero_point, element)
    return Admissible(lo, hi, exact)


def _with_nan(
    image: Image, nan: npt.NDArray[np.bool_], contract: Contract, element: Element, count: FilterCount
) -> Admissible:
    """Where the real result is NaN: NaN, which is stored as such; of integers, any."""
    rest = admissible(replace(image, nan=None), contract, element, count)  # type: ignore[type-var]
    limits = integer_range(element) or (NAN, NAN)
    lo, hi = (
        np.where(nan, np.array(limit).astype(bound.dtype), bound)
        for limit, bound in zip(limits, (rest.lo, rest.hi), strict=True)
    )
    exact = rest.exact if rest.exact is None else np.where(nan, lo, rest.exact)
    return Admissible(lo, hi, exact)


NAN = float(np.finfo(np.float64).max)
"""Stands for NaN among the bounds of floating-point results, where nothing else is so large but infinities."""


def _stored(x: npt.NDArray[Any], element: Element) -> npt.NDArray[Any]:
    """Integers with the zero point, saturated, in the storage dtype."""
    return _saturated(x + _zero_points(element, x.shape), element)


def _saturated(x: npt.NDArray[Any], element: Element) -> npt.NDArray[Any]:
    limits = integer_range(element)
    assert limits is not None
    return saturate(x, *limits, dtype_of(element))


def _zero_points(element: Element, shape: tuple[int, ...]) -> Ints:
    """Zero points such that they broadcast against `shape`."""
    if not isinstance(element, QType):
        return _ZERO
    return laid_out(element, element.zero_point, shape).astype(np.int64)


_ZERO: Ints = np.zeros((), dtype=np.int64)


def _at(values: npt.NDArray[Any], shape: tuple[int, ...], at: Ints) -> npt.NDArray[Any]:
    """`values`, broadcast to `shape`, at flat indices."""
    return np.broadcast_to(values, shape).ravel()[at]


def _decided(r: Reals, error: Floats, tie: TieRule, zero_point: Ints, count: FilterCount) -> tuple[Ints, Ints, Ints]:
    """Lowest and highest admissible integers, and the correctly rounded ones, decided exactly."""
    elements = count.elements
    down, up = r.nearest(count)
    count.elements = elements  # counted with all others already
    even = _even(down, up, _ZERO)
    first, last = _by_tie_rule(down, up, even, tie, zero_point)
    # Where the kernel rounds before the final rounding, what its error reaches is admissible; the float64 sums are
    # widened by more than their own rounding.
    margin = r.error + error + (np.abs(r.approx) + error + 1.0) * _SLACK
    low = np.where(error > 0, np.minimum(round_half_even(r.approx - margin), first), first)
    high = np.where(error > 0, np.maximum(round_half_even(r.approx + margin), last), last)
    return low, high, even


def _admissible_interval(image: Image, error: Floats, tie: TieRule, element: Element, count: FilterCount) -> Admissible:
    """The set of an image of uncertain operands: from the least of its lower to the greatest of its upper bounds."""

    def bound(r: Reals, side: int) -> npt.NDArray[Any]:
        middle, gap = _middle(r)
        at = np.flatnonzero(error >= gap)
        if at.size:
            middle = np.array(middle, order="C")
            zero_point = _at(_zero_points(element, middle.shape), middle.shape, at)
            middle.reshape(-1)[at] = _decided(r.take(at), _at(error, middle.shape, at), tie, zero_point, count)[side]
        return _stored(middle, element)

    return Admissible(bound(image.lower, 0), bound(image.upper, 1), None)


def _even(down: Ints, up: Ints, zero_point: Ints) -> Ints:
    """Of two neighbours (or one integer twice), the one that is even once `zero_point` is added."""
    return np.where((down + zero_point) % 2 == 0, down, up)


def _by_tie_rule(down: Ints, up: Ints, even: Ints, tie: TieRule, zero_point: Ints) -> tuple[Ints, Ints]:
    """What may become of exact ties. The correctly rounded value is never a violation, whatever the rule."""
    match tie:
        case "half_even":
            return even, even
        case "half_even_after_zero_point" | "either_even":
            after = _even(down, up, zero_point)
            return np.minimum(even, after), np.maximum(even, after)
        case "any":
            return down, up


def _admissible_floats(image: Image, contract: Contract, dtype: str, count: FilterCount) -> Admissible:
    """Floating-point results: rounding is monotone, so the rounded ends bound every rounded number between them.

    What is beyond the largest finite number, and does not saturate, is infinite here (see `floats_as_judged`).
    """
    format = FORMATS[dtype]
    saturates = dtype in FLOAT8 and image.saturates

    def stored(x: Floats) -> Floats:
        rounded = nearest(x, format)
        return np.clip(rounded, -format.largest, format.largest) if saturates else rounded

    low = image.lower
    lo, hi = (stored(end) for end in image.ends(contract))
    if not image.is_point:
        return Admissible(lo, hi, None)
    exact = stored(low.approx)
    undecided = np.flatnonzero(stored(low.approx - low.error) != stored(low.approx + low.error))
    count.refined += undecided.size
    certain = np.broadcast_to(image.error(contract) == 0, exact.shape)
    for i in undecided:
        number = _nearest_to(low, int(i), format)
        if number is None:
            certain = certain & (np.arange(exact.size).reshape(exact.shape) != i)
        else:
            exact.reshape(-1)[i] = stored(np.array(number))
    return Admissible(np.where(certain, exact, lo), np.where(certain, exact, hi), exact)


def _nearest_to(r: Reals, i: int, format: Format) -> float | None:
    """The nearest number of `format` to one element, decided exactly; nothing where it does not get narrow enough."""
    bits = 80
    while bits < 2_000:
        a, b = r.refine(i, bits)
        low, high = nearest_exactly(a, format), nearest_exactly(b, format)
        if low == high:
            return low
        bits *= 2
    return None


def floats_as_judged(got: npt.NDArray[Any], allowed: Admissible) -> npt.NDArray[Any]:
    """What was returned as float64: NaN, where the format has it in the place of infinities, as these."""
    values = got.astype(np.float64)
    nan = np.isnan(values)
    if not nan.any():
        return values
    infinite = values if FORMATS[_NAMES[got.dtype]].has_infinity else np.copysign(np.inf, allowed.lo)
    return np.where(nan, np.where(allowed.lo == NAN, NAN, infinite), values)


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _admissible_steps(image: SteppedImage, contract: Contract, element: Element, count: FilterCount) -> Admissible:
    """The set that an operator derives itself."""
    count.elements += image.lower.approx.size
    if isinstance(element, str) and element in FORMATS:
        exact = image.lower.nearest_float(element) if image.is_point else None
        if exact is not None and contract.terms == "exact":
            return Admissible(exact, exact, exact)
        lo, hi = (nearest(b, FORMATS[element]) for b in image.bounds(contract))
        return Admissible(lo, hi, exact)
    lo, hi = image.bounds(contract)
    low = _stored(lo, element)
    high = low if np.array_equal(lo, hi) else _stored(hi, element)
    return Admissible(low, high, _stored(image.lower.approx, element) if image.is_point else None)
