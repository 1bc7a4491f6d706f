"""Laws of tile, gather_elements, amax, amin."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.movement import Concat
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.rearrangement import Squeeze
from qfuzz.ops.reduction import Amax, Amin
from qfuzz.ops.repetition import GatherElements, Tile
from qfuzz.ops.selection import Maximum, Minimum
from qfuzz.ops.semantics import Operand

X = QType.per_tensor("uint8", 0.5, 7)
EXTREMES = [(Amax, np.max, Maximum()), (Amin, np.min, Minimum())]
both = pytest.mark.parametrize(("kind", "of", "pairwise"), EXTREMES, ids=["amax", "amin"])


@LAW
@given(data=st.data())
def test_tile_is_concat_of_itself_axis_by_axis(data: st.DataObject) -> None:
    shape, q, out = data.draw(shapes), data.draw(qtypes()), data.draw(qtypes())
    repeats = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    x = data.draw(stored(q, shape))
    whole = x
    for axis, n in enumerate(repeats):
        whole = apply(Concat(axis=axis), [(whole, q)] * n, q)
    assert np.array_equal(apply(Tile(repeats=repeats), [(x, q)], q), whole)
    assert np.array_equal(apply(Tile(repeats=repeats), [(x, q)], out), apply(Requantize(), [(whole, q)], out))


@LAW
@given(data=st.data())
def test_gather_elements_with_sorting_indices_sorts_and_their_inverse_undoes_it(data: st.DataObject) -> None:
    shape, q = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes())
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(stored(q, shape))
    order = np.argsort(x, axis=axis, kind="stable")
    back = np.argsort(order, axis=axis, kind="stable") - data.draw(st.sampled_from((0, shape[axis])))

    def gather(indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> GatherElements:
        return GatherElements(axis=axis, indices=tuple(indices.ravel().tolist()), indices_shape=indices.shape)

    there = apply(gather(order), [(x, q)], q)
    assert np.array_equal(there, np.sort(x, axis=axis))
    assert np.array_equal(apply(gather(back), [(there, q)], q), x)


@LAW
@given(data=st.data())
def test_gather_elements_reads_the_first_places_of_other_axes(data: st.DataObject) -> None:
    shape, q = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes())
    axis = data.draw(st.integers(0, len(shape) - 1))
    wanted = tuple(data.draw(st.integers(0, 3 if i == axis else n)) for i, n in enumerate(shape))
    size = int(np.prod(wanted))
    indices = data.draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=size, max_size=size))
    x = data.draw(stored(q, shape))
    op = GatherElements(axis=axis, indices=tuple(indices), indices_shape=wanted, index_dtype="int32")
    got = apply(op, [(x, q)], q)
    assert got.shape == wanted
    for place, index in zip(np.ndindex(*wanted), indices, strict=True):
        assert got[place] == x[(*place[:axis], index, *place[axis + 1 :])]


@both
@LAW
@given(data=st.data())
def test_an_extreme_is_that_of_stored_integers_and_survives_requantizing(
    kind: type[Amax | Amin], of: np.ufunc, pairwise: Operator, data: st.DataObject
) -> None:
    shape = tuple(max(n, 1) for n in data.draw(shapes))
    q, out = data.draw(qtypes()), data.draw(qtypes())
    rank = len(shape)
    chosen = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    axes = tuple(a - data.draw(st.sampled_from((0, rank))) for a in chosen)
    keep = data.draw(st.booleans())
    x = data.draw(stored(q, shape))
    op = kind(axes=axes, keepdims=keep)
    got = apply(op, [(x, q)], q)
    assert np.array_equal(got, of(x, axis=axes, keepdims=keep))
    # Rounding keeps order: requantizing all elements first changes nothing.
    early = apply(op, [(apply(Requantize(), [(x, q)], out), out)], out)
    assert np.array_equal(apply(op, [(x, q)], out), early)


@both
@LAW
@given(data=st.data())
def test_axes_are_reduced_one_by_one_as_well(
    kind: type[Amax | Amin], of: np.ufunc, pairwise: Operator, data: st.DataObject
) -> None:
    shape, q = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes())
    x = data.draw(stored(q, shape))
    step = x
    for axis in range(len(shape)):
        step = apply(kind(axes=(axis,)), [(step, q)], q)
    everything = apply(kind(axes=()), [(x, q)], q)
    assert np.array_equal(step, everything)
    assert apply(kind(axes=(), keepdims=False), [(x, q)], q) == everything.reshape(())
    assert np.array_equal(apply(kind(axes=(), noop_with_empty_axes=True), [(x, q)], q), x)
    # Of two elements, it is what the operator on two operands says.
    halves = [(np.take(x, i, axis=0), q) for i in (0, -1)]
    ends = GatherElements(
        axis=0, indices=(0,) * halves[0][0].size + (-1,) * halves[0][0].size, indices_shape=(2, *shape[1:])
    )
    assert np.array_equal(
        apply(kind(axes=(0,), keepdims=False), [(apply(ends, [(x, q)], q), q)], q), apply(pairwise, halves, q)
    )


@LAW
@given(data=st.data())
def test_amax_is_the_element_at_argmax(data: st.DataObject) -> None:
    shape, q = tuple(max(n, 1) for n in data.draw(shapes)), data.draw(qtypes())
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(stored(q, shape))
    at = apply(Argmax(axis=axis), [(x, q)], "int64")
    picked = GatherElements(axis=axis, indices=tuple(at.ravel().tolist()), indices_shape=at.shape)
    left_out = apply(Squeeze(axes=(axis,)), [(apply(picked, [(x, q)], q), q)], q)
    assert np.array_equal(apply(Amax(axes=(axis,), keepdims=False), [(x, q)], q), left_out)


@both
@LAW
@given(data=st.data())
def test_an_extreme_of_intervals_is_the_hull_of_what_can_be(
    kind: type[Amax | Amin], of: np.ufunc, pairwise: Operator, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 4))
    lo = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), dtype=np.float64)
    hi = lo + np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=np.float64)
    op = kind(axes=(0,), keepdims=False)
    image = op.image([Operand(network_of(op, [((n,), X)], X).inputs[0].type, lo, hi)], X)
    possible = [of(p) for p in itertools.product(*(range(int(a), int(b) + 1) for a, b in zip(lo, hi, strict=True)))]
    assert (image.lower.approx, image.upper.approx) == (min(possible) - 7, max(possible) - 7)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Tile(repeats=(1,)), r"tile 'y': repeats: \(1,\); needs 2 values in 0\.\."),
        (Tile(repeats=(1, -1)), r"repeats: \(1, -1\)"),
        (Tile(repeats=(2**25, 2**25)), "y"),
        (GatherElements(axis=2, indices=(0,), indices_shape=(1, 1)), r"axis: 2; needs -2\.\.1"),
        (GatherElements(axis=1, indices=(0,), indices_shape=(1, 2)), "indices: 1 of them"),
        (GatherElements(axis=1, indices=(0,), indices_shape=(1,)), "needs 2 sizes"),
        (GatherElements(axis=1, indices=(0, 0, 0), indices_shape=(3, 1)), r"those of \(2, 3\) at most but on axis 1"),
        (GatherElements(axis=1, indices=(3,), indices_shape=(1, 1)), r"indices: \(3,\); need -3\.\.2"),
        (GatherElements(axis=1, indices=(-4,), indices_shape=(1, 1)), r"need -3\.\.2"),
        (Amax(axes=(2,)), r"axes: 2; needs -2\.\.1"),
        (Amin(axes=(0, -2)), "names an axis of rank 2 twice"),
    ],
)
def test_a_broken_attribute_is_named(op: Operator, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((2, 3), X)], X)


@pytest.mark.parametrize("kind", [Amax, Amin])
def test_no_elements_have_no_extreme(kind: type[Amax | Amin]) -> None:
    with pytest.raises(InvalidCase, match="of no elements none is the am"):
        network_of(kind(axes=(1,)), [((2, 0), X)], X)
    assert apply(kind(axes=(1,)), [(np.empty((0, 2), np.uint8), X)], X).shape == (0, 1)
