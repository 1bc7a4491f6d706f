"""Functions of one real number as Python statements that set ``real`` from ``x``, with 60 decimals where needed."""

from collections.abc import Callable
from fractions import Fraction

from qfuzz.ir.operator import Operator
from qfuzz.ops.activation import Celu, Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.post_operation import PostOperation
from qfuzz.ops.scalar import MulScalar
from qfuzz.ops.threshold import Threshold


def function_lines(op: Operator) -> list[str]:
    """Lines that make `real` of `x` as an operator on one element does."""
    match op:
        case Relu():
            return ["real = max(x, Fraction(0))"]
        case Clamp(min=low, max=high):
            return [f"real = min(max(x, {fraction(low)}), {fraction(high)})"]
        case LeakyRelu(negative_slope=slope):
            return [f"real = x if x > 0 else x * {fraction(slope)}"]
        case Hardsigmoid():
            return ["real = min(max(x / 6 + Fraction(1, 2), Fraction(0)), Fraction(1))"]
        case Hardswish():
            return ["real = x * min(max(x + 3, Fraction(0)), Fraction(6)) / 6"]
        case Sigmoid():
            return [*DECIMAL, "real = Fraction(1 / (1 + (-exact(x)).exp()))"]
        case Tanh():
            return [*DECIMAL, "real = Fraction(2 / (1 + (-2 * exact(x)).exp()) - 1)"]
        case Gelu(approximate="tanh"):
            u = f"{_ROOT_2_OVER_PI} * exact(x + Fraction(44715, 10**6) * x**3)"
            power = "min(max((-2 * u).exp(), Decimal('1e-1000')), Decimal('1e1000'))"
            return [*DECIMAL, f"u = {u}", f"power = {power}", "real = x / (1 + Fraction(power))"]
        case Gelu():
            return [*DECIMAL, *_ERF, "real = x / 2 * (1 + erf)"]
        case Elu(alpha=alpha, scale=scale, input_scale=input_scale):
            negative = f"Fraction(exact(x * {fraction(input_scale)}).exp() - 1) * {fraction(alpha)}"
            return [*DECIMAL, f"real = (x if x > 0 else {negative}) * {fraction(scale)}"]
        case MulScalar(other=other):
            return [f"real = x * {fraction(other)}"]
        case Celu(alpha=alpha):
            negative = f"Fraction(exact(x / {fraction(alpha)}).exp() - 1) * {fraction(alpha)}"
            return [*DECIMAL, f"real = x if x > 0 else {negative}"]
        case Threshold(threshold=threshold, value=value):
            return [f"real = x if x > {fraction(threshold)} else {fraction(value)}"]
        case _:
            return ["real = x"]


def activation_lines(post: PostOperation) -> list[str]:
    """Lines that make `real` of `x` as what follows a layer does."""
    if post.activation == "swish":
        return [*DECIMAL, "real = x * Fraction(1 / (1 + (-exact(x)).exp()))"]
    return function_lines(_ACTIVATIONS[post.activation](post))


_ACTIVATIONS: dict[str, Callable[[PostOperation], Operator]] = {
    "relu": lambda op: Relu(),
    "hardtanh": lambda op: Clamp(min=op.min, max=op.max),
    "leaky_relu": lambda op: LeakyRelu(negative_slope=op.negative_slope),
    "hardswish": lambda op: Hardswish(),
    "tanh": lambda op: Tanh(),
    "gelu": lambda op: Gelu(),
    "gelu_tanh": lambda op: Gelu(approximate="tanh"),
}
"""What follows a layer, as an operator of its own."""


DECIMAL = [
    "getcontext().prec = 60",
    "getcontext().clear_traps()  # exp of a large number is infinite, and one over it 0",
    "def exact(f): return Decimal(f.numerator) / Decimal(f.denominator)",
]


_ROOT_2_OVER_PI = "Decimal('0.797884560802865355879892119868763736951717262329869315331851659')"

_ERF = [  # DLMF 7.6.2; beyond 15, 1 - |erf| is below 10^-49
    "terms = [x]",
    "while abs(x) <= 15 and abs(terms[-1]) > Fraction(1, 10**60):",
    "    terms.append(terms[-1] * x * x / (2 * len(terms) + 1))",
    f"erf = Fraction({_ROOT_2_OVER_PI} * exact(-x * x / 2).exp()) * sum(terms)  # erf(x / sqrt(2))",
    "erf = erf if abs(x) <= 15 else (1 if x > 0 else -1) * Fraction(10**49 - 1, 10**49)",
]


def fraction(x: float | Fraction) -> str:
    """The number as an expression."""
    numerator, denominator = x.as_integer_ratio()
    return f"Fraction({numerator}, {denominator})" if denominator != 1 else f"Fraction({numerator})"
