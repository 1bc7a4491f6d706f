"""Laws of linear_fp16: of its weights, next to NumPy's float16, and of its products."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.half_weights import LinearFp16
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.check import judge

Array = np.ndarray[Any, Any]
KERNEL = Contract(terms="real", k=1, tie="half_even", source="test", accumulates_float=True)
REAL: Element = "float32"
halves = st.floats(-65504, 65504, width=16).map(np.float32)
floats = st.floats(-(2.0**20), 2.0**20, width=32).map(np.float32)


def _allowed(x: Array, w: Array, *, relu: bool = False) -> Admissible:
    operands = [Operand.point(TensorType(a.shape, REAL), a.astype(np.float32)) for a in (x, w)]
    return admissible(LinearFp16(relu=relu).image(operands, REAL), KERNEL, REAL, FilterCount())


def _exact(x: Array, w: Array, *, relu: bool = False) -> Array:
    exact = _allowed(x, w, relu=relu).exact
    assert exact is not None
    return exact


def _matrix(draw: Any, elements: st.SearchStrategy[Any], shape: tuple[int, int]) -> Array:
    n = shape[0] * shape[1]
    return np.array(draw(st.lists(elements, min_size=n, max_size=n)), dtype=np.float32).reshape(shape)


@LAW
@given(w=floats)
def test_a_weight_is_the_nearest_float16_or_the_largest(w: np.float32) -> None:
    (got,) = _exact(np.ones((1, 1)), np.full((1, 1), w)).ravel()
    assert got == np.float32(np.float16(np.clip(w, -65504, 65504)))


@pytest.mark.parametrize(
    ("weight", "kept"),
    [
        (1 + 2.0**-11, 1.0),
        (1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (2.0**-25, 0.0),
        (3 * 2.0**-25, 2.0**-23),
        (65520.0, 65504.0),
        (-1e30, -65504.0),
    ],
)
def test_ties_go_to_even_and_what_is_beyond_saturates(weight: float, kept: float) -> None:
    for sign in (1, -1):
        assert _exact(np.ones((1, 1)), np.full((1, 1), sign * weight)).tolist() == [[sign * kept]]


@LAW
@given(data=st.data())
def test_weights_that_are_float16_lose_nothing(data: st.DataObject) -> None:
    x, w = _matrix(data.draw, floats, (2, 3)), _matrix(data.draw, halves, (4, 3))
    products = x.astype(np.float64)[:, None] * w.astype(np.float64)[None]
    error = np.abs(_exact(x, w) - products.sum(axis=-1))
    assert (error <= 2.0**-23 * np.abs(products).sum(axis=-1) + 2.0**-149).all()


@LAW
@given(data=st.data())
def test_float32_sums_in_any_order_are_admissible(data: st.DataObject) -> None:
    x, w = _matrix(data.draw, floats, (2, 5)), _matrix(data.draw, halves, (3, 5))
    for order in (np.arange(5), np.arange(5)[::-1]):
        total = np.zeros((2, 3), dtype=np.float32)
        for k in order:
            total = total + x[:, k : k + 1] * w[:, k]
        assert judge(total, _allowed(x, w))[0].violation == 0
        assert judge(np.maximum(total, np.float32(0)), _allowed(x, w, relu=True))[0].violation == 0


def test_unrounded_weights_are_a_violation() -> None:
    w = np.array([[1 + 2.0**-11]], dtype=np.float32)
    assert judge(w, _allowed(np.ones((1, 1)), w))[0].violation == 1


def test_types_are_checked() -> None:
    op, x, w = LinearFp16(), TensorType((2, 3), REAL), TensorType((4, 3), REAL)
    assert op.infer([x, w], REAL) == (2, 4)
    with pytest.raises(InvalidCase, match="linear_fp16 has float32 only"):
        op.infer([x, w], QType.per_tensor("uint8", 1.0, 0))
    with pytest.raises(InvalidCase, match=r"needs \[M, 3\]"):
        op.infer([x, TensorType((4, 2), REAL)], REAL)
    with pytest.raises(InvalidCase, match=r"bias: shape \(3,\)"):
        op.infer([x, w, TensorType((3,), REAL)], REAL)
