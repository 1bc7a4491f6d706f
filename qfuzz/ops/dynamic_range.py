"""Quantization by the data's own range: scale, zero point and stored integers, and what rounding makes of them.

ONNX divides the range by 255. PyTorch does so, too, or by 127 (`reduce_range`, for kernels that add pairs of products
in 16 bits), and it has a smallest scale: "Cut off small scale" says the comment where it is chosen, with the zero point
as of the range's own (`ChooseQuantizationParams` of aten/src/ATen/native/quantized/cpu/QuantUtils.h, "identical" to
fbgemm's). What is stored saturates at the type's range, whatever the steps.

Bounds of each are rational and sound for uncertain data, too; they are derived from those of the range.
"""

from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qfuzz.exact.combination import Multiplier, Term, combine
from qfuzz.exact.reals import FilterCount
from qfuzz.exact.rounding import UNIT_ROUNDOFF, Floats, Ints, gamma, round_half_even, split_ties
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, PlainInteger, float32
from qfuzz.ops.semantics import Operand

STORED: PlainInteger = "uint8"
"""What the data are quantized to: the one type that ONNX defines."""
QMIN, QMAX = INTEGER_RANGE[STORED]

AS_WRITTEN = 3
"""Roundings of the definition as it is written: subtraction, division by 255, division by the scale. Who does more
computes otherwise (with reciprocals, say), and may round where these do not."""

SMALL_SCALE_THRESHOLD = Fraction(float32(6.1e-5))
"""PyTorch chooses no smaller scale: "we don't want to use scales in fp16 subnormal range" (QuantUtils.h)."""

NO_SCALE = 0.1
"""PyTorch's scale of data that are all 0: "we arbitrary adjust the scale to 0.1" (QuantUtils.h)."""

SUBNORMAL = Fraction(2) ** -148
"""More than what a few roundings below the normal float32 numbers move."""
SLACK = 2.0**-50
"""More than what a few float64 operations round away, relatively."""


class Between(NamedTuple):
    """Bounds of a rational number."""

    lo: Fraction
    hi: Fraction

    @property
    def is_point(self) -> bool:
        """Whether the number is known."""
        return self.lo == self.hi


class Steps(NamedTuple):
    """What a kernel may make of the data on its way.

    Attributes
    ----------
    scale_lo, scale_hi
        Bounds of the float32 scale, as float64.
    zero_lo, zero_hi
        Bounds of the zero point.
    rounded_lo, rounded_hi
        Bounds of ``round(x / scale)``, float64 arrays of integers.
    is_defined
        Whether the specification bounds what comes of it.
    scale_is_exact
        Whether the scale is a float32 that is known, and computed without rounding.
    """

    scale_lo: float
    scale_hi: float
    zero_lo: int
    zero_hi: int
    rounded_lo: Floats
    rounded_hi: Floats
    is_defined: bool
    scale_is_exact: bool

    @property
    def stored(self) -> tuple[Floats, Floats]:
        """Bounds of y, which grows with the zero point."""
        return (
            np.clip(self.rounded_lo + self.zero_lo, QMIN, QMAX),
            np.clip(self.rounded_hi + self.zero_hi, QMIN, QMAX),
        )

    @property
    def centered(self) -> tuple[Floats, Floats]:
        """Bounds of y - zero_point: the zero point only says where it saturates, the sooner the larger it is."""
        return (
            np.clip(self.rounded_lo, QMIN - self.zero_hi, QMAX - self.zero_hi),
            np.clip(self.rounded_hi, QMIN - self.zero_lo, QMAX - self.zero_lo),
        )


