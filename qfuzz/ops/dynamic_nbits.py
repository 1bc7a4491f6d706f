"""dynamic_nbits_linear: rows of reals that are quantized as they come, times a weight of 4 bits.

Semantics: `aten::_dyn_quant_matmul_4bit`, "Dynamic INT4 weight-only MatMul with per-row input quantization" to int8
(aten/src/ATen/native/cpu/int4mm_kernel.cpp). Each row along the last axis has a scale and a zero point of its own:
"for a N dimension Tensor (M1, M2, ...Mn, N), we calculate scales/zero_points for each N elements and quantize every N
elements with the same quantization parameter" (`quantized_decomposed.choose_qparams_per_token_asymmetric`),

    scale      = (max(row, 0) - min(row, 0)) / 255
    zero_point = saturate(round(-128 - min(row, 0) / scale))
    stored     = saturate(round(row / scale) + zero_point)

which is dynamic_quantize of that row, moved by 128. A weight's groups along the summed axis, or its channels, have
float32 scales: ``y = scale * sum_g(scale_g * sum(stored - zero_point) * w) + bias``.

Results are defined where the scale of a row is 0 or a normal float32, and sums of magnitudes, with the scales of rows
and without, stay within float32.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term, combine
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, Element
from qfuzz.ir.tensor import TensorType, laid_out
from qfuzz.ops.contraction import linear_shape
from qfuzz.ops.dynamic import AFTER_SCALE
from qfuzz.ops.dynamic_range import QMAX, QMIN, SLACK, SUBNORMAL, Quantization
from qfuzz.ops.semantics import ExactOperator, Image, Operand, SteppedImage
from qfuzz.ops.table import known_reals

GROUP = 32
"""Lengths of groups are multiples of it: "Group size should be multiple of 32, in_features" (LinearAlgebra.cpp)."""
INT8 = 128
"""How far int8 is moved from uint8."""

_EXACT = Contract(terms="exact", k=0, tie="half_even", source="the definition")


class DynamicNbitsLinear(ExactOperator, frozen=True, kw_only=True, tag="dynamic_nbits_linear"):
    """`x` [..., K], each row quantized as it comes, times an int4 `weight` [M, K] transposed, plus `bias` [M].

    x and the result are both float32 or both bfloat16, to which the result is rounded once; the bias is float32. The
    weight has no zero points, and scales per tensor, per output channel, or of groups along K; of bfloat16, no groups.
    """

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        if x.element not in ("float32", "bfloat16") or element != x.element:
            raise InvalidCase(f"x, output: {x.dtype}, {element}; needs float32 or bfloat16, and gives the same")
        shape = linear_shape(x, weight, self.name)
        q, (n_channels, n_features) = weight.qtype, weight.shape
        if q.dtype != "int4" or any(q.zero_point):
            raise InvalidCase(f"weight: {q.dtype} of zero points {q.zero_point}; needs int4 without zero points")
        if (q.axis, bool(q.block)) not in ((None, False), (0, False), (1, True)):
            raise InvalidCase(f"weight: scales on axis {q.axis}; they are per tensor, per channel or of groups")
        if q.block and (q.block % GROUP or n_features % q.block or x.element != "float32"):
            raise InvalidCase(
                f"weight: groups of {q.block} of {n_features}, {x.dtype}; groups divide it, are multiples of {GROUP}, "
                "and for float32"
            )
        if len(inputs) > 2 and (inputs[2].element != "float32" or inputs[2].shape != (n_channels,)):
            raise InvalidCase(f"bias: {inputs[2].dtype} of shape {inputs[2].shape}; needs float32 {(n_channels,)}")
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0], operands[1]
        (n_channels, n_features), length = weight.type.shape, weight.type.qtype.block or weight.type.shape[1]
        q = weight.type.qtype
        scales = np.broadcast_to(laid_out(q, q.scale, weight.type.shape), weight.type.shape)[:, ::length]
        groups = weight.lo.reshape(n_channels, n_features // length, length)
        bias = operands[2].lo if len(operands) > 2 else np.zeros(n_channels)
        return _Rows(_rows(x), groups, scales, bias, (*x.type.shape[:-1], n_channels))


def _rows(x: Operand) -> list[Quantization]:
    length = x.type.shape[-1]
    type_ = TensorType((length,), x.type.element)
    low = x.lo.reshape(-1, length)
    high = low if x.is_point else x.hi.reshape(-1, length)
    return [Quantization(Operand(type_, a, a if x.is_point else b), moved=INT8) for a, b in zip(low, high, strict=True)]


class _Rows(SteppedImage):
    """Products of rows that are quantized each on its own.

    Parameters
    ----------
    groups, scales
        The weight [channels, groups, length], and a scale for each group of a channel.
    """

    def __init__(
        self, rows: Sequence[Quantization], groups: Floats, scales: Floats, bias: Floats, shape: tuple[int, ...]
    ) -> None:
        self.rows, self.groups, self.scales, self.bias, self.shape = rows, groups, scales, bias, shape
        if all(r.x.is_point for r in rows):
            self.lower = self.upper = self._correct()
        else:
            self.lower, self.upper = (known_reals(b) for b in self.bounds(_EXACT))

    def _sums(self, stored: Sequence[Floats], groups: Floats) -> Floats:
        """Sums of products [rows, channels, groups]."""
        n_groups, length = groups.shape[1:]
        rows = np.array(stored).reshape(-1, n_groups, length)
        return np.asarray(np.einsum("rgk,cgk->rcg", rows, groups))

    def _correct(self) -> Reals:
        correct = [r.correct for r in self.rows]
        acc = self._sums([np.clip(q, QMIN - zero, QMAX - zero) for q, zero in correct], self.groups)
        terms = [Term(self.bias, Multiplier.exactly(np.ones(())))]
        for g in range(acc.shape[-1]):
            terms.append(Term(acc[..., g].reshape(self.shape), self._multiplier(g), are_integers=True))
        return combine(terms, self.shape)

    def _multiplier(self, group: int) -> Multiplier:
        """The scale of a row times that of a channel's group."""
        n_channels = len(self.scales)
        approx = np.outer([float(r.scale.lo) for r in self.rows], self.scales[:, group]).reshape(self.shape)
        return Multiplier(
            approx,
            0.0,
            lambda i: self.rows[i // n_channels].scale.lo * Fraction(float(self.scales[i % n_channels, group])),
        )

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        """Each stored integer anything that is admissible for it; then all that float32 makes of scales and sums.

        One rounding more for each group that is added to the first.
        """
        after, n_groups = min(AFTER_SCALE, contract.k), self.scales.shape[1]
        steps = [r.under(contract, contract.k - after + 1) for r in self.rows]
        stored_lo, stored_hi = [s.centered[0] for s in steps], [s.centered[1] for s in steps]
        positive, negative = np.maximum(self.groups, 0.0), np.minimum(self.groups, 0.0)
        low = self._sums(stored_lo, positive) + self._sums(stored_hi, negative)
        high = self._sums(stored_hi, positive) + self._sums(stored_lo, negative)
        size = (np.maximum(np.abs(low), np.abs(high)) * self.scales).sum(axis=-1)
        low, high = (low * self.scales).sum(axis=-1), (high * self.scales).sum(axis=-1)
        empty = np.array([r.is_zero for r in self.rows], dtype=bool).reshape(-1, 1)
        scale_lo = np.where(empty, 0.0, np.array([s.scale_lo for s in steps]).reshape(-1, 1))
        scale_hi = np.where(empty, 0.0, np.array([s.scale_hi for s in steps]).reshape(-1, 1))
        defined = np.array([s.is_defined for s in steps], dtype=bool).reshape(-1, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            lo = np.where(low >= 0, low * scale_lo, low * scale_hi) + self.bias
            hi = np.where(high >= 0, high * scale_hi, high * scale_lo) + self.bias
            whole = size * scale_hi + np.abs(self.bias)
            error = whole * SLACK * n_groups
            if contract.terms != "exact":
                rounding = gamma(after + n_groups - 1) * (1 + 2.0**-40) * whole + 2 * float(SUBNORMAL)
                error = error + np.where(size == 0, 0.0, rounding)
                defined = defined & (empty | (scale_lo >= FLOAT32_MIN_NORMAL))
                defined = defined & (np.maximum(size, whole) * (1 + 2.0**-20) <= FLOAT32_MAX)
                lo, hi = np.where(defined, lo - error, -np.inf), np.where(defined, hi + error, np.inf)
            else:
                lo, hi = lo - error, hi + error
        return lo.reshape(self.shape), hi.reshape(self.shape)
