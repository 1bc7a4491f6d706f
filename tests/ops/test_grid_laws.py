"""Laws of grid_sample."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, qtypes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.grid import GridSample, place
from qfuzz.ops.interpolation import Interpolate
from qfuzz.oracle.reference import exact_outputs

X = QType.per_tensor("uint8", 0.5, 7)
modes = st.sampled_from(("zeros", "border", "reflection"))
sizes = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(2, 4), st.integers(2, 4))


def sampled(op: GridSample, x: Array, grid: Array, q: QType, out: QType) -> Array:
    g = Constant("g", TensorType(grid.shape, "float32"), Tensor(grid.astype(np.float32)))
    network = Network((Input("x", TensorType(x.shape, q)),), (g,), (Node("y", op, ("x", "g"), out),), ("y",))
    return exact_outputs(Case(network, (Tensor(x),)))["y"]


def lattice(shape: tuple[int, ...], *, align_corners: bool) -> Array:
    """The grid of all elements of [N, C, H, W]; exact where lengths are powers of two, or less one are."""
    n, _, height, width = shape

    def line(size: int) -> Array:
        at = np.arange(size)
        return 2 * at / (size - 1) - 1 if align_corners else (2 * at + 1) / size - 1

    rows, columns = np.meshgrid(line(height), line(width), indexing="ij")
    return np.broadcast_to(np.stack([columns, rows], axis=-1), (n, height, width, 2))


@LAW
@given(modes, qtypes(), qtypes(), st.data())
def test_the_grid_of_all_elements_gives_the_image(mode: str, q: QType, out: QType, data: st.DataObject) -> None:
    corners = data.draw(st.booleans())
    n, c = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    side = data.draw(st.sampled_from((2, 3, 5) if corners else (1, 2, 4)))
    x = data.draw(stored(q, (n, c, side, side)))
    op = GridSample(padding_mode=mode, align_corners=corners)  # type: ignore[arg-type]
    grid = lattice(x.shape, align_corners=corners)
    assert np.array_equal(sampled(op, x, grid, q, q), x)
    assert np.array_equal(sampled(op, x, -grid, q, q), x[:, :, ::-1, ::-1]), "its negative turns it round"
    assert sampled(op, x, grid, q, out).shape == x.shape


@LAW
@given(sizes, qtypes(), st.data())
def test_places_between_corners_are_those_of_interpolation(
    shape: tuple[int, ...], q: QType, data: st.DataObject
) -> None:
    """A side of 2^k + 1 places: their coordinates are short."""
    x = data.draw(stored(q, shape))
    side = data.draw(st.sampled_from((2, 3, 5)))
    grid = lattice((shape[0], 1, side, side), align_corners=True)
    op = Interpolate(sizes=(*shape[:2], side, side), mode="linear", coordinates="align_corners")
    network = Network((Input("x", TensorType(x.shape, q)),), (), (Node("y", op, ("x",), q),), ("y",))
    resized = exact_outputs(Case(network, (Tensor(x),)))["y"]
    assert np.array_equal(sampled(GridSample(align_corners=True), x, grid, q, q), resized)


def test_what_lies_outside() -> None:
    x = np.array([[[[10, 20, 30]]]], dtype=np.uint8)
    grid = np.array([[[[2.0, 0.0], [-2.0, 0.0], [1.0, 0.0]]]])
    read = {
        mode: sampled(GridSample(padding_mode=mode), x, grid, X, X).ravel().tolist()  # type: ignore[arg-type]
        for mode in ("zeros", "border", "reflection")
    }
    assert read["zeros"][:2] == [7, 7]
    assert read["border"] == [30, 10, 30]
    assert read["reflection"] == [20, 20, 30]
    assert read["zeros"][2] == 19, "half of 30, which lies 23 above 0: 11.5 to even, and 7"


def test_coordinates_are_exact_where_float32_is() -> None:
    assert place(0.5, 4, "zeros", align_corners=False) == (Fraction(5, 2), 0.0)
    assert place(-1.0, 4, "reflection", align_corners=True) == (Fraction(0), 0.0)
    assert place(float(np.float32(0.1)), 3, "zeros", align_corners=False).slack > 0.0
    assert place(9.0, 1, "reflection", align_corners=True).at == 0


@pytest.mark.parametrize(
    ("shape", "grid", "message"),
    [
        ((1, 1, 2), np.zeros((1, 1, 1, 2)), r"x: shape \(1, 1, 2\)"),
        ((1, 1, 0, 2), np.zeros((1, 1, 1, 2)), "height and width not empty"),
        ((2, 1, 2, 2), np.zeros((1, 1, 1, 2)), "grid: float32"),
        ((1, 1, 2, 2), np.zeros((1, 1, 1, 3)), "grid: float32"),
        ((1, 1, 2, 2), np.full((1, 1, 1, 2), np.inf), "constants are finite"),
    ],
)
def test_a_broken_grid_is_named(shape: tuple[int, ...], grid: Array, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        sampled(GridSample(), np.zeros(shape, dtype=np.uint8), grid, X, X)
