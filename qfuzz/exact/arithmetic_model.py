"""How an evaluation rounds, for bounds of composed computations (Higham, section 2.2, with underflow).

`fl(x op y) = (x op y)(1 + d) + e` with |d| <= `unit` and |e| <= `tiny`. A sum of n products, in any order and with or
without fused operations, is off by at most gamma_n times the sum of their magnitudes (Higham, section 3.1).
"""

from dataclasses import dataclass

from qfuzz.exact.elementary import FILTER_MARGIN
from qfuzz.exact.rounding import UNIT_ROUNDOFF


@dataclass(frozen=True)
class Rounding:
    """The roundings of one evaluation.

    Attributes
    ----------
    unit
        Relative error of one operation.
    tiny
        Absolute error of one operation whose result is subnormal.
    vanished
        Below this an exponential may be any number from 0 on: kernels clamp its argument, or flush its value.
    k
        Operations of one stage beside those of its sums.
    function
        Relative error of an elementary function's value.
    addend
        What a sigmoid's own formula adds: its error is relative to the sigmoid plus this.
    """

    unit: float
    tiny: float
    vanished: float
    k: int
    function: float
    addend: float = 0.0

    def gamma(self, n: float) -> float:
        """Bounds the relative error of n operations (Higham, lemma 3.1)."""
        if n * self.unit >= 0.5:
            raise ValueError(f"{n} roundings of {self.unit!r} are beyond what the bounds are for")
        return n * self.unit / (1.0 - n * self.unit)

    def lost(self, n: float) -> float:
        """What n operations lose at most where their results are subnormal."""
        return n * self.tiny


NONE = Rounding(0.0, 0.0, 0.0, 0, 0.0)
"""Real arithmetic."""

FLOAT64 = Rounding(2.0**-51, 2.0**-1074, 2.0**-1000, 4, FILTER_MARGIN)
"""NumPy's float64, with four times its unit roundoff: bounds are computed in float64, too, and round as much."""


def float32_rounding(k: int, function_ulps: float, addend: float = 0.0) -> Rounding:
    """A float32 kernel's: an ulp is up to two units. The unit covers the float64 arithmetic of the bounds."""
    unit = UNIT_ROUNDOFF * (1 + 2.0**-20)
    return Rounding(unit, 2.0**-149, 2.0**-125, k, 2.0 * function_ulps * unit + FILTER_MARGIN, addend)
