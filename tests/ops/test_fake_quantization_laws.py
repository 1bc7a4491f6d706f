"""Laws of fake_quantize: it gives levels, keeps them, and is what quantize and dequantize give one after the other."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, apply, qtypes

from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.fake_quantization import FakeQuantize, LevelsImage
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.reference import exact_outputs

reals = st.lists(
    st.one_of(st.floats(-2e4, 2e4, width=32), st.integers(-600, 600).map(lambda n: n / 2)), min_size=1, max_size=9
).map(lambda values: np.array(values, dtype=np.float32))


def fake(x: Array, scale: Any, zero_point: Any, low: int, high: int, axis: int = 0) -> Array:
    """The correctly rounded output."""
    constants = tuple(
        Constant(name, TensorType(array.shape, element), Tensor(array))
        for name, element, array in (
            ("s", "float32", np.array(scale, dtype=np.float32)),
            ("z", "int32", np.array(zero_point, dtype=np.int32)),
        )
    )
    node = Node("y", FakeQuantize(quant_min=low, quant_max=high, axis=axis), ("x", "s", "z"), "float32")
    network = Network((Input("x", TensorType(x.shape, "float32")),), constants, (node,), ("y",))  # type: ignore[arg-type]
    return exact_outputs(Case(network, (Tensor(x.astype(np.float32)),)))["y"].astype(np.float32)


@LAW
@given(x=reals, q=qtypes())
def test_it_is_quantize_and_then_dequantize(x: Array, q: QType) -> None:
    whole = apply(Dequantize(), [(apply(Quantize(), [(x, "float32")], q), q)], "float32")
    assert np.array_equal(fake(x, q.scale[0], q.zero_point[0], q.qmin, q.qmax), whole.astype(np.float32))


@LAW
@given(x=reals, q=qtypes(), narrower=st.integers(0, 100))
def test_levels_stay_and_a_narrower_range_clips_them(x: Array, q: QType, narrower: int) -> None:
    z = q.zero_point[0]
    low, high = min(q.qmin + narrower, z), max(q.qmax - narrower, z)
    once = fake(x, q.scale[0], z, low, high)
    assert np.array_equal(fake(once, q.scale[0], z, low, high), once)
    ends = (np.array([low, high]) - z) * np.float64(q.scale[0])
    wide = fake(x, q.scale[0], z, q.qmin, q.qmax)
    assert np.array_equal(once, np.clip(wide, *ends.astype(np.float32)))


@LAW
@given(x=reals, q=qtypes(), other=qtypes())
def test_each_channel_has_its_own(x: Array, q: QType, other: QType) -> None:
    two = np.stack([x, x])
    points = [min(max(t.zero_point[0], 0), 127) for t in (q, other)]
    both = fake(two, [q.scale[0], other.scale[0]], points, 0, 127)
    for row, t, z in zip(both, (q, other), points, strict=True):
        assert np.array_equal(row, fake(x, t.scale[0], z, 0, 127))


@pytest.mark.parametrize(
    ("x", "tie", "lowest", "highest"),
    [(0.5, "half_even", 0, 0), (0.5, "either_even", 0, 1), (1.5, "either_even", 1, 2), (1.5, "half_even", 2, 2)],
)
def test_what_is_admissible_at_ties(x: float, tie: Any, lowest: float, highest: float) -> None:
    operand = Operand.point(TensorType((1,), "float32"), np.array([x]))
    image = LevelsImage(FakeQuantize(), operand, np.array(1.0), np.array(1.0))
    lo, hi = image.bounds(Contract(terms="affine", k=3, tie=tie, source="here"))
    assert (lo[0], hi[0]) == (lowest, highest)


def test_nan_is_left_open_and_infinities_are_the_ends() -> None:
    operand = Operand.point(TensorType((3,), "float32"), np.array([np.nan, np.inf, -np.inf]))
    image = LevelsImage(FakeQuantize(), operand, np.array(2.0), np.array(5.0))
    lo, hi = image.bounds(Contract(terms="affine", k=3, tie="half_even", source="here"))
    assert lo.tolist() == [-np.inf, 500.0, -10.0]
    assert hi.tolist() == [np.inf, 500.0, -10.0]


@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "low", "high", "words"),
    [
        ([1.0], [1.0, 1.0], [0, 0], 0, 255, "needs float32 of shape"),
        ([1.0], 1.0, 256, 0, 255, "zero_point: 256"),
        ([1.0], 0.0, 0, 0, 255, "scale: 0.0"),
        ([1.0], 1.0, 0, 7, 3, "quant_min: 7"),
        ([1.0], 2.0**125, 0, 0, 255, "overflow"),
    ],
)
def test_what_is_no_fake_quantization(x: Any, scale: Any, zero_point: Any, low: int, high: int, words: str) -> None:
    with pytest.raises(InvalidCase, match=words):
        fake(np.array(x), scale, zero_point, low, high)
