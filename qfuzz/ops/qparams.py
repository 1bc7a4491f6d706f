"""choose_qparams: the scale and the zero point that observers choose for data by their range.

Semantics: `torch.ao.quantization.MinMaxObserver` ("Calculates the quantization parameters"), over the real numbers::

    symmetric:  scale = 2 max(|x_min|, x_max) / (quant_max - quant_min)   zero point = 0, of uint8 128
    else:       scale = (x_max - x_min) / (quant_max - quant_min)         zero point = quant_min - round(x_min / scale)

with the range extended to 0, no scale below `least`, and the zero point cut to the range of integers. Each row along
the last dimension may have its own (tokens). Where the scale is not the range's own, several zero points keep the data
within the integers: quantized_decomposed.choose_qparams_per_token_asymmetric says not which it takes, and counts from
either end; any between is admissible there.

Where the range is beyond the largest float32, or the scale below the normal ones, anything is admissible.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from qfuzz.exact.rounding import UNIT_ROUNDOFF, Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, Element, PlainInteger, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic_range import is_float32, outward
from qfuzz.ops.semantics import ExactOperator, Image, Operand, SteppedImage
from qfuzz.ops.table import known_reals

Stored: TypeAlias = Literal["uint8", "int8", "int16", "uint16", "int32"]
HALF = Fraction(1, 2)
_EXACT = Contract(terms="exact", k=0, tie="half_even", source="the definition")


class ChooseQparams(ExactOperator, frozen=True, kw_only=True, tag="choose_qparams"):
    """The range of float32 data as scale and zero point, of which a node gives one.

    Attributes
    ----------
    dtype, quant_min, quant_max
        What the data are to be quantized to.
    least
        The smallest scale.
    symmetric
        Whether the range is taken as wide on both sides of 0.
    tokens
        Whether each row along the last dimension has its own.
    output
        ``scale`` is float32, ``zero_point`` plain int32.
    """

    dtype: Stored = "uint8"
    quant_min: int = 0
    quant_max: int = 255
    least: float = 2.0**-23
    symmetric: bool = False
    tokens: bool = False
    output: Literal["scale", "zero_point"] = "scale"

    plain_outputs: ClassVar[tuple[PlainInteger, ...]] = ("int32",)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        if x.element != "float32":
            raise InvalidCase(f"x: needs float32 elements, got {x.dtype}")
        wanted = "float32" if self.output == "scale" else "int32"
        if element != wanted:
            raise InvalidCase(f"output: {element}; {self.output} is {wanted}")
        low, high = INTEGER_RANGE[self.dtype]
        if not low <= self.quant_min < self.quant_max <= high:
            raise InvalidCase(f"quant_min: {self.quant_min}, quant_max {self.quant_max}; needs a range of {self.dtype}")
        if self.quant_max - self.quant_min >= 2**24:
            raise InvalidCase(f"quant_max: {self.quant_max}; steps are counted in float32")
        if not FLOAT32_MIN_NORMAL <= self.least <= 1.0 or float32(self.least) != self.least:
            raise InvalidCase(f"least: {self.least!r}; needs a float32 of at most 1")
        if x.n_elements == 0:
            raise InvalidCase(f"x: shape {x.shape}; no elements have no range")
        if self.tokens and not x.shape:
            raise InvalidCase("x: no dimensions, and so no tokens")
        return (*x.shape[:-1], 1) if self.tokens else (1,)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        return QparamsImage(self, operands[0])


class _Range(NamedTuple):
    """How far known or uncertain data reach below 0, and above: least and most."""

    below: tuple[Fraction, Fraction]
    above: tuple[Fraction, Fraction]

    @property
    def is_point(self) -> bool:
        """Whether the data are known."""
        return self.below[0] == self.below[1] and self.above[0] == self.above[1]


class QparamsImage(SteppedImage):
    """Scales, or zero points."""

    def __init__(self, op: ChooseQparams, x: Operand) -> None:
        self.op = op
        self.steps = Fraction(op.quant_max - op.quant_min)
        self.least = Fraction(op.least)
        self.shape = (*x.type.shape[:-1], 1) if op.tokens else (1,)
        rows = [a.reshape((-1, x.type.shape[-1]) if op.tokens else (1, -1)) for a in (x.lo, x.hi)]
        most = 2 * FLOAT32_MAX

        def reach(a: Floats) -> list[Fraction]:
            return [Fraction(float(v)) for v in np.clip(a, 0.0, most)]

        below = zip(reach(-rows[1].min(axis=1)), reach(-rows[0].min(axis=1)), strict=True)
        above = zip(reach(rows[0].max(axis=1)), reach(rows[1].max(axis=1)), strict=True)
        self.ranges = [_Range(b, a) for b, a in zip(below, above, strict=True)]
        lower, upper = self.bounds(_EXACT)
        if x.is_point:
            lower = upper = self._laid([self._correct(r) for r in self.ranges])
        self.lower = known_reals(lower)
        self.upper = self.lower if lower is upper else known_reals(upper)

    def _laid(self, values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64).reshape(self.shape)

    def _scale(self, below: Fraction, above: Fraction) -> Fraction:
        reach = 2 * max(below, above) if self.op.symmetric else below + above
        return max(reach / self.steps, self.least)

    def _correct(self, r: _Range) -> float:
        """The scale, as near as float64 has it, or the zero point."""
        scale = self._scale(r.below[0], r.above[0])
        if self.op.output == "scale":
            return float(scale)
        if self.op.symmetric:
            return self._middle
        return float(self._cut(self.op.quant_min + round(r.below[0] / scale)))

    @property
    def _middle(self) -> float:
        return 128.0 if self.op.dtype == "uint8" and not self.op.tokens else 0.0

    def _cut(self, zero_point: int) -> int:
        return min(max(zero_point, self.op.quant_min), self.op.quant_max)

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        both = [self._row(r, contract) for r in self.ranges]
        return self._laid([b[0] for b in both]), self._laid([b[1] for b in both])

    def _row(self, r: _Range, contract: Contract) -> tuple[float, float]:
        exact = contract.terms == "exact"
        low, high = self._scale(r.below[0], r.above[0]), self._scale(r.below[1], r.above[1])
        span = r.below[1] + r.above[1]
        is_open = not exact and (span * (1 + Fraction(2) ** -23) > FLOAT32_MAX or low < 2 * FLOAT32_MIN_NORMAL)
        if self.op.output == "scale":
            if is_open:
                return 0.0, np.inf
            known = exact or (r.is_point and is_float32(span) and is_float32(low))
            away = Fraction(0) if known else Fraction(gamma(contract.k))
            return outward(low * (1 - away), high * (1 + away))
        if self.op.symmetric:
            return self._middle, self._middle
        if is_open:
            return float(self.op.quant_min), float(self.op.quant_max)
        return self._zero_points(r, contract)

    def _zero_points(self, r: _Range, contract: Contract) -> tuple[float, float]:
        exact = contract.terms == "exact"
        first = r.below[0] / self._scale(r.below[0], r.above[1])
        last = r.below[1] / self._scale(r.below[1], r.above[0])
        steps = Fraction(0) if exact else Fraction(gamma(contract.k + 1))
        floor, ceiling = first * (1 - steps), last * (1 + steps)
        if self.op.tokens and self._is_cut(r):  # it may be counted from the other end
            other = self.steps - r.above[0] / self.least
            floor, ceiling = min(floor, other * (1 - steps)), max(ceiling, other * (1 + steps) + steps * self.steps)
        away = Fraction(0) if exact else Fraction(UNIT_ROUNDOFF) * (abs(self.op.quant_min) + self.steps)
        if r.is_point and contract.tie == "half_even" and not self._is_cut(r):
            scale = self._scale(r.below[0], r.above[0])
            if is_float32(r.below[0] + r.above[0]) and is_float32(scale) and is_float32(first):
                floor = ceiling = Fraction(round(first))
                away = Fraction(0)
        if exact and floor == ceiling:
            lo = hi = round(floor)
        elif floor == ceiling == 0:
            lo = hi = 0
        else:
            lo, hi = -int((HALF - (floor - away)) // 1), int((ceiling + away + HALF) // 1)
        return float(self._cut(self.op.quant_min + lo)), float(self._cut(self.op.quant_min + hi))

    def _is_cut(self, r: _Range) -> bool:
        """Whether the scale may be `least`, and not the range's own."""
        return (r.below[0] + r.above[0]) / self.steps < self.least * (1 + Fraction(2) ** -20)
