"""The one place that rounds and saturates."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-24
"""u of float32, round to nearest: fl(x op y) = (x op y)(1 + d), |d| <= u (Higham, chapter 2)."""


def gamma(k: float) -> float:
    """k*u/(1 - k*u) for float32: bounds the relative error of k roundings (Higham, lemma 3.1)."""
    ku = k * UNIT_ROUNDOFF
    if ku >= 1.0:
        raise ValueError(f"gamma of k={k} roundings is unbounded in float32")
    return ku / (1.0 - ku)


def round_half_even(x: npt.NDArray[np.floating[Any]]) -> Ints:
    """Nearest integers, ties to even. Exact for every finite float64; clips at +/- 2^62 first."""
    return np.asarray(np.minimum(np.maximum(np.rint(x), -_CLIP), _CLIP).astype(np.int64))


def split_ties(x: Floats) -> tuple[Ints, Ints]:
    """``ceil(x - 1/2)`` and ``floor(x + 1/2)`` of float64 numbers, exactly.

    Both are the nearest integer but at ties; x - rint(x) is exact (both are multiples of x's last bit, and the
    difference is no larger than x or than 1/2), so that ties are seen exactly.
    """
    apart = x - np.rint(x)
    rounded = round_half_even(x)
    return rounded - (apart == -0.5), rounded + (apart == 0.5)


def saturate(x: npt.NDArray[Any], qmin: int, qmax: int, dtype: str) -> npt.NDArray[Any]:
    """Integers, in any dtype that holds them, clipped to the storage range and stored."""
    return np.asarray(np.minimum(np.maximum(x, qmin), qmax).astype(dtype))


_CLIP = 2.0**62
"""Where rounded numbers are cut, far outside every storage range."""
