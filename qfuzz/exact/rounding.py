"""The one place that rounds and saturates."""

from fractions import Fraction
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
    return np.rint(np.clip(x, -(2.0**62), 2.0**62)).astype(np.int64)


def round_fraction(x: Fraction) -> int:
    """Nearest integer, ties to even."""
    return round(x)


def saturate(x: Ints, qmin: int, qmax: int) -> Ints:
    """`x` clipped to the storage range."""
    return np.clip(x, qmin, qmax)
