"""Sums of integer arrays times rational multipliers, the form that every linear quantized operator takes.

`r = sum_k n_k * m_k / d_k` with n_k exact in float64, m_k rationals (one, or one per channel), d_k positive integer
counts. The float64 evaluation is exact, and known to be, when every product and sum fits into 53 bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.qtype import float32

_U64 = 2.0**-53


@dataclass(frozen=True)
class Multiplier:
    """Rational multipliers laid out to broadcast against a value array.

    Attributes
    ----------
    approx
        Nearest float64 of each, of a shape that broadcasts against the value; ``()`` is one multiplier for all.
    lsb
        A power of two that divides every multiplier, all of which are float64 then; 0 where none is known.
    fraction
        The multiplier at a flat index.
    """

    approx: Floats
    lsb: float
    fraction: Callable[[int], Fraction] = field(repr=False)

    @classmethod
    def of(cls, *fractions: Fraction) -> "Multiplier":
        """One rational for all, or, given several, one per index of a leading axis."""
        approx = np.array([float(f) for f in fractions])
        exact = all(Fraction(float(f)) == f for f in fractions)
        lsb = min((_lowest_bit(f) for f in fractions if f), default=1.0) if exact else 0.0
        return cls(approx.reshape(()) if len(fractions) == 1 else approx, lsb, fractions.__getitem__)

    @classmethod
    def quotient(cls, numerator: float, denominator: float) -> "Multiplier":
        """``numerator / denominator`` for all: `ratio` of one number, which NumPy would take ten times as long for."""
        approx = numerator / denominator
        short = float32(approx) == approx and approx * denominator == numerator
        lsb = _lsb(approx) if short or math.frexp(denominator)[0] == 0.5 else 0.0
        return cls(np.array(approx), lsb, lambda _: Fraction(numerator) / Fraction(denominator))

    @classmethod
    def exactly(cls, values: Floats) -> "Multiplier":
        """Multipliers that are what their float64 say."""
        return cls(values, array_lsb(values), lambda i: Fraction(float(np.ravel(values)[i])))

    @classmethod
    def reciprocal(cls, values: Floats) -> "Multiplier":
        """``1 / values``."""
        if values.ndim == 0:
            return cls.quotient(1.0, float(values))
        approx = np.asarray(1.0 / values)
        dyadic = bool((np.frexp(values)[0] == 0.5).all())
        lsb = array_lsb(approx) if dyadic else 0.0
        return cls(approx, lsb, lambda i: 1 / Fraction(float(np.ravel(values)[i])))

    @classmethod
    def ratio(cls, numerators: Floats, denominator: float) -> "Multiplier":
        """``numerators / denominator``, without a single rational until one is asked for.

        Parameters
        ----------
        numerators
            float64 that are exact (a product of two float32 numbers is).
        """
        if numerators.ndim == 0:
            return cls.quotient(float(numerators), denominator)
        approx = np.asarray(numerators / denominator)
        # A quotient of at most 24 bits times a float32 is exact in float64, so that this comparison is proof.
        with np.errstate(over="ignore"):
            short = approx.astype(np.float32) == approx
        exact = math.frexp(denominator)[0] == 0.5 or bool((short & (approx * denominator == numerators)).all())
        lsb = array_lsb(approx) if exact else 0.0

        def fraction(i: int) -> Fraction:
            return Fraction(float(np.ravel(numerators)[i])) / Fraction(denominator)

        return cls(approx, lsb, fraction)

    def at(self, index: tuple[int, ...]) -> Fraction:
        """The multiplier that applies to the element at `index`."""
        shape = self.approx.shape
        if not shape:
            return self.fraction(0)
        return self.fraction(int(np.ravel_multi_index(_own(index, shape), shape)))


def _lowest_bit(dyadic: Fraction) -> float:
    numerator = abs(dyadic.numerator)
    return float(Fraction(numerator & -numerator, dyadic.denominator))


@dataclass(frozen=True)
class Term:
    """`values * multiplier / divisor`; `values` are float64 that hold their numbers exactly.

    `are_integers` says that they are known to be integers; else that is looked up where it matters.
    """

    values: Floats
    multiplier: Multiplier
    divisor: npt.NDArray[np.int64] | None = None
    are_integers: bool = False


def product_terms(a: Floats, b: Floats, multiplier: Multiplier) -> list[Term]:
    """Terms whose sum is ``a * b * multiplier``, for integers `a` and `b` of 33 bits each with their signs.

    Float64 holds products of 53 bits: beyond, `a` is taken apart as ``high * 2^16 + low``.
    """
    product = a * b
    if float(np.abs(product).max(initial=0.0)) < 2.0**53:
        return [Term(product, multiplier, are_integers=True)]
    high = np.floor(a / 2.0**16)
    shifted = Multiplier(
        multiplier.approx * 2.0**16, multiplier.lsb * 2.0**16, lambda i: multiplier.fraction(i) * 2**16
    )
    return [
        Term(high * b, shifted, are_integers=True),
        Term((a - high * 2.0**16) * b, multiplier, are_integers=True),
    ]


def combine(terms: Sequence[Term], shape: tuple[int, ...]) -> Reals:
    """The sum of `terms` as `Reals` of `shape`.

    The error bound is (3 per product + 1 per sum) roundings of the sum of magnitudes: each m_k is within u of its
    float64, each product and quotient and each partial sum adds one u = 2^-53 (Higham, section 3.1); doubled for slack.
    """
    total = magnitude = np.zeros(())
    lsb = np.inf
    for number, t in enumerate(terms):
        undivided = product = t.values * t.multiplier.approx
        if t.divisor is not None:
            product = product / t.divisor
        total = product if number == 0 else total + product
        magnitude = np.abs(product) if number == 0 else magnitude + np.abs(product)
        lsb = min(lsb, value_lsb(t) * t.multiplier.lsb) if t.multiplier.lsb and lsb else 0.0
    if total.shape != shape:
        total, magnitude = np.broadcast_to(total, shape), np.broadcast_to(magnitude, shape)
    if lsb > 0.0 and float(magnitude.max(initial=0.0)) / lsb < 2.0**53:
        error = np.zeros(shape)
    else:
        error = magnitude * (2.0 * (3 + len(terms)) * _U64)
        if len(terms) == 1 and terms[0].divisor is not None:
            error = np.where(_divides(terms[0], np.asarray(undivided), total), 0.0, error)

    def refine(i: int, bits: int) -> Bounds:
        index = tuple(int(j) for j in np.unravel_index(i, shape)) if shape else ()
        r = Fraction(0)
        for t in terms:
            value = Fraction(float(t.values[_own(index, t.values.shape)])) * t.multiplier.at(index)
            if t.divisor is not None:
                value /= int(t.divisor[_own(index, t.divisor.shape)])
            r += value
        return r, r

    return Reals(total, error, refine)


def _divides(term: Term, product: Floats, quotient: Floats) -> npt.NDArray[np.bool_]:
    """Where the float64 `quotient` is known to be the term's value: means of equal scales, whose ties are many.

    `product` is the term's before it is divided.
    """
    lsb = array_lsb(term.values) * term.multiplier.lsb if term.multiplier.lsb else 0.0
    assert term.divisor is not None
    if not lsb or float(np.abs(product).max(initial=0.0)) / lsb >= 2.0**53 or term.divisor.max(initial=1) >= 2**29:
        return np.zeros(quotient.shape, bool)
    # A quotient of at most 24 bits times a divisor of 29 is exact in float64, so that this comparison is proof.
    with np.errstate(over="ignore"):
        short = quotient.astype(np.float32) == quotient
    return np.asarray(short & (quotient * term.divisor == product))


def _own(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where an array of `shape` that is broadcast holds the element at `index`."""
    return tuple(0 if n == 1 else i for i, n in zip(index[len(index) - len(shape) :], shape, strict=True))


def value_lsb(term: Term) -> float:
    """A power of two that divides all values of a term after division, or 0 where float64 has none."""
    lsb = 1.0 if term.are_integers else array_lsb(term.values)
    if term.divisor is None:
        return lsb
    if (term.divisor & (term.divisor - 1)).any():
        return 0.0
    return lsb / int(term.divisor.max(initial=1))


def array_lsb(values: Floats) -> float:
    """Lowest set bit over all values: 1 for integers below 2^32 (a cheap bound), exact for others."""
    if values.ndim == 0:
        return _lsb(float(values))
    if (values == np.rint(values)).all() and float(np.abs(values).max(initial=0.0)) < 2.0**32:
        return 1.0
    mantissa, exponent = np.frexp(values[values != 0.0])
    integers = (mantissa * 2.0**53).astype(np.int64)
    return float(np.ldexp((integers & -integers).astype(np.float64), exponent - 53).min())


def _lsb(value: float) -> float:
    """`array_lsb` of one number."""
    if value.is_integer() and abs(value) < 2.0**32:
        return 1.0
    mantissa, exponent = math.frexp(value)
    integer = int(mantissa * 2.0**53)
    return math.ldexp(float(integer & -integer), exponent - 53)
