"""Laws of concat, reshape, flatten, transpose, slice, pad: elements move, none is made or lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.quantization import Requantize

X = QType.per_tensor("uint8", 0.5, 7)
MOVED = ("reshape", "flatten", "transpose", "slice", "pad", "concat")


def _moved(data: st.DataObject, name: str, shape: tuple[int, ...]) -> Operator:
    """An operator of that name that fits `shape`."""
    rank = len(shape)
    axis = data.draw(st.integers(0, rank - 1))
    match name:
        case "reshape":
            return Reshape(shape=data.draw(st.sampled_from((shape[::-1], (int(np.prod(shape)),), (1, *shape)))))
        case "flatten":
            return Flatten(start_axis=axis)
        case "transpose":
            return Transpose(perm=tuple(data.draw(st.permutations(range(rank)))))
        case "slice":
            start = data.draw(st.integers(0, shape[axis]))
            stop = data.draw(st.integers(start, shape[axis]))
            return Slice(axis=axis, start=start, stop=stop, step=data.draw(st.integers(1, 3)))
        case "pad":
            return Pad(padding=tuple(data.draw(st.integers(0, 2)) for _ in range(2 * rank)))
        case _:
            return Concat(axis=axis)


@pytest.mark.parametrize("name", MOVED)
@LAW
@given(data=st.data())
def test_moving_then_requantizing_is_moving_to_that_type(name: str, data: st.DataObject) -> None:
    shape, q, out = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    op = _moved(data, name, shape)
    moved = apply(op, [(x, q)], q)
    assert np.array_equal(apply(Requantize(), [(moved, q)], out), apply(op, [(x, q)], out))


@LAW
@given(data=st.data())
def test_concat_of_slices_is_the_whole(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    axis = data.draw(st.integers(0, len(shape) - 1))
    cut = data.draw(st.integers(0, shape[axis]))
    x = data.draw(stored(q, shape))
    ends = ((0, cut), (cut, shape[axis]))
    parts = [apply(Slice(axis=axis, start=a, stop=b), [(x, q)], q) for a, b in ends]
    assert np.array_equal(apply(Concat(axis=axis), [(p, q) for p in parts], q), x)


@LAW
@given(data=st.data())
def test_concat_requantizes_each_input_by_its_own_type(data: st.DataObject) -> None:
    shape, out = data.draw(shapes), data.draw(qtypes())
    axis = data.draw(st.integers(0, len(shape) - 1))
    types = data.draw(st.lists(qtypes(), min_size=1, max_size=3))
    parts = [(data.draw(stored(q, shape)), q) for q in types]
    expected = np.concatenate([apply(Requantize(), [p], out) for p in parts], axis=axis)
    assert np.array_equal(apply(Concat(axis=axis), parts, out), expected)


@LAW
@given(data=st.data())
def test_transpose_back_is_the_whole(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    there = apply(Transpose(perm=perm), [(x, q)], q)
    assert np.array_equal(there, x.transpose(perm))
    assert np.array_equal(apply(Transpose(perm=tuple(np.argsort(perm).tolist())), [(there, q)], q), x)


@LAW
@given(data=st.data())
def test_padding_is_the_zero_point_around_the_whole(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    n = len(shape)
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(2 * n))
    y = apply(Pad(padding=padding), [(x, q)], q)
    inner = tuple(slice(padding[i], padding[i] + d) for i, d in enumerate(shape))
    assert np.array_equal(y[inner], x)
    around = np.ones(y.shape, dtype=bool)
    around[inner] = False
    assert (y[around] == q.zero_point[0]).all()


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Reshape(shape=(5,)), r"reshape 'y': shape: \(5,\)"),
        (Reshape(shape=(-1, 6)), r"shape: \(-1, 6\)"),
        (Flatten(start_axis=2), r"start_axis: 2; needs 0\.\.1"),
        (Transpose(perm=(0, 0)), r"perm: \(0, 0\)"),
        (Slice(axis=2, start=0, stop=1), r"axis: 2; needs 0\.\.1"),
        (Slice(axis=1, start=2, stop=1), "start, stop, step: 2, 1, 1"),
        (Slice(axis=1, start=0, stop=4), "stop <= 3"),
        (Slice(axis=1, start=0, stop=1, step=0), "step in 1"),
        (Slice(axis=1, start=0, stop=1, step=2**70), "step in 1"),
        (Pad(padding=(0, 0)), "needs 4 values"),
        (Pad(padding=(0, 0, 0, -9)), "leaves out more than the . elements of dimension 1"),
        (Pad(padding=(0, 0, 0, 2**70)), "at most"),
        (Concat(axis=2), r"axis: 2; needs 0\.\.1"),
    ],
)
def test_a_broken_attribute_is_named(op: Operator, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((2, 3), X)], X)


def test_concat_names_the_input_that_does_not_fit() -> None:
    with pytest.raises(InvalidCase, match=r"concat 'y': input 1: shape \(3, 3\)"):
        network_of(Concat(axis=1), [((2, 3), X), ((3, 3), X)], X)
