"""Sums of integer arrays times rational multipliers, the form that every linear quantized operator takes.

`r = sum_k n_k * m_k / d_k` with n_k exact in float64, m_k rationals (one, or one per channel), d_k positive integer
counts. The float64 evaluation is exact, and known to be, when every product and sum fits into 53 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats

_U64 = 2.0**-53


@dataclass(frozen=True)
class Multiplier:
    """Rational multipliers laid out to broadcast against a value array.

    Attributes
    ----------
    fractions
        Flat, in the order of `shape`.
    shape
        A shape that broadcasts against the value; ``()`` is one multiplier for all.
    """

    fractions: tuple[Fraction, ...]
    shape: tuple[int, ...] = ()

    @cached_property
    def approx(self) -> Floats:
        """Nearest float64 of each."""
        return np.array([float(f) for f in self.fractions]).reshape(self.shape)

    @cached_property
    def is_exact(self) -> bool:
        """Whether every multiplier is a float64."""
        return all(Fraction(float(f)) == f for f in self.fractions)

    @cached_property
    def lsb(self) -> float:
        """A power of two that divides every multiplier, or 0 where there is none that float64 can use."""
        if not self.is_exact:
            return 0.0
        return min((_lowest_bit(f) for f in self.fractions if f), default=1.0)

    def at(self, index: tuple[int, ...], rank: int) -> Fraction:
        """The multiplier that applies to the element at `index` of an array of `rank` dimensions."""
        if not self.shape:
            return self.fractions[0]
        padded = (1,) * (rank - len(self.shape)) + self.shape
        own = tuple(0 if n == 1 else i for i, n in zip(index, padded, strict=True))
        return self.fractions[int(np.ravel_multi_index(own, padded))]


def _lowest_bit(dyadic: Fraction) -> float:
    numerator = abs(dyadic.numerator)
    return float(Fraction(numerator & -numerator, dyadic.denominator))


@dataclass(frozen=True)
class Term:
    """`values * multiplier / divisor`; `values` are float64 that hold their numbers exactly."""

    values: Floats
    multiplier: Multiplier
    divisor: npt.NDArray[np.int64] | None = None


def combine(terms: Sequence[Term], shape: tuple[int, ...]) -> Reals:
    """The sum of `terms` as `Reals` of `shape`.

    The error bound is (3 per product + 1 per sum) roundings of the sum of magnitudes: each m_k is within u of its
    float64, each product and quotient and each partial sum adds one u (Higham, section 3.1), u = 2^-53; doubled for slack.
    """
    total = np.zeros(shape)
    magnitude = np.zeros(shape)
    lsb = np.inf
    for t in terms:
        product = t.values * t.multiplier.approx
        if t.divisor is not None:
            product = product / t.divisor
        total = total + product
        magnitude = magnitude + np.abs(product)
        lsb = min(lsb, value_lsb(t) * t.multiplier.lsb)
    if lsb > 0.0 and (magnitude.size == 0 or float(magnitude.max()) / lsb < 2.0**53):
        error = np.zeros(shape)
    else:
        error = magnitude * (2.0 * (3 + len(terms)) * _U64)
    rank = len(shape)

    def refine(i: int, bits: int) -> tuple[Fraction, Fraction]:
        index = tuple(int(j) for j in np.unravel_index(i, shape)) if shape else ()
        r = Fraction(0)
        for t in terms:
            value = Fraction(float(np.broadcast_to(t.values, shape)[index])) * t.multiplier.at(index, rank)
            if t.divisor is not None:
                value /= int(np.broadcast_to(t.divisor, shape)[index])
            r += value
        return r, r

    return Reals(total, error, refine)


def value_lsb(term: Term) -> float:
    """A power of two that divides all values of a term after division, or 0 where there is none that float64 can use."""
    lsb = _array_lsb(term.values)
    if term.divisor is None:
        return lsb
    largest = int(term.divisor.max(initial=1))
    if any(d & (d - 1) for d in np.unique(term.divisor).tolist()):
        return 0.0
    return lsb / largest


def _array_lsb(values: Floats) -> float:
    """Lowest set bit over all values: 1 for integers (a cheap bound), exact for others."""
    if (values == np.rint(values)).all():
        return 1.0
    mantissa, exponent = np.frexp(values[values != 0.0])
    integers = (mantissa * 2.0**53).astype(np.int64)
    return float(np.ldexp((integers & -integers).astype(np.float64), exponent - 53).min())
