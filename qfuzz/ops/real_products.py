"""Products of float32 activations with stored weights: what a layer does whose input no tool has quantized.

Sums are float64 with a proven bound; where a rounding needs more, the activations are cut into pieces of few bits,
whose products are exact in float64, and their sums are rationals.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, array_lsb
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType
from qfuzz.ops.semantics import LinearImage, Operand, float_scale, is_power_of_two, zero_point_magnitude

Multiply = Callable[[Floats, Floats], Floats]

PIECE = 16
"""Bits of a piece of an activation. Times weights of 17 bits, 2^20 products are exact in float64."""

_UNDERFLOW = 2.0**-125
"""2^24 times the least float32: a rounding of so large a number is off by what a product loses to underflow."""


def require_pieces(weights: npt.NDArray[np.int64]) -> None:
    """Raise `InvalidCase` unless pieces of activations, times weights whose magnitudes sum to `weights`, are exact."""
    if weights.size and int(weights.max()) > 2 ** (53 - PIECE):
        raise InvalidCase(f"weight: magnitudes of a channel sum to {int(weights.max())}; at most 2^{53 - PIECE}")


def bias_reals(bias: Operand | None, data_shape: tuple[int, ...]) -> tuple[Floats, Floats, list[Fraction]]:
    """A bias as float64 (rounded), its magnitudes with stored and zero point apart, and as rationals."""
    if bias is None:
        return np.zeros(()), np.zeros(()), []
    scales = bias.scales * (bias.type.n_elements if len(bias.scales) == 1 else 1)
    exact = [Fraction(v) * s for v, s in zip(bias.centered()[0].tolist(), scales, strict=True)]
    apart = bias.affine_magnitude() * np.array([float(s) for s in scales])
    return np.array([float(v) for v in exact]).reshape(data_shape), apart.reshape(data_shape), exact


def real_image(
    operands: Sequence[Operand],
    element: Element,
    multiply: Multiply,
    m: Multiplier,
    shape: tuple[int, ...],
    *,
    channel_axis: int,
    n_summed: int,
    relu: bool,
) -> LinearImage:
    """The image of ``multiply(x, weight - zero_point)`` times `m`, plus bias, over the output scale.

    Where float32 sums of magnitudes may overflow, anything is admissible: no text says what such a sum is.
    """
    x, weight = operands[0], operands[1]
    channel_shape = (shape[channel_axis],) + (1,) * (len(shape) - channel_axis - 1)
    scale_y = float_scale(element)
    bias, bias_apart, bias_exact = bias_reals(operands[2] if len(operands) > 2 else None, channel_shape)
    w = weight.centered()[0]
    size = np.abs(m.approx)
    products = multiply(x.magnitude(), np.abs(w)) * size
    total = products + np.abs(bias) / scale_y

    overflows = np.asarray(total * scale_y > FLOAT32_MAX / 4)
    is_stored = isinstance(element, QType)

    def bounded(magnitude: Floats) -> Floats:
        return np.where(overflows & (not is_stored), np.inf, magnitude + _UNDERFLOW / scale_y)

    def affine() -> Floats:
        return multiply(x.affine_magnitude(), weight.affine_magnitude()) * size + bias_apart / scale_y

    zero_point = zero_point_magnitude(element)
    place = array_lsb(x.lo) * m.lsb if x.is_point else 0.0
    if bias_exact:
        place = min(place, array_lsb(bias) / scale_y)

    def float32_exact() -> npt.NDArray[np.bool_]:
        scales = element.scale if isinstance(element, QType) else (1.0,)
        fits = all(map(is_power_of_two, scales)) and min(place, place * scale_y) >= 2.0**-149
        short = np.asarray((affine() + zero_point) / min(place, 1.0) < 2.0**24) if fits else np.zeros((), dtype=bool)
        return short & ~overflows

    def end(*, upper: bool) -> Reals:
        sums = _Sums(x, w, multiply, upper=upper)
        approx = sums.approx * m.approx + bias / scale_y
        error = np.broadcast_to(total * (2.0 * (n_summed + 10) * 2.0**-53), shape)

        def refine(i: int, bits: int) -> Bounds:
            index = tuple(int(j) for j in np.unravel_index(i, shape))
            value = sums.exactly(index) * m.at(index)
            if bias_exact:
                value += bias_exact[index[channel_axis]] / Fraction(scale_y)
            return value, value

        return Reals(approx, error, refine).clip(Fraction(0) if relu else None, None)

    lower = end(upper=False)
    return LinearImage(
        lower,
        lower if x.is_point else end(upper=True),
        lambda: bounded(total),
        lambda: bounded(total),
        lambda: bounded(affine()) + zero_point,
        n_summed + (len(operands) > 2),
        float32_exact,
        zero_point_y=zero_point,
        zero_point=zero_point,
        nan=overflows if is_stored and overflows.any() else None,
    )


class _Sums:
    """Bounds of sums of products: about, and exactly."""

    def __init__(self, x: Operand, w: Floats, multiply: Multiply, *, upper: bool) -> None:
        self._multiply = multiply
        if x.is_point:
            self._parts = [(x.lo, w)]
        else:
            ends = (x.hi, x.lo) if upper else (x.lo, x.hi)
            self._parts = [(ends[0], np.maximum(w, 0.0)), (ends[1], np.minimum(w, 0.0))]
        self.approx: Floats = np.asarray(sum(multiply(a, b) for a, b in self._parts))
        self._pieces: list[tuple[Floats, Fraction]] | None = None

    def exactly(self, index: tuple[int, ...]) -> Fraction:
        """The sum at an index."""
        if self._pieces is None:
            self._pieces = [
                (self._multiply(piece, b), Fraction(unit)) for a, b in self._parts for piece, unit in pieces(a)
            ]
        return sum((Fraction(float(sums[index])) * unit for sums, unit in self._pieces), Fraction(0))


def pieces(x: Floats) -> list[tuple[Floats, float]]:
    """float32 numbers as sums of integers of at most `PIECE` bits times powers of two."""
    rest = np.array(x, dtype=np.float64)
    largest, unit = float(np.abs(rest).max(initial=0.0)), array_lsb(rest) if rest.size else 1.0
    found = []
    count = max(0, math.ceil((math.frexp(largest)[1] - math.frexp(unit)[1] + 2) / PIECE)) if largest else 0
    for i in reversed(range(count)):
        place = math.ldexp(unit, i * PIECE)
        piece = np.trunc(rest / place)
        rest -= piece * place
        found.append((piece, place))
    return found
