"""What conv, linear and their kin share: sums of products of an activation and a weight, a bias, a fused relu."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import BYTES, FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, Element, QType, QuantizedDType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.quantization import check_dequantized, largest_stored
from qfuzz.ops.real_products import real_image, require_pieces
from qfuzz.ops.semantics import (
    LinearImage,
    Operand,
    check_multipliers,
    check_narrow,
    float_scale,
    is_power_of_two,
    linear_image,
    output_scale,
    per_tensor,
    quantized_output,
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

RealBounds = tuple[Fraction | None, Fraction | None]
"""Least and greatest of what results may be; None where there is no such."""

OWN_BIASES: tuple[QuantizedDType, ...] = ("int32", "int8", "uint8")
"""Storage types of biases that have scales and zero points of their own."""

MAX_EXACT = 2**53
"""Integers up to this, and sums of such, are exact in float64. No kernel sums products of wider integers as such."""


def check_weight(x: TensorType, weight: TensorType, element: Element, *, axis: int = 0, factor: float = 1.0) -> None:
    """Raise `InvalidCase` unless `weight` is quantized per tensor or per output channel, on `axis`.

    `factor` is one more that results are multiplied by.
    """
    q = check_integers(x, weight, axis=axis)
    check_narrow([], element)
    scale_x = x.qtype.scale[0] if x.is_quantized else 1.0
    check_multipliers([abs(factor) * scale_x * s for s in (min(q.scale), max(q.scale))], element, "weight")


def check_normal(value: float, what: str) -> None:
    """Raise `InvalidCase` unless `value` is in the normal range of float32."""
    if not FLOAT32_MIN_NORMAL <= value <= FLOAT32_MAX:
        raise InvalidCase(f"weight: {what} {value!r} is outside the normal range of float32")


def check_integers(x: TensorType, weight: TensorType, *, axis: int = 0) -> QType:
    """The weight's type; raises `InvalidCase` unless it is quantized per tensor or on `axis`, and `x` per tensor."""
    q = weight.element
    if not isinstance(q, QType) or q.is_float or q.dtype == "int32":
        raise InvalidCase(f"weight: {weight.dtype}; needs quantized elements, integers of 2 to 16 bits")
    if q.axis not in (None, axis) or q.block:
        raise InvalidCase(
            f"weight: scales on axis {q.axis}{' in blocks' * bool(q.block)}; "
            f"per-channel weights have them on axis {axis}"
        )
    if x.element != "float32":
        per_tensor(x, "x")
    check_narrow([x], "float32")
    return q


def check_activation(x: TensorType, element: Element) -> None:
    """Raise `InvalidCase` unless `x` is quantized per tensor and the output, too; or `x` is float32, and it may be."""
    if x.element != "float32":
        per_tensor(x, "x")
    if x.element != "float32" or element != "float32":
        quantized_output(element)


def check_finite(q_x: QType, q_w: QType, n_summed: int) -> None:
    """Raise `InvalidCase` where a float32 sum of products could overflow."""
    for q in (q_x, q_w):
        check_dequantized(q, "float32")
    worst = (q_x.qmax - q_x.qmin) * q_x.scale[0] * (q_w.qmax - q_w.qmin) * max(q_w.scale) * n_summed
    if worst > FLOAT32_MAX / 2:
        raise InvalidCase(f"x, weight: a sum of {n_summed} products can reach {worst!r}, which overflows float32")


def check_accumulators(element: Element, inputs: Sequence[TensorType]) -> None:
    """Raise `InvalidCase` unless the output is plain int32, as accumulators are, and both inputs are bytes."""
    if element != "int32":
        raise InvalidCase(f"output: {element}; integer products are summed to plain int32")
    for name, t in zip(("x", "weight"), inputs, strict=True):
        if t.dtype not in BYTES:
            raise InvalidCase(f"{name}: {t.dtype}; MatMulInteger and ConvInteger take {' and '.join(BYTES)}")


def check_bias(inputs: Sequence[TensorType], n_channels: int, element: Element, *, beta: float = 1.0) -> None:
    """Raise `InvalidCase` unless the bias, if any, is [n_channels] of a type that one may have.

    These are plain int32 (in units of scale_x * scale_w), float32, and integers with scales and zero points of their
    own: one for all, or one for each channel.
    """
    if len(inputs) < 3:
        return
    bias = inputs[2]
    if isinstance(bias.element, QType):
        _check_own_bias(bias.element, element, beta)
    elif bias.element == "int32" and not inputs[0].is_quantized:
        raise InvalidCase("bias: plain int32 counts scale_x * scale_w, but x is float32")
    elif bias.element not in ("int32", "float32"):
        raise InvalidCase("bias: needs plain int32 (in units of scale_x * scale_w), float32 or quantized elements")
    if bias.shape != (n_channels,):
        raise InvalidCase(f"bias: shape {bias.shape}; needs ({n_channels},), one for each output channel")


