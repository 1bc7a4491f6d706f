"""gelu: x times the normal distribution at x, or its approximation by tanh.

Semantics: ONNX Gelu (opset 20): ``0.5 * x * (1 + erf(x / sqrt(2)))``, and with approximate="tanh"
``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))``, a real function of its own. com.microsoft Gelu and
FastGelu are the same two functions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from qfuzz.exact import elementary, error_function
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.qtype import Element
from qfuzz.ops.semantics import Image, Operand, output_scale, zero_point_magnitude
from qfuzz.ops.table import UnaryOperator

_CUBIC = Fraction(44_715, 1_000_000)


class Gelu(UnaryOperator, frozen=True, kw_only=True, tag="gelu"):
    """x times the share of a standard normal distribution that is below x; `approximate` says by which formula."""

    approximate: Literal["none", "tanh"] = "none"

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        scale_y = output_scale(element)
        x_real = n * float(x.scale)
        product, enclose, inner = {
            "none": (by_erf, enclose_by_erf, error_function.erf_float64),
            "tanh": (by_tanh, enclose_by_tanh, _inner_tanh),
        }[self.approximate]
        approx = product(x_real) / float(scale_y)
        error = np.where(n == 0, 0.0, np.abs(approx) * 2 * elementary.FILTER_MARGIN + 1e-300)
        memo: dict[tuple[int, int], elementary.Enclosure] = {}

        def refine(i: int, bits: int) -> elementary.Enclosure:
            if (i, bits) not in memo:
                a, b = enclose(Fraction(int(n[i])) * x.scale, bits)
                memo[i, bits] = (a / scale_y, b / scale_y)
            return memo[i, bits]

        r = Reals(approx, error, refine)
        return GeluImage(
            r,
            r,
            inner,
            x_real,
            x.affine_magnitude() * float(x.scale),
            4 if self.approximate == "tanh" else 0,
            float(scale_y),
            zero_point_magnitude(element),
        )


@dataclass(frozen=True)
class GeluImage(Image):
    """x / 2 times 1 + inner(x), with an odd increasing `inner`, and how far float32 kernels are from it.

    A kernel knows the argument of erf to a few roundings, so `inner` is one of a near x: x / 2 times that difference.
    All else is relative to x / 2 times 1 + |inner|: the sum's terms, for which 1 stays however much of it they cancel.

    Attributes
    ----------
    polynomial
        Roundings of the argument beyond k: the tanh form's is off by 3 of the dequantized x, 1 of each constant, 3 of
        products and 1 of a sum, 8 in all. Its terms have one sign and it grows faster than x, so that x off as much
        covers it.
    """

    lower: Reals
    upper: Reals
    inner: Callable[[Floats], Floats]
    x_real: Floats
    x_affine: Floats
    polynomial: int
    scale_y: float
    zero_point_y: float

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros_like(self.x_real)
        affine = contract.terms in ("affine", "fixed_point")
        x = self.x_affine if affine else np.abs(self.x_real)
        spread = gamma(contract.k + self.polynomial) * x
        e = self.inner(self.x_real)
        moved = np.maximum(self.inner(self.x_real + spread) - e, e - self.inner(self.x_real - spread))
        terms = x / 2 * (1.0 + np.abs(e) + moved)
        relative = gamma(contract.k + 2 * contract.function_ulps) + elementary.FILTER_MARGIN
        bound = (x / 2 * moved + relative * terms) / self.scale_y
        adds_zero_point = contract.adds_zero_point or contract.tie in ("half_even_after_zero_point", "either_even")
        if affine or adds_zero_point:
            bound = bound + gamma(contract.k) * self.zero_point_y
        return bound


def by_erf(x: Floats) -> Floats:
    """Gelu itself, in float64."""
    return x / 2 * error_function.one_plus_erf_float64(x)


def enclose_by_erf(x: Fraction, bits: int) -> elementary.Enclosure:
    """Bounds of gelu itself."""
    return _times(x / 2, error_function.one_plus_erf(x, bits))


def _inner_tanh(x: Floats) -> Floats:
    return np.asarray(np.tanh(_argument(x)))


def _argument(x: Floats) -> Floats:
    return math.sqrt(2 / math.pi) * x * (1.0 + float(_CUBIC) * x * x)


def by_tanh(x: Floats) -> Floats:
    """The approximation by tanh, in float64."""
    return x * elementary.sigmoid_float64(2 * _argument(x))


def enclose_by_tanh(x: Fraction, bits: int) -> elementary.Enclosure:
    """Bounds of x times the sigmoid of 2u, which is x / 2 times 1 + tanh(u)."""
    a, b = _times(2 * (x + _CUBIC * x**3), error_function.root_2_over_pi(bits))
    return _times(x, (elementary.sigmoid(a, bits)[0], elementary.sigmoid(b, bits)[1]))


def _times(factor: Fraction, bounds: elementary.Enclosure) -> elementary.Enclosure:
    a, b = factor * bounds[0], factor * bounds[1]
    return (a, b) if factor >= 0 else (b, a)
