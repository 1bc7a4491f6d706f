"""Sets of uncertain results: what lies next to a tie is decided exactly, in whatever order memory holds it."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from qfuzz.exact.combination import Multiplier, Term, combine
from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.ir.contract import Contract
from qfuzz.ir.qtype import QType
from qfuzz.ops.semantics import LinearImage
from qfuzz.oracle.admissible import admissible

CONTRACT = Contract(terms="real", k=4, tie="any", source="a test")
Q = QType.per_tensor("int8", 1.0, 0)


def _reals(values: npt.NDArray[np.float64]) -> Reals:
    return combine([Term(values, Multiplier.of(Fraction(1, 2)))], values.shape)


def _image(lower: npt.NDArray[np.float64], upper: npt.NDArray[np.float64]) -> LinearImage:
    def magnitude() -> npt.NDArray[np.float64]:
        return np.maximum(np.abs(lower), np.abs(upper)) / 2

    return LinearImage(_reals(lower), _reals(upper), magnitude, magnitude, magnitude, 1, lambda: np.array(False))


@pytest.mark.parametrize("shape", [(3, 4), (12,), (2, 3, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_ends_on_a_tie_take_both_neighbours(shape: tuple[int, ...], transposed: bool) -> None:
    lower = np.arange(12.0).reshape(shape)
    upper = lower + 2.0
    if transposed:
        lower, upper = lower.transpose(), upper.transpose()
    found = admissible(_image(lower, upper), CONTRACT, Q, FilterCount())
    # Halves of odd numbers are ties, and an error of a few units in the last place of float32 reaches both sides.
    assert np.array_equal(found.lo, np.floor(lower / 2))
    assert np.array_equal(found.hi, np.ceil(upper / 2))
    assert found.exact is None


def test_a_scalar_is_decided_too() -> None:
    found = admissible(_image(np.array(3.0), np.array(5.0)), CONTRACT, Q, FilterCount())
    assert (found.lo.shape, int(found.lo), int(found.hi)) == ((), 1, 3)
