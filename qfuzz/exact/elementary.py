"""Certified elementary functions: float64 values to filter with, rational enclosures to decide with.

The filters come from NumPy, whose float64 exp and tanh are within a few ulps (glibc's and SVML's published bounds are
below 4); `FILTER_MARGIN` claims only 2^-40 relatively, 2^12 ulps. Enclosures come from mpmath's interval arithmetic at
any precision. For a rational x other than 0 all of these are transcendental (Lindemann), so that growing precision
always decides on which side of a rational boundary they lie.
"""

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

from qfuzz.exact.rounding import Floats

FILTER_MARGIN = 2.0**-40
"""Relative error that is granted to NumPy's float64 functions."""

_FAR = 14_000
_TINY = Fraction(1, 2**20_000)
"""Stands for exp(x) below x = -14,000: no boundary, a rational of a few hundred bits, is so close to 0 or 1."""

Enclosure = tuple[Fraction, Fraction]


def exp(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds of e^x for x <= 14,000."""
    if x == 0:
        return Fraction(1), Fraction(1)
    if x < -_FAR:
        return _TINY, _TINY
    if x > _FAR:
        raise ValueError(f"exp({float(x)}) is beyond what a boundary can ask for")
    context = mpmath.ctx_iv.MPIntervalContext()
    context.prec = bits + 32
    low, high = context.exp(context.mpf(x.numerator) / context.mpf(x.denominator))._mpi_
    return raw_fraction(low), raw_fraction(high)


def expm1(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds of e^x - 1 for x <= 0, to about 2^-bits absolutely."""
    a, b = exp(x, bits)
    return a - 1, b - 1


def sigmoid(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds of 1/(1 + e^-x)."""
    if x > 0:
        a, b = sigmoid(-x, bits)
        return 1 - b, 1 - a
    a, b = exp(x, bits)
    return a / (1 + a), b / (1 + b)


def tanh(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds of tanh x, to about 2^-bits absolutely."""
    a, b = sigmoid(2 * x, bits)
    return 2 * a - 1, 2 * b - 1


def sigmoid_float64(x: Floats) -> Floats:
    """Within `FILTER_MARGIN` of the sigmoid."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def tiny() -> Fraction:
    """Stands for a positive number that is closer to 0 than any boundary but 0 itself."""
    return _TINY


def square_root(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds of the root of x > 0, to about 2^-bits relatively; the root itself where it is rational."""
    under = x.numerator * x.denominator  # sqrt(p / q) is sqrt(p q) / q
    root = math.isqrt(under)
    if root * root == under:
        return Fraction(root, x.denominator), Fraction(root, x.denominator)
    places = max(bits + 2 - under.bit_length() // 2, 0)
    root = math.isqrt(under << 2 * places)
    unit = x.denominator << places
    return Fraction(root, unit), Fraction(root + 1, unit)


def raw_fraction(raw: Any) -> Fraction:
    """The rational that mpmath's raw floating-point number is."""
    sign, mantissa, exponent, _ = raw
    value = Fraction(int(mantissa)) * (Fraction(2) ** int(exponent))
    return -value if sign else value
