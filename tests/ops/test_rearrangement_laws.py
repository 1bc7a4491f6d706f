"""Laws of split, squeeze, unsqueeze, expand, gather, depth_to_space, space_to_depth, argmax."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, image_shapes, network_of, qtypes, shapes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.movement import Concat, Transpose
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.rearrangement import (
    DepthToSpace,
    Expand,
    Gather,
    SpaceToDepth,
    Split,
    Squeeze,
    Unsqueeze,
    equal_parts,
)
from qfuzz.ops.semantics import Operand

X = QType.per_tensor("uint8", 0.5, 7)


@st.composite
def _moves(draw: st.DrawFn) -> tuple[Operator, tuple[int, ...]]:
    """An operator that moves, and a shape that it fits."""
    shape = draw(shapes)
    rank = len(shape)
    axis = draw(st.integers(-rank, rank - 1))
    match draw(st.integers(0, 6)):
        case 0:
            cut = draw(st.integers(0, shape[axis]))
            return Split(axis=axis, sizes=(cut, shape[axis] - cut), index=draw(st.integers(0, 1))), shape
        case 1:
            at = axis % rank
            return Squeeze(axes=(at,)), (*shape[:at], 1, *shape[at:])
        case 2:
            return Unsqueeze(axes=(draw(st.integers(-rank - 1, rank)),)), shape
        case 3:
            return Expand(shape=(2, *shape)), shape
        case 4 if shape[axis]:
            indices = draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), max_size=4))
            return Gather(axis=axis, indices=tuple(indices), indices_shape=(len(indices),)), shape
        case 5:
            n, c, h, w = draw(image_shapes)
            return DepthToSpace(blocksize=2, mode=draw(st.sampled_from(("DCR", "CRD")))), (n, 4 * c, h, w)
        case _:
            n, c, h, w = draw(image_shapes)
            return SpaceToDepth(blocksize=2), (n, c, 2 * h, 2 * w)


@LAW
@given(_moves(), qtypes(), qtypes(), st.data())
def test_moving_then_requantizing_is_moving_to_that_type(
    move: tuple[Operator, tuple[int, ...]], q: QType, out: QType, data: st.DataObject
) -> None:
    op, shape = move
    x = data.draw(stored(q, shape))
    moved = apply(op, [(x, q)], q)
    assert np.isin(moved, x).all()
    assert np.array_equal(apply(Requantize(), [(moved, q)], out), apply(op, [(x, q)], out))


@LAW
@given(data=st.data())
def test_concat_of_all_parts_is_the_whole(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    axis = data.draw(st.integers(0, len(shape) - 1))
    n = data.draw(st.integers(1, 3))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[axis]), min_size=n - 1, max_size=n - 1)))
    sizes = tuple(b - a for a, b in zip((0, *cuts), (*cuts, shape[axis]), strict=True))
    equal = equal_parts(shape[axis], n)
    counted = equal is not None and data.draw(st.booleans())
    sizes = equal if counted and equal else sizes
    x = data.draw(stored(q, shape))
    parts = [apply(Split(axis=axis, sizes=sizes, index=i, counted=counted), [(x, q)], q) for i in range(n)]
    assert np.array_equal(apply(Concat(axis=axis), [(p, q) for p in parts], q), x)
    assert all(np.array_equal(a, b) for a, b in zip(parts, np.split(x, np.cumsum(sizes)[:-1], axis=axis), strict=True))


@LAW
@given(data=st.data())
def test_squeeze_undoes_unsqueeze(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    rank = len(shape) + 2
    axes = tuple(data.draw(st.permutations(range(rank))))[:2]
    axes = (axes[0], axes[1] - rank)
    x = data.draw(stored(q, shape))
    there = apply(Unsqueeze(axes=axes), [(x, q)], q)
    assert np.array_equal(there, np.expand_dims(x, axes))
    assert np.array_equal(apply(Squeeze(axes=axes), [(there, q)], q), x)
    assert np.array_equal(apply(Squeeze(axes=()), [(there, q)], q), x.squeeze())


@LAW
@given(data=st.data())
def test_expand_is_broadcasting_both_ways(data: st.DataObject) -> None:
    wide, q = data.draw(shapes), data.draw(qtypes())
    shape = tuple(data.draw(st.sampled_from((1, n))) for n in wide)
    target = tuple(data.draw(st.sampled_from((1, n) if m == n else (n,))) for m, n in zip(shape, wide, strict=True))
    cut = data.draw(st.integers(0, len(wide) - 1))
    shape = shape[cut:] if target[:cut] == wide[:cut] else shape
    x = data.draw(stored(q, shape))
    assert np.array_equal(
        apply(Expand(shape=target), [(x, q)], q), np.broadcast_to(x, np.broadcast(x, np.empty(target)).shape)
    )


@LAW
@given(data=st.data())
def test_gather_with_a_permutation_and_back_is_the_whole(data: st.DataObject) -> None:
    shape, q = data.draw(shapes), data.draw(qtypes())
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    perm = data.draw(st.permutations(range(n)))
    back = [perm.index(i) - data.draw(st.sampled_from((0, n))) for i in range(n)]
    x = data.draw(stored(q, shape))
    there = apply(Gather(axis=axis, indices=tuple(perm), indices_shape=(n,)), [(x, q)], q)
    assert np.array_equal(there, np.take(x, perm, axis=axis))
    again = Gather(axis=axis, indices=tuple(back), indices_shape=(n,), index_dtype="int32")
    assert np.array_equal(apply(again, [(there, q)], q), x)


@LAW
@given(data=st.data())
def test_depth_and_space_undo_each_other(data: st.DataObject) -> None:
    (n, c, h, w), q = data.draw(image_shapes), data.draw(qtypes())
    b = data.draw(st.integers(1, 3))
    x = data.draw(stored(q, (n, c * b * b, h, w)))
    wide = apply(DepthToSpace(blocksize=b), [(x, q)], q)
    assert wide.shape == (n, c, h * b, w * b)
    assert np.array_equal(apply(SpaceToDepth(blocksize=b), [(wide, q)], q), x)
    # CRD has the channels of DCR in another order.
    other = x.reshape(n, b * b, c, h, w).swapaxes(1, 2).reshape(x.shape)
    assert np.array_equal(apply(DepthToSpace(blocksize=b, mode="CRD"), [(other, q)], q), wide)


@LAW
@given(data=st.data())
def test_argmax_is_the_first_or_last_of_the_largest(data: st.DataObject) -> None:
    shape = tuple(max(n, 1) for n in data.draw(shapes))
    q = data.draw(qtypes())
    rank = len(shape)
    axis, keep, last = data.draw(st.integers(-rank, rank - 1)), data.draw(st.booleans()), data.draw(st.booleans())
    x = data.draw(stored(q, shape)) // 64 * 64
    x = x.astype(q.dtype)
    got = apply(Argmax(axis=axis, keepdims=keep, select_last_index=last), [(x, q)], "int64")
    assert got.dtype == np.int64
    flipped = np.flip(x, axis) if last else x
    first = flipped.argmax(axis=axis, keepdims=keep)
    assert np.array_equal(got, shape[axis] - 1 - first if last else first)
    # A permutation of the other axes moves the indices with them, and a wider scale changes nothing.
    perm = tuple(range(rank))[::-1]
    turned = apply(Transpose(perm=perm), [(x, q)], q)
    again = Argmax(axis=perm.index(axis % rank), keepdims=True, select_last_index=last)
    wider = QType.per_tensor(q.dtype, q.scale[0] * 4, q.zero_point[0])
    kept = apply(Argmax(axis=axis, keepdims=True, select_last_index=last), [(x, q)], "int64")
    assert np.array_equal(apply(again, [(turned, wider)], "int64"), kept.transpose(perm))


@LAW
@given(data=st.data())
def test_argmax_of_intervals_is_the_hull_of_what_can_win(data: st.DataObject) -> None:
    n, last = data.draw(st.integers(1, 4)), data.draw(st.booleans())
    lo = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype=np.float64)
    hi = lo + np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=np.float64)
    op = Argmax(axis=0, keepdims=False, select_last_index=last)
    image = op.image([Operand(network_of(op, [((n,), X)], "int64").inputs[0].type, lo, hi)], "int64")
    ranges = [range(int(a), int(b) + 1) for a, b in zip(lo, hi, strict=True)]
    winners = {int(apply(op, [(np.array(p), X)], "int64")) for p in np.array(np.meshgrid(*ranges)).reshape(n, -1).T}
    assert (int(image.lower.approx), int(image.upper.approx)) == (min(winners), max(winners))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Split(axis=2, sizes=(3,), index=0), r"split 'y': axis: 2; needs -2\.\.1"),
        (Split(axis=1, sizes=(1, 1), index=0), r"sizes: \(1, 1\); need sizes of at least 0 that add up to 3"),
        (Split(axis=1, sizes=(4, -1), index=0), "sizes of at least 0"),
        (Split(axis=1, sizes=(1, 2), index=2), r"index: 2; needs 0\.\.1"),
        (Split(axis=1, sizes=(1, 2), index=0, counted=True), r"2 parts of 3 are \(2, 1\)"),
        (Squeeze(axes=(1,)), "only dimensions of length 1"),
        (Squeeze(axes=(0, -2)), "names an axis of rank 2 twice"),
        (Unsqueeze(axes=(0, 4)), r"axes: 4; needs -4\.\.3"),
        (Unsqueeze(axes=(0, -4)), "twice"),
        (Expand(shape=(2, 2)), r"shape: \(2, 2\) and \(2, 3\) do not broadcast"),
        (Expand(shape=(2, -1)), "negative"),
        (Gather(axis=1, indices=(3,), indices_shape=(1,)), r"indices: \(3,\); need -3\.\.2"),
        (Gather(axis=1, indices=(0,), indices_shape=(2,)), "1 of them"),
        (DepthToSpace(blocksize=2), r"x: shape \(2, 3\); needs \[N, C, H, W\]"),
        (Argmax(axis=-3), "axis: -3"),
    ],
)
def test_a_broken_attribute_is_named(op: Operator, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((2, 3), X)], "int64" if isinstance(op, Argmax) else X)


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (DepthToSpace(blocksize=2), (1, 6, 1, 1), "its square must divide the 6 channels"),
        (DepthToSpace(blocksize=0), (1, 4, 1, 1), r"blocksize: 0; needs 1\.\."),
        (SpaceToDepth(blocksize=2), (1, 1, 3, 2), "must divide height and width"),
        (Argmax(axis=1), (1, 0), "an empty dimension"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(op: Operator, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [(shape, X)], "int64" if isinstance(op, Argmax) else X)


@LAW
@given(data=st.data())
def test_the_smallest_is_the_largest_of_mirrored_elements(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    x = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.uint8)
    last = data.draw(st.booleans())
    q = QType.per_tensor("uint8", 1.0, 0)
    smallest, largest = (Argmax(axis=0, select_last_index=last, smallest=s) for s in (True, False))
    np.testing.assert_array_equal(apply(smallest, [(x, q)], "int64"), apply(largest, [(4 - x, q)], "int64"))


def test_argmax_gives_indices_and_nothing_reads_them() -> None:
    with pytest.raises(InvalidCase, match="needs plain int64"):
        network_of(Argmax(axis=0), [((2,), X)], X)
    with pytest.raises(InvalidCase, match="plain int64"):
        network_of(Requantize(), [((2,), X)], "int64")