def _check_own_bias(q: QType, element: Element, beta: float) -> None:
    if q.dtype not in OWN_BIASES or q.block:
        raise InvalidCase(f"bias: {q.dtype}{' in blocks' * bool(q.block)}; one with a scale is {', '.join(OWN_BIASES)}")
    if q.dtype == "int32" and any(q.zero_point):
        raise InvalidCase(
            f"bias: zero points {q.zero_point}; 'there's no zero point in the case of dequantizing int32' "
            "(DequantizeLinear)"
        )
    for factor in {1.0, abs(beta)} - {0.0}:
        check_multipliers([factor * s for s in (min(q.scale), max(q.scale))], element, "bias")
        largest = largest_stored(q) * max(q.scale) * factor
        if largest > FLOAT32_MAX / 2:
            raise InvalidCase(f"bias: scale {max(q.scale)!r}; real values of {largest!r} overflow float32 when summed")


def linear_shape(x: TensorType, weight: TensorType, op: str = "linear") -> tuple[int, ...]:
    """Shape of ``x * weight^T``, of `x` [..., K] and `weight` [M, K]; raises `InvalidCase` where they do not fit."""
    if len(x.shape) < 2:
        raise InvalidCase(f"x: shape {x.shape}; {op} takes [..., K] of rank 2 or more")
    if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1] or 0 in weight.shape:
        raise InvalidCase(f"weight: shape {weight.shape}; needs [M, {x.shape[-1]}] with no empty dimension")
    return (*x.shape[:-1], weight.shape[0])


def rows_times(a: Floats, w: Floats) -> Floats:
    """``a * w^T``."""
    return np.asarray(np.matmul(a, w.T))


def require_int32(constants: Mapping[int, Tensor], inputs: Sequence[TensorType], *, gives_sums: bool = False) -> None:
    """Raise `InvalidCase` if an accumulator could leave int32 for some input, where kernels on bytes accumulate.

    Of wider or narrower integers there are no such kernels: what is summed has to be exact in float64 then, unless the
    sums themselves are given as int32.
    """
    sums = channel_magnitudes(constants, inputs)
    require_sums(sums, inputs, inputs[1].qtype.scale, constants.get(2), gives_sums=gives_sums)


