"""Laws of layer_norm, instance_norm, group_norm and batch_norm."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, qtypes, stored

from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.reference import exact_outputs

X = QType.per_tensor("uint8", 0.5, 7)
Y = QType.per_tensor("int8", 0.25, 3)
EPSILONS = st.sampled_from((float32(1e-5), float32(1e-12), 1.0, 3.0))
DOUBLE = Contract(terms="real", k=9, tie="half_even", source="test")
SINGLE = Contract(terms="real", k=9, tie="half_even", source="test", accumulates_float=True)
UPDATED = Contract(terms="real", k=9, tie="half_even", source="test", accumulates_float=True, exact_mean=True)
APART = Contract(terms="real", k=9, tie="half_even", source="test", accumulates_float=True, distributes=True)


def network(op: Operator, x: TensorType, out: Element, *parameters: tuple[Array, Element]) -> Network:
    """One node with its scale and bias."""
    constants = tuple(Constant(f"c{i}", TensorType(a.shape, e), Tensor(a)) for i, (a, e) in enumerate(parameters))
    names = ("x", *(c.name for c in constants))
    return Network((Input("x", x),), constants, (Node("y", op, names, out),), ("y",))


def apply(op: Operator, x: Array, q: QType, out: QType, *parameters: tuple[Array, Element]) -> Array:
    """The correctly rounded output."""
    return exact_outputs(Case(network(op, TensorType(x.shape, q), out, *parameters), (Tensor(x),)))["y"]


def _floats(data: st.DataObject, shape: tuple[int, ...]) -> Array:
    n = int(np.prod(shape))
    steps = data.draw(st.lists(st.integers(-64, 64), min_size=n, max_size=n))
    return (np.array(steps, dtype=np.float32) / np.float32(data.draw(st.sampled_from((32.0, 7.0))))).reshape(shape)


def _drawn(data: st.DataObject, *shape: int) -> tuple[Array, QType, QType]:
    q = data.draw(qtypes())
    return data.draw(stored(q, shape)), q, data.draw(qtypes())


@LAW
@given(data=st.data())
def test_the_zero_point_of_x_does_not_matter(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 3, 5)
    other = QType.per_tensor(q.dtype, q.scale[0], data.draw(st.integers(q.qmin, q.qmax)))
    op = LayerNorm(axis=1, epsilon=data.draw(EPSILONS))
    weight, bias = ((_floats(data, (5,)), "float32") for _ in range(2))
    assert np.array_equal(apply(op, x, q, out, weight, bias), apply(op, x, other, out, weight, bias))  # type: ignore[arg-type]


@LAW
@given(data=st.data())
def test_permuted_elements_give_permuted_results(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 6)
    op = LayerNorm(axis=1, epsilon=data.draw(EPSILONS))
    weight, bias = _floats(data, (6,)), _floats(data, (6,))
    perm = data.draw(st.permutations(range(6)))
    straight = apply(op, x, q, out, (weight, "float32"), (bias, "float32"))
    turned = apply(op, x[:, perm], q, out, (weight[perm], "float32"), (bias[perm], "float32"))
    assert np.array_equal(turned, straight[:, perm])


@LAW
@given(data=st.data())
def test_a_negative_scale_is_the_mirrored_result(data: st.DataObject) -> None:
    x, q, _ = _drawn(data, 2, 6)
    out = QType.per_tensor("int8", data.draw(qtypes()).scale[0], 0)
    op = LayerNorm(axis=1, epsilon=data.draw(EPSILONS))
    weight, bias = _floats(data, (6,)), _floats(data, (6,))
    one = apply(op, x, q, out, (weight, "float32"), (bias, "float32")).astype(int)
    other = apply(op, x, q, out, (-weight, "float32"), (-bias, "float32")).astype(int)
    assert np.array_equal(np.clip(one, -127, 127), -np.clip(other, -127, 127))


@LAW
@given(data=st.data())
def test_equal_elements_leave_the_bias(data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = np.full((2, 7), data.draw(st.integers(q.qmin, q.qmax)), dtype=q.dtype)
    weight, bias = _floats(data, (7,)), _floats(data, (7,))
    got = apply(LayerNorm(axis=1, epsilon=data.draw(EPSILONS)), x, q, out, (weight, "float32"), (bias, "float32"))
    nodes = (Node("y", Quantize(), ("b",), out),)
    quantize = Network((Input("b", TensorType((7,), "float32")),), (), nodes, ("y",))
    assert np.array_equal(got, np.tile(exact_outputs(Case(quantize, (Tensor(bias),)))["y"], (2, 1)))


@LAW
@given(data=st.data())
def test_a_missing_bias_is_a_bias_of_0(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 5)
    op = LayerNorm(axis=0, epsilon=data.draw(EPSILONS))
    weight, none = (_floats(data, (2, 5)), "float32"), (np.zeros((2, 5), np.float32), "float32")
    assert np.array_equal(apply(op, x, q, out, weight), apply(op, x, q, out, weight, none))  # type: ignore[arg-type]


@LAW
@given(data=st.data())
def test_instance_norm_is_layer_norm_of_each_channel(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 3, 2, 3)
    epsilon = data.draw(EPSILONS)
    weight, bias = _floats(data, (3,)), _floats(data, (3,))
    wide: Any = [(a.reshape(3, 1, 1), "float32") for a in (weight, bias)]
    instance = apply(InstanceNorm(epsilon=epsilon), x, q, out, (weight, "float32"), (bias, "float32"))
    assert np.array_equal(instance, apply(LayerNorm(axis=2, epsilon=epsilon), x, q, out, *wide))


@LAW
@given(data=st.data())
def test_group_norm_is_instance_norm_of_single_channels_and_layer_norm_of_all(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 3, 2, 3)
    epsilon = data.draw(EPSILONS)
    parameters: Any = [(_floats(data, (3,)), "float32") for _ in range(data.draw(st.integers(0, 2)))]
    wide: Any = [(a.reshape(3, 1, 1), e) for a, e in parameters]
    single = apply(GroupNorm(groups=3, epsilon=epsilon), x, q, out, *parameters)
    assert np.array_equal(single, apply(InstanceNorm(epsilon=epsilon), x, q, out, *parameters))
    one = apply(GroupNorm(groups=1, epsilon=epsilon), x, q, out, *parameters)
    assert np.array_equal(one, apply(LayerNorm(axis=1, epsilon=epsilon), x, q, out, *wide))


@LAW
@given(data=st.data())
def test_no_scale_is_a_scale_of_one(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 3, 4)
    op = LayerNorm(axis=1, epsilon=data.draw(EPSILONS))
    assert np.array_equal(apply(op, x, q, out), apply(op, x, q, out, (np.ones(4, np.float32), "float32")))


@LAW
@given(data=st.data())
def test_batch_norm_of_mean_0_and_deviation_1_scales_and_shifts(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 3, 2)
    zero, relu = np.zeros(3, np.float32), data.draw(st.booleans())
    weight, bias = _floats(data, (3,)), _floats(data, (3,))
    got = apply(BatchNorm(epsilon=1.0, relu=relu), x, q, out, *((a, "float32") for a in (weight, bias, zero, zero)))
    for c in range(3):
        for index in np.ndindex(2, 2):
            stored_x = int(x[index[0], c, index[1]])
            real = (stored_x - q.zero_point[0]) * Fraction(q.scale[0]) * Fraction(float(weight[c]))
            real = real + Fraction(float(bias[c]))
            real = max(real, Fraction(0)) if relu else real
            expected = round(real / Fraction(out.scale[0])) + out.zero_point[0]
            assert got[index[0], c, index[1]] == min(max(expected, out.qmin), out.qmax)


@LAW
@given(data=st.data())
def test_quantized_parameters_are_the_numbers_they_stand_for(data: st.DataObject) -> None:
    x, q, out = _drawn(data, 2, 4)
    q = QType.per_tensor(q.dtype, 2.0 ** data.draw(st.integers(-6, 3)), q.zero_point[0])
    q_w = QType.per_tensor("int8", 2.0**-5, data.draw(st.integers(-128, 127)))
    stored_w = data.draw(stored(q_w, (4,)))
    counts = np.array(data.draw(st.lists(st.integers(-999, 999), min_size=4, max_size=4)), dtype=np.int32)
    weight = ((stored_w.astype(int) - q_w.zero_point[0]) * q_w.scale[0]).astype(np.float32)
    bias = (counts * (q.scale[0] * q_w.scale[0])).astype(np.float32)
    op = LayerNorm(axis=1)
    plain = apply(op, x, q, out, (weight, "float32"), (bias, "float32"))
    assert np.array_equal(apply(op, x, q, out, (stored_w, q_w), (counts, "int32")), plain)
    assert np.array_equal(apply(op, x, q, out, (stored_w, q_w), (bias, "float32")), plain)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4, -1e7])
@pytest.mark.parametrize("n", [1, 3, 16, 50])
def test_enclosures_hold_the_approximation_of_any_numbers(n: int, offset: float) -> None:
    """Stored integers, and float32 numbers, whose sums float64 rounds."""
    rng = np.random.default_rng(n)
    unit = QType.per_tensor("uint8", 1.0, 0)
    for row in (rng.integers(0, 256, n), (rng.normal(0, 1, n) + offset).astype(np.float32)):
        operands = [Operand.point(TensorType((1, n), unit), row.reshape(1, n))]
        operands += [Operand.point(TensorType((n,), "float32"), rng.normal(0, 9, n).astype(np.float32))] * 2
        r = LayerNorm(axis=1, epsilon=float32(1e-12)).image(operands, unit).lower
        for i in range(n):
            low, high = r.refine(i, 200)
            assert Fraction(r.approx[0, i]) - Fraction(r.error[0, i]) <= low
            assert high <= Fraction(r.approx[0, i]) + Fraction(r.error[0, i])
            assert n == 1 or offset < -1e6 or r.error[0, i] < 1e-6


def _error(x: Array, contract: Contract, epsilon: float, scale: float = 0.3) -> float:
    q = QType.per_tensor("uint8", float32(scale), 0)
    ones = Operand.point(TensorType((x.size,), "float32"), np.ones(x.size, np.float32))
    image = LayerNorm(axis=1, epsilon=float32(epsilon)).image(
        [Operand.point(TensorType((1, x.size), q), x.reshape(1, -1)), ones], QType.per_tensor("uint8", 1.0, 0)
    )
    return float(image.error(contract).max())


def test_contracts_admit_what_their_arithmetic_may_do() -> None:
    spread = np.array([0, 255, 0, 255, 10, 200, 3, 90])
    near = np.array([250, 251, 250, 251, 252, 250, 251, 250])
    for x in (spread, near):
        assert 0 < _error(x, DOUBLE, 1e-5) < _error(x, SINGLE, 1e-5) < _error(x, APART, 1e-5)
    assert _error(near, SINGLE, 1e-5) > 20 * _error(spread, SINGLE, 1e-5)  # the mean is large against the deviation


def test_equal_elements_are_off_by_the_mean_over_the_root_of_epsilon() -> None:
    """Where nothing but the mean's rounding is left; and by nothing where float32 holds all of it."""
    equal = np.full(8, 200)
    assert _error(equal, SINGLE, 1e-12) > 100 * _error(equal, SINGLE, 1e-5) > 0
    assert _error(equal, SINGLE, 1e-12, scale=0.25) == 0
    assert _error(equal, APART, 1e-12, scale=0.25) > 0
    assert _error(equal, UPDATED, 1e-12) == 0


