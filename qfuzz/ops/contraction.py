"""What conv and linear share: sums of products of an activation and a constant weight, with a bias and a fused relu."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.semantics import (
    Image,
    Operand,
    check_multipliers,
    float_scale,
    linear_image,
    output_scale,
    per_tensor,
)


def check_weight(x: TensorType, weight: TensorType, element: Element) -> None:
    """Raise `InvalidCase` unless `weight` is quantized per tensor or per output channel (axis 0)."""
    q = weight.element
    if not isinstance(q, QType):
        raise InvalidCase(f"weight: needs quantized elements, got {q}")
    if q.axis not in (None, 0):
        raise InvalidCase(f"weight: scales on axis {q.axis}; per-channel weights have them on axis 0")
    scale_x = per_tensor(x, "x").scale[0]
    check_multipliers([scale_x * s for s in (min(q.scale), max(q.scale))], element, "weight")


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
    (z,) = q_x.zero_point
    largest_x = max(q_x.qmax - z, z - q_x.qmin)
    # Kernels also sum x*w, zero_point*w and x*zero_point apart, modulo 2^32: only the final sum has to fit.
    worst = centered.reshape(weight.shape[0], -1).sum(axis=1) * largest_x
    scales = np.array(q_w.scale) * q_x.scale[0]
    if 2 in constants:
        bias = constants[2].array.astype(np.float64)
        worst = worst + np.abs(bias if constants[2].dtype == "int32" else bias / scales)
    limit = INTEGER_RANGE["int32"][1]
    if worst.size and float(worst.max()) > limit:
        channel = int(worst.argmax())
        raise InvalidCase(
            f"weight: channel {channel} can reach an accumulator of {float(worst.max()):.0f}; int32 holds {limit}"
        )


def contraction_image(
    operands: Sequence[Operand],
    element: Element,
    multiply: Callable[[Floats, Floats], Floats],
    shape: tuple[int, ...],
    *,
    channel_axis: int,
    n_summed: int,
    relu: bool,
) -> Image:
    """The image of a bilinear `multiply(x - zero_point_x, weight - zero_point_w)`, plus bias, over the output scale.

    Sums of magnitudes stay below 2^31 (`require_int32`), so float64 holds every accumulator exactly.
    """
    x, weight = operands[0], operands[1]
    scale_y = float_scale(element)
    rank = len(shape)
    channel_shape = (shape[channel_axis],) + (1,) * (rank - channel_axis - 1)
    w, _ = weight.centered()
    x_lo, x_hi = x.centered()
    if x.is_point:
        acc_lo = acc_hi = multiply(x_lo, w)
    else:
        positive, negative = np.maximum(w, 0.0), np.minimum(w, 0.0)
        acc_lo = multiply(x_lo, positive) + multiply(x_hi, negative)
        acc_hi = multiply(x_hi, positive) + multiply(x_lo, negative)
    # Products of two float32 scales are exact in float64.
    scales = weight.type.qtype.scale
    if len(scales) == 1:
        m = Multiplier.quotient(scales[0] * x.float_scale, scale_y)
    else:
        m = Multiplier.ratio((np.array(scales) * x.float_scale).reshape(channel_shape), scale_y)
    bias_terms: list[Term] = []
    bias_magnitude: Floats = np.zeros(())
    bias_unit: Floats | None = None
    if len(operands) > 2:
        bias = operands[2]
        values = bias.lo.reshape(channel_shape)
        if bias.type.element == "int32":
            acc_hi = acc_hi + values
            acc_lo = acc_hi if x.is_point else acc_lo + values
            bias_magnitude = np.abs(values) * m.approx
        else:
            m_bias = Multiplier.of(1 / output_scale(element))
            bias_terms = [Term(values, m_bias)]
            bias_magnitude = np.abs(values) * m_bias.approx
            bias_unit = _rounded_bias_unit(values * m_bias.approx, m.approx)
    integer_bias = len(operands) > 2 and operands[2].type.element == "int32"

    def accumulator() -> Floats:
        largest = np.abs(acc_lo) if x.is_point else np.maximum(np.abs(acc_lo), np.abs(acc_hi))
        return largest * m.approx + (0.0 if integer_bias else bias_magnitude)

    def real() -> Floats:
        return multiply(x.magnitude(), np.abs(w)) * m.approx + bias_magnitude

    def affine() -> Floats:
        return multiply(x.affine_magnitude(), weight.affine_magnitude()) * m.approx + bias_magnitude

    return linear_image(
        [Term(acc_lo, m), *bias_terms],
        None if x.is_point else [Term(acc_hi, m), *bias_terms],
        shape,
        element,
        accumulator=accumulator,
        real=real,
        affine=affine,
        n_summed=n_summed + (1 if len(operands) > 2 else 0),
        bounds=(Fraction(0), None) if relu else (None, None),
        bias_unit=bias_unit,
    )


def _rounded_bias_unit(bias: Floats, unit: Floats) -> Floats:
    """`unit` where rounding `bias` to a multiple of it may change it, 0 where it is a small multiple already."""
    steps = np.rint(bias / unit)
    return np.where((steps * unit == bias) & (np.abs(steps) < 2.0**22), 0.0, unit)
