"""Laws of embedding_bag: what a bag is told in another way, and what it is of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Network, Node
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops.embedding_bag import EmbeddingBag
from qfuzz.ops.weight_only import Embedding
from qfuzz.oracle.reference import exact_outputs


def bag(op: EmbeddingBag | Embedding, table: Array, q: QType, *rest: Array) -> Array:
    elements: list[Any] = [q, *(a.dtype.name for a in rest)]
    arrays = [table.astype(DTYPES[q.dtype]), *rest]
    constants = tuple(
        Constant(f"c{i}", TensorType(a.shape, e), Tensor(a))
        for i, (e, a) in enumerate(zip(elements, arrays, strict=True))
    )
    node = Node("y", op, tuple(c.name for c in constants), "float32")
    return exact_outputs(Case(Network((), constants, (node,), ("y",)), ()))["y"]


@st.composite
def tables(draw: st.DrawFn, *, dyadic: bool = False) -> tuple[Array, QType]:
    dtype: Any = draw(st.sampled_from(("uint2", "uint4", "uint8")))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, features, top = int(rng.integers(1, 6)), int(rng.integers(1, 5)), INTEGER_RANGE[dtype][1]
    scales = np.exp2(rng.integers(-5, 3, rows)) if dyadic else rng.uniform(0.01, 2.0, rows)
    zero_points = tuple(int(z) for z in rng.integers(0, top + 1, rows))
    q = QType(dtype, tuple(float32(float(s)) for s in scales), zero_points, 0)
    return rng.integers(0, top + 1, (rows, features)), q


def indices(data: st.DataObject, rows: int, n: int) -> Array:
    return np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), dtype=np.int64)


@LAW
@given(data=st.data())
def test_a_bag_of_one_is_its_row(data: st.DataObject) -> None:
    table, q = data.draw(tables(dyadic=True))
    at = indices(data, len(table), 4)
    rows = bag(Embedding(axis=0), table, q, at)
    for parameters in ("float32", "float16"):
        op: Any = EmbeddingBag(parameters=parameters)
        assert np.array_equal(bag(op, table, q, at, np.arange(4)), rows)
        assert np.array_equal(bag(op, table, q, at.reshape(4, 1)), rows)


@LAW
@given(data=st.data())
def test_bags_are_told_in_three_ways(data: st.DataObject) -> None:
    table, q = data.draw(tables())
    at = indices(data, len(table), 6)
    expected = bag(EmbeddingBag(), table, q, at.reshape(3, 2))
    assert np.array_equal(bag(EmbeddingBag(), table, q, at, np.array([0, 2, 4])), expected)
    assert np.array_equal(bag(EmbeddingBag(include_last_offset=True), table, q, at, np.array([0, 2, 4, 6])), expected)


@LAW
@given(data=st.data())
def test_order_weights_of_one_and_a_mapping_change_nothing(data: st.DataObject) -> None:
    table, q = data.draw(tables())
    at, offsets = indices(data, len(table), 5), np.array([0, 5])
    expected = bag(EmbeddingBag(), table, q, at, offsets)
    assert not expected[1].any(), "an empty bag"
    assert np.array_equal(bag(EmbeddingBag(), table, q, at[::-1].copy(), offsets), expected)
    assert np.array_equal(bag(EmbeddingBag(weighted=True), table, q, at, offsets, np.ones(5, np.float32)), expected)
    mapping = np.append(np.arange(len(table))[::-1], -1).astype(np.int32)
    mapped = np.append(len(table) - 1 - at, len(table))
    begins = np.array([0, 6])
    assert np.array_equal(bag(EmbeddingBag(pruned=True), table, q, mapped, begins, mapping), expected)


@LAW
@given(data=st.data())
def test_a_mean_of_equals_is_the_row(data: st.DataObject) -> None:
    table, q = data.draw(tables())
    at = np.repeat(indices(data, len(table), 1), 3)
    expected = bag(EmbeddingBag(), table, q, at[:1], np.array([0]))
    assert np.array_equal(bag(EmbeddingBag(mode="mean"), table, q, at, np.array([0])), expected)


@pytest.mark.parametrize(
    ("op", "rest", "said"),
    [
        (EmbeddingBag(), (np.array([2]), np.array([0])), "indices: 2..2"),
        (EmbeddingBag(), (np.array([0]), np.array([1])), "offsets: "),
        (EmbeddingBag(include_last_offset=True), (np.array([0]), np.array([0, 2])), "offsets: "),
        (EmbeddingBag(mode="mean", weighted=True), (np.array([0]), np.array([0]), np.ones(1, np.float32)), "mode"),
        (EmbeddingBag(weighted=True), (np.array([0]), np.array([0])), "3 inputs"),
        (EmbeddingBag(pruned=True), (np.array([0]), np.array([0]), np.array([2], np.int32)), "mapping: "),
    ],
)  # fmt: skip
def test_what_is_refused(op: EmbeddingBag, rest: tuple[Array, ...], said: str) -> None:
    q: Element = QType("uint8", (1.0, 1.0), (0, 0), 0)
    with pytest.raises(InvalidCase, match=said):
        bag(op, np.zeros((2, 3), np.uint8), q, *rest)


def test_scales_beyond_float16_are_refused_in_halves_only() -> None:
    q = QType("uint4", (2.0**17,), (0,), 0)
    table, at, offsets = np.ones((1, 1), np.uint8), np.array([0]), np.array([0])
    assert bag(EmbeddingBag(), table, q, at, offsets) == 2.0**17
    with pytest.raises(InvalidCase, match="overflows float16"):
        bag(EmbeddingBag(parameters="float16"), table, q, at, offsets)
