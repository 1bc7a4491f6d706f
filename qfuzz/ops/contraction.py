"""What conv, linear and their kin share: sums of products of an activation and a weight, a bias, a fused relu."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.semantics import (
    LinearImage,
    Operand,
    check_multipliers,
    float_scale,
    is_power_of_two,
    linear_image,
    output_scale,
    per_tensor,
)

Multiply = Callable[[Floats, Floats], Floats]
"""A bilinear form of two arrays, exact in float64 for the integers here."""


@dataclass(frozen=True)
class Factors:
    """``alpha * (x * w) + beta * bias``: the float32 factors of ONNX Gemm.

    Attributes
    ----------
    alpha, beta
        Of the product, and of the bias. 1 says nothing.
    """

    alpha: float = 1.0
    beta: float = 1.0

    @property
    def roundings(self) -> int:
        """How many float32 roundings stand in a kernel's chain on their account: none where they only shift."""
        return int(any(not is_power_of_two(abs(f)) for f in (self.alpha, self.beta) if f))


ONES = Factors()


def check_weight(x: TensorType, weight: TensorType, element: Element, *, axis: int = 0, factor: float = 1.0) -> None:
    """Raise `InvalidCase` unless `weight` is quantized per tensor or per output channel, on `axis`.

    `factor` is one more that results are multiplied by.
    """
    q = check_integers(x, weight, axis=axis)
    scale_x = x.qtype.scale[0]
    check_multipliers([abs(factor) * scale_x * s for s in (min(q.scale), max(q.scale))], element, "weight")


def check_normal(value: float, what: str) -> None:
    """Raise `InvalidCase` unless `value` is in the normal range of float32."""
    if not FLOAT32_MIN_NORMAL <= value <= FLOAT32_MAX:
        raise InvalidCase(f"weight: {what} {value!r} is outside the normal range of float32")


def check_integers(x: TensorType, weight: TensorType, *, axis: int = 0) -> QType:
    """The weight's type; raises `InvalidCase` unless it is quantized per tensor or on `axis`, and `x` per tensor."""
    q = weight.element
    if not isinstance(q, QType):
        raise InvalidCase(f"weight: needs quantized elements, got {q}")
    if q.axis not in (None, axis):
        raise InvalidCase(f"weight: scales on axis {q.axis}; per-channel weights have them on axis {axis}")
    per_tensor(x, "x")
    return q


def check_accumulators(element: Element) -> None:
    """Raise `InvalidCase` unless the output is plain int32, as accumulators are."""
    if element != "int32":
        raise InvalidCase(f"output: {element}; integer products are summed to plain int32")


def check_bias(inputs: Sequence[TensorType], n_channels: int) -> None:
    """Raise `InvalidCase` unless the bias, if any, is [n_channels] of int32 (accumulator units) or float32."""
    if len(inputs) < 3:
        return
    bias = inputs[2]
    if bias.element not in ("int32", "float32"):
        raise InvalidCase("bias: needs plain int32 (in units of scale_x * scale_w) or float32 elements")
    if bias.shape != (n_channels,):
        raise InvalidCase(f"bias: shape {bias.shape}; needs ({n_channels},), one for each output channel")


