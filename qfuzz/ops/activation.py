"""relu, clamp, leaky_relu, elu, celu, hardsigmoid, hardswish, sigmoid, tanh.

Semantics: ONNX Relu, Clip, LeakyRelu, Elu, HardSigmoid (alpha = 1/6, beta = 1/2), HardSwish, Sigmoid, Tanh;
`torch.nn.functional` of the same names. Parameters are float32 numbers; 1/6 is the rational.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact import elementary
from qfuzz.exact.combination import Multiplier, Term, product_terms
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import (
    Image,
    Operand,
    check_multipliers,
    float32_exact,
    float_scale,
    identity_image,
    is_power_of_two,
    linear_image,
    output_scale,
    per_tensor,
    zero_point_magnitude,
)
from qfuzz.ops.table import UnaryOperator


def check_float32(attribute: str, value: float) -> None:
    """Raise `InvalidCase` unless `value` is a finite float32."""
    if float32(value) != value or value in (float("inf"), float("-inf")):
        raise InvalidCase(f"{attribute}: {value!r}; needs a finite float32")


class Relu(UnaryOperator, frozen=True, kw_only=True, tag="relu"):
    """The larger of x and 0."""

    def table(self, x: Operand, element: Element) -> Image:
        return identity_image(x, x.lo, x.hi, x.type.shape, element, bounds=(Fraction(0), None))


class Clamp(UnaryOperator, frozen=True, kw_only=True, tag="clamp"):
    """x clipped to `min`..`max`, real numbers; relu6 is 0..6."""

    min: float
    max: float

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_float32("min", self.min)
        check_float32("max", self.max)
        if self.min > self.max:
            raise InvalidCase(f"min, max: {self.min!r}, {self.max!r}; min is at most max")
        for bound in (self.min, self.max):
            if bound:
                check_multipliers([abs(bound)], element, "min, max")
        return super().infer(inputs, element)

    def table(self, x: Operand, element: Element) -> Image:
        scale_y = output_scale(element)
        bounds = (Fraction(self.min) / scale_y, Fraction(self.max) / scale_y)
        return identity_image(x, x.lo, x.hi, x.type.shape, element, bounds=bounds)


class LeakyRelu(UnaryOperator, frozen=True, kw_only=True, tag="leaky_relu"):
    """x where it is positive, else `negative_slope * x`."""

    negative_slope: float

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = super().infer(inputs, element)
        check_float32("negative_slope", self.negative_slope)
        if self.negative_slope:
            slope = abs(self.negative_slope)
            check_multipliers([slope, slope * inputs[0].qtype.scale[0]], element, "negative_slope")
        return shape

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        up = Multiplier.of(x.scale / output_scale(element))
        down = Multiplier.of(Fraction(self.negative_slope) * x.scale / output_scale(element))
        slope = np.where(n < 0, abs(down.approx), up.approx)
        return linear_image(
            [Term(np.maximum(n, 0.0), up, are_integers=True), Term(np.minimum(n, 0.0), down, are_integers=True)],
            None,
            x.type.shape,
            element,
            accumulator=lambda: np.abs(n) * slope,
            real=lambda: np.abs(n) * slope,
            affine=lambda: x.affine_magnitude() * slope,
        )


class Hardsigmoid(UnaryOperator, frozen=True, kw_only=True, tag="hardsigmoid"):
    """x/6 + 1/2 clipped to 0..1."""

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        scale_y = output_scale(element)
        m = Multiplier.of(x.scale / scale_y / 6)
        half = Multiplier.of(1 / scale_y / 2)
        return linear_image(
            [Term(n, m, are_integers=True), Term(np.ones_like(n), half, are_integers=True)],
            None,
            x.type.shape,
            element,
            accumulator=lambda: np.abs(n) * m.approx + half.approx,
            real=lambda: np.abs(n) * m.approx + half.approx,
            affine=lambda: x.affine_magnitude() * m.approx + half.approx,
            bounds=(Fraction(0), 1 / scale_y),
        )


class Hardswish(UnaryOperator, frozen=True, kw_only=True, tag="hardswish"):
    """x times (x + 3 clipped to 0..6) / 6."""

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        scale_y = output_scale(element)
        three = float(math.ceil(3 / x.scale))  # n * scale < 3 where n < three: both are integers
        inner, outer = (np.abs(n) < three).astype(np.float64), (n >= three).astype(np.float64)
        square = Multiplier.of(x.scale * x.scale / scale_y / 6)
        half = Multiplier.of(x.scale / scale_y / 2)
        whole = Multiplier.of(x.scale / scale_y)

        def magnitude(largest: Floats) -> Floats:
            reach = np.minimum(largest * float(x.scale) + 3.0, 6.0)
            # 0 where a kernel, however it rounds x, finds it below -3.
            below = n * float(x.scale) + 3.0 < -largest * float(x.scale) * 2.0**-20
            return largest * whole.approx * np.where(below, 0.0, reach / 6.0)

        return linear_image(
            [*product_terms(n * inner, n, square), Term(n * inner, half), Term(n * outer, whole)],
            None,
            x.type.shape,
            element,
            accumulator=lambda: magnitude(np.abs(n)),
            real=lambda: magnitude(np.abs(n)),
            affine=lambda: magnitude(x.affine_magnitude()),
        )


@dataclass(frozen=True)
class FunctionImage(Image):
    """The image of an increasing elementary function of one variable.

    A kernel sees x within gamma_k * |x| (or its affine magnitude), so its value lies between the function's values
    there; the value itself is rounded k times and off by the function's ulps. Under `affine` terms, what the formula
    adds counts apart (`addends`): e^x - 1 in float32 is off by roundings of 1, however small the difference is.
    """

    lower: Reals
    upper: Reals
    function: Callable[[Floats], Floats]
    x_real: Floats
    x_affine: Floats
    scale_y: float
    zero_point_y: float
    float32_exact: npt.NDArray[np.bool_]
    addends: Floats

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros_like(self.x_real)
        magnitude = self.x_affine if contract.terms == "affine" else np.abs(self.x_real)
        spread = gamma(contract.k) * magnitude
        f = self.function(self.x_real)
        moved = np.maximum(self.function(self.x_real + spread) - f, f - self.function(self.x_real - spread))
        slack = elementary.FILTER_MARGIN * np.abs(f)
        rounding = gamma(contract.k + 2 * contract.function_ulps) * (np.abs(f) + moved)
        rounding = rounding + gamma(contract.k + 2 * contract.function_ulps) * contract.function_addend
        bound = (moved + slack + rounding) / self.scale_y
        if contract.terms == "affine":
            added = gamma(contract.k + 2 * contract.function_ulps) * self.addends / self.scale_y
            bound = bound + added + gamma(contract.k) * self.zero_point_y
        return np.where(self.float32_exact, 0.0, bound)


def _function_image(
    x: Operand,
    element: Element,
    function: Callable[[Floats], Floats],
    enclose: Callable[[Fraction, int], elementary.Enclosure],
    rational: npt.NDArray[np.bool_],
    addends: Callable[[Floats], Floats] = np.zeros_like,
) -> FunctionImage:
    """Values of `function` over `x`; `rational` says where float64 holds the function's value itself."""
    n, _ = x.centered()
    scale_y = output_scale(element)
    x_real = n * float(x.scale)  # exact where n has 29 bits, for a scale has 24; else well within the filter's margin
    f = function(x_real)
    rational = rational & (np.abs(n) < 2.0**29)
    approx = f / float(scale_y)
    quotient_exact = rational & (approx * float(scale_y) == f) & (scale_y.numerator == 1 or scale_y.denominator == 1)
    exact = quotient_exact & is_power_of_two(float_scale(element))
    error = np.where(exact, 0.0, np.abs(approx) * 2 * elementary.FILTER_MARGIN + 1e-300)
    memo: dict[tuple[int, int], elementary.Enclosure] = {}

    def refine(i: int, bits: int) -> elementary.Enclosure:
        if (i, bits) not in memo:
            a, b = enclose(Fraction(int(n[i])) * x.scale, bits)
            memo[i, bits] = (a / scale_y, b / scale_y)
        return memo[i, bits]

    r = Reals(approx, error, refine)
    affine = x.affine_magnitude() * float(x.scale)
    zero_point = zero_point_magnitude(element)
    terms = [Term(n, Multiplier.of(x.scale / scale_y), are_integers=True)]
    linear = float32_exact(terms, lambda: affine / float(scale_y) + zero_point, element)
    linear = linear & rational & (x_real > 0)
    return FunctionImage(r, r, function, x_real, affine, float(scale_y), zero_point, linear, addends(x_real))


