"""Laws of add and mul."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.quantization import Requantize

BINARY = (Add, Mul)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("relu", [False, True])
@LAW
@given(data=st.data())
def test_commutes(op: type[Add] | type[Mul], relu: bool, data: st.DataObject) -> None:
    shape, out = data.draw(shapes), data.draw(qtypes())
    a, b = (data.draw(qtypes()) for _ in range(2))
    x, y = (a, data.draw(stored(a, shape))), (b, data.draw(stored(b, shape[1:])))
    there = apply(op(relu=relu), [(x[1], a), (y[1], b)], out)
    assert np.array_equal(there, apply(op(relu=relu), [(y[1], b), (x[1], a)], out))
    assert there.shape == np.broadcast_shapes(shape, shape[1:])


@pytest.mark.parametrize("op", BINARY)
@LAW
@given(data=st.data())
def test_relu_is_the_larger_of_the_result_and_the_zero_point(op: type[Add] | type[Mul], data: st.DataObject) -> None:
    shape, out = data.draw(shapes), data.draw(qtypes())
    inputs = []
    for _ in range(2):
        q = data.draw(qtypes())
        inputs.append((data.draw(stored(q, shape)), q))
    plain, relu = apply(op(), inputs, out), apply(op(relu=True), inputs, out)
    assert np.array_equal(relu, np.maximum(plain, np.array(out.zero_point[0], dtype=out.dtype)))


@LAW
@given(data=st.data())
def test_adding_zero_and_multiplying_with_one_are_requantize(data: st.DataObject) -> None:
    shape, q, out, other = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    expected = apply(Requantize(), [(x, q)], out)
    zeros = np.full(shape, other.zero_point[0], dtype=other.dtype)
    assert np.array_equal(apply(Add(), [(x, q), (zeros, other)], out), expected)
    unit = QType.per_tensor("uint8", 1.0, 0)
    assert np.array_equal(apply(Mul(), [(x, q), (np.ones(shape, dtype=np.uint8), unit)], out), expected)


@pytest.mark.parametrize("op", BINARY)
def test_what_does_not_fit_is_named(op: type[Add] | type[Mul]) -> None:
    q = QType.per_tensor("uint8", 1.0, 0)
    tiny, huge = QType.per_tensor("uint8", 2.0**-120, 0), QType.per_tensor("uint8", 2.0**120, 0)
    with pytest.raises(InvalidCase, match=r"inputs: shapes \(2,\) and \(3,\) do not broadcast"):
        network_of(op(), [((2,), q), ((3,), q)], q)
    with pytest.raises(InvalidCase, match="1 inputs; it takes 2"):
        network_of(op(), [((2,), q)], q)
    with pytest.raises(InvalidCase, match="needs quantized elements, got float32"):
        network_of(op(), [((2,), "float32"), ((2,), q)], q)
    with pytest.raises(InvalidCase, match="outside the normal range of float32"):
        network_of(op(), [((2,), tiny), ((2,), tiny)], huge)
    with pytest.raises(InvalidCase, match="elements; at most"):
        network_of(op(), [((2**13, 1), q), ((1, 2**13), q)], q)
