"""Laws of embedding_rows: what is kept, and by how much the rest moves."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, apply

from qfuzz.ops.embedding_rows import EmbeddingRows

bits = st.sampled_from((2, 4, 8))


def rows(x: Array, n: Any) -> Array:
    return apply(EmbeddingRows(bits=n), [(x, "float32")], "float32")


@LAW
@given(n=bits, seed=st.integers(0, 2**32))
def test_integers_of_as_many_bits_are_kept(n: int, seed: int) -> None:
    """A row that spans all stored integers has a scale of 1."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2**n, (3, 6)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, 2**n - 1
    assert np.array_equal(rows(x - 2, n), x - 2)


@LAW
@given(n=bits, seed=st.integers(0, 2**32))
def test_nothing_moves_by_more_than_half_a_step_and_what_is_rounded_to_float16(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(4, 7)).astype(np.float32)
    step = (x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True)) / (2**n - 1)
    halves = 0.0 if n == 8 else 2.0**-9
    assert (np.abs(rows(x, n) - x) <= step * 0.5001 + halves * np.abs(x).max()).all()


@LAW
@given(n=bits, seed=st.integers(0, 2**32))
def test_rows_stand_alone_and_order_is_kept(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    y = rows(x, n)
    for i in range(3):
        assert np.array_equal(rows(x[i], n), y[i])
    assert np.array_equal(rows(x[:, ::-1], n), y[:, ::-1])
    assert (np.diff(np.take_along_axis(y, np.argsort(x, axis=1), axis=1), axis=1) >= 0).all()


@pytest.mark.parametrize("n", [2, 4, 8])
def test_equal_elements(n: int) -> None:
    """In float16 their offset may lie above them: the scale is then negative, and they are kept as far as it goes."""
    x = np.full((1, 4), 1 / 3, dtype=np.float32)
    assert np.abs(rows(x, n) - x).max() <= (0.0 if n == 8 else 2.0**-20)
