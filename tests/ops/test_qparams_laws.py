"""Laws of choose_qparams: what its scale and zero point are for, and what is admissible next to them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, apply, network_of

from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic import DynamicQuantize
from qfuzz.ops.qparams import ChooseQparams, QparamsImage
from qfuzz.ops.semantics import Operand

reals = st.lists(st.integers(-(2**20), 2**20).map(lambda n: n / 2**7), min_size=1, max_size=8).map(
    lambda values: np.array(values, dtype=np.float32)
)
KERNEL = Contract(terms="real", k=2, tie="half_even", source="here")


def chosen(x: Array, **attributes: Any) -> tuple[float, int]:
    """The correctly rounded scale and the zero point."""
    scale = apply(ChooseQparams(output="scale", **attributes), [(x, "float32")], "float32")
    zero_point = apply(ChooseQparams(output="zero_point", **attributes), [(x, "float32")], "int32")
    return float(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0])


@LAW
@given(x=reals)
def test_over_255_steps_it_is_dynamic_quantize(x: Array) -> None:
    scale, zero_point = chosen(x, least=2.0**-100)
    own = [apply(DynamicQuantize(output=o), [(x, "float32")], e).item() for o, e in _OUTPUTS]
    if x.any():
        assert [scale, zero_point] == own


_OUTPUTS: Any = (("scale", "float32"), ("zero_point", "uint8"))


@LAW
@given(x=reals, low=st.integers(-300, 0), steps=st.integers(1, 500))
def test_all_data_are_within_half_a_step_of_the_range(x: Array, low: int, steps: int) -> None:
    high = max(low + steps, 1)
    scale, zero_point = chosen(x, dtype="int16", quant_min=low, quant_max=high)
    stored = x.astype(np.float64) / scale + zero_point
    assert low <= zero_point <= high
    assert low - 0.5 <= stored.min() + 1e-3
    assert stored.max() - 1e-3 <= high + 0.5


@LAW
@given(x=reals)
def test_a_symmetric_range_is_that_of_the_data_and_their_opposites(x: Array) -> None:
    both = np.concatenate([x, -x])
    assert chosen(x, symmetric=True)[0] == chosen(both)[0]
    assert chosen(x, symmetric=True)[1] == 128
    assert chosen(x, symmetric=True, dtype="int8", quant_min=-128, quant_max=127)[1] == 0


@LAW
@given(x=reals, other=reals)
def test_each_token_has_its_own(x: Array, other: Array) -> None:
    n = min(x.size, other.size)
    rows = np.stack([x[:n], other[:n]])
    for output, element in (("scale", "float32"), ("zero_point", "int32")):
        got = apply(ChooseQparams(tokens=True, output=output), [(rows, "float32")], element)  # type: ignore[arg-type]
        assert got.shape == (2, 1)
        for row, value in zip(rows, got, strict=True):
            alone = apply(ChooseQparams(output=output), [(row, "float32")], element)  # type: ignore[arg-type]
            assert alone.tolist() == value.tolist()


@pytest.mark.parametrize(
    ("x", "output", "lowest", "highest"),
    [
        ([0.0, 255.0], "scale", 1.0, 1.0),
        ([-1.0, 254.0], "zero_point", 1, 1),
        ([-0.5, 254.5], "zero_point", 0, 0),
        ([-1.5, 253.5], "zero_point", 2, 2),
        ([0.0, 0.0], "scale", 2.0**-23, 2.0**-23),
        ([-3e38, 3e38], "zero_point", 0, 255),
    ],
)
def test_what_is_admissible(x: list[float], output: Any, lowest: float, highest: float) -> None:
    operand = Operand.point(TensorType((2,), "float32"), np.array(x))
    lo, hi = QparamsImage(ChooseQparams(output=output), operand).bounds(KERNEL)
    assert (lo.item(), hi.item()) == (lowest, highest)


def test_from_which_end_a_token_counts_is_open_where_the_scale_is_not_its_own() -> None:
    operand = Operand.point(TensorType((2,), "float32"), np.array([-(2.0**-24), 2.0**-24]))
    op = ChooseQparams(tokens=True, dtype="int8", quant_min=-128, quant_max=127, output="zero_point")
    lo, hi = QparamsImage(op, operand).bounds(KERNEL)
    assert lo.item() in (-128, -127)
    assert hi.item() in (126, 127)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"quant_min": 255}, "quant_min: 255"),
        ({"quant_max": 256}, "quant_max 256"),
        ({"least": 0.0}, "least: 0.0"),
        ({"output": "zero_point"}, "zero_point is int32"),
    ],
)
def test_what_chooses_nothing(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidCase, match=words):
        network_of(ChooseQparams(**attributes), [((2,), "float32")], "float32")
