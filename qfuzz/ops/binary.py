"""sub, div: differences and quotients of two activations, with NumPy broadcasting.

Semantics: ONNX Sub and Div (opset 14) on dequantized float32 operands. ONNX gives no operator for them on stored
integers: its Div of integers truncates, and neither knows scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, array_lsb
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.elementwise import broadcast_shape, sum_image
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    check_narrow,
    float_scale,
    is_power_of_two,
    output_scale,
    per_tensor,
    quantized_output,
    zero_point_magnitude,
)
from qfuzz.ops.table import known_reals


def check_operands(inputs: Sequence[TensorType], element: Element) -> None:
    """Raise `InvalidCase` unless float32 holds the real numbers of all inputs, and them over the output scale."""
    check_narrow(inputs, element)
    for name, t in zip("abcdefgh", inputs, strict=False):
        q = per_tensor(t, name)
        check_multipliers([q.scale[0], largest_real(q)], element, name)


def largest_real(q: QType) -> float:
    """The largest magnitude that a per-tensor type can stand for."""
    return q.scale[0] * max(q.qmax - q.zero_point[0], q.zero_point[0] - q.qmin)


class Sub(ExactOperator, frozen=True, kw_only=True, tag="sub"):
    """`a - b`."""

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_operands(inputs, element)
        reach = sum(largest_real(t.qtype) for t in inputs)
        check_multipliers([reach], element, "inputs")
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        return sum_image(operands, element, subtract=True)


class Div(ExactOperator, frozen=True, kw_only=True, tag="div"):
    """`a / b`, the real quotient; where `b` is 0, what IEEE 754 says of float32 numbers and ONNX of quantizing them.

    A stored integer that is its type's zero point stands for +0 (`DequantizeLinear` subtracts before it multiplies).
    ONNX Div of float32 numbers is the division of IEEE 754-2019, section 7.3: `a / +0` is an infinity of the sign of
    `a`, and `0 / 0` is NaN. QuantizeLinear saturates, so that an infinity becomes an end of the output's range. What a
    NaN becomes is not said ("y = saturate((x / y_scale) + y_zero_point)"): every stored integer is admissible then,
    under every contract, by this specification. The reference itself takes the smallest, as the kernels of ONNX
    Runtime happen to.
    """

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_operands(inputs, "float32")
        a, b = (t.qtype for t in inputs)
        # The smallest and the largest quotient: float32 has to hold both.
        check_multipliers([a.scale[0] / largest_real(b), largest_real(a) / b.scale[0]], element, "inputs")
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        shape = broadcast_shape([a.type, b.type])
        # Not `Multiplier.quotient`: a divisor of 48 bits times a quotient of 24 is no proof in float64.
        m = Multiplier.of(a.scale / (b.scale * output_scale(element)))
        (a_lo, a_hi), (b_lo, b_hi) = a.centered(), b.centered()
        if a.is_point and b.is_point:
            lower = upper = _quotient(a_lo, b_lo, m, shape)
        else:
            lower, upper = _quotient_bounds((a_lo, a_hi), (b_lo, b_hi), m, shape)
        zero = np.asarray((b_lo <= 0) & (b_hi >= 0))
        least = np.where(zero, 0.0, np.minimum(np.abs(b_lo), np.abs(b_hi)))
        undefined = zero & (a_lo <= 0) & (a_hi >= 0)
        return QuotientImage(
            lower, upper, a, b, least, m.approx, float_scale(element), zero_point_magnitude(element), zero, undefined
        )


INFINITE = 2.0**45
"""Stands for an infinite quotient, in output units: beyond every storage range."""


def _quotient(a: Floats, b: Floats, m: Multiplier, shape: tuple[int, ...]) -> Reals:
    """`a / b * m`; by a zero `INFINITE` with the sign of `a`, and -`INFINITE` (which saturates to qmin) for 0 / 0.

    The multiplier, the quotient and the product are each within u = 2^-53 of their float64; doubled for slack. All are
    exact where quotient, divisor and multiplier have 24 bits: then both products of two of them are.
    """
    a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    zero = b == 0
    divisor = np.where(zero, 1.0, b)
    quotient = a / divisor
    approx = np.where(zero, np.where(a > 0, INFINITE, -INFINITE), quotient * m.approx)
    exact = zero
    if m.lsb and is_float32(m.approx):
        exact = zero | (is_float32(quotient) & is_float32(divisor) & (quotient * divisor == a))

    def refine(i: int, bits: int) -> Bounds:
        value = Fraction(float(a.flat[i])) / Fraction(float(divisor.flat[i])) * m.fraction(0)
        return value, value

    return Reals(approx, np.where(exact, 0.0, np.abs(approx) * 2.0**-50), refine)


def is_float32(values: Floats) -> npt.NDArray[np.bool_]:
    """Where float32 holds a number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(values.astype(np.float32) == values)


