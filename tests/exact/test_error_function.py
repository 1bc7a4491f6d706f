"""1 + erf and square roots: enclosed at any precision, and narrow; the float64 filters stay within their margin."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from qfuzz.exact import elementary, error_function

NUMBERS = [Fraction(s * n, d) for s in (1, -1) for n, d in ((1, 10**9), (1, 3), (5, 9), (7, 1), (123, 7), (40, 1))]


def _rational(value: mpmath.mpf) -> Fraction:
    mantissa, exponent = value.man_exp
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


@pytest.mark.parametrize("bits", [60, 300, 1000])
@pytest.mark.parametrize("x", NUMBERS, ids=str)
def test_one_plus_erf_is_enclosed_narrowly(x: Fraction, bits: int) -> None:
    low, high = error_function.one_plus_erf(x, bits)
    context = mpmath.MPContext()
    context.prec = 4 * bits + 10_000
    true = _rational(context.erfc(-context.mpf(x.numerator) / x.denominator / context.sqrt(2)))
    assert 0 < low < true < high < 2
    assert high - low <= Fraction(1, 2**bits)


def test_one_plus_erf_of_0_is_1_and_far_away_it_is_next_to_0_and_2() -> None:
    assert error_function.one_plus_erf(Fraction(0), 80) == (1, 1)
    for x in (Fraction(161), Fraction(10**40)):
        low, high = error_function.one_plus_erf(x, 80)
        assert 2 - Fraction(1, 2**15_000) < low <= high < 2
        low, high = error_function.one_plus_erf(-x, 80)
        assert 0 < low <= high < Fraction(1, 2**15_000)


@pytest.mark.parametrize("bits", [60, 1000])
@pytest.mark.parametrize("x", [Fraction(2), Fraction(1, 3), Fraction(10**40 + 1), Fraction(2, 10**40 + 3)], ids=str)
def test_square_roots_are_enclosed_narrowly(x: Fraction, bits: int) -> None:
    low, high = elementary.square_root(x, bits)
    assert low**2 < x < high**2
    assert high - low <= low * Fraction(1, 2**bits)


@pytest.mark.parametrize("root", [Fraction(1), Fraction(2, 3), Fraction(10**30, 7), Fraction(1, 2**80)], ids=str)
def test_rational_roots_are_themselves(root: Fraction) -> None:
    assert elementary.square_root(root**2, 60) == (root, root)


def test_float64_filter_stays_within_its_margin() -> None:
    xs = np.concatenate([np.linspace(-37.0, 37.0, 75), -np.geomspace(1e-30, 37.0, 40)])
    with mpmath.workprec(2500):
        for x, y in zip(xs.tolist(), error_function.one_plus_erf_float64(xs).tolist(), strict=True):
            exact = mpmath.erfc(-mpmath.mpf(x) / mpmath.sqrt(2))
            assert abs(mpmath.mpf(y) - exact) <= exact * elementary.FILTER_MARGIN / 2, x


def test_root_2_over_pi_is_enclosed() -> None:
    low, high = error_function.root_2_over_pi(500)
    with mpmath.workprec(1200):
        true = _rational(mpmath.sqrt(2 / mpmath.pi))
    assert low < true < high
    assert high - low < Fraction(1, 2**500)
