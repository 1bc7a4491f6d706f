"""Laws of add_scalar, mul_scalar, compare, threshold, prelu, celu and std."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Celu, Elu, Relu
from qfuzz.ops.comparison import Compare, CompareScalar, Relation
from qfuzz.ops.deviation import Std
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.scalar import AddScalar, MulScalar
from qfuzz.ops.threshold import Threshold
from qfuzz.oracle.reference import exact_outputs

Q = QType.per_tensor("uint8", 0.5, 128)
OPPOSITES: tuple[tuple[Relation, Relation], ...] = (("eq", "ne"), ("lt", "ge"), ("le", "gt"))


def drawn(data: st.DataObject, *shape: int, dyadic: bool = False) -> tuple[Any, QType]:
    q = data.draw(qtypes(dyadic=dyadic))
    return data.draw(stored(q, shape)), q


@LAW
@given(data=st.data())
def test_the_type_that_add_scalar_derives_moves_integers_only_where_it_must(data: st.DataObject) -> None:
    x, q = drawn(data, 7)
    op = AddScalar(other=float32(data.draw(st.integers(-1000, 1000)) / 3 * q.scale[0]))
    out = op.derived(q).qtype(q)
    y = apply(op, [(x, q)], out).astype(int)
    if out.scale == q.scale:
        assert np.array_equal(y, x)
    else:
        assert out.scale > q.scale
        assert out.zero_point[0] in (q.qmin, q.qmax)
        assert (np.abs(np.diff(np.sort(y))) <= np.diff(np.sort(x.astype(int))) + 1).all()


@LAW
@given(data=st.data(), sign=st.sampled_from((1.0, -1.0)))
def test_the_type_that_mul_scalar_derives_keeps_or_mirrors_integers(data: st.DataObject, sign: float) -> None:
    x, q = drawn(data, 7)
    op = MulScalar(other=float32(sign * data.draw(st.integers(1, 999)) / 7))
    y = apply(op, [(x, q)], op.derived(q).qtype(q)).astype(int)
    assert np.array_equal(y, x if sign > 0 else q.qmin + q.qmax - x.astype(int))


@LAW
@given(data=st.data(), opposite=st.sampled_from(OPPOSITES))
def test_a_relation_holds_where_its_opposite_does_not(data: st.DataObject, opposite: tuple[Relation, Relation]) -> None:
    (a, q_a), (b, q_b) = drawn(data, 2, 3), drawn(data, 3)
    yes, no = (apply(Compare(relation=r), [(a, q_a), (b, q_b)], "bool") for r in opposite)
    assert yes.dtype == np.bool_
    assert np.array_equal(yes, ~no)


@LAW
@given(data=st.data())
def test_equal_types_compare_as_their_integers(data: st.DataObject) -> None:
    a, q = drawn(data, 6)
    b = data.draw(stored(q, (6,)))
    assert np.array_equal(apply(Compare(relation="lt"), [(a, q), (b, q)], "bool"), a < b)
    zero = CompareScalar(relation="gt", other=0.0)
    assert np.array_equal(apply(zero, [(a, q)], "bool"), a.astype(int) > q.zero_point[0])


@LAW
@given(data=st.data())
def test_threshold_and_prelu_of_nothing_are_relu(data: st.DataObject) -> None:
    x, q = drawn(data, 2, 3)
    relu = apply(Relu(), [(x, q)], q)
    assert np.array_equal(apply(Threshold(threshold=0.0, value=0.0), [(x, q)], q), relu)
    slope = QType.per_tensor("int8", 1.0, 7)
    c = Constant("w", TensorType((1,), slope), Tensor(np.array([7], np.int8)))
    node = Node("y", Prelu(), ("x", "w"), q)
    case = Case(Network((Input("x", TensorType((2, 3), q)),), (c,), (node,), ("y",)), (Tensor(x),))
    assert np.array_equal(exact_outputs(case)["y"], relu)


@LAW
@given(data=st.data())
def test_celu_of_1_is_elu(data: st.DataObject) -> None:
    x, q = drawn(data, 9)
    out = data.draw(qtypes())
    assert np.array_equal(apply(Celu(), [(x, q)], out), apply(Elu(), [(x, q)], out))


@LAW
@given(data=st.data())
def test_std_ignores_a_shift_and_follows_the_scale(data: st.DataObject) -> None:
    x, q = drawn(data, 3, 4)
    op = Std(axes=(1,), correction=data.draw(st.sampled_from((0, 1))))
    moved = QType.per_tensor(q.dtype, q.scale[0], data.draw(st.integers(q.qmin, q.qmax)))
    assert np.array_equal(apply(op, [(x, q)], Q), apply(op, [(x, moved)], Q))
    assert (apply(op, [(x[:, :1].repeat(4, axis=1), q)], Q) == Q.zero_point[0]).all()


@pytest.mark.parametrize(
    ("op", "shapes", "out", "message"),
    [
        (AddScalar(other=2.0**30), [(3,)], Q, "other: .*; at most"),
        (MulScalar(other=1e-5), [(3,)], Q, "other: 1e-05; needs a finite float32"),
        (Compare(), [(3,), (2,)], "bool", "do not broadcast"),
        (Compare(), [(3,), (3,)], Q, "output: needs bool"),
        (Threshold(threshold=float("inf"), value=0.0), [(3,)], Q, "threshold: inf; needs a finite float32"),
        (Celu(alpha=0.0), [(3,)], Q, "alpha: 0.0; needs more than 0"),
        (Elu(scale=-1.0), [(3,)], Q, "scale: -1.0; needs more than 0"),
        (Std(axes=(0,), correction=3), [(3,)], Q, "correction: 3; needs 0 at least, and less than the 3 elements"),
        (Std(axes=(1, 0)), [(3, 2)], Q, r"axes: \(1, 0\); needs ascending axes"),
    ],
)
def test_what_does_not_fit_is_named(op: Operator, shapes: Any, out: Element, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [(s, Q) for s in shapes], out)
