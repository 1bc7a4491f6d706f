"""Laws of recurrent: cells and layers that say the same, and what a scale is chosen as."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.recurrent import GATES, SMALLEST, Recurrent
from qfuzz.oracle.reference import exact_outputs

Q = QType.per_tensor("int8", 2.0**-6, 0)
kinds = st.sampled_from(tuple(GATES))


def run(op: Recurrent, x: Array, *constants: Array) -> Array:
    values = []
    for i, data in enumerate(constants):
        element: Element = Q if data.dtype == np.int8 else "float32"
        values.append(Constant(f"c{i}", TensorType(data.shape, element), Tensor(data)))
    fed = Input("x", TensorType(x.shape, "float32"))
    node = Node("y", op, ("x", *(v.name for v in values)), "float32")
    return exact_outputs(Case(Network((fed,), tuple(values), (node,), ("y",)), (Tensor(x.astype(np.float32)),)))["y"]


class Parts:
    """Seeded data of one size."""

    def __init__(self, kind: str, seed: int, *, halves: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows = GATES[kind] * 2
        self.halves = halves

    def reals(self, *shape: int) -> Array:
        return self.rng.normal(size=shape).astype(np.float32)

    def cell(self, features: int) -> list[Array]:
        """W, R and their biases, of a hidden size of 2."""
        shapes = ((self.rows, features), (self.rows, 2))
        if self.halves:
            weights = [self.reals(*shape) for shape in shapes]
        else:
            weights = [self.rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
        return [*weights, self.reals(self.rows), self.reals(self.rows)]


def states(kind: str, parts: Parts, *shape: int) -> list[Array]:
    return [parts.reals(*shape) for _ in range(2 if kind == "lstm" else 1)]


@LAW
@given(kind=kinds, seed=st.integers(0, 2**32), halves=st.booleans())
def test_a_layer_over_one_step_is_a_cell(kind: Any, seed: int, halves: bool) -> None:
    parts = Parts(kind, seed, halves=halves)
    x, cell, first = parts.reals(3, 4), parts.cell(4), states(kind, parts, 3, 2)
    op = Recurrent(kind=kind)
    layered = run(op, x[None], *cell, *(s[None] for s in first))
    assert np.array_equal(run(op, x, *cell, *first), layered[0])


@LAW
@given(kind=kinds, seed=st.integers(0, 2**32))
def test_both_directions_are_two_layers_side_by_side(kind: Any, seed: int) -> None:
    parts = Parts(kind, seed)
    x, cells, first = parts.reals(3, 2, 4), [parts.cell(4), parts.cell(4)], states(kind, parts, 2, 2, 2)
    both = run(Recurrent(kind=kind, bidirectional=True), x, *cells[0], *cells[1], *first)
    forth = run(Recurrent(kind=kind), x, *cells[0], *(s[:1] for s in first))
    back = run(Recurrent(kind=kind), x[::-1], *cells[1], *(s[1:] for s in first))[::-1]
    assert np.array_equal(both, np.concatenate([forth, back], axis=2))
    batch_first = Recurrent(kind=kind, bidirectional=True, batch_first=True)
    swapped = run(batch_first, x.swapaxes(0, 1), *cells[0], *cells[1], *first)
    assert np.array_equal(swapped.swapaxes(0, 1), both)


@LAW
@given(kind=kinds, seed=st.integers(0, 2**32))
def test_the_last_state_is_the_last_step(kind: Any, seed: int) -> None:
    parts = Parts(kind, seed)
    x, cells, first = parts.reals(3, 2, 4), [*parts.cell(4), *parts.cell(2)], states(kind, parts, 2, 2, 2)
    y, h = (run(Recurrent(kind=kind, layers=2, output=o), x, *cells, *first) for o in ("y", "h"))  # type: ignore[arg-type]
    assert np.array_equal(h[1], y[-1])


@pytest.mark.parametrize("reduce_range", [False, True])
def test_no_scale_is_below_the_smallest(reduce_range: bool) -> None:
    """A small range is rounded to multiples of the smallest scale, and half of it to nothing."""
    op = Recurrent(kind="rnn_relu", reduce_range=reduce_range)
    one = np.full((1, 1), 64, dtype=np.int8)
    zeros = np.zeros(1, np.float32)
    for x, stored in ((1.4, 1), (0.49, 0), (2.6, 3)):
        y = run(op, np.full((1, 1), np.float32(x * SMALLEST)), one, one, zeros, zeros, np.zeros((1, 1), np.float32))
        assert y == np.float32(stored * SMALLEST)


def test_weights_in_halves_saturate() -> None:
    op = Recurrent(kind="rnn_relu")
    large, zeros = np.full((1, 1), 1e6, dtype=np.float32), np.zeros(1, np.float32)
    assert run(op, np.ones((1, 1)), large, large, zeros, zeros, np.zeros((1, 1), np.float32)) == 65504


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Recurrent(output="c"), "only an LSTM has c"),
        (Recurrent(layers=2), "of a cell one"),
        (Recurrent(output="h"), "the h of a cell is y"),
        (Recurrent(kind="lstm"), "6 inputs; needs 7"),
    ],
)
def test_what_is_refused(op: Recurrent, said: str) -> None:
    w, b = np.zeros((2, 2), np.int8), np.zeros(2, np.float32)
    with pytest.raises(InvalidCase, match=said):
        run(op, np.zeros((1, 2)), w, w, b, b, np.zeros((1, 2), np.float32))
