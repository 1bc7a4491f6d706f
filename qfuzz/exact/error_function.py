"""The error function, enclosed: 1 + erf(x / sqrt 2), twice the normal distribution, for rational x at any precision.

erf(x / sqrt 2) = sqrt(2 / pi) e^(-x^2 / 2) sum over k >= 0 of x^(2k + 1) / (2k + 1)!! (DLMF 7.6.2), whose terms are all
positive for x > 0: in fixed point each is rounded down for a lower bound and up for an upper one. Once the quotient of
neighbours, x^2 / (2k + 3), is below 1/2, what is left out is less than the last term taken in.

Far from 0 the series is long, and seldom asked for: 1 - erf(x / sqrt 2) is less than e^(-x^2 / 2) (DLMF 7.8.3), so than
2^(-0.72 x^2), and more than 2^(-x^2 - 8).
"""

import math
from fractions import Fraction

import mpmath
import numpy as np

from qfuzz.exact.elementary import Enclosure, exp, raw_fraction, tiny
from qfuzz.exact.rounding import Floats

_FAR = 160
"""From here on 1 - erf(x / sqrt 2) is below 2^-18,000."""


def root_2_over_pi(bits: int) -> Enclosure:
    """Rational bounds of sqrt(2 / pi)."""
    context = mpmath.ctx_iv.MPIntervalContext()
    context.prec = bits + 32
    low, high = context.sqrt(2 / context.pi)._mpi_
    return raw_fraction(low), raw_fraction(high)


def one_plus_erf(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds, 2^-bits apart, of 1 + erf(x / sqrt 2): within 0..2, neither 0 nor 2 themselves."""
    if x == 0:
        return Fraction(1), Fraction(1)
    if x > 0:
        a, b = one_plus_erf(-x, bits)
        return 2 - b, 2 - a
    if -x >= _FAR:
        return tiny(), tiny()
    squared = x * x
    smaller, larger = 72 * squared // 100, math.ceil(squared) + 8
    if smaller >= bits:
        return Fraction(1, 1 << larger), Fraction(1, 1 << smaller)
    a, b = _erf(-x, bits + larger)
    return 1 - b, 1 - a


def _erf(x: Fraction, bits: int) -> Enclosure:
    """Rational bounds, 2^-bits apart, of erf(x / sqrt 2) for x > 0."""
    places = bits + int(x * x) + 32  # the sum is below e^(x^2 / 2) sqrt(pi / 2)
    one = 1 << places
    squared = x * x
    down, up = _floor(x, one), -_floor(-x, one)
    low, high, k = down, up, 0
    while up > 1 or 2 * squared >= 2 * k + 3:
        down = down * squared.numerator // (squared.denominator * (2 * k + 3))
        up = -(-up * squared.numerator // (squared.denominator * (2 * k + 3)))
        low, high, k = low + down, high + up, k + 1
    factor_low, factor_high = root_2_over_pi(places)
    power_low, power_high = exp(-squared / 2, places)
    return (
        Fraction(low, one) * factor_low * power_low,
        Fraction(high + up, one) * factor_high * power_high,
    )


def _floor(x: Fraction, one: int) -> int:
    return x.numerator * one // x.denominator


def one_plus_erf_float64(x: Floats) -> Floats:
    """Within `elementary.FILTER_MARGIN` of 1 + erf(x / sqrt 2), until that is below 1e-300.

    erfc is the C library's. Its argument is off by 2 roundings, which erfc multiplies by at most x^2 + 1, below 1,400.
    """
    return np.array([math.erfc(-v * math.sqrt(0.5)) for v in x.ravel().tolist()]).reshape(x.shape)


def erf_float64(x: Floats) -> Floats:
    """erf(x / sqrt 2), to a few roundings of float64."""
    return np.array([math.erf(v * math.sqrt(0.5)) for v in x.ravel().tolist()]).reshape(x.shape)