class Quantization:
    """The dynamic quantization of float32 data, known or uncertain.

    Parameters
    ----------
    steps
        What the range is divided by.
    smallest
        The smallest scale that is chosen.
    moved
        How far the type that it is stored in is moved from uint8: 128 for int8. The zero point is moved before it is
        rounded, from the end of the range that it is nearer to, so that as much counts of roundings.
    """

    def __init__(
        self, x: Operand, *, steps: int = QMAX - QMIN, smallest: Fraction = Fraction(0), moved: int = 0
    ) -> None:
        self.moved = moved
        if not x.is_point:  # bounds may be infinite; beyond float32, nothing is defined anyway
            x = Operand(x.type, *(np.clip(bound, -2 * FLOAT32_MAX, 2 * FLOAT32_MAX) for bound in (x.lo, x.hi)))
        self.x = x
        low = Between(*(max(Fraction(0), -Fraction(float(a.min(initial=0.0)))) for a in (x.hi, x.lo)))
        high = Between(*(max(Fraction(0), Fraction(float(a.max(initial=0.0)))) for a in (x.lo, x.hi)))
        self.range = Between(low.lo + high.lo, low.hi + high.hi)
        self.scale = Between(max(self.range.lo / steps, smallest), max(self.range.hi / steps, smallest))
        self.zero = Between(*(_share(a, b) * steps for a, b in ((low.lo, high.hi), (low.hi, high.lo))))
        self.is_zero = self.range.hi == 0

    @cached_property
    def correct(self) -> tuple[Floats, int]:
        """``round(x / scale)`` and the zero point of known data, computed without error."""
        zero = int(self.zero.lo) if self.is_zero else round(self.zero.lo)
        if self.is_zero:
            return np.zeros(self.x.type.shape), zero
        quotients = combine([Term(self.x.lo, Multiplier.of(1 / self.scale.lo))], self.x.type.shape)
        down, up = quotients.nearest(FilterCount())
        return np.where(down % 2 == 0, down, up).astype(np.float64), zero

    def under(self, contract: Contract, k: int) -> Steps:
        """What a kernel of k roundings may make of it."""
        exact = contract.terms == "exact"
        if self.is_zero:
            nothing = np.zeros(self.x.type.shape)
            return Steps(0.0, 0.0 if exact else FLOAT32_MAX, 0, 0, nothing, nothing, True, True)
        if exact and self.x.is_point:
            rounded, zero = self.correct
            scale_lo, scale_hi = outward(self.scale.lo, self.scale.hi)
            return Steps(scale_lo, scale_hi, zero, zero, rounded, rounded, True, True)
        if self.scale.lo == 0:
            return self._maybe_zero(exact, k)
        known = self.range.is_point and is_float32(self.range.lo) and is_float32(self.scale.lo) and k <= AS_WRITTEN
        away = Fraction(0) if known or exact else Fraction(gamma(max(k - 1, 0)))
        if not (known or exact) and self.scale.lo < 2 * FLOAT32_MIN_NORMAL:
            away += SUBNORMAL / self.scale.lo
        overflows = not exact and self.range.hi * (1 + Fraction(2) ** -23) > FLOAT32_MAX
        if away >= 1 or overflows:
            most = np.inf if overflows else outward(self.scale.hi * 3, self.scale.hi * 3)[1]
            return self._anything(most, is_defined=False)
        scale_lo, scale_hi = outward(self.scale.lo * (1 - away), self.scale.hi * (1 + away))
        u = Fraction(0) if exact else Fraction(UNIT_ROUNDOFF)
        if known and is_float32(self.zero.lo):
            u = Fraction(0)
        more = (u * self.moved + away) if self.moved else Fraction(0)
        unrounded = Between(self.zero.lo * (1 - u) / (1 + away) - more, self.zero.hi * (1 + u) / (1 - away) + more)
        zero_lo, zero_hi = _rounded(unrounded, contract.tie if unrounded.is_point else None)
        low, high = self._quotients(contract, scale_lo, scale_hi, known, zero_lo, zero_hi)
        return Steps(scale_lo, scale_hi, zero_lo, zero_hi, low, high, True, known)

    def _maybe_zero(self, exact: bool, k: int) -> Steps:
        """Of uncertain data that may all be 0: the scale may be anything near 0, or what stands for none."""
        if exact:
            return self._anything(outward(self.scale.hi, self.scale.hi)[1], is_defined=True)
        overflows = self.range.hi * (1 + Fraction(2) ** -23) > FLOAT32_MAX
        return self._anything(np.inf if overflows else FLOAT32_MAX, is_defined=False)

    def _anything(self, scale_hi: float, *, is_defined: bool) -> Steps:
        reach = np.full(self.x.type.shape, float(QMAX - QMIN))
        return Steps(0.0, scale_hi, QMIN, QMAX, -reach, reach, is_defined, False)

    def _quotients(
        self, contract: Contract, scale_lo: float, scale_hi: float, known: bool, zero_lo: int, zero_hi: int
    ) -> tuple[Floats, Floats]:
        """Bounds of ``round(x / scale)``."""
        x = self.x
        with np.errstate(over="ignore"):
            lo = np.where(x.lo >= 0, x.lo / scale_hi, x.lo / scale_lo)
            hi = np.where(x.hi >= 0, x.hi / scale_lo, x.hi / scale_hi)
            u = 0.0 if contract.terms == "exact" else UNIT_ROUNDOFF
            margin_lo, margin_hi = ((u + SLACK) * np.abs(v) for v in (lo, hi))
            if (
                contract.terms == "affine" or contract.adds_zero_point
            ):  # the zero point may be added before the sum is rounded
                margin_lo = margin_lo + u * (np.abs(lo) + zero_hi)
                margin_hi = margin_hi + u * (np.abs(hi) + zero_hi)
            low, high = round_half_even(lo - margin_lo), round_half_even(hi + margin_hi)
            short = lo.astype(np.float32).astype(np.float64)
            exactly = (short * scale_lo == x.lo) & (known and x.is_point)
        if exactly.any():
            down, up = split_ties(lo)
            down, up = _ties(down, up, contract.tie, zero_lo, zero_hi)
            low, high = np.where(exactly, down, low), np.where(exactly, up, high)
        if x.is_point:
            correct = self.correct[0]
            return np.minimum(low, correct).astype(np.float64), np.maximum(high, correct).astype(np.float64)
        return low.astype(np.float64), high.astype(np.float64)


