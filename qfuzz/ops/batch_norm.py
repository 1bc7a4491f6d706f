"""batch_norm: each channel minus a known mean, over a known deviation, scaled and shifted, with a fused relu.

Semantics: `torch.nn.functional.batch_norm` with `training=False`; ONNX BatchNormalization (opset 15, training_mode 0):
``(x - mean) / sqrt(variance + epsilon) * scale + bias``. All parameters are float32, one for each channel.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact import elementary
from qfuzz.exact.combination import array_lsb
from qfuzz.exact.reals import Bounds, Reals, Refine
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, Element, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.normalization import MAX_EPSILON, MIN_EPSILON
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    LinearImage,
    Operand,
    check_rescaling,
    float_scale,
    is_power_of_two,
    output_scale,
    zero_point_magnitude,
)

_SLACK = 2.0**-48
"""Relative; a dozen roundings of float64 are less."""
_PARAMETERS = ("scale", "bias", "mean", "variance")


class BatchNorm(ExactOperator, frozen=True, kw_only=True, tag="batch_norm"):
    """Inputs are x, scale, bias, mean and variance; with `relu`, negative results are made 0."""

    epsilon: float = float32(1e-5)
    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (5, 5)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        shape = inputs[0].shape
        check_rescaling(inputs[0], element)
        if len(shape) < 2:
            raise InvalidCase(f"x: shape {shape}; needs [N, C, ...]")
        for name, t in zip(_PARAMETERS, inputs[1:], strict=True):
            if t.element != "float32" or t.shape != (shape[1],):
                raise InvalidCase(f"{name}: {t.element} of shape {t.shape}; needs float32, one for each channel")
        if float32(self.epsilon) != self.epsilon or not MIN_EPSILON <= self.epsilon <= MAX_EPSILON:
            raise InvalidCase(f"epsilon: {self.epsilon!r}; needs a float32 in {MIN_EPSILON}..{MAX_EPSILON}")
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        scale, bias, mean, variance = (constants[i].array.astype(np.float64) for i in range(1, 5))
        if not (np.isfinite([scale, bias, mean]).all() and (variance >= 0).all()):
            raise InvalidCase("scale, bias, mean, variance: need finite numbers, and a variance of at least 0")
        if not (variance + self.epsilon <= FLOAT32_MAX).all():
            raise InvalidCase("variance: leaves float32 where epsilon is added")
        factor = np.abs(scale) / np.sqrt(variance + self.epsilon)
        x = inputs[0].qtype
        largest = factor * (np.abs(mean) + (x.qmax - x.qmin) * x.scale[0]) + np.abs(bias)
        for what in (factor, factor * x.scale[0]):
            if ((what > 0) & (what < FLOAT32_MIN_NORMAL)).any():
                raise InvalidCase("scale: over the deviation it is below float32's normal numbers")
        if not (largest <= FLOAT32_MAX / 4).all():
            raise InvalidCase("scale, bias, mean: products with them leave the range of float32")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, parameters = operands[0], [o.lo for o in operands[1:]]
        shape, scale_y = x.type.shape, float_scale(element)
        scale, bias, mean, variance = (p.reshape((-1,) + (1,) * (len(shape) - 2)) for p in parameters)
        inverse = 1.0 / np.sqrt(variance + self.epsilon)
        factor = np.abs(scale) * inverse

        def magnitude(largest: Floats) -> Floats:
            terms = (largest * x.float_scale + np.abs(mean)) * factor + np.abs(bias)
            return np.asarray(np.broadcast_to(terms / scale_y, shape))

        def reals(centered: Floats, refine: Refine) -> Reals:
            real = ((centered * x.float_scale - mean) * scale * inverse + bias) / scale_y
            error = magnitude(np.abs(centered)) * _SLACK
            clipped = Reals(np.broadcast_to(real, shape).copy(), error, refine)
            return clipped.clip(Fraction(0), None) if self.relu else clipped

        low, high = (np.broadcast_to(c, shape) for c in x.centered())
        zero_point = zero_point_magnitude(element)
        if x.is_point:
            lower = upper = reals(low, self._refined(operands, low, element))
        else:
            falls = np.broadcast_to(scale < 0, shape)
            ends = np.where(falls, high, low), np.where(falls, low, high)
            lower, upper = (reals(c, self._refined(operands, c, element)) for c in ends)
        return LinearImage(
            lower,
            upper,
            lambda: magnitude(x.magnitude()),
            lambda: magnitude(x.magnitude()),
            lambda: magnitude(x.affine_magnitude()) + zero_point,
            1,
            lambda: self._float32_exact(x, scale, bias, mean, variance, element, magnitude),
            None,
            zero_point,
            zero_point=zero_point,
        )

    def _float32_exact(
        self,
        x: Operand,
        scale: Floats,
        bias: Floats,
        mean: Floats,
        variance: Floats,
        element: Element,
        magnitude: Callable[[Floats], Floats],
    ) -> npt.NDArray[np.bool_]:
        """Where scales and deviation are powers of two, and all are multiples of one, fewer than 2^24 of it."""
        nowhere = np.zeros((), dtype=bool)
        if not (is_power_of_two(float_scale(element)) and is_power_of_two(x.float_scale) and scale.size):
            return nowhere
        root = np.sqrt(variance + self.epsilon)
        dyadic = np.array(
            [
                math.frexp(r)[0] == 0.5 and Fraction(r) ** 2 == Fraction(v) + Fraction(self.epsilon)
                for r, v in zip(root.ravel().tolist(), variance.ravel().tolist(), strict=True)
            ]
        ).reshape(root.shape)
        if not dyadic.any():
            return nowhere
        factor = scale / np.where(dyadic, root, 1.0) / float_scale(element)  # exact, as are the products with it
        terms = (factor * x.float_scale, mean * factor, bias / float_scale(element))
        lsb = min(1.0, *(array_lsb(np.where(dyadic, t, 1.0)) for t in terms if t.any()))
        reached = magnitude(x.affine_magnitude()) + zero_point_magnitude(element)
        return np.asarray(dyadic & (reached / lsb < 2.0**24))

    def _refined(self, operands: Sequence[Operand], centered: Floats, element: Element) -> Refine:
        """Narrows an element: all is rational but the root."""
        x, scale_y = operands[0], output_scale(element)
        shape = x.type.shape
        channel = math.prod(shape[2:])
        scale, bias, mean, variance = (o.lo for o in operands[1:])
        memo: dict[tuple[int, int], elementary.Enclosure] = {}

        def refine(i: int, bits: int) -> Bounds:
            c = i // channel % shape[1]
            if (c, bits) not in memo:
                under = Fraction(float(variance[c])) + Fraction(self.epsilon)
                memo[c, bits] = elementary.square_root(under, bits)
            top = Fraction(float(centered.flat[i])) * x.scale - Fraction(float(mean[c]))
            top *= Fraction(float(scale[c]))
            shift = Fraction(float(bias[c]))
            ends = sorted((top / root + shift) / scale_y for root in memo[c, bits])
            return ends[0], ends[1]

        return refine
