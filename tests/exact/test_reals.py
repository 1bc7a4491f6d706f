"""Rounding is decided exactly: against rationals, next to ties and far from them, whatever the float64 says."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_evaluator import nearest_float32

from qfuzz.exact.combination import Multiplier, Term, combine
from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.exact.rounding import gamma, round_half_even, saturate, split_ties
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.network import Case, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.quantization import Requantize
from qfuzz.oracle.reference import Reference

LAW = settings(
    max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
HALF = Fraction(1, 2)


def neighbours(r: Fraction) -> tuple[int, int]:
    """The nearest integers below and above: two at a tie."""
    return math.ceil(r - HALF), math.floor(r + HALF)


@st.composite
def rationals(draw: st.DrawFn) -> Fraction:
    """A rational: near a tie, at it, or anywhere."""
    half = Fraction(draw(st.integers(-1000, 1000)), 2)
    bits = draw(st.integers(1, 90))
    return half + draw(st.sampled_from([0, 1, -1, 3])) * Fraction(1, 2**bits) / draw(st.sampled_from([1, 3, 255]))


@LAW
@given(st.lists(st.floats(-(2.0**60), 2.0**60), min_size=1, max_size=8))
def test_ties_of_floats_are_seen(values: list[float]) -> None:
    low, high = split_ties(np.array(values))
    assert [(int(a), int(b)) for a, b in zip(low, high, strict=True)] == [neighbours(Fraction(v)) for v in values]
    assert round_half_even(np.array(values)).tolist() == [round(Fraction(v)) for v in values]


@LAW
@given(st.lists(rationals(), min_size=1, max_size=8), st.integers(0, 40))
def test_nearest_is_exact_whatever_the_error_bound(values: list[Fraction], wide: int) -> None:
    """float64 approximations with any honest error bound, refined to intervals only: the same integers."""
    approx = np.array([float(v) for v in values])
    off = np.array([float(abs(Fraction(float(v)) - v)) for v in values])
    error = np.where(off > 0, np.nextafter(off, np.inf), 0.0) + (2.0**-wide if wide else 0.0)
    tied = {i for i, v in enumerate(values) if (2 * v).denominator == 1}

    def refine(i: int, bits: int) -> tuple[Fraction, Fraction]:
        if i in tied:
            return values[i], values[i]
        step = Fraction(1, 2**bits)
        return values[i] - step / 3, values[i] + step / 2

    count = FilterCount()
    low, high = Reals(approx, error, refine).nearest(count)
    assert [(int(a), int(b)) for a, b in zip(low, high, strict=True)] == [neighbours(v) for v in values]
    assert count.elements == len(values)
    assert count.refined <= len(values)


def test_clear_elements_are_not_refined() -> None:
    def refine(i: int, bits: int) -> tuple[Fraction, Fraction]:
        raise AssertionError(f"{i} is clear")

    count = FilterCount()
    low, high = Reals(np.array([0.1, 7.4, -3.2]), np.full(3, 1e-9), refine).nearest(count)
    assert low.tolist() == high.tolist() == [0, 7, -3]
    assert count.refined == 0


def test_clipping_keeps_the_bound() -> None:
    reals = Reals(np.array([-5.0, 0.5, 9.0]), np.zeros(3), lambda i, _: (Fraction((-5, HALF, 9)[i]),) * 2)
    low, high = reals.clip(Fraction(-1, 3), Fraction(17, 2)).nearest(FilterCount())
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == [(0, 0), (0, 1), (8, 9)]
    assert reals.clip(None, None) is reals


@st.composite
def terms(draw: st.DrawFn, n: int) -> tuple[list[Term], list[Fraction]]:
    """Terms of n elements, and what they sum to."""
    made, sums = [], [Fraction(0)] * n
    for _ in range(draw(st.integers(1, 3))):
        values = draw(st.lists(st.integers(-(2**31), 2**31), min_size=n, max_size=n))
        if draw(st.booleans()):
            numerators = np.array(draw(st.floats(2.0**-20, 2.0**20, width=32)), dtype=np.float64)
            denominator = float(draw(st.floats(2.0**-20, 2.0**20, width=32)))
            alone = draw(st.booleans())
            multiplier = Multiplier.ratio(numerators if alone else np.full(n, numerators), denominator)
            m = Fraction(float(numerators)) / Fraction(denominator)
        else:
            m = Fraction(draw(st.integers(-(2**30), 2**30)), draw(st.sampled_from([1, 2, 3, 1024, 7])))
            multiplier = Multiplier.of(m)
        divisor = draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)) if draw(st.booleans()) else None
        divisors = None if divisor is None else np.array(divisor)
        made.append(Term(np.array(values, dtype=np.float64), multiplier, divisors))
        sums = [s + v * m / (divisor[i] if divisor else 1) for i, (s, v) in enumerate(zip(sums, values, strict=True))]
    return made, sums


@LAW
@given(terms(3))
def test_sums_are_within_their_bound_and_exact_where_they_say_so(drawn: tuple[list[Term], list[Fraction]]) -> None:
    made, sums = drawn
    reals = combine(made, (3,))
    for i, s in enumerate(sums):
        assert abs(Fraction(float(reals.approx[i])) - s) <= Fraction(float(reals.error[i]))
        a, b = reals.refine(i, 80)
        assert a <= s <= b


@LAW
@given(st.floats(2.0**-126, 2.0**126), st.sampled_from([1.0, 0.125, 3.0, 1 / 3, 2.0**-40 * 5]) | st.floats(0.001, 9))
def test_one_quotient_is_as_an_array_of_one(numerator: float, denominator: float) -> None:
    one, array = Multiplier.quotient(numerator, denominator), Multiplier.ratio(np.array([numerator]), denominator)
    assert (float(one.approx), one.lsb, one.fraction(0)) == (float(array.approx[0]), array.lsb, array.fraction(0))


@LAW
@given(st.lists(st.integers(-(2**20), 2**20), min_size=2, max_size=2), st.floats(2.0**-10, 2.0**10, width=32))
def test_short_products_are_known_to_be_exact(values: list[int], scale: float) -> None:
    reals = combine([Term(np.array(values, dtype=np.float64), Multiplier.of(Fraction(scale)))], (2,))
    assert not reals.error.any()
    assert [Fraction(float(a)) for a in reals.approx] == [v * Fraction(scale) for v in values]


def test_multipliers_per_channel_are_each_their_own() -> None:
    m = Multiplier.of(Fraction(1, 3), Fraction(2, 7))
    reals = combine([Term(np.array([[3.0, 7.0], [6.0, 14.0]]), m)], (2, 2))
    assert [reals.refine(i, 80)[0] for i in range(4)] == [1, 2, 2, 4]


def test_gamma_and_saturate() -> None:
    assert gamma(0) == 0.0
    assert gamma(4) >= 4 * 2.0**-24
    with pytest.raises(ValueError, match="unbounded"):
        gamma(2.0**24)
    out = saturate(np.array([-300, 5, 300]), -128, 127, "int8")
    assert out.tolist() == [-128, 5, 127]
    assert out.dtype == np.int8


def ties_by_rule(r: Fraction, zero_point: int, rule: TieRule) -> set[int]:
    """What a kernel of that rule may make of real `r`; the correctly rounded value is always admissible."""
    right, after = round(r) + zero_point, round(r + zero_point)
    match rule:
        case "half_even":
            return {right}
        case "half_even_after_zero_point" | "either_even":
            return {right, after}
        case "any":
            return {n + zero_point for n in neighbours(r)}


@pytest.mark.parametrize("rule", ["half_even", "half_even_after_zero_point", "either_even", "any"])
@pytest.mark.parametrize("zero_point", [0, 1, 100, 255])
@pytest.mark.parametrize("scale", [0.5, 1.5, 0.25])
def test_admissible_sets_of_all_256_inputs(rule: TieRule, zero_point: int, scale: float) -> None:
    source, target = QType.per_tensor("uint8", scale, 3), QType.per_tensor("uint8", 1.0, zero_point)
    node = Node("y", Requantize(), ("x",), target)
    network = Network((Input("x", TensorType((256,), source)),), (), (node,), ("y",))
    x = np.arange(256, dtype=np.uint8)
    contract = Contract(terms="exact", k=0, tie=rule, source="here")
    allowed = Reference(Case(network, (Tensor(x),))).node(node, [x], contract)
    assert allowed.exact is not None
    for q in range(256):
        r = (q - 3) * Fraction(scale)
        wanted = {min(max(n, 0), 255) for n in ties_by_rule(r, zero_point, rule)}
        assert (int(allowed.lo[q]), int(allowed.hi[q])) == (min(wanted), max(wanted))
        assert int(allowed.exact[q]) == min(max(round(r) + zero_point, 0), 255)


@pytest.mark.parametrize("k", [1, 4, 100])
def test_what_float32_roundings_reach_is_admissible_and_nothing_else(k: int) -> None:
    """The error of `affine` terms, counted here by hand: k roundings of |s*q| + |s*zp|, over the output scale."""
    scale = 0.5 + 2.0**-20
    source, target = QType.per_tensor("uint8", scale, 200), QType.per_tensor("uint8", 1.0, 128)
    node = Node("y", Requantize(), ("x",), target)
    network = Network((Input("x", TensorType((256,), source)),), (), (node,), ("y",))
    x = np.arange(256, dtype=np.uint8)
    allowed = Reference(Case(network, (Tensor(x),))).node(
        node, [x], Contract(terms="affine", k=k, tie="half_even", source="here")
    )
    for q in range(256):
        r = (q - 200) * Fraction(scale)
        most = Fraction(gamma(k)) * (q + 200 + 128) * 2
        reached = range(neighbours(r - most)[0], neighbours(r + most)[1] + 1)
        assert allowed.lo[q] <= max(0, min(255, round(r) + 128)) <= allowed.hi[q]
        assert set(range(allowed.lo[q], allowed.hi[q] + 1)) <= {max(0, min(255, n + 128)) for n in reached}


@LAW
@given(
    mantissa=st.integers(-(2**24), 2**24),
    exponent=st.integers(-160, 100),
    beside=st.sampled_from((0, 1, -1, 7)),
    wide=st.sampled_from((0, 40, 80)),
)
def test_nearest_float32_rounds_once(mantissa: int, exponent: int, beside: int, wide: int) -> None:
    """Next to the middle of two float32 numbers, a float64 on the way would decide wrongly.

    After a cancellation the bound is `wide`: the end of the interval is then no place to count from.
    """
    x = (Fraction(2 * mantissa + 1, 2) + Fraction(beside, 3 * 2**70)) * Fraction(2) ** exponent
    approx = np.array([float(x)])
    error = np.ldexp(np.spacing(np.abs(approx)), wide)
    reals = Reals(approx, error, lambda i, bits: (x, x))
    assert reals.nearest_float32().tolist() == [nearest_float32(x)]
