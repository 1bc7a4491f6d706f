"""The generator behind all arrays is frozen: these numbers never change, or `same seed, same cases` would break."""

import numpy as np
import pytest

from qfuzz.ir.qtype import INTEGER_RANGE
from qfuzz.strategies import fill

WORDS_OF_STREAM_7 = [451468218852868522, 8844377393129564922]
INT8_BY_STYLE = [
    [-3, -3, -3, -3, -3, -3, -3, -3],
    [-94, -76, -98, -83, 1, -42, -97, -18],
    [127, -3, 127, 127, 0, -2, 127, -4],
    [-128, -128, -128, -128, 127, -128, -128, -128],
    [-6, -6, -6, -6, -3, -4, -6, -4],
    [-94, -3, -98, 127, 0, -42, -97, -4],
]
REALS = [-47.0, -37.875, -48.75, -41.5]


def test_words_are_frozen() -> None:
    assert fill.words(1, 3).tolist() == [10451216379200822465, 13757245211066428519, 17911839290282890590]
    assert fill.words(2**64 - 1, 2, stream=7).tolist() == WORDS_OF_STREAM_7


def test_first_words_are_splitmix64() -> None:
    """The published sequence of seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert fill.words(1234567, 4).tolist() == published


@pytest.mark.parametrize("style", range(fill.N_STYLES))
def test_quantized_arrays_are_frozen(style: int) -> None:
    assert fill.quantized(12345, style, (2, 4), "int8", -3).ravel().tolist() == INT8_BY_STYLE[style]


def test_reals_are_frozen() -> None:
    assert fill.reals(12345, fill.EDGES, (4,), 0.25).tolist() == REALS


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("style", range(fill.N_STYLES))
def test_quantized_arrays_stay_in_range_and_key_0_is_the_zero_point(style: int, dtype: str) -> None:
    lo, hi = INTEGER_RANGE[dtype]
    for zero_point in (lo, hi, 5):
        a = fill.quantized(99, style, (64, 8), dtype, zero_point)
        assert a.dtype == np.dtype(dtype)
        assert a.shape == (64, 8)
        assert (fill.quantized(0, style, (3,), dtype, zero_point) == zero_point).all()
        if style in (fill.UNIFORM, fill.EDGES, fill.EXTREMES, fill.MIXED):
            assert {lo, hi} <= set(a.ravel().tolist()), "the ends of the range are missing"


def test_uniform_is_uniform() -> None:
    counts = np.bincount(fill.quantized(3, fill.UNIFORM, (256 * 200,), "uint8", 0), minlength=256)
    assert ((counts - 200.0) ** 2 / 200).sum() < 256 + 6 * np.sqrt(2 * 256), "chi-squared is beyond six deviations"


def test_streams_of_a_key_differ() -> None:
    assert not np.array_equal(fill.words(5, 8), fill.words(5, 8, stream=1))
