"""How far a float32 normalization may be from the exact one, whatever its inputs cancel.

Mean. The elements are known to one rounding each. A float32 sum of n elements is off by gamma_(n-1) sum |x|, and its
quotient by one rounding more; Welford's update ``m_k = m_(k-1) + (x_k - m_(k-1)) / k`` is off by e_k, where
``k e_k <= (k-1) e_(k-1) + 2u |x_k - m_(k-1)| + k u |m_k|``, so by at most (4 + (n+1)/2) u max |x| (cf. Higham,
*Accuracy and Stability*, section 1.9). With the roundings of the elements, an element and the mean that is subtracted
from it are off together by at most delta, which is gamma_(n+2) max |x| for a float32 sum, gamma_(6+(n+1)/2) max |x| for
the update, and gamma_3 max |x| for a sum of float64 numbers.

Variance. The mean square of x - mean is off by at most 2 sigma delta + delta^2; the sum of Welford's products
``(x_k - m_(k-1)) (x_k - m_k)``, which add up to n sigma^2, by at most n times (1 + sqrt 2) sigma delta + delta^2 (by
Cauchy and Schwarz: the first factor's square is at most twice the product, and the first product is 0). Products and
sums add gamma_(n+4) of the variance itself.
It is never negative, so epsilon is the least that a root is taken of. ``E[x^2] - mean^2`` is another matter: it may be
negative, which no bound here admits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ops.semantics import Image

_UNDERFLOW = 2.0**-140
"""More than what products that leave float32's normal range lose."""


class Statistics(NamedTuple):
    """What a normalization computes on the way, per element.

    Attributes
    ----------
    lowest, highest
        (x - mean) / sqrt(variance + epsilon).
    off
        Upper bound of |x - mean|.
    least, most
        Bounds of the variance.
    apart
        Upper bound of |x| + |mean|.
    """

    lowest: Floats
    highest: Floats
    off: Floats
    least: Floats
    most: Floats
    apart: Floats


@dataclass(frozen=True)
class NormalizedImage(Image):
    """Normalized, scaled and shifted values.

    Attributes
    ----------
    weight, bias
        Magnitudes.
    real, affine
        The largest |x|, or |s q| + |s zero_point|, of what is normalized together.
    n_summed
        How many elements that are.
    equal
        Where all of them are equal.
    summed_exactly
        Where they are, and their sum is exact in float32.
    bias_exact
        Whether a float32 holds the bias over the output scale.
    """

    lower: Reals
    upper: Reals
    statistics: Statistics
    weight: Floats
    bias: Floats
    real: Callable[[], Floats]
    affine: Callable[[], Floats]
    n_summed: int
    epsilon: float
    scale_y: float
    zero_point_y: float
    equal: npt.NDArray[np.bool_]
    summed_exactly: npt.NDArray[np.bool_]
    bias_exact: bool

    def error(self, contract: Contract) -> Floats:
        s = self.statistics
        if contract.terms == "exact":
            return np.zeros_like(s.off)
        affine = contract.terms in ("affine", "fixed_point")
        n = self.n_summed if contract.accumulates_float else 0
        roundings = 3.0 if not n else 6 + (n + 1) / 2 if contract.exact_mean else n + 2
        delta = gamma(roundings) * (self.affine() if affine else self.real())
        d = variance_error(s, delta, gamma(n + 4))
        alone = self.equal if contract.exact_mean else self.summed_exactly  # then x is its mean, and the bias is left
        statistic = np.where(alone, 0.0, normalized_error(s, delta, d, self.epsilon))
        normalized = np.maximum(np.abs(s.lowest), np.abs(s.highest)) + statistic
        if contract.distributes:
            normalized = normalized + s.apart * largest_quotient(s, d, self.epsilon)
        rounded = gamma(contract.k) * (normalized * self.weight + self.bias) + _UNDERFLOW
        bound = (statistic * self.weight + rounded) / self.scale_y * (1 + 2.0**-40)
        if affine or contract.adds_zero_point or contract.tie in ("half_even_after_zero_point", "either_even"):
            bound = bound + gamma(contract.k) * self.zero_point_y
        return np.where(alone, 0.0, bound) if self.bias_exact and not contract.distributes else bound


def variance_error(s: Statistics, delta: Floats, squares: float) -> Floats:
    """How far the variance may be off where x and mean are off by `delta`, and a sum of squares by `squares` of it."""
    return np.asarray((2.5 * np.sqrt(s.most) * delta + delta * delta) * (1 + squares) + squares * s.most)


def normalized_error(s: Statistics, delta: Floats, d: Floats, epsilon: float) -> Floats:
    """How far a normalized value may be off where x and mean are off by `delta` together, and the variance by `d`.

    For a variance v, 1 / sqrt(v + epsilon) is too large by 1 / sqrt(max(v - d, 0) + epsilon) - 1 / sqrt(v + epsilon) at
    most, which grows up to v = d and falls from there on; and too small by a difference that falls with v.
    """
    worst = np.clip(d, s.least, s.most)
    above = 1 / np.sqrt(np.maximum(worst - d, 0.0) + epsilon) - 1 / np.sqrt(worst + epsilon)
    below = 1 / np.sqrt(s.least + epsilon) - 1 / np.sqrt(s.least + d + epsilon)
    return np.asarray(s.off * np.maximum(above, below) + delta * largest_quotient(s, d, epsilon))


def largest_quotient(s: Statistics, d: Floats, epsilon: float) -> Floats:
    """The largest 1 / sqrt(variance + epsilon) where the variance is off by `d`."""
    return np.asarray(1 / np.sqrt(np.maximum(s.least - d, 0.0) + epsilon))
