"""Fixed-point multiplication as integer-only kernels do it: multipliers of 31 or 15 bits, and rounding shifts."""

import numpy as np

from qfuzz.exact.rounding import Floats, Ints


def quantized_multiplier(multiplier: Floats) -> tuple[Ints, Ints]:
    """Mantissas of 31 bits and exponents: f * 2^e with f in [1/2, 1), rounded half away from zero.

    QuantizeMultiplier of tensorflow/lite/kernels/internal/quantization_util.cc.
    """
    fraction, exponent = np.frexp(multiplier)
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    exponent = np.where(mantissa == 2**31, exponent + 1, exponent).astype(np.int64)
    return np.where(mantissa == 2**31, 2**30, mantissa), exponent


def doubling_high_multiply(a: Ints, mantissa: Ints) -> Ints:
    """SaturatingRoundingDoublingHighMul of gemmlowp/fixedpoint/fixedpoint.h: ties toward plus infinity."""
    return (a * mantissa + 2**30) >> 31


def rounding_shift(a: Ints, right: Ints) -> Ints:
    """RoundingDivideByPOT of gemmlowp/fixedpoint/fixedpoint.h: ties away from zero."""
    mask = np.left_shift(np.int64(1), right) - 1
    return np.asarray((a >> right) + ((a & mask) > (mask >> 1) + (a < 0)))


def multiplied_q31(a: Ints, multiplier: Floats) -> tuple[Ints, Ints]:
    """An integer and a right shift, not yet done, of int32 times a multiplier by a doubling high multiply."""
    mantissa, exponent = quantized_multiplier(multiplier)
    left, right = np.clip(exponent, 0, 31), np.clip(-exponent, 0, 62)
    shifted = np.clip(saturated(a) * 2**left, -(2**31), 2**31 - 1)
    return doubling_high_multiply(shifted, mantissa), right


def multiplied_once(a: Ints, multiplier: Floats, bits: int) -> tuple[Ints, Ints]:
    """The same with one wide product by a multiplier of `bits`, 31 or 15."""
    mantissa, exponent = quantized_multiplier(multiplier)
    if bits == 15:
        mantissa = np.minimum((mantissa + 2**15) >> 16, 2**15 - 1)
    return saturated(a) * mantissa, np.clip(bits - exponent, 0, 62)


def saturated(a: Ints) -> Ints:
    """Within int32."""
    return np.clip(a, -(2**31), 2**31 - 1)


def halves_of_shift(value: Ints, right: Ints) -> Floats:
    """`finish.surrogates` of ``value / 2^right``."""
    right = np.broadcast_to(right, value.shape)
    floor = value >> right
    remainder = value - (floor << right)
    half = np.where(right > 0, np.left_shift(1, np.maximum(right - 1, 0)), 0)
    quarter = np.where(remainder == 0, 0.0, np.where(remainder < half, 0.25, np.where(remainder == half, 0.5, 0.75)))
    return floor.astype(np.float64) + quarter