def _share(part: Fraction, rest: Fraction) -> Fraction:
    """``part / (part + rest)``; 0 where there is nothing."""
    return part / (part + rest) if part else Fraction(0)


def is_float32(x: Fraction) -> bool:
    """Whether a normal float32 is `x`."""
    nearest = float(x)
    return Fraction(nearest) == x and float32(nearest) == nearest and (x == 0 or abs(nearest) >= FLOAT32_MIN_NORMAL)


def outward(lo: Fraction, hi: Fraction) -> tuple[float, float]:
    """float64 bounds of what lies between."""
    a, b = float(lo), float(hi)
    return (
        float(np.nextafter(a, -np.inf)) if Fraction(a) > lo else a,
        float(np.nextafter(b, np.inf)) if Fraction(b) < hi else b,
    )


def _rounded(x: Between, tie: TieRule | None) -> tuple[int, int]:
    """Bounds of the saturated nearest integers; `tie` is the rule for a number that is computed without error."""
    if tie is not None and tie != "any":
        lo = hi = round(x.lo)
    else:
        lo, hi = -int((Fraction(1, 2) - x.lo) // 1), int((x.hi + Fraction(1, 2)) // 1)
    return min(max(lo, QMIN), QMAX), min(max(hi, QMIN), QMAX)


def _ties(down: Ints, up: Ints, tie: TieRule, zero_lo: int, zero_hi: int) -> tuple[Ints, Ints]:
    """What may become of quotients that are computed without error. The correct one is always among it."""
    even = np.where(down % 2 == 0, down, up)
    if tie == "any" or (tie != "half_even" and zero_lo != zero_hi):
        return down, up
    if tie == "half_even":
        return even, even
    after = np.where((down + zero_lo) % 2 == 0, down, up)
    return np.minimum(even, after), np.maximum(even, after)