def _quotient_bounds(
    a: tuple[Floats, Floats], b: tuple[Floats, Floats], m: Multiplier, shape: tuple[int, ...]
) -> tuple[Reals, Reals]:
    """Bounds where something is uncertain: everything where the divisor may be 0, unless it is 0 and `a` is not."""
    may_be_0 = np.broadcast_to((b[0] <= 0) & (b[1] >= 0), shape)
    is_0 = np.broadcast_to((b[0] == 0) & (b[1] == 0), shape)
    corners = [x / np.where((b[0] <= 0) & (b[1] >= 0), 1.0, y) * m.approx for x in a for y in b]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    # Three roundings of float64: of the multiplier, the quotient and the product; doubled for slack.
    low, high = low - np.abs(low) * 2.0**-50, high + np.abs(high) * 2.0**-50
    low = np.where(may_be_0, np.where(is_0 & (a[0] > 0), INFINITE, -INFINITE), low)
    high = np.where(may_be_0, np.where(is_0 & (a[1] < 0), -INFINITE, INFINITE), high)
    return known_reals(np.ascontiguousarray(low)), known_reals(np.ascontiguousarray(high))


@dataclass(frozen=True)
class QuotientImage(Image):
    """Quotients, and how float32 kernels err on them.

    Under `real` terms a and b each are off by a relative error, so that all k roundings are of the quotient (Higham,
    lemma 3.1, which holds for divisors, too). Under `affine` terms a and b are off by gamma_k of their affine
    magnitudes, and the quotient by (e_a + |a/b| e_b) / (|b| - e_b) before its own roundings: without bound where e_b
    reaches |b|.

    Attributes
    ----------
    least
        Smallest |b - zero point|.
    multiplier
        scale_a / (scale_b * scale_y).
    may_be_zero
        Where the divisor may be 0: there the bounds hold whatever is rounded, as long as s*(q - zp) is taken together
        and 0 stays 0.
    undefined
        Where 0 / 0 may be: there anything is admissible.
    """

    lower: Reals
    upper: Reals
    a: Operand
    b: Operand
    least: Floats
    multiplier: Floats
    scale_y: float
    zero_point_y: float
    may_be_zero: npt.NDArray[np.bool_]
    undefined: npt.NDArray[np.bool_]

    def error(self, contract: Contract) -> Floats:
        anything = np.where(self.undefined, np.inf, 0.0)
        if contract.terms == "exact":
            return anything
        g = gamma(contract.k) * (1 + 2.0**-40)
        quotient = np.maximum(np.abs(self.lower.approx), np.abs(self.upper.approx))
        if contract.terms in ("affine", "fixed_point"):
            e_a = g * self.a.affine_magnitude()
            e_b = g * self.b.affine_magnitude()
            room = self.least - e_b
            moved = np.where(room > 0, (e_a * self.multiplier + quotient * e_b) / np.where(room > 0, room, 1.0), np.inf)
            bound = moved + g * (quotient + moved + self.zero_point_y)
        else:
            magnitude = quotient
            if contract.adds_zero_point or contract.tie in ("half_even_after_zero_point", "either_even"):
                magnitude = magnitude + self.zero_point_y
            bound = g * magnitude
        stays_0 = _is_short(self.b) if contract.terms in ("affine", "fixed_point") else True
        bound = np.where((self.may_be_zero & stays_0) | self._float32_exact(), 0.0, bound)
        return np.maximum(bound, anything)

    def _float32_exact(self) -> npt.NDArray[np.bool_]:
        """Where operands, their affine parts, the quotient, and it over the output scale plus zero point are float32.

        A quotient q of 24 bits times a divisor of 24 bits is exact in float64, so that q * b == a proves q = a / b.
        """
        if not (self.is_point and is_power_of_two(self.scale_y)):
            return np.zeros((), dtype=np.bool_)
        small = [_is_short(o) for o in (self.a, self.b)]
        a, b = (o.centered()[0] * o.float_scale for o in (self.a, self.b))
        b = np.where(b == 0, 1.0, b)
        q = a / b
        r = q / self.scale_y
        exact = small[0] & small[1] & is_float32(q) & (q * b == a) & is_float32(r)
        for z in (self.zero_point_y, -self.zero_point_y):
            y = r + z
            exact &= (y - z == r) & (y - r == z) & is_float32(y)
        return np.asarray(exact)


def _is_short(x: Operand) -> npt.NDArray[np.bool_]:
    """Where s*q, s*zero_point and s*(q - zero_point) are float32: multiples of s's last bit below 2^24 of them."""
    s = x.float_scale
    return np.asarray(x.affine_magnitude() * s < 2.0**24 * array_lsb(np.array(s)))
