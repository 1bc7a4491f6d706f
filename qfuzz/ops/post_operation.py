"""What follows a layer before its one rounding: a function of the real result, which kernels know to few roundings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from qfuzz.exact import elementary
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ops import gelu
from qfuzz.ops.semantics import Image, LinearImage, check_multipliers, float_scale, output_scale, zero_point_magnitude
from qfuzz.ops.table import known_reals

Activation: TypeAlias = Literal[
    "none", "relu", "hardtanh", "leaky_relu", "hardswish", "tanh", "swish", "gelu", "gelu_tanh"
]


_UNDERFLOW = 2.0**-118
"""What is lost where e^x of x below -87, no normal float32, is 0: less than 88 times the least normal one."""


@dataclass(frozen=True)
class _Function:
    """A real function of one variable that falls, if anywhere, left of one place only.

    Attributes
    ----------
    value
        float64, within `elementary.FILTER_MARGIN`.
    enclose
        Rational bounds at a rational.
    terms
        The magnitudes of what its formula adds and multiplies, which roundings are relative to.
    least
        Where it is least, and what it is there; of a function that never falls, any place.
    spreads
        Whether its own argument is reduced or rounded once more.
    """

    value: Callable[[Floats], Floats]
    enclose: Callable[[Fraction, int], Bounds]
    terms: Callable[[Floats], Floats]
    least: tuple[float, float]
    spreads: bool


class PostOperation(NamedTuple):
    """An activation with the attributes that it reads."""

    activation: Activation
    negative_slope: float
    min: float
    max: float

    def check(self, element: Element) -> None:
        """Raise `InvalidCase` unless it can be followed by a rounding to `element`."""
        for name, value in (("negative_slope", self.negative_slope), ("min", self.min), ("max", self.max)):
            if not math.isfinite(value) or float32(value) != value:
                raise InvalidCase(f"{name}: {value!r}; needs a finite float32")
        if self.min > self.max:
            raise InvalidCase(f"min, max: {self.min!r}, {self.max!r}; min is at most max")
        read = {"hardtanh": (self.min, self.max), "leaky_relu": (self.negative_slope,)}.get(self.activation, ())
        for value in read:
            if value:
                check_multipliers([abs(value)], element, self.activation)

    def bounds(self) -> tuple[Fraction | None, Fraction | None] | None:
        """What results are clipped to, where nothing else becomes of them."""
        match self.activation:
            case "none":
                return None, None
            case "relu":
                return Fraction(0), None
            case "hardtanh":
                return Fraction(self.min), Fraction(self.max)
            case _:
                return None

    def function(self) -> _Function:
        """The function, where it is more than clipping."""
        if self.activation == "leaky_relu":
            return _leaky_relu(self.negative_slope)
        return _FUNCTIONS[self.activation]


@dataclass(frozen=True)
class PostOperationImage(Image):
    """A function of what a layer computes, over the output scale.

    A kernel knows the layer's result within `inner`'s error, so its value lies between the function's least and
    greatest there; that is rounded k times, and off by the contract's ulps, relative to the function's own terms.
    """

    lower: Reals
    upper: Reals
    inner: LinearImage
    function: _Function
    scale_y: float
    zero_point_y: float

    @classmethod
    def of(cls, inner: LinearImage, post: PostOperation, element: Element) -> "PostOperationImage":
        """The image for what a layer gives in real units."""
        f, scale = post.function(), output_scale(element)
        if inner.is_point:
            lower = upper = _image_of(inner.lower, f, scale)
        else:
            low, high = _over(f, inner.lower.approx - inner.lower.error, inner.upper.approx + inner.upper.error)
            lower, upper = known_reals(low / float(scale)), known_reals(high / float(scale))
        return cls(lower, upper, inner, f, float_scale(element), zero_point_magnitude(element))

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        lo, hi = self.inner.ends(contract)
        magnitude = np.maximum(np.abs(lo), np.abs(hi))
        if self.function.spreads:
            spread = gamma(contract.k) * magnitude
            lo, hi = lo - spread, hi + spread
        low, high = _over(self.function, lo, hi)
        reached = np.maximum(high - self.upper.approx * self.scale_y, self.lower.approx * self.scale_y - low)
        terms = np.maximum(self.function.terms(lo), self.function.terms(hi))
        terms = np.maximum(terms, np.maximum(np.abs(low), np.abs(high)))
        relative = gamma(contract.k + 2 * contract.function_ulps) + elementary.FILTER_MARGIN
        bound = (np.maximum(reached, 0.0) + relative * terms + _UNDERFLOW) / self.scale_y
        return np.asarray(bound + gamma(contract.k) * self.zero_point_y)


def _image_of(x: Reals, f: _Function, scale: Fraction) -> Reals:
    """`f` of known numbers, over `scale`."""
    approx = f.value(x.approx) / float(scale)
    low, high = _over(f, x.approx - x.error, x.approx + x.error)
    error = (high - low) / float(scale) + np.abs(approx) * (4 * elementary.FILTER_MARGIN) + 1e-300
    memo: dict[tuple[int, int], Bounds] = {}

    def refine(i: int, bits: int) -> Bounds:
        if (i, bits) not in memo:
            a, b = x.refine(i, bits)
            assert a == b, "sums of products are rational"
            low, high = f.enclose(a, bits)
            memo[i, bits] = (low / scale, high / scale)
        return memo[i, bits]

    return Reals(approx, error, refine)


def _over(f: _Function, lo: Floats, hi: Floats) -> tuple[Floats, Floats]:
    """Bounds of `f` between `lo` and `hi`, a little wide."""
    ends = f.value(lo), f.value(hi)
    low, high = np.minimum(*ends), np.maximum(*ends)
    place, least = f.least
    low = np.where((lo <= place) & (place <= hi), np.minimum(low, least), low)
    margin = 2 * elementary.FILTER_MARGIN
    return low - np.abs(low) * margin, high + np.abs(high) * margin


def _leaky_relu(negative_slope: float) -> _Function:
    slope = Fraction(negative_slope)

    def enclose(x: Fraction, bits: int) -> Bounds:
        y = x if x >= 0 else slope * x
        return y, y

    def value(x: Floats) -> Floats:
        return np.where(x >= 0, x, negative_slope * x)

    return _Function(value, enclose, lambda x: np.abs(value(x)), (0.0, 0.0), spreads=False)


def _hardswish(x: Floats) -> Floats:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _enclose_hardswish(x: Fraction, bits: int) -> Bounds:
    y = x * max(Fraction(0), min(x + 3, Fraction(6))) / 6
    return y, y


def _terms_of_hardswish(x: Floats) -> Floats:
    """A sixth of x and 1 / 2 are added, then clipped and multiplied by x."""
    return np.where(x <= -3.01, 0.0, np.abs(x) * np.minimum(np.abs(x) / 6.0 + 0.5, 1.0))


def _swish(x: Floats) -> Floats:
    return x * elementary.sigmoid_float64(x)


def _enclose_swish(x: Fraction, bits: int) -> Bounds:
    a, b = elementary.sigmoid(x, bits)
    return (x * a, x * b) if x >= 0 else (x * b, x * a)


def _terms_of_gelu(x: Floats) -> Floats:
    """Half of x is multiplied with 1 plus what is next to -1 far left, and from -10 on -1 itself: 1e-22 is lost."""
    return np.where(x < -10.0, 1e-15, np.abs(x))


_FUNCTIONS: dict[str, _Function] = {
    "hardswish": _Function(_hardswish, _enclose_hardswish, _terms_of_hardswish, (-1.5, -0.375), spreads=False),
    "tanh": _Function(np.tanh, elementary.tanh, lambda x: np.abs(np.tanh(x)), (0.0, 0.0), spreads=True),
    "swish": _Function(
        _swish, _enclose_swish, lambda x: np.abs(_swish(x)), (-1.2784645427610738, -0.2784645427610739), spreads=True
    ),
    "gelu": _Function(
        gelu.by_erf, gelu.enclose_by_erf, _terms_of_gelu, (-0.7517915246935645, -0.16997120747990370), spreads=True
    ),
    "gelu_tanh": _Function(
        gelu.by_tanh, gelu.enclose_by_tanh, _terms_of_gelu, (-0.7524614220710162, -0.17004075057125410), spreads=True
    ),
}
"""Activations that are more than clipping and have no parameters."""
