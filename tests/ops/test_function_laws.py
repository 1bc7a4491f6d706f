"""Laws of gelu and mean."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, image_shapes, network_of, qtypes, shapes, stored

from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import Relu
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.movement import Reshape, Transpose
from qfuzz.ops.pooling import GlobalAvgPool
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.reduction import Mean
from qfuzz.ops.semantics import Operand

FORMS: Any = ("none", "tanh")
X = QType.per_tensor("uint8", 0.5, 7)


def _all(q: QType) -> np.ndarray[Any, Any]:
    return np.arange(q.qmin, q.qmax + 1).astype(q.dtype)


@pytest.mark.parametrize("form", FORMS)
@LAW
@given(data=st.data())
def test_gelu_is_relu_or_less_by_at_most_its_minimum(form: Any, data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = _all(q)
    y, relu = (apply(op, [(x, q)], out).astype(int) for op in (Gelu(approximate=form), Relu()))
    assert (y <= relu).all()
    assert (relu - y <= 0.1701 / out.scale[0] + 1).all()


@pytest.mark.parametrize("form", FORMS)
@LAW
@given(data=st.data())
def test_gelu_falls_to_its_minimum_and_rises_from_there(form: Any, data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = _all(q)
    real = (x.astype(int) - q.zero_point[0]) * q.scale[0]
    steps = np.diff(apply(Gelu(approximate=form), [(x, q)], out).astype(int))
    assert (steps[real[:-1] >= -0.7517] >= 0).all()
    assert (steps[real[1:] <= -0.7528] <= 0).all()


@pytest.mark.parametrize("form", FORMS)
@LAW
@given(data=st.data())
def test_gelu_less_its_mirror_is_the_identity(form: Any, data: st.DataObject) -> None:
    """x F(x) + x F(-x) = x, for both formulas."""
    q = QType.per_tensor("int8", data.draw(qtypes()).scale[0], 0)
    unit = QType.per_tensor("int8", 1.0, 0)
    x = np.arange(-127, 128).astype(np.float64)
    y = Gelu(approximate=form).table(Operand(TensorType(x.shape, q), x, x), unit).lower.approx
    np.testing.assert_allclose(y - y[::-1], x * q.scale[0], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("form", FORMS)
@LAW
@given(data=st.data())
def test_gelus_enclosures_hold_its_approximation(form: Any, data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = _all(q).astype(np.float64)
    r = Gelu(approximate=form).table(Operand(TensorType(x.shape, q), x, x), out).lower
    for i in data.draw(st.lists(st.integers(0, x.size - 1), min_size=1, max_size=8)):
        low, high = r.refine(i, 80)
        assert low - r.error[i] <= r.approx[i] <= high + r.error[i]


def test_what_gelu_adds_keeps_its_roundings_where_it_cancels() -> None:
    """At x = -5, 1 + erf is 6e-7: float32 knows that to some 10 % only, and 2.5 of its roundings are admissible."""
    q = QType.per_tensor("int8", 1.0, 0)
    x = np.array([-5.0])
    image = Gelu().table(Operand(TensorType(x.shape, q), x, x), q)
    contract = Contract(terms="real", k=4, tie="half_even", source="test")
    assert 4 * 2.0**-24 * 5 < image.error(contract)[0] < 5 * 2.0**-24 * 5


@LAW
@given(data=st.data())
def test_mean_of_spatial_axes_is_the_global_average(data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, data.draw(image_shapes)))
    expected = apply(GlobalAvgPool(), [(x, q)], out)
    assert np.array_equal(apply(Mean(axes=(2, 3)), [(x, q)], out), expected)
    dropped = apply(Mean(axes=(2, 3), keepdims=False), [(x, q)], out)
    assert np.array_equal(dropped, expected.reshape(x.shape[:2]))


@LAW
@given(data=st.data())
def test_mean_over_no_axes_is_all_of_them_or_truly_none(data: st.DataObject) -> None:
    q, out, shape = data.draw(qtypes()), data.draw(qtypes()), data.draw(shapes)
    x = data.draw(stored(q, shape))
    none = Mean(axes=(), keepdims=data.draw(st.booleans()), noop_with_empty_axes=True)
    assert np.array_equal(apply(none, [(x, q)], out), apply(Requantize(), [(x, q)], out))
    if x.size:
        every = Mean(axes=tuple(range(x.ndim)))
        assert np.array_equal(apply(Mean(axes=()), [(x, q)], out), apply(every, [(x, q)], out))


@LAW
@given(data=st.data())
def test_mean_goes_with_the_axes(data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple))
    x = data.draw(stored(q, shape))
    perm = tuple(data.draw(st.permutations(range(x.ndim))))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))))
    turned = apply(Transpose(perm=perm), [(x, q)], q)
    moved = tuple(sorted(perm.index(a) for a in axes))
    there = apply(Mean(axes=moved), [(turned, q)], out)
    assert np.array_equal(there, apply(Mean(axes=axes), [(x, q)], out).transpose(perm))


@LAW
@given(data=st.data())
def test_mean_of_equal_elements_is_that_element(data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    one = np.array([[data.draw(st.integers(q.qmin, q.qmax))]], dtype=q.dtype)
    x = np.repeat(one, data.draw(st.integers(1, 40)), axis=1)
    expected = apply(Requantize(), [(one, q)], out)
    assert np.array_equal(apply(Mean(axes=(1,)), [(x, q)], out), expected)
    flat = apply(Reshape(shape=(x.size,)), [(x, q)], q)
    assert np.array_equal(apply(Mean(axes=(0,)), [(flat, q)], out), expected[0])


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ((2,), (2, 3), r"axes: \(2,\); needs ascending axes in 0\.\.1"),
        ((1, 0), (2, 3), r"axes: \(1, 0\); needs ascending"),
        ((0, 0), (2, 3), r"axes: \(0, 0\)"),
        ((0,), (0, 3), r"axes: \(0,\) of shape \(0, 3\); the mean of no elements is undefined"),
        ((), (0, 3), "the mean of no elements"),
    ],
)
def test_axes_that_do_not_fit_are_named(axes: tuple[int, ...], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(Mean(axes=axes), [(shape, X)], X)