class Elu(UnaryOperator, frozen=True, kw_only=True, tag="elu"):
    """x where it is positive, else `alpha * (e^x - 1)`, with `alpha` of at least 0.

    With the factors that PyTorch's calls take, for selu: `scale * x`, else `scale * alpha * (e^(input_scale * x) - 1)`.
    """

    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_float32("alpha", self.alpha)
        if self.alpha < 0:
            raise InvalidCase(f"alpha: {self.alpha!r}; needs at least 0")
        for name, factor in (("scale", self.scale), ("input_scale", self.input_scale)):
            check_float32(name, factor)
            if not factor > 0:
                raise InvalidCase(f"{name}: {factor!r}; needs more than 0")
            check_multipliers([factor * per_tensor(inputs[0], "x").scale[0]], element, name)
        if self.alpha:
            check_multipliers([self.alpha, self.scale * self.alpha], element, "alpha")
        return super().infer(inputs, element)

    def table(self, x: Operand, element: Element) -> Image:
        low = self.scale * self.alpha  # exact: a product of two float32

        def function(v: Floats) -> Floats:
            return np.where(v > 0, v * self.scale, low * np.expm1(np.minimum(v, 0.0) * self.input_scale))

        def enclose(v: Fraction, bits: int) -> elementary.Enclosure:
            if v >= 0:
                return v * Fraction(self.scale), v * Fraction(self.scale)
            a, b = elementary.expm1(v * Fraction(self.input_scale), bits)
            return Fraction(low) * a, Fraction(low) * b

        def addends(v: Floats) -> Floats:
            return np.where(v < 0, low * (np.exp(np.minimum(v, 0.0) * self.input_scale) + 1.0), 0.0)

        n = x.centered()[0]
        return _function_image(x, element, function, enclose, n >= 0 if self.scale == 1.0 else n == 0, addends)


