"""Laws of sub, div, minimum, maximum and where."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Relu
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.reference import exact_outputs

Array = np.ndarray[Any, Any]
UNIT = QType.per_tensor("int8", 1.0, 0)
PAIRS: tuple[type[ExactOperator], ...] = (Sub, Div, Minimum, Maximum)


def pair(data: st.DataObject, shape: tuple[int, ...], other: tuple[int, ...]) -> list[tuple[Array, Element]]:
    a, b = data.draw(qtypes()), data.draw(qtypes())
    return [(data.draw(stored(a, shape)), a), (data.draw(stored(b, other)), b)]


def zero_of(q: QType, shape: tuple[int, ...] = ()) -> tuple[Array, Element]:
    return np.full(shape, q.zero_point[0], dtype=q.dtype), q


@pytest.mark.parametrize("op", PAIRS)
@LAW
@given(data=st.data())
def test_ranks_broadcast(op: type[ExactOperator], data: st.DataObject) -> None:
    """An operand of fewer dimensions, or of sizes of 1, is as if it was repeated."""
    shape, out = data.draw(shapes), data.draw(qtypes())
    other = tuple(1 if data.draw(st.booleans()) else n for n in shape)[data.draw(st.integers(0, len(shape))) :]
    (x, a), (y, b) = pair(data, shape, other)
    repeated = np.broadcast_to(y, shape)
    assert np.array_equal(apply(op(), [(x, a), (y, b)], out), apply(op(), [(x, a), (repeated, b)], out))
    assert np.array_equal(apply(op(), [(y, b), (x, a)], out), apply(op(), [(repeated, b), (x, a)], out))


@LAW
@given(data=st.data())
def test_sub_undoes_add_and_turns_with_its_operands(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    (x, a), (y, b) = pair(data, shape, shape)
    out = data.draw(qtypes())
    assert np.array_equal(apply(Sub(), [(x, a), zero_of(data.draw(qtypes()))], out), apply(Requantize(), [(x, a)], out))
    itself = apply(Sub(), [(x, a), (x, a)], out)
    assert (itself == out.zero_point[0]).all()
    centered = QType.per_tensor("int8", out.scale[0], 0)
    there, back = apply(Sub(), [(x, a), (y, b)], centered), apply(Sub(), [(y, b), (x, a)], centered)
    assert np.array_equal(there.clip(-127), -(back.clip(-127)))


@LAW
@given(data=st.data())
def test_sub_is_add_of_the_negated(data: st.DataObject) -> None:
    """Of int8 with zero point 0, the negated number is stored, too, but for -128."""
    shape, out = data.draw(shapes), data.draw(qtypes())
    (x, a), (y, b) = pair(data, shape, shape)
    b = QType.per_tensor("int8", b.scale[0], 0)  # type: ignore[union-attr]
    y = np.maximum(y.astype(np.int64) % 256 - 128, -127).astype(np.int8)
    assert np.array_equal(apply(Sub(), [(x, a), (y, b)], out), apply(Add(), [(x, a), (-y, b)], out))


@LAW
@given(data=st.data())
def test_div_by_one_by_itself_and_by_a_power_of_two(data: st.DataObject) -> None:
    shape, out = data.draw(shapes), data.draw(qtypes())
    q = data.draw(qtypes())
    x = data.draw(stored(q, shape))
    one = np.ones((), dtype=np.int8)
    assert np.array_equal(apply(Div(), [(x, q), (one, UNIT)], out), apply(Requantize(), [(x, q)], out))
    by_itself = apply(Div(), [(x, q), (x, q)], QType.per_tensor("int8", 0.5, 3))
    assert (by_itself[x != q.zero_point[0]] == 5).all()
    quarter = QType.per_tensor("int8", 0.25, 0)
    by_four = apply(Div(), [(x, q), (np.full((), 4, dtype=np.int8), UNIT)], out)
    assert np.array_equal(by_four, apply(Mul(), [(x, q), (one, quarter)], out))


@LAW
@given(data=st.data())
def test_div_is_the_rounded_quotient_of_integers(data: st.DataObject) -> None:
    """Of equal scales, it is the quotient of what is stored less zero points."""
    shape = data.draw(shapes)
    q, (y, b) = data.draw(qtypes()), pair(data, shape, shape)[1]
    b = QType.per_tensor(b.dtype, q.scale[0], b.zero_point[0])  # type: ignore[union-attr]
    x = data.draw(stored(q, shape))
    out = QType.per_tensor("int8", 2.0 ** data.draw(st.integers(-6, 2)), data.draw(st.integers(-128, 127)))
    got = apply(Div(), [(x, q), (y, b)], out)
    for n, d, stored_y in zip(x.ravel().tolist(), y.ravel().tolist(), got.ravel().tolist(), strict=True):
        n, d = n - q.zero_point[0], d - b.zero_point[0]
        if d:
            rounded = round(Fraction(n, d) / Fraction(out.scale[0])) + out.zero_point[0]
            assert stored_y == min(max(rounded, out.qmin), out.qmax)
        elif n:
            assert stored_y == (out.qmax if n > 0 else out.qmin)


def _set(op: ExactOperator, operands: list[Operand], out: QType, contract: Contract) -> Admissible:
    return admissible(op.image(operands, out), contract, out, FilterCount())


CONTRACTS = [
    Contract(terms=terms, k=k, tie="half_even", source="test")
    for terms, k in (("exact", 0), ("real", 4), ("affine", 8))
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.terms)
@LAW
@given(data=st.data())
def test_div_by_zero_saturates_and_of_zero_by_zero_is_anything(contract: Contract, data: st.DataObject) -> None:
    """Scales are powers of two, so that no affine part of a zero is rounded."""
    a, b, out = (data.draw(qtypes(dyadic=True)) for _ in range(3))
    x = data.draw(stored(a, (5,)))
    operands = [Operand.point(TensorType((5,), a), x), Operand.point(TensorType((), b), zero_of(b)[0])]
    s = _set(Div(), operands, out, contract)
    above, below = x.astype(int) > a.zero_point[0], x.astype(int) < a.zero_point[0]
    assert (s.lo[above] == out.qmax).all() and (s.hi[above] == out.qmax).all()
    assert (s.lo[below] == out.qmin).all() and (s.hi[below] == out.qmin).all()
    neither = ~above & ~below
    assert (s.lo[neither] == out.qmin).all() and (s.hi[neither] == out.qmax).all()


@LAW
@given(data=st.data())
def test_div_by_an_uncertain_divisor_around_zero_is_anything(data: st.DataObject) -> None:
    a, b, out = (data.draw(qtypes()) for _ in range(3))
    x, z = data.draw(stored(a, (4,))), float(b.zero_point[0])
    lo, hi = np.full(4, max(z - 1, b.qmin)), np.full(4, min(z + 1, b.qmax))
    operands = [Operand.point(TensorType((4,), a), x), Operand(TensorType((4,), b), lo, hi)]
    s = _set(Div(), operands, out, CONTRACTS[0])
    assert (s.lo == out.qmin).all() and (s.hi == out.qmax).all()


@pytest.mark.parametrize("op", [Minimum, Maximum])
@LAW
@given(data=st.data())
def test_extremes_commute_and_are_the_extreme_of_both_requantized(
    op: type[Minimum] | type[Maximum], data: st.DataObject
) -> None:
    """Rounding keeps the order of numbers."""
    shape, out = data.draw(shapes), data.draw(qtypes())
    x, y = pair(data, shape, shape[1:])
    got = apply(op(), [x, y], out)
    assert np.array_equal(got, apply(op(), [y, x], out))
    alone = [apply(Requantize(), [v], out) for v in (x, y)]
    assert np.array_equal(got, (np.minimum if op is Minimum else np.maximum)(*alone))


@pytest.mark.parametrize("op", [Minimum, Maximum])
@LAW
@given(data=st.data())
def test_extremes_of_several_are_those_of_pairs(op: type[Minimum] | type[Maximum], data: st.DataObject) -> None:
    """Of one type, so that nothing is rounded between; of one operand it is that operand, requantized."""
    shape, q, out = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes())
    x, y, z = ((data.draw(stored(q, s)), q) for s in (shape, shape[1:], ()))
    pairwise = apply(op(), [(apply(op(), [x, y], q), q), z], out)
    assert np.array_equal(apply(op(), [x, y, z], out), pairwise)
    assert np.array_equal(apply(op(), [z, y, x], out), pairwise)
    assert np.array_equal(apply(op(), [x], out), apply(Requantize(), [x], out))


@LAW
@given(data=st.data())
def test_extremes_with_constants_are_relu_and_clamp(data: st.DataObject) -> None:
    shape, q, out = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    assert np.array_equal(apply(Maximum(), [(x, q), zero_of(q)], out), apply(Relu(), [(x, q)], out))
    six = (np.full((), 6, dtype=np.int8), UNIT)
    wide = QType.per_tensor("int8", 2.0**-4, 0)
    below_six = apply(Minimum(), [(x, q), six], wide)
    least = Clamp(min=-(2.0**20), max=6.0)
    assert np.array_equal(below_six, apply(least, [(x, q)], wide))


@pytest.mark.parametrize("is_constant", [False, True])
@LAW
@given(data=st.data())
def test_where_takes_what_requantize_makes_of_either(is_constant: bool, data: st.DataObject) -> None:
    shape, out = data.draw(shapes), data.draw(qtypes())
    other = tuple(1 if data.draw(st.booleans()) else n for n in shape)
    (x, a), (y, b) = pair(data, shape, other)
    n = int(np.prod(shape[1:]))
    flat = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    condition = np.array(flat, dtype=np.bool_).reshape(shape[1:])
    chosen = TensorType(condition.shape, "bool")
    values = [Input("x", TensorType(x.shape, a)), Input("y", TensorType(y.shape, b))]
    fed = () if is_constant else (Input("c", chosen),)
    kept = (Constant("c", chosen, Tensor(condition)),) if is_constant else ()
    network = Network((*values, *fed), kept, (Node("z", Where(), ("x", "y", "c"), out),), ("z",))
    feeds = [Tensor(v) for v in (x, y, condition)[: 2 if is_constant else 3]]
    got = exact_outputs(Case(network, tuple(feeds)))["z"]
    expected = np.where(condition, *(apply(Requantize(), [v], out) for v in ((x, a), (y, b))))
    assert np.array_equal(got, np.broadcast_to(expected, got.shape))
    assert got.shape == shape


@pytest.mark.parametrize("op", PAIRS)
def test_what_does_not_fit_is_named(op: type[ExactOperator]) -> None:
    tiny, huge = QType.per_tensor("uint8", 2.0**-120, 0), QType.per_tensor("uint8", 2.0**120, 0)
    with pytest.raises(InvalidCase, match=r"inputs: shapes \(2,\) and \(3,\) do not broadcast"):
        network_of(op(), [((2,), UNIT), ((3,), UNIT)], UNIT)
    n_most = op.arity[1]
    with pytest.raises(InvalidCase, match=f"{n_most + 1} inputs; it takes "):
        network_of(op(), [((2,), UNIT)] * (n_most + 1), UNIT)
    with pytest.raises(InvalidCase, match="needs quantized elements, got float32"):
        network_of(op(), [((2,), "float32"), ((2,), UNIT)], UNIT)
    with pytest.raises(InvalidCase, match="needs quantized elements, got bool"):
        network_of(op(), [((2,), UNIT), ((2,), "bool")], UNIT)
    with pytest.raises(InvalidCase, match="outside the normal range of float32"):
        network_of(op(), [((2,), tiny), ((2,), huge)], tiny)
    with pytest.raises(InvalidCase, match="elements; at most"):
        network_of(op(), [((2**13, 1), UNIT), ((1, 2**13), UNIT)], UNIT)


CONDITION = TensorType((2,), "bool")


@pytest.mark.parametrize(
    ("types", "wrong"),
    [
        ([((2,), UNIT), ((2,), UNIT), ((2,), UNIT)], "condition: needs bool elements, got int8"),
        ([((2,), UNIT), ((2,), UNIT), ((3,), "bool")], r"shapes \(2,\) and \(2,\) and \(3,\) do not broadcast"),
        ([((2,), UNIT), ((2,), "bool"), ((2,), "bool")], "needs quantized elements, got bool"),
        ([((2,), UNIT), ((2,), UNIT)], "2 inputs; it takes 3"),
    ],
)
def test_a_condition_that_does_not_fit_is_named(types: list[tuple[tuple[int, ...], Element]], wrong: str) -> None:
    with pytest.raises(InvalidCase, match=wrong):
        network_of(Where(), types, UNIT)


@pytest.mark.parametrize("op", [Relu(), Requantize(), Add()])
def test_a_condition_is_no_activation(op: Operator) -> None:
    others: list[tuple[tuple[int, ...], Element]] = [((2,), UNIT)] if isinstance(op, Add) else []
    with pytest.raises(InvalidCase, match="needs quantized elements, got bool"):
        network_of(op, [((2,), "bool"), *others], UNIT)
    with pytest.raises(InvalidCase, match="output: plain bool"):
        network_of(op, [((2,), UNIT), *others], "bool")
