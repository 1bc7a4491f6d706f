"""fake_quantize: reals as the levels of a quantization stand for them, still as reals.

Semantics: `torch.fake_quantize_per_tensor_affine` and `torch.fake_quantize_per_channel_affine`, documented as
::

    (min(quant_max, max(quant_min, nearby_int(x / scale) + zero_point)) - zero_point) * scale

over the real numbers, with ties to even. What NaN becomes it does not say: anything is admissible.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.intervals import Interval
from qfuzz.exact.reals import FilterCount
from qfuzz.exact.rounding import Floats, Ints, round_half_even
from qfuzz.ir.contract import Contract, TieRule
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.quantization import FAR
from qfuzz.ops.semantics import ExactOperator, Image, LinearImage, Operand, SteppedImage, linear_image
from qfuzz.ops.table import known_reals

MAX_LEVELS = 2**24
"""Kernels take levels as float32 numbers, which tell so many apart: their product with the scale is rounded once."""
SLACK = 2.0**-50
"""More than what a few float64 operations round away, relatively."""

_EXACT = Contract(terms="exact", k=0, tie="half_even", source="the definition")


class FakeQuantize(ExactOperator, frozen=True, kw_only=True, tag="fake_quantize"):
    """Inputs are x, scale and zero point: constants, of one element without dimensions, or one an index of `axis`."""

    quant_min: int = 0
    quant_max: int = 255
    axis: int = 0

    arity: ClassVar[tuple[int, int]] = (3, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)
    takes_non_finite: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, scale, zero_point = inputs
        if x.element != "float32" or element != "float32":
            raise InvalidCase(f"x: {x.dtype} to {element}; needs float32, and gives it")
        if not -MAX_LEVELS < self.quant_min <= self.quant_max < MAX_LEVELS + min(self.quant_min, 0):
            raise InvalidCase(
                f"quant_min: {self.quant_min}, quant_max {self.quant_max}; needs {MAX_LEVELS} levels at most"
            )
        wanted: tuple[int, ...] = ()
        if scale.shape:
            if not 0 <= self.axis < len(x.shape):
                raise InvalidCase(f"axis: {self.axis}; x has {len(x.shape)} dimensions")
            wanted = (x.shape[self.axis],)
        for name, t, dtype in (("scale", scale, "float32"), ("zero_point", zero_point, "int32")):
            if t.element != dtype or t.shape != wanted:
                raise InvalidCase(f"{name}: {t.dtype} of shape {t.shape}; needs {dtype} of shape {wanted}")
        return x.shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        if not constants[1].array.size:
            raise InvalidCase("scale: none; needs one at least")
        q = self.stored(constants[1].array, constants[2].array)
        for z in q.zero_point:
            if not self.quant_min <= z <= self.quant_max:
                raise InvalidCase(f"zero_point: {z} is outside {self.quant_min}..{self.quant_max}")
        reach = max(abs(e - z) for e in (self.quant_min, self.quant_max) for z in q.zero_point)
        if reach * max(q.scale) > FLOAT32_MAX:
            raise InvalidCase(f"scale: {max(q.scale)!r}; levels overflow float32")

    def stored(self, scale: Any, zero_point: Any) -> QType:
        """The grid of levels as a type."""
        axis = self.axis if scale.ndim else None
        return QType(
            "int32",
            tuple(float(s) for s in scale.reshape(-1)),
            tuple(int(z) for z in zero_point.reshape(-1)),
            axis,
        )

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, scale, zero_point = operands
        return LevelsImage(self, x, scale.lo, zero_point.lo)


class LevelsImage(SteppedImage):
    """Levels that x / scale may be rounded to, times the scale.

    Where two levels are admissible, so is what lies between: kernels that return no level at all are told by all other
    elements.
    """

    def __init__(self, op: FakeQuantize, x: Operand, scale: Floats, zero_point: Floats) -> None:
        self.q = op.stored(scale, zero_point)
        shape = (-1,) + (1,) * (len(x.type.shape) - op.axis - 1) if scale.ndim else ()
        self.scale, self.zero_point = scale.reshape(shape), zero_point.reshape(shape)
        self.reach = op.quant_min - self.zero_point, op.quant_max - self.zero_point
        self.x = x
        self.undefined = np.isnan(x.lo) | np.isnan(x.hi)
        if x.is_point:
            self.lower = self.upper = known_reals(self.bounds(_EXACT)[0])
        else:
            self.lower, self.upper = (known_reals(b) for b in self.bounds(_EXACT))

    @cached_property
    def quotients(self) -> tuple[LinearImage, ...]:
        """Quotients x / scale: of known x once, else of either bound."""
        bounds = (self.x.lo,) if self.x.is_point else (self.x.lo, self.x.hi)
        return tuple(self._quotient(np.clip(np.where(self.undefined, 0.0, b), -FAR, FAR)) for b in bounds)

    def _quotient(self, x: Floats) -> LinearImage:
        m = Multiplier.reciprocal(self.scale)

        def magnitude() -> Floats:
            return np.abs(x) * m.approx

        return linear_image(
            [Term(x, m)],
            None,
            self.x.type.shape,
            self.q,
            accumulator=magnitude,
            real=magnitude,
            affine=magnitude,
        )

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        quotients = self.quotients
        lo, hi = self._levels(quotients[0], contract)[0], self._levels(quotients[-1], contract)[1]
        lo, hi = (np.clip(level, *self.reach) * self.scale for level in (lo, hi))
        if contract.terms == "exact":
            return lo, hi
        return np.where(self.undefined, -np.inf, lo), np.where(self.undefined, np.inf, hi)

    def _levels(self, quotient: LinearImage, contract: Contract) -> Interval:
        """Bounds of x / scale, rounded."""
        down, up = quotient.lower.nearest(FilterCount())
        down, up = _by_rule(down, up, contract.tie, self.zero_point.astype(np.int64))
        if contract.terms == "exact":
            return down.astype(np.float64), up.astype(np.float64)
        error = quotient.error(contract)
        r = quotient.lower
        margin = r.error + error + (np.abs(r.approx) + error + 1.0) * SLACK
        low = np.where(error > 0, np.minimum(round_half_even(r.approx - margin), down), down)
        high = np.where(error > 0, np.maximum(round_half_even(r.approx + margin), up), up)
        return low.astype(np.float64), high.astype(np.float64)


def _by_rule(down: Ints, up: Ints, tie: TieRule, zero_point: Ints) -> tuple[Ints, Ints]:
    """What may become of exact ties; the even one always may."""
    even = np.where(down % 2 == 0, down, up)
    if tie == "half_even":
        return even, even
    if tie == "any":
        return down, up
    after = np.where((down + zero_point) % 2 == 0, down, up)
    return np.minimum(even, after), np.maximum(even, after)
