"""Arrays of real numbers that are evaluated fast and decided exactly.

A `Reals` is a float64 approximation with a proven error bound, and a way to narrow any one element as far as a
decision needs. Only elements whose error interval reaches a rounding boundary are ever narrowed; the share is counted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from qfuzz.exact.floating import FORMATS, nearest, nearest_exactly
from qfuzz.exact.rounding import Floats, Ints, split_ties

Bounds = tuple[Fraction, Fraction]
Refine = Callable[[int, int], Bounds]
"""(flat index, bits) -> rational bounds of that element: equal when it is rational, else 2^-bits apart."""


@dataclass
class FilterCount:
    """How many elements were decided, and how many of them needed exact arithmetic."""

    elements: int = 0
    refined: int = 0


Decide = Callable[[int], tuple[int, int]]
"""flat index -> the nearest integers below and above that element, exactly."""


@dataclass(frozen=True)
class Reals:
    """Real numbers, elementwise within `error` of `approx`.

    Attributes
    ----------
    approx
        float64.
    error
        float64, same shape; 0 where `approx` is the number itself.
    refine
        Narrows one element.
    decided
        What was decided exactly so far, by flat index.
    """

    approx: Floats
    error: Floats
    refine: Refine = field(repr=False)
    decided: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    decide_elsewhere: Decide | None = field(default=None, repr=False, compare=False)

    def take(self, indices: Ints) -> "Reals":
        """Elements at flat `indices`, with the shape of `indices`. What is decided of them is decided here, once."""
        flat = indices.ravel()
        return Reals(
            self.approx.ravel()[indices],
            self.error.ravel()[indices],
            lambda i, bits: self.refine(int(flat[i]), bits),
            decide_elsewhere=lambda i: self._decide(int(flat[i])),
        )

    def clip(self, low: Fraction | None, high: Fraction | None) -> "Reals":
        """Elements clipped to rational bounds. Clipping is 1-Lipschitz, so the error bound holds on."""
        if low is None and high is None:
            return self
        clipped = self.approx if low is None else np.maximum(self.approx, float(low))
        clipped = clipped if high is None else np.minimum(clipped, float(high))
        moved = np.abs(clipped - self.approx)
        rounding = _representation_error(low, high)
        error = np.where(moved > self.error, 0.0, self.error)
        if rounding:
            error = error + np.where(moved > 0.0, rounding, 0.0)

        def refine(i: int, bits: int) -> Bounds:
            a, b = self.refine(i, bits)
            return _clip(a, low, high), _clip(b, low, high)

        return Reals(clipped, error, refine)

    def nearest(self, count: FilterCount) -> tuple[Ints, Ints]:
        """The nearest integers below and above: equal but for exact ties, and decided exactly.

        Returns
        -------
        low, high
            ``ceil(r - 1/2)`` and ``floor(r + 1/2)``.
        """
        low, high = split_ties(self.approx)
        count.elements += low.size
        if self.error.any():
            # Outward by one more spacing, for the float64 sums here round too.
            margin = self.error + np.spacing(np.abs(self.approx) + self.error)
            doubtful = (self.error > 0) & (np.rint(self.approx - margin) != np.rint(self.approx + margin))
            undecided = np.flatnonzero(doubtful)
            count.refined += undecided.size
            for i in undecided:
                down, up = self._decide(int(i))
                low.reshape(-1)[i], high.reshape(-1)[i] = _storable(down), _storable(up)
        return low, high

    def nearest_float32(self) -> Floats:
        """`nearest_float` of float32."""
        return self.nearest_float("float32")

    def nearest_float(self, dtype: str) -> Floats:
        """The nearest number of a format to each, as float64: rounded once, whatever `approx` has rounded before.

        Only rational elements are narrowed; of others that lie next to a boundary, `approx` decides.
        """
        format = FORMATS[dtype]
        stored = nearest(self.approx, format)
        margin = self.error + np.spacing(np.abs(self.approx) + self.error)
        ends = [nearest(self.approx - margin, format), nearest(self.approx + margin, format)]
        for i in np.flatnonzero((self.error > 0) & (ends[0] != ends[1])):
            a, b = self.refine(int(i), 80)
            if a == b:
                stored.reshape(-1)[i] = nearest_exactly(a, format)
        return stored

    def _decide(self, i: int) -> tuple[int, int]:
        if i not in self.decided:
            self.decided[i] = (self.decide_elsewhere or self._narrowed)(i)
        return self.decided[i]

    def _narrowed(self, i: int) -> tuple[int, int]:
        bits = 80
        while bits < 20_000:
            a, b = self.refine(i, bits)
            low, high = math.ceil(a - _HALF), math.floor(b + _HALF)
            if a == b or (math.ceil(b - _HALF) == low and math.floor(a + _HALF) == high):
                return low, high
            bits *= 2
        raise ArithmeticError(f"element {i} is not decided at {bits} bits: between {a} and {b}")


_HALF = Fraction(1, 2)


def _storable(x: int) -> int:
    return max(-(2**62), min(x, 2**62))


def _clip(x: Fraction, low: Fraction | None, high: Fraction | None) -> Fraction:
    x = x if low is None else max(x, low)
    return x if high is None else min(x, high)


def _representation_error(low: Fraction | None, high: Fraction | None) -> float:
    """How far float64 bounds may be from the rational ones."""
    error = 0.0
    for bound in (low, high):
        if bound is not None and Fraction(float(bound)) != bound:
            error = max(error, float(np.spacing(abs(float(bound)))))
    return error
