"""Laws of quantize, dequantize, requantize."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, shapes, stored

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract, Terms
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import admissible

TERMS: tuple[Terms, ...] = ("exact", "accumulator", "real", "affine")


@LAW
@given(data=st.data())
def test_requantize_to_the_same_type_is_identity(data: st.DataObject) -> None:
    q = data.draw(qtypes())
    x = data.draw(stored(q, data.draw(shapes)))
    assert np.array_equal(apply(Requantize(), [(x, q)], q), x)


@LAW
@given(data=st.data())
def test_quantize_undoes_dequantize(data: st.DataObject) -> None:
    q = data.draw(qtypes())
    x = data.draw(stored(q, data.draw(shapes)))
    assert np.array_equal(apply(Quantize(), [(apply(Dequantize(), [(x, q)], "float32"), "float32")], q), x)


@LAW
@given(data=st.data())
def test_requantize_is_monotone(data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = np.arange(q.qmin, q.qmax + 1).astype(q.dtype)
    assert (np.diff(apply(Requantize(), [(x, q)], out).astype(int)) >= 0).all()


@pytest.mark.parametrize("terms", TERMS)
@LAW
@given(data=st.data())
def test_no_contract_admits_a_neighbour_of_what_is_an_integer(terms: Terms, data: st.DataObject) -> None:
    q, k = data.draw(qtypes()), data.draw(st.integers(0, 16))
    contract = Contract(terms=terms, k=k, tie="any", source="test")
    x = np.arange(q.qmin, q.qmax + 1).astype(q.dtype)
    image = Requantize().image([Operand.point(TensorType(x.shape, q), x)], q)
    allowed = admissible(image, contract, q, FilterCount())
    assert np.array_equal(allowed.lo, x)
    assert np.array_equal(allowed.hi, x)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("exponent", [30, 62, 63, 64, 100, 127])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("zero_point", [-3, 0, 3])
def test_what_is_far_beyond_the_range_saturates_under_every_contract(
    terms: Terms, exponent: int, sign: int, zero_point: int
) -> None:
    """Reals that no 64-bit integer holds have one right answer too: a kernel whose cast wraps is wrong."""
    q = QType.per_tensor("int8", 1.0, zero_point)
    contract = Contract(terms=terms, k=8, tie="any", source="test")
    x = np.array([sign * 1.5 * 2.0**exponent], dtype=np.float32)
    image = Quantize().image([Operand.point(TensorType((1,), "float32"), x)], q)
    allowed = admissible(image, contract, q, FilterCount())
    expected = q.qmax if sign > 0 else q.qmin
    assert (allowed.lo.item(), allowed.hi.item()) == (expected, expected)


def test_dequantized_values_are_finite() -> None:
    largest = QType.per_tensor("uint8", 2.0**119, 255)
    assert np.isfinite(apply(Dequantize(), [(np.array([0, 255], dtype=np.uint8), largest)], "float32")).all()
    with pytest.raises(InvalidCase, match=r"dequantize 'y': x: scale .* overflow float32"):
        network_of(Dequantize(), [((1,), QType.per_tensor("uint8", 2.0**120, 255))], "float32")


def test_element_types_are_checked() -> None:
    q = QType.per_tensor("uint8", 1.0, 0)
    with pytest.raises(InvalidCase, match="quantize 'y': x: needs float32, float16, bfloat16 elements, got uint8"):
        network_of(Quantize(), [((1,), q)], q)
    with pytest.raises(InvalidCase, match="quantize 'y': output: needs quantized elements, got float32"):
        network_of(Quantize(), [((1,), "float32")], "float32")
    with pytest.raises(InvalidCase, match="dequantize 'y': output: needs float32, float16, bfloat16 elements, got"):
        network_of(Dequantize(), [((1,), q)], q)
    with pytest.raises(InvalidCase, match=r"multiplier .* is outside the normal range of float32"):
        network_of(
            Requantize(), [((1,), QType.per_tensor("uint8", 2.0**100, 0))], QType.per_tensor("int8", 2.0**-100, 0)
        )
