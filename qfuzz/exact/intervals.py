"""Arithmetic on arrays of intervals: a pair of lower and upper bounds, evaluated in float64."""

import numpy as np

from qfuzz.exact.rounding import Floats

Interval = tuple[Floats, Floats]


def times(a: Interval, b: Interval) -> Interval:
    """Bounds of products of any numbers within `a` and `b`."""
    ends = [x * y for x in a for y in b]
    return np.minimum.reduce(ends), np.maximum.reduce(ends)


def plus(a: Interval, b: Interval) -> Interval:
    """Bounds of sums."""
    return a[0] + b[0], a[1] + b[1]


def matrix_product(a: Interval, b: Floats) -> Interval:
    """Bounds of a @ b for a known matrix `b`."""
    positive, negative = np.maximum(b, 0.0), np.minimum(b, 0.0)
    return a[0] @ positive + a[1] @ negative, a[1] @ positive + a[0] @ negative


def magnitude(a: Interval) -> Floats:
    """The largest absolute value."""
    return np.maximum(np.abs(a[0]), np.abs(a[1]))


def widened(a: Interval, by: Floats) -> Interval:
    """`a` with room to both sides."""
    return a[0] - by, a[1] + by


def anything(shape: tuple[int, ...]) -> Interval:
    """Bounds that say nothing."""
    return np.full(shape, -np.inf), np.full(shape, np.inf)


def hull(a: Interval, b: Interval) -> Interval:
    """What holds both."""
    return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