def require_int32(constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
    """Raise `InvalidCase` if an accumulator could leave int32 for some input: kernels accumulate there."""
    q_x, q_w = inputs[0].qtype, inputs[1].qtype
    weight = constants[1].array.astype(np.int64)
    zero_points = np.array(q_w.zero_point, dtype=np.int64).reshape((-1,) + (1,) * (weight.ndim - 1))
    centered = np.abs(weight - zero_points)
    bias = constants.get(2)
    require_int32_sums(centered.reshape(weight.shape[0], -1).sum(axis=1), q_x, q_w.scale, bias)


def require_int32_sums(
    weights: npt.NDArray[np.int64], q_x: QType, scales: Sequence[float], bias: Tensor | None = None
) -> None:
    """`require_int32` for channels whose |weight - zero_point| sum to `weights`; `scales` is one, or one for each."""
    # Kernels also sum x*w, zero_point*w and x*zero_point apart, modulo 2^32: only the final sum has to fit.
    worst: npt.NDArray[np.float64] = np.asarray(weights * largest_distance(q_x), dtype=np.float64)
    if bias is not None:
        values = bias.array.astype(np.float64)
        worst = worst + np.abs(values if bias.dtype == "int32" else values / (np.array(scales) * q_x.scale[0]))
    limit = INTEGER_RANGE["int32"][1]
    if worst.size and float(worst.max()) > limit:
        channel = int(worst.argmax())
        raise InvalidCase(
            f"weight: channel {channel} can reach an accumulator of {float(worst.max()):.0f}; int32 holds {limit}"
        )


def largest_distance(q: QType) -> int:
    """The largest |q - zero_point| that the per-tensor type can store."""
    (z,) = q.zero_point
    return max(q.qmax - z, z - q.qmin)


def accumulators(x: Operand, weight: Operand, multiply: Multiply) -> tuple[Floats, Floats]:
    """Bounds of the sums of products for an uncertain `x` and a known `weight`; one object for a point.

    Sums of magnitudes stay below 2^31 (`require_int32`), so float64 holds every accumulator exactly.
    """
    w, _ = weight.centered()
    x_lo, x_hi = x.centered()
    if x.is_point:
        acc = multiply(x_lo, w)
        return acc, acc
    positive, negative = np.maximum(w, 0.0), np.minimum(w, 0.0)
    return (
        multiply(x_lo, positive) + multiply(x_hi, negative),
        multiply(x_hi, positive) + multiply(x_lo, negative),
    )


def accumulator_image(lower: Floats, upper: Floats, x: Operand, w: Operand, multiply: Multiply) -> LinearImage:
    """The image of plain int32 accumulators between `lower` and `upper`, as they are."""
    one = Multiplier.of(Fraction(1))

    def real() -> Floats:
        return multiply(x.magnitude(), w.magnitude())

    return linear_image(
        [Term(lower, one)],
        None if lower is upper else [Term(upper, one)],
        lower.shape,
        "int32",
        accumulator=real,
        real=real,
        affine=lambda: multiply(x.affine_magnitude(), w.affine_magnitude()),
    )


def contraction_image(
    operands: Sequence[Operand],
    element: Element,
    multiply: Multiply,
    shape: tuple[int, ...],
    *,
    channel_axis: int,
    n_summed: int,
    relu: bool,
    scales: Sequence[float] = (),
    factors: Factors = ONES,
) -> LinearImage:
    """The image of a bilinear `multiply(x - zero_point_x, weight - zero_point_w)`, plus bias, over the output scale.

    Parameters
    ----------
    scales
        The weight's scale for all output channels, or for each; as its type has them where not given.
    """
    x, weight = operands[0], operands[1]
    channel_shape = (shape[channel_axis],) + (1,) * (len(shape) - channel_axis - 1)
    acc_lo, acc_hi = accumulators(x, weight, multiply)
    scales = scales or weight.type.qtype.scale
    m = _multiplier(scales, x, element, factors.alpha, channel_shape)
    bias_terms: list[Term] = []
    bias_magnitude: Floats = np.zeros(())
    bias_unit: Floats | None = None
    joins = False
    if len(operands) > 2 and factors.beta:
        bias = operands[2]
        values = bias.lo.reshape(channel_shape)
        is_integer = bias.type.element == "int32"
        joins = is_integer and factors.alpha == factors.beta
        if joins:
            acc_hi = acc_hi + values
            acc_lo = acc_hi if x.is_point else acc_lo + values
            m_bias = m
        elif is_integer:
            m_bias = _multiplier(scales, x, element, factors.beta, channel_shape)
        else:
            m_bias = Multiplier.of(Fraction(factors.beta) / output_scale(element))
            unit = _multiplier(scales, x, element, 1.0, channel_shape).approx * abs(factors.beta)
            bias_unit = _rounded_bias_unit(values * m_bias.approx, unit)
        bias_terms = [] if joins else [Term(values, m_bias)]
        bias_magnitude = np.abs(values * m_bias.approx)
    if factors.alpha < 0:
        acc_lo, acc_hi = acc_hi, acc_lo
    size = np.abs(m.approx)

    def accumulator() -> Floats:
        largest = np.abs(acc_lo) if x.is_point else np.maximum(np.abs(acc_lo), np.abs(acc_hi))
        return largest * size + (0.0 if joins else bias_magnitude)

    def real() -> Floats:
        return multiply(x.magnitude(), weight.magnitude()) * size + bias_magnitude

    def affine() -> Floats:
        return multiply(x.affine_magnitude(), weight.affine_magnitude()) * size + bias_magnitude

    image = linear_image(
        [Term(acc_lo, m), *bias_terms],
        None if x.is_point else [Term(acc_hi, m), *bias_terms],
        shape,
        element,
        accumulator=accumulator,
        real=real,
        affine=affine,
        n_summed=n_summed + (1 if len(operands) > 2 else 0),
        bounds=relu_bounds(relu),
        bias_unit=bias_unit,
    )
    return replace(image, extra_roundings=factors.roundings) if factors.roundings else image


def relu_bounds(relu: bool) -> tuple[Fraction | None, Fraction | None]:
    """What a result is clipped to, in output units."""
    return (Fraction(0), None) if relu else (None, None)


def _multiplier(
    scales: Sequence[float], x: Operand, element: Element, factor: float, channel_shape: tuple[int, ...]
) -> Multiplier:
    """``factor * scale_x * scale_w / scale_y``."""
    if factor != 1.0:
        y = output_scale(element)
        m = Multiplier.of(*(Fraction(factor) * Fraction(s) * x.scale / y for s in scales))
        return m if len(scales) == 1 else replace(m, approx=m.approx.reshape(channel_shape))
    # Products of two float32 scales are exact in float64.
    if len(scales) == 1:
        return Multiplier.quotient(scales[0] * x.float_scale, float_scale(element))
    return Multiplier.ratio((np.array(scales) * x.float_scale).reshape(channel_shape), float_scale(element))


def _rounded_bias_unit(bias: Floats, unit: Floats) -> Floats:
    """`unit` where rounding `bias` to a multiple of it may change it, 0 where it is a small multiple already."""
    steps = np.rint(bias / unit)
    return np.where((steps * unit == bias) & (np.abs(steps) < 2.0**22), 0.0, unit)
