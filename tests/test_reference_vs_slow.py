"""The exact reference equals the slow evaluator, for every operator and for whole networks."""

import itertools
import math
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from random_cases import RANDOM_CASES, random_case
from slow_evaluator import DEFINITIONS, Values, evaluate, evaluate_on, half_even, indices, nearest_float32

from qfuzz.exact import elementary
from qfuzz.ir.network import Case
from qfuzz.ir.qtype import QType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.oracle.reference import exact_outputs
from qfuzz.strategies.generate import cases_of
from qfuzz.strategies.networks import OF_INT32

CASES_PER_OPERATOR = 150
WIDE_CASES_PER_OPERATOR = 40
CASES_FROM_STRATEGIES = 100
SAMPLE = 40


def test_every_operator_has_a_slow_definition() -> None:
    assert set(DEFINITIONS) == set(OPERATOR_NAMES)
    assert set(RANDOM_CASES) == set(OPERATOR_NAMES)


def _differences(case: Case) -> list[str]:
    fast, slow = exact_outputs(case), evaluate(case)
    return [d for n in case.network.nodes for d in _node_differences(n.name, fast[n.name], slow[n.name])]


def _node_differences(name: str, fast: np.ndarray, slow: Values) -> list[str]:
    if fast.shape != slow.shape:
        return [f"{name}: shape {fast.shape}, slowly {slow.shape}"]
    pairs = zip(indices(slow.shape), fast.ravel().tolist(), slow.stored, strict=True)
    return [f"{name}{list(i)}: {a}, slowly {b}" for i, a, b in pairs if a != b and not (a != a and b != b)]


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_reference_equals_slow_evaluator(op: str) -> None:
    for seed in range(CASES_PER_OPERATOR):
        case = random_case(op, seed)
        assert _differences(case) == [], f"{op}, seed {seed}: {case}"


@pytest.mark.parametrize("op", OF_INT32)
def test_reference_equals_slow_evaluator_on_int32(op: str) -> None:
    for seed in range(WIDE_CASES_PER_OPERATOR):
        case = random_case(op, seed, wide=True)
        assert _differences(case) == [], f"{op}, seed {seed}: {case}"


def test_reference_equals_slow_evaluator_on_drawn_networks() -> None:
    """Each node on what it received, at a sample of its elements: drawn networks are large, and many near ties."""
    nodes, elements = 0, 0
    for number, case in enumerate(itertools.islice(cases_of(2024, 1), CASES_FROM_STRATEGIES)):
        outputs = exact_outputs(case)
        feeds = {name: t.array for name, t in case.feeds.items()}
        chooser = random.Random(number)
        for node in case.network.nodes:
            received = [feeds.get(i, outputs.get(i)) for i in node.inputs]
            slow = evaluate_on(case.network, node, received)
            fast = outputs[node.name]
            assert fast.shape == slow.shape, f"case {number}, {node}"
            everything = list(indices(fast.shape)) if fast.size <= SAMPLE else None
            sample = everything or [
                tuple(chooser.randrange(d) for d in fast.shape) for _ in range(SAMPLE if fast.size else 0)
            ]
            for index in sample:
                right = slow.correct(index)
                same = fast[index] == right or (right != right and np.isnan(fast[index]))
                assert same, f"case {number}, {node} at {index}: {fast[index]}, slowly {right}"
            nodes, elements = nodes + 1, elements + len(sample)
    assert nodes > CASES_FROM_STRATEGIES
    assert elements > 3_000


def test_excess_measures_from_the_nearest_tie() -> None:
    case = random_case("requantize", 3)
    (node,) = case.network.nodes
    assert isinstance(node.element, QType)
    result = evaluate_on(case.network, node, [t.array for t in case.inputs])
    for index in indices(result.shape):
        right = result.correct(index)
        assert isinstance(right, int)
        assert result.excess(index, right) == 0
        for other in (right - 2, right + 2):
            if node.element.qmin <= other <= node.element.qmax and node.element.qmin < right < node.element.qmax:
                assert 1 <= result.excess(index, other) <= 2


@pytest.mark.parametrize("x", [Fraction(n, 8) for n in range(-36, 37, 3)])
def test_half_even_is_pythons_round(x: Fraction) -> None:
    assert half_even(x) == round(x)


def test_nearest_float32_is_numpys() -> None:
    numbers = [
        0.1,
        -1e-40,
        3.4028235e38,
        3.4028236e38,
        -1e39,
        1e-46,
        2.0**24 + 1,
        2.0**24 + 3,
        -(2.0**-150),
        2.0**-149 * 1.5,
    ]
    with np.errstate(over="ignore", under="ignore"):
        assert [nearest_float32(Fraction(x)) for x in numbers] == [float(np.float32(x)) for x in numbers]


@pytest.mark.parametrize("bits", [60, 200, 1000])
@pytest.mark.parametrize("name", ["exp", "expm1", "sigmoid", "tanh"])
def test_enclosures_hold_the_function_and_are_narrow(name: str, bits: int) -> None:
    context = mpmath.MPContext()
    context.prec = 3 * bits + 200
    functions = {
        "exp": context.exp,
        "expm1": context.expm1,
        "tanh": context.tanh,
        "sigmoid": lambda v: 1 / (1 + context.exp(-v)),
    }
    for x in (Fraction(-1, 10**9), Fraction(-1, 3), Fraction(-7), Fraction(-123, 7), Fraction(5, 9), Fraction(40)):
        if name == "expm1" and x > 0:
            continue
        low, high = getattr(elementary, name)(x, bits)
        value = functions[name](context.mpf(x.numerator) / x.denominator)
        mantissa, exponent = abs(value).man_exp
        true = Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (1 if value > 0 else -1)
        assert low < true < high
        assert high - low <= max(1, abs(true)) * Fraction(1, 2 ** (bits - 8))


@pytest.mark.parametrize(("name", "value"), [("exp", 1), ("expm1", 0), ("sigmoid", Fraction(1, 2)), ("tanh", 0)])
def test_enclosures_are_exact_where_the_function_is_rational(name: str, value: Fraction) -> None:
    assert getattr(elementary, name)(Fraction(0), 80) == (value, value)


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (np.exp, mpmath.exp),
        (np.expm1, mpmath.expm1),
        (np.tanh, mpmath.tanh),
        (elementary.sigmoid_float64, lambda v: 1 / (1 + mpmath.exp(-v))),
    ],
)
def test_float64_filters_stay_within_their_margin(fast: object, slow: object) -> None:
    """A hundredth of the margin is the most that this machine's library uses."""
    xs = -np.exp(np.linspace(math.log(1e-30), math.log(700.0), 300))
    xs = np.concatenate([xs, -xs[xs > -300]])
    with mpmath.workprec(400):
        for x, y in zip(xs.tolist(), fast(xs).tolist(), strict=True):  # type: ignore[operator]
            exact = slow(mpmath.mpf(x))  # type: ignore[operator]
            assert abs(mpmath.mpf(y) - exact) <= abs(exact) * elementary.FILTER_MARGIN / 100, x