ONES: tuple[Array, Element] = (np.ones(3, np.float32), "float32")


@pytest.mark.parametrize(
    ("op", "shape", "parameters", "message"),
    [
        (LayerNorm(axis=2), (2, 3), [ONES], r"axis: 2; needs 0\.\.1"),
        (LayerNorm(axis=1), (2, 4), [ONES], r"scale: shape \(3,\) does not broadcast to \(2, 4\)"),
        (LayerNorm(axis=1), (3,), [ONES], r"axis: 1; needs 0\.\.0"),
        (LayerNorm(axis=0), (3,), [(np.ones((1, 3), np.float32), "float32")], r"scale: shape \(1, 3\)"),
        (LayerNorm(axis=1), (2, 3), [ONES, (np.ones(2, np.float32), "float32")], r"bias: shape \(2,\)"),
        (LayerNorm(axis=1), (3, 0), [(np.ones(1, np.float32), "float32")], "the mean of no elements is undefined"),
        (LayerNorm(axis=1, epsilon=0.0), (2, 3), [ONES], r"epsilon: 0\.0; needs a float32 in"),
        (LayerNorm(axis=1, epsilon=1e-5), (2, 3), [ONES], "epsilon: 1e-05; needs a float32 in"),
        (LayerNorm(axis=1), (2, 3), [ONES, (np.ones(3, np.int32), "int32")], "int32 is in units"),
        (
            LayerNorm(axis=1, epsilon=2.0**-20),
            (2, 3),
            [(np.full(3, FLOAT32_MAX, np.float32), "float32")],
            "scale, bias: products with them leave the range of float32",
        ),
        (InstanceNorm(), (2, 3), [ONES, ONES], r"x: shape \(2, 3\); needs \[N, C, \.\.\.\]"),
        (InstanceNorm(), (2, 4, 5), [ONES, ONES], r"scale: shape \(3,\); needs \(4,\), one for each channel"),
        (InstanceNorm(), (2, 3, 5), [ONES] * 3, "4 inputs; it takes 1 to 3"),
        (GroupNorm(groups=2), (2, 3, 5), [ONES, ONES], "groups: 2; needs a divisor of the channels"),
        (BatchNorm(), (2, 3), [ONES] * 3, "4 inputs; it takes 5"),
        (BatchNorm(), (3,), [ONES] * 4, r"x: shape \(3,\); needs \[N, C, \.\.\.\]"),
        (BatchNorm(), (2, 4), [ONES] * 4, "scale: float32 of shape"),
        (BatchNorm(), (2, 3), [*[ONES] * 3, (-np.ones(3, np.float32), "float32")], "a variance of at least 0"),
    ],
)
def test_what_does_not_fit_is_named(op: Operator, shape: Any, parameters: Any, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network(op, TensorType(shape, X), Y, *parameters)


def test_squares_that_leave_float32_are_named() -> None:
    huge = QType.per_tensor("uint8", 2.0**70, 0)
    with pytest.raises(InvalidCase, match="squares"):
        network(LayerNorm(axis=1), TensorType((2, 3), huge), Y, ONES)