def channel_magnitudes(constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> npt.NDArray[np.int64]:
    """The sum of |weight - zero_point| for each output channel, on the weight's first axis."""
    weight = constants[1].array.astype(np.int64)
    zero_points = np.array(inputs[1].qtype.zero_point, dtype=np.int64).reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.asarray(np.abs(weight - zero_points).reshape(weight.shape[0], -1).sum(axis=1))


def require_sums(
    weights: npt.NDArray[np.int64],
    inputs: Sequence[TensorType],
    scales: Sequence[float],
    bias: Tensor | None = None,
    *,
    gives_sums: bool = False,
) -> None:
    """Raise `InvalidCase` if an accumulator could leave what it is summed in.

    Parameters
    ----------
    weights
        The sum of |weight - zero_point| for each output channel.
    scales
        The weight's scale for all output channels, or for each.
    """
    if not inputs[0].is_quantized:
        require_pieces(weights)
        return
    q_x = inputs[0].qtype
    in_int32 = gives_sums or (q_x.dtype in BYTES and inputs[1].dtype in BYTES)
    # Kernels also sum x*w, zero_point*w and x*zero_point apart, modulo 2^32: only the final sum has to fit.
    worst: npt.NDArray[np.float64] = np.asarray(weights * largest_distance(q_x), dtype=np.float64)
    if bias is not None and not inputs[2].is_quantized:
        values = bias.array.astype(np.float64)
        worst = worst + np.abs(values if bias.dtype == "int32" else values / (np.array(scales) * q_x.scale[0]))
    limit = INTEGER_RANGE["int32"][1] if in_int32 else MAX_EXACT
    if worst.size and float(worst.max()) > limit:
        channel = int(worst.argmax())
        what = "int32" if in_int32 else "float64, in which wider integers are summed here,"
        raise InvalidCase(
            f"weight: channel {channel} can reach an accumulator of {float(worst.max()):.0f}; {what} holds {limit}"
        )


def largest_distance(q: QType) -> int:
    """The largest |q - zero_point| that the per-tensor type can store."""
    (z,) = q.zero_point
    return max(q.qmax - z, z - q.qmin)


def accumulators(x: Operand, weight: Operand, multiply: Multiply) -> tuple[Floats, Floats]:
    """Bounds of the sums of products for an uncertain `x` and a known `weight`; one object for a point.

    Sums of magnitudes stay below 2^53 (`require_sums`), so float64 holds every accumulator exactly.
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
    relu: bool = False,
    scales: Sequence[float] = (),
    factors: Factors = ONES,
    bounds: RealBounds = (None, None),
    addend: Operand | None = None,
) -> LinearImage:
    """The image of a bilinear `multiply(x - zero_point_x, weight - zero_point_w)`, plus bias, over the output scale.

    Parameters
    ----------
    scales
        The weight's scale for all output channels, or for each; as its type has them where not given.
    bounds
        What a quantized `x` 's results are clipped to, in output units, if not by `relu`.
    addend
        Of the output's shape, added before anything is clipped; only with quantized `x`.
    """
    x, weight = operands[0], operands[1]
    channel_shape = (shape[channel_axis],) + (1,) * (len(shape) - channel_axis - 1)
    scales = scales or weight.type.qtype.scale
    m = _multiplier(scales, x, element, factors.alpha, channel_shape)
    if not x.type.is_quantized:
        return real_image(
            operands, element, multiply, m, shape, channel_axis=channel_axis, n_summed=n_summed, relu=relu
        )
    acc_lo, acc_hi = accumulators(x, weight, multiply)
    bias_terms: list[Term] = []
    bias_magnitude: Floats = np.zeros(())
    affine_bias: Floats | None = None
    bias_unit: Floats | None = None
    joins = False
    if len(operands) > 2 and factors.beta:
        bias = operands[2]
        values = bias.centered()[0].reshape(channel_shape)
        is_integer = bias.type.element == "int32"
        joins = is_integer and factors.alpha == factors.beta
        if joins:
            acc_hi = acc_hi + values
            acc_lo = acc_hi if x.is_point else acc_lo + values
            m_bias = m
        elif is_integer:
            m_bias = _multiplier(scales, x, element, factors.beta, channel_shape)
        elif bias.type.is_quantized:
            m_bias = _own_multiplier(bias.scales, element, factors.beta, channel_shape)
            affine_bias = bias.affine_magnitude().reshape(channel_shape)
        else:
            m_bias = Multiplier.of(Fraction(factors.beta) / output_scale(element))
            unit = _multiplier(scales, x, element, 1.0, channel_shape).approx * abs(factors.beta)
            bias_unit = _rounded_bias_unit(values * m_bias.approx, unit)
        bias_terms = [] if joins else [Term(values, m_bias)]
        bias_magnitude = np.abs(values * m_bias.approx)
        affine_bias = bias_magnitude if affine_bias is None else np.abs(affine_bias * m_bias.approx)
    if factors.alpha < 0:
        acc_lo, acc_hi = acc_hi, acc_lo
    size = np.abs(m.approx)
    lower, upper = [Term(acc_lo, m), *bias_terms], [Term(acc_hi, m), *bias_terms]
    added: Floats = np.zeros(())
    added_apart: Floats = np.zeros(())
    is_point = x.is_point
    if addend is not None:
        m_added = Multiplier.quotient(addend.float_scale, float_scale(element))
        lower, upper = (
            [*terms, Term(end, m_added, are_integers=addend.are_integers)]
            for terms, end in zip((lower, upper), addend.centered(), strict=True)
        )
        added, added_apart = addend.magnitude() * m_added.approx, addend.affine_magnitude() * m_added.approx
        is_point = is_point and addend.is_point

    def accumulator() -> Floats:
        largest = np.abs(acc_lo) if x.is_point else np.maximum(np.abs(acc_lo), np.abs(acc_hi))
        return largest * size + (0.0 if joins else bias_magnitude) + added

    def real() -> Floats:
        return multiply(x.magnitude(), weight.magnitude()) * size + bias_magnitude + added

    def affine() -> Floats:
        products = multiply(x.affine_magnitude(), weight.affine_magnitude()) * size + added_apart
        return products if affine_bias is None else products + affine_bias

    image = linear_image(
        lower,
        None if is_point else upper,
        shape,
        element,
        accumulator=accumulator,
        real=real,
        affine=affine,
        n_summed=n_summed + (1 if len(operands) > 2 else 0) + (addend is not None),
        bounds=relu_bounds(relu) if relu else bounds,
        bias_unit=bias_unit,
    )
    return replace(image, extra_roundings=factors.roundings) if factors.roundings else image


def relu_bounds(relu: bool) -> RealBounds:
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


def _own_multiplier(
    scales: Sequence[Fraction], element: Element, beta: float, channel_shape: tuple[int, ...]
) -> Multiplier:
    """``beta * scale_bias / scale_y``."""
    y = output_scale(element)
    m = Multiplier.of(*(Fraction(beta) * s / y for s in scales))
    return m if len(scales) == 1 else replace(m, approx=m.approx.reshape(channel_shape))


def _rounded_bias_unit(bias: Floats, unit: Floats) -> Floats:
    """`unit` where rounding `bias` to a multiple of it may change it, 0 where it is a small multiple already."""
    steps = np.rint(bias / unit)
    return np.where((steps * unit == bias) & (np.abs(steps) < 2.0**22), 0.0, unit)
