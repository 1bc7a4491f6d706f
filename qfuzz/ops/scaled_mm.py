"""scaled_mm: the product of float8 activations with a constant float8 weight, rounded once.

Semantics: `torch.nn.functional.scaled_mm`, "a scaled matrix-multiply, mm(mat_a, mat_b)" of "decoding scaling factors",
under the recipes TensorWise and RowWise, with an "optional bias term to be added to the output"; and the older
`torch._scaled_mm`, whose scale_result is "the scale of the output, only utilized if the output is a float8 type".
Results are defined where sums of magnitudes stay within float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, REALS, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType, laid_out
from qfuzz.ops.quantization import FAR, largest_stored
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    LinearImage,
    Operand,
    check_multipliers,
    float_scale,
    is_power_of_two,
)
from qfuzz.ops.weight_only import largest_magnitude, real_product, smallest_place

_UNDERFLOW = 2.0**-125
"""2^24 times the least float32: a rounding of so large a number is off by what a result loses to underflow."""
SATURATING = "float8_e4m3fn"
"""The kind of float8 that holds its largest number where a result is beyond it."""


class ScaledMm(ExactOperator, frozen=True, kw_only=True, tag="scaled_mm"):
    """`x` [M, K] times `weight` [N, K] transposed, plus a `bias` [N] of reals: to reals, or to a float8 with a scale.

    `x` and `weight` have one scale each, or `x` one for each row and `weight` one for each of N. NaN and infinities of
    `x` go through products and sums as in IEEE 754. A float8 output is made as `torch.Tensor.to` makes it: beyond the
    largest number float8_e4m3fn holds that, of an infinity too, and other kinds their infinity or else NaN.
    """

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)
    takes_non_finite: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        for name, t in (("x", x), ("weight", weight)):
            if not isinstance(t.element, QType) or not t.element.is_float or t.element.block:
                raise InvalidCase(f"{name}: {t.dtype}; needs float8 elements, with one scale or one for each row")
        if len(x.shape) != 2 or len(weight.shape) != 2 or weight.shape[1] != x.shape[1] or weight.shape[0] == 0:
            raise InvalidCase(f"x, weight: shapes {x.shape}, {weight.shape}; needs [M, K] and [N, K], N at least 1")
        q_x, q_w = x.qtype, weight.qtype
        if (q_x.axis, q_w.axis) not in ((None, None), (0, 0)):
            raise InvalidCase(f"x, weight: scales on axes {q_x.axis}, {q_w.axis}; both per tensor, or both on axis 0")
        if isinstance(element, QType) and not (element.is_float and element.is_per_tensor):
            raise InvalidCase(f"output: {element.dtype} on axis {element.axis}; a float8 with one scale, or reals")
        if not isinstance(element, QType) and element not in REALS:
            raise InvalidCase(f"output: {element}; needs a float8 with one scale, or {', '.join(REALS)}")
        if len(inputs) == 3 and (inputs[2].element not in REALS or inputs[2].shape != weight.shape[:1]):
            raise InvalidCase(f"bias: {inputs[2].dtype} of {inputs[2].shape}; needs reals of {weight.shape[:1]}")
        check_multipliers([least(q_x.scale) * least(q_w.scale) for least in (min, max)], element, "x, weight")
        worst = largest_stored(q_x) * max(q_x.scale) * largest_stored(q_w) * max(q_w.scale) * max(x.shape[1], 1)
        if worst > FLOAT32_MAX / 4:
            raise InvalidCase(f"x, weight: a sum of {x.shape[1]} products can reach {worst!r}, which overflows float32")
        return x.shape[0], weight.shape[0]

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        if 2 in constants:
            largest = float(np.abs(constants[2].array.astype(np.float64)).max(initial=0.0))
            if largest > FLOAT32_MAX / 4:
                raise InvalidCase(f"bias: {largest!r}; sums with it may overflow float32")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        weights = _dequantized(operands[1])[0]
        bias = operands[2].lo if len(operands) == 3 else np.zeros(weights.shape[0])
        lo, hi = _dequantized(operands[0])
        special = None
        if operands[0].is_point and not np.isfinite(lo).all():
            special = _non_finite(lo, weights)
            lo = hi = np.where(np.isfinite(lo), lo, 0.0)
        x = Operand(TensorType(operands[0].type.shape, "float32"), lo, hi)
        scale_y = float_scale(element)
        products = np.asarray(largest_magnitude(x) @ np.abs(weights).T + np.abs(bias))

        def real() -> Floats:
            lost = 1.0 + largest_magnitude(x).sum(axis=1)[:, None] + np.abs(weights).sum(axis=1)
            return np.asarray((products + _UNDERFLOW * lost) / scale_y)

        def float32_exact() -> npt.NDArray[np.bool_]:
            scales = (*operands[0].type.qtype.scale, *operands[1].type.qtype.scale, scale_y)
            place = smallest_place(x, weights, bias)
            short = all(map(is_power_of_two, scales)) and min(place, place / scale_y) >= 2.0**-149
            return np.asarray(short & (products < 2.0**24 * place) & (_least(x, weights) >= 2.0**-149))

        lower = _with(special, _over(real_product(x, weights, bias, products, upper=False), scale_y))
        upper = lower if x.is_point else _over(real_product(x, weights, bias, products, upper=True), scale_y)
        return LinearImage(
            lower,
            upper,
            real,
            real,
            real,
            weights.shape[1] + (len(operands) == 3),
            float32_exact,
            saturates=isinstance(element, QType) and element.dtype == SATURATING,
            nan=None if special is None else np.isnan(special),
        )


def _dequantized(operand: Operand) -> tuple[Floats, Floats]:
    """Least and greatest reals, exact in float64: products of 4 bits and 24; one object where they are known."""
    q = operand.type.qtype
    scales = laid_out(q, q.scale, operand.type.shape)
    lo = np.asarray(operand.lo * scales)
    return lo, lo if operand.is_point else np.asarray(operand.hi * scales)


def _least(x: Operand, weights: Floats) -> float:
    """The least magnitude among the numbers, but for 0."""
    return min((float(np.abs(a[a != 0]).min(initial=1.0)) for a in (x.lo, x.hi, weights)), default=1.0)


def _non_finite(x: Floats, weights: Floats) -> Floats:
    """Sums of products as IEEE 754 has them where a row of `x` has no finite numbers only: NaN or infinite; else 0."""
    found = np.zeros((x.shape[0], weights.shape[0]))
    rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
    with np.errstate(invalid="ignore"):
        products = np.where(np.isfinite(x[rows]), 0.0, x[rows])[:, None, :] * weights[None]
        found[rows] = np.where(np.isfinite(x[rows])[:, None, :], 0.0, products).sum(axis=2)
    return found


def _over(r: Reals, scale: float) -> Reals:
    """The reals over an output scale."""
    if scale == 1.0:
        return r
    approx = r.approx / scale
    rounding = 0.0 if is_power_of_two(scale) else 2.0**-52

    def refine(i: int, bits: int) -> Bounds:
        low, high = r.refine(i, bits)
        return low / Fraction(scale), high / Fraction(scale)

    return Reals(approx, r.error / scale * (1 + 2.0**-50) + np.abs(approx) * rounding, refine)


def _with(special: Floats | None, r: Reals) -> Reals:
    """The reals with infinities in their places."""
    if special is None:
        return r
    infinite = np.isinf(special)
    far = np.where(infinite, np.copysign(FAR, special), 0.0)

    def refine(i: int, bits: int) -> Bounds:
        if infinite.flat[i]:
            return (Fraction(float(far.flat[i])),) * 2
        return r.refine(i, bits)

    return replace(r, approx=np.where(infinite, far, r.approx), error=np.where(infinite, 0.0, r.error), refine=refine)