class Celu(UnaryOperator, frozen=True, kw_only=True, tag="celu"):
    """x where it is positive, else `alpha * (e^(x / alpha) - 1)`, with a positive `alpha`."""

    alpha: float = 1.0

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_float32("alpha", self.alpha)
        if not self.alpha > 0:
            raise InvalidCase(f"alpha: {self.alpha!r}; needs more than 0")
        check_multipliers([self.alpha, per_tensor(inputs[0], "x").scale[0] / self.alpha], element, "alpha")
        return super().infer(inputs, element)

    def table(self, x: Operand, element: Element) -> Image:
        alpha = self.alpha

        def function(v: Floats) -> Floats:
            return np.where(v > 0, v, alpha * np.expm1(np.minimum(v, 0.0) / alpha))

        def enclose(v: Fraction, bits: int) -> elementary.Enclosure:
            if v >= 0:
                return v, v
            a, b = elementary.expm1(v / Fraction(alpha), bits)
            return Fraction(alpha) * a, Fraction(alpha) * b

        def addends(v: Floats) -> Floats:
            return np.where(v < 0, alpha * (np.exp(np.minimum(v, 0.0) / alpha) + 1.0), 0.0)

        return _function_image(x, element, function, enclose, x.centered()[0] >= 0, addends)


class Sigmoid(UnaryOperator, frozen=True, kw_only=True, tag="sigmoid"):
    """1 / (1 + e^-x)."""

    def table(self, x: Operand, element: Element) -> Image:
        return _function_image(x, element, elementary.sigmoid_float64, elementary.sigmoid, x.centered()[0] == 0)


class Tanh(UnaryOperator, frozen=True, kw_only=True, tag="tanh"):
    """The hyperbolic tangent."""

    def table(self, x: Operand, element: Element) -> Image:
        return _function_image(x, element, np.tanh, elementary.tanh, x.centered()[0] == 0)
