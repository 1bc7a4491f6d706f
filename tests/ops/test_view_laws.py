"""Laws of views that turn, shuffle, window or mirror; of sorting; of filling; of a concatenation with a relu."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ops.activation import Relu
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.ops.movement import Concat, ConcatRelu, Pad, Slice
from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.selection import Where
from qfuzz.ops.views import ChannelShuffle, Flip, ReflectionPad, Unfold

X = QType.per_tensor("uint8", 0.5, 7)


@LAW
@given(data=st.data())
def test_flipping_twice_is_nothing(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    axes = tuple(data.draw(st.sets(st.integers(-len(shape), -1))))
    once = apply(Flip(axes=axes), [(x, q)], q)
    assert np.array_equal(apply(Flip(axes=axes), [(once, q)], q), x)
    assert np.array_equal(np.sort(once, axis=None), np.sort(x, axis=None))


@LAW
@given(data=st.data())
def test_shuffling_by_the_other_factor_undoes_it(data: st.DataObject) -> None:
    q, a, b = data.draw(qtypes()), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    x = data.draw(stored(q, (2, a * b, 2)))
    shuffled = apply(ChannelShuffle(groups=a), [(x, q)], q)
    assert np.array_equal(apply(ChannelShuffle(groups=b), [(shuffled, q)], q), x)
    assert np.array_equal(shuffled[:, :a], x[:, ::b]), "one channel of each group first"


@LAW
@given(data=st.data())
def test_windows_are_slices(data: st.DataObject) -> None:
    shape, q = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    axis = data.draw(st.integers(0, len(shape) - 1))
    size, step = data.draw(st.integers(1, shape[axis])), data.draw(st.integers(1, 2))
    y = np.moveaxis(apply(Unfold(axis=axis, size=size, step=step), [(x, q)], q), axis, 0)
    for i, window in enumerate(y):
        start = i * step
        part = apply(Slice(axis=axis, start=start, stop=start + size), [(x, q)], q)
        assert np.array_equal(np.moveaxis(part, axis, -1), window)


@LAW
@given(data=st.data())
def test_a_reflection_is_the_image_turned_round(data: st.DataObject) -> None:
    q, n = data.draw(qtypes()), data.draw(st.integers(1, 5))
    x = data.draw(stored(q, (2, 1, n)))
    before, after = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    y = apply(ReflectionPad(padding=(before, after)), [(x, q)], q)
    turned = apply(Flip(axes=(2,)), [(x, q)], q)
    assert np.array_equal(y[..., before : before + n], x)
    assert np.array_equal(y[..., :before], turned[..., n - 1 - before : n - 1])
    assert np.array_equal(y[..., before + n :], turned[..., 1 : 1 + after])


@LAW
@given(data=st.data())
def test_the_first_k_of_a_sort_are_the_top_k(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    axis, largest = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.booleans())
    k = data.draw(st.integers(0, shape[axis]))
    y = apply(Sort(axis=axis, descending=largest), [(x, q)], q)
    assert np.array_equal(np.sort(x, axis=axis), np.sort(y, axis=axis))
    assert np.array_equal(
        apply(Topk(k=k, axis=axis - len(shape), largest=largest), [(x, q)], q),
        apply(Slice(axis=axis, start=0, stop=k), [(y, q)], q),
    )


@LAW
@given(data=st.data())
def test_what_is_filled_is_the_number_quantized(data: st.DataObject) -> None:
    """Everywhere, or where a mask, indices or padding say; the rest is what `where`, nothing, or `pad` make of it."""
    shape, q, out = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    value = data.draw(st.integers(-40, 600)) / 2 * out.scale[0]
    value = float(np.float32(value))
    number = apply(Quantize(), [(np.array([value]), "float32")], out)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=x.size, max_size=x.size)), dtype=bool).reshape(shape)
    y = apply(MaskedFill(value=value), [(x, q), (mask, "bool")], out)
    kept = apply(Where(), [(x, q), (x, q), (mask, "bool")], out)
    assert np.array_equal(y, np.where(mask, number, kept))
    rows = data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=2))
    put = kept.copy()
    put[rows] = number
    assert np.array_equal(apply(IndexPut(value=value, indices=tuple(rows)), [(x, q)], out), put)
    padding = tuple(data.draw(st.integers(0, 2)) for _ in (*shape, *shape))
    zeros = apply(Pad(padding=padding), [(x, q)], out)
    assert np.array_equal(apply(ConstantPad(value=0.0, padding=padding), [(x, q)], out), zeros)
    padded = apply(ConstantPad(value=value, padding=padding), [(x, q)], out)
    inside = tuple(slice(b, b + n) for b, n in zip(padding, shape, strict=False))
    assert np.array_equal(padded[inside], kept)
    padded[inside] = number
    assert (padded == number).all()


@LAW
@given(data=st.data())
def test_a_fused_relu_clips_the_concatenation(data: st.DataObject) -> None:
    shape, q, out = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    plain = apply(Concat(axis=0), [(x, q), (x, q)], out)
    assert np.array_equal(apply(ConcatRelu(axis=0), [(x, q), (x, q)], out), apply(Relu(), [(plain, out)], out))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Flip(axes=(0, -4)), "names an axis of rank 4 twice"),
        (ChannelShuffle(groups=4), "divides the 6 channels"),
        (ChannelShuffle(groups=0), "groups: 0"),
        (Unfold(axis=2, size=6), "needs 0 <= size <= 5"),
        (Unfold(axis=2, size=2, step=0), "step in 1"),
        (ReflectionPad(padding=(5, 0, 0, 0)), r"needs 0..4 for a dimension of 5"),
        (ReflectionPad(padding=(1, 1)), "two values for each spatial dimension"),
        (Topk(k=6, axis=2), "k: 6; needs 0..5"),
        (Sort(axis=4), "axis: 4"),
        (IndexPut(value=0.1, indices=(0,)), "value: 0.1; needs a finite float32"),
        (IndexPut(value=1.0, indices=(2,)), "indices"),
        (ConstantPad(value=float("inf"), padding=(0,) * 8), "value: inf"),
        (ConstantPad(value=2.0**-140, padding=(0,) * 8), "outside the normal range"),
    ],
)
def test_a_broken_attribute_is_named(op: Operator, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((2, 6, 5, 5), X)], X)
