"""On which side of a middle between two float32 numbers a real lies, decided exactly where float64 leaves it open."""

from fractions import Fraction

import numpy as np

from qfuzz.exact.reals import Reals


def settled_float32(r: Reals) -> Reals:
    """`r`, moved by two float64 steps at most, so that its `approx` rounds to the float32 that the real rounds to.

    An element whose `approx` is a middle, or that its error takes across one, is narrowed until its bounds round to one
    float32; what is no middle itself then gets an `approx` and an error on the right side of it. Elements that stay
    undecided at 5,120 bits stay as they are: their error says so.
    """
    with np.errstate(over="ignore"):
        doubtful = (r.approx - r.error).astype(np.float32) != (r.approx + r.error).astype(np.float32)
    at = np.flatnonzero(doubtful)
    if not at.size:
        return r
    approx, error = r.approx.copy(), r.error.copy()
    for i in at.tolist():
        bits = 80
        while bits <= 5_120:
            low, high = r.refine(i, bits)
            first, last = _near(low), _near(high)
            if low == high or np.float32(first) == np.float32(last):
                approx.reshape(-1)[i] = first
                error.reshape(-1)[i] = 0.0
                break
            bits *= 4
    return Reals(approx, error, r.refine)


def _near(x: Fraction) -> float:
    """A float64 that is `x`, or next to it and on its side of every float32 middle."""
    near = float(x)
    if Fraction(near) == x:
        return near
    # A middle of two float32 is a float64: one step towards `x` leaves it, and reaches no other.
    return float(np.nextafter(near, np.inf if Fraction(near) < x else -np.inf))
