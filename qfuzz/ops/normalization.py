"""layer_norm, instance_norm, group_norm: what is left of x without its mean, over its deviation, scaled and shifted.

Semantics: ONNX LayerNormalization (opset 17, stash_type 1), InstanceNormalization and GroupNormalization;
`torch.nn.functional` of the same names, without running statistics:
``(x - mean) / sqrt(variance + epsilon) * scale + bias``, where the variance is the mean square of x - mean. Scale is
float32 or quantized per tensor, or none, which is 1; bias is float32, or int32 in units of the scales of x and scale,
as quantization tools store it. The other outputs of LayerNormalization are no outputs of networks here.

With integers ``c = q - zero_point`` and ``N = n c - sum c``, ``V = n sum c^2 - (sum c)^2`` over the n elements that are
normalized together, the result is ``N s scale / sqrt(s^2 V + n^2 epsilon) + bias``: rational but for one square root.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact import elementary
from qfuzz.exact.reals import Bounds, Reals, Refine
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.normalization_error import NormalizedImage, Statistics, normalized_error, variance_error
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_narrow,
    float_scale,
    is_power_of_two,
    output_scale,
    per_tensor,
    quantized_output,
    zero_point_magnitude,
)
from qfuzz.ops.table import known_reals

MIN_EPSILON, MAX_EPSILON = 2.0**-60, 2.0**60
"""Below, squares that underflow in float32 would count; above, nothing is left of x."""

_SLACK = 2.0**-47
"""Relative; a dozen roundings of float64 are less."""


class _Normalization(ExactOperator, frozen=True, kw_only=True):
    epsilon: float = float32(1e-5)

    arity: ClassVar[tuple[int, int]] = (1, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def size(self, shape: tuple[int, ...]) -> int:
        """How many elements are normalized together: they follow one another in memory."""
        raise NotImplementedError

    def laid_out(self, parameter: Floats, shape: tuple[int, ...]) -> Floats:
        """Scale or bias, to broadcast against a value of `shape`."""
        raise NotImplementedError

    def _check(self, inputs: Sequence[TensorType], element: Element) -> None:
        check_narrow(inputs[:2], element)
        quantized_output(element)
        q = per_tensor(inputs[0], "x")
        n = self.size(inputs[0].shape)
        if n == 0:
            raise InvalidCase(f"x: shape {inputs[0].shape}; the mean of no elements is undefined")
        if float32(self.epsilon) != self.epsilon or not MIN_EPSILON <= self.epsilon <= MAX_EPSILON:
            raise InvalidCase(f"epsilon: {self.epsilon!r}; needs a float32 in {MIN_EPSILON}..{MAX_EPSILON}")
        largest = q.qmax - q.qmin
        if (n * largest) ** 2 >= 2**62 or n * (largest * q.scale[0]) ** 2 > FLOAT32_MAX:
            raise InvalidCase(f"x: {n} squares of up to {largest} times scale {q.scale[0]!r} leave int64 or float32")
        weight = inputs[1].element if len(inputs) > 1 else "float32"
        if weight != "float32":
            per_tensor(inputs[1], "scale")
        if len(inputs) > 2:
            if inputs[2].element not in ("float32", "int32"):
                raise InvalidCase("bias: needs float32 elements, or int32 in units of the scales of x and scale")
            if inputs[2].element == "int32" and not isinstance(weight, QType):
                raise InvalidCase("bias: int32 is in units of the scales of x and scale, so scale needs one")

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        q = inputs[0].qtype
        weight = float(np.abs(_real(inputs[1], constants[1].array)).max(initial=0.0)) if 1 in constants else 1.0
        reach = weight / math.sqrt(self.epsilon) * (q.qmax - q.qmin) * q.scale[0]
        bias = 0.0
        if 2 in constants:
            bias = float(np.abs(_real(inputs[2], constants[2].array, _bias_unit(inputs))).max(initial=0.0))
        if not reach + bias <= FLOAT32_MAX / 4:
            raise InvalidCase("scale, bias: products with them leave the range of float32")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x = operands[0]
        types = [o.type for o in operands]
        shape = x.type.shape
        n = self.size(shape)
        weight, bias = self.parameters(operands)
        lo, hi = (a.reshape(-1, n) for a in x.centered())
        statistics = _statistics(lo, lo if x.is_point else hi, x.float_scale, self.epsilon)
        scale_y = float_scale(element)
        bias_exact = is_power_of_two(scale_y) and types[-1].element != "int32"

        def whole(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
            """A number for each element, or for each row, as the output is laid out."""
            return np.broadcast_to(a, lo.shape).reshape(shape)

        products = [whole(h) * weight for h in (statistics.lowest, statistics.highest)]
        magnitude = np.maximum(np.abs(products[0]), np.abs(products[1])) + np.abs(bias)
        slack = _SLACK * magnitude / scale_y + 1e-300
        if x.is_point:
            if _are_integers(lo):
                error = np.where(products[0] == 0.0, 0.0, slack) if bias_exact else slack
            else:  # float64 sums: off as a kernel's are, with another unit
                delta = np.abs(lo).max(axis=1, keepdims=True, initial=0.0) * (x.float_scale * (n + 2) * 2.0**-52)
                d = variance_error(statistics, delta, (n + 4) * 2.0**-52)
                off = whole(normalized_error(statistics, delta, d, self.epsilon))
                error = slack + off * np.abs(weight) / scale_y
            lower = upper = Reals((products[0] + bias) / scale_y, error, self._refined(operands, lo, element))
        else:
            lower = known_reals((np.minimum(*products) + bias) / scale_y - slack)
            upper = known_reals((np.maximum(*products) + bias) / scale_y + slack)
        equal = (lo == hi).all(axis=1, keepdims=True) & (lo == lo[:, :1]).all(axis=1, keepdims=True)
        short = np.abs(lo).max(axis=1, keepdims=True, initial=0.0) * n < 2.0**24
        dyadic = is_power_of_two(x.float_scale) or n == 1

        def largest(a: Floats) -> Floats:
            return whole(a.reshape(-1, n).max(axis=1, keepdims=True, initial=0.0) * x.float_scale)

        return NormalizedImage(
            lower,
            upper,
            Statistics(*(whole(a) for a in statistics)),
            np.abs(weight),
            np.abs(bias),
            lambda: largest(x.magnitude()),
            lambda: largest(x.affine_magnitude()),
            n,
            self.epsilon,
            scale_y,
            zero_point_magnitude(element),
            whole(equal),
            whole(equal & short) if dyadic else np.zeros((), dtype=bool),
            bias_exact,
        )

    def parameters(self, operands: Sequence[Operand]) -> tuple[Floats, Floats]:
        """Scale and bias of each element."""
        types = [o.type for o in operands]
        shape = types[0].shape
        unit = _bias_unit(types)
        weight = self.laid_out(_real(types[1], operands[1].lo), shape) if len(operands) > 1 else np.ones(())
        bias = self.laid_out(_real(types[2], operands[2].lo, unit), shape) if len(operands) > 2 else np.zeros(())
        return np.broadcast_to(weight, shape), np.broadcast_to(bias, shape)

    def _refined(self, operands: Sequence[Operand], rows: Floats, element: Element) -> Refine:
        """Narrows an element: all is rational but the root."""
        x, n = operands[0], rows.shape[1]
        types = [o.type for o in operands]
        shape = x.type.shape
        scale_y, epsilon = output_scale(element), Fraction(self.epsilon)
        at = [
            np.broadcast_to(self.laid_out(np.arange(float(t.n_elements)).reshape(t.shape), shape), shape).ravel()
            for t in types[1:]
        ]
        unit = x.scale * operands[1].scale if len(operands) > 1 else x.scale
        memo: dict[int, tuple[Fraction, Fraction]] = {}

        def refine(i: int, bits: int) -> Bounds:
            row, column = divmod(i, n)
            if row not in memo:
                values = [Fraction(float(v)) for v in rows[row]]
                memo[row] = sum(values, Fraction(0)), sum((v * v for v in values), Fraction(0))
            total, squares = memo[row]
            weight = Fraction(1)
            if len(operands) > 1:
                weight = Fraction(float(operands[1].centered()[0].ravel()[int(at[0][i])])) * operands[1].scale
            bias = Fraction(0)
            if len(operands) > 2:
                bias = Fraction(float(operands[2].lo.ravel()[int(at[1][i])]))
                bias = bias * unit if types[2].element == "int32" else bias
            numerator = (n * Fraction(float(rows[row, column])) - total) * x.scale * weight
            if numerator == 0:
                return bias / scale_y, bias / scale_y
            under = x.scale**2 * (n * squares - total**2) + n * n * epsilon
            a, b = elementary.square_root(under, bits)
            ends = sorted(((numerator / a + bias) / scale_y, (numerator / b + bias) / scale_y))
            return ends[0], ends[1]

        return refine


def _real(t: TensorType, stored: npt.NDArray[np.generic], unit: float = 1.0) -> Floats:
    """The numbers that a parameter stands for; int32 counts `unit`."""
    q = t.element
    values = stored.astype(np.float64)
    if isinstance(q, QType):
        return (values - q.zero_point[0]) * q.scale[0]
    return values * unit if q == "int32" else values


def _are_integers(values: Floats) -> bool:
    """Whether all are, as stored integers are; float32 values may be anything."""
    return bool((values == np.rint(values)).all())


def _bias_unit(types: Sequence[TensorType]) -> float:
    return math.prod(float_scale(t.element) for t in types[:2])


def _statistics(lo: Floats, hi: Floats, scale: float, epsilon: float) -> Statistics:
    """Bounds, per row, of what a normalization computes on the way.

    Away from the middle m of an interval by e, a row has the deviation |P(m + e)| / sqrt(n) of its projection P off the
    mean: within |e| of |P m|, which bounds the variance. A value off its mean grows with itself and falls with others.
    """
    n = lo.shape[1]
    if lo is hi and not _are_integers(lo):
        mean = lo.mean(axis=1, keepdims=True)
        off = (lo - mean) * scale
        variance = (off * off).mean(axis=1, keepdims=True)
        normalized = off / np.sqrt(variance + epsilon)
        return Statistics(normalized, normalized, np.abs(off), variance, variance, (np.abs(lo) + np.abs(mean)) * scale)
    if lo is hi:
        c = lo.astype(np.int64)
        total = c.sum(axis=1, keepdims=True)
        off = (n * c - total).astype(np.float64) * (scale / n)
        spread = (n * (c * c).sum(axis=1, keepdims=True) - total * total).astype(np.float64)
        variance = spread * (scale / n) ** 2
        normalized = off / np.sqrt(variance + epsilon)
        apart = (np.abs(lo) + np.abs(total) / n) * scale
        return Statistics(normalized, normalized, np.abs(off), variance, variance, apart)
    middle, radius = (lo + hi) / 2, (hi - lo) / 2
    deviation = np.sqrt(((middle - middle.mean(axis=1, keepdims=True)) ** 2).mean(axis=1, keepdims=True))
    reach = np.sqrt((radius * radius).mean(axis=1, keepdims=True))
    least = np.maximum(deviation - reach, 0.0) * (1 - _SLACK)
    most = (deviation + reach) * (1 + _SLACK)
    variances = (least * scale) ** 2, (most * scale) ** 2
    low = lo - (lo + hi.sum(axis=1, keepdims=True) - hi) / n
    high = hi - (hi + lo.sum(axis=1, keepdims=True) - lo) / n
    largest = np.maximum(np.abs(lo), np.abs(hi))
    slack = largest.max(axis=1, keepdims=True, initial=0.0) * n * 2.0**-50
    offs = (low - slack) * scale, (high + slack) * scale
    quotients = [o / np.sqrt(v + epsilon) for o in offs for v in variances]
    limit = math.sqrt(n) * (1 + _SLACK)  # a row whose squares sum up to n times its variance has no larger element
    return Statistics(
        np.clip(np.minimum.reduce(quotients), -limit, limit),
        np.clip(np.maximum.reduce(quotients), -limit, limit),
        np.maximum(np.abs(offs[0]), np.abs(offs[1])),
        *variances,
        (largest + np.maximum(np.abs(lo.mean(axis=1, keepdims=True)), np.abs(hi.mean(axis=1, keepdims=True)))) * scale,
    )


class LayerNorm(_Normalization, frozen=True, kw_only=True, tag="layer_norm"):
    """Normalization over all dimensions from `axis` on.

    `scale` and `bias` have shapes that broadcast to that of x, without making it larger.
    """

    axis: int

    def size(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[self.axis :])

    def laid_out(self, parameter: Floats, shape: tuple[int, ...]) -> Floats:
        return parameter

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = inputs[0].shape
        if not 0 <= self.axis < len(shape):
            raise InvalidCase(f"axis: {self.axis}; needs 0..{len(shape) - 1} for shape {shape}")
        for name, t in zip(("scale", "bias"), inputs[1:], strict=False):
            own = (1,) * (len(shape) - len(t.shape)) + t.shape
            if len(own) != len(shape) or any(p not in (1, d) for p, d in zip(own, shape, strict=True)):
                raise InvalidCase(f"{name}: shape {t.shape} does not broadcast to {shape}")
        self._check(inputs, element)
        return shape


class _ByChannel(_Normalization, frozen=True, kw_only=True):
    """Scale and bias are one number for each channel."""

    def laid_out(self, parameter: Floats, shape: tuple[int, ...]) -> Floats:
        return parameter.reshape((-1,) + (1,) * (len(shape) - 2))

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = inputs[0].shape
        if len(shape) < 3:
            raise InvalidCase(f"x: shape {shape}; needs [N, C, ...] with a spatial dimension")
        for name, t in zip(("scale", "bias"), inputs[1:], strict=False):
            if t.shape != (shape[1],):
                raise InvalidCase(f"{name}: shape {t.shape}; needs ({shape[1]},), one for each channel")
        self._check(inputs, element)
        return shape


class InstanceNorm(_ByChannel, frozen=True, kw_only=True, tag="instance_norm"):
    """Normalization of each channel of each image over its spatial dimensions."""

    def size(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[2:])


class GroupNorm(_ByChannel, frozen=True, kw_only=True, tag="group_norm"):
    """Normalization of `groups` groups of neighbouring channels of each image, over their spatial dimensions."""

    groups: int

    def size(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[1:]) // self.groups

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = inputs[0].shape
        if self.groups < 1 or (len(shape) > 1 and shape[1] % self.groups):
            raise InvalidCase(f"groups: {self.groups}; needs a divisor of the channels of {shape}")
        return super().infer(inputs, element)
