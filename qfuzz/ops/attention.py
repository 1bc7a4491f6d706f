"""attention: multi-head self attention of a quantized activation, as one kernel that ends in float32.

Semantics: QAttention and Attention of onnxruntime/docs/ContribOperators.md (com.microsoft, version 1): Q, K and V are
the thirds of x W + b, each split into heads; the output is softmax(scale Q K^T + mask) V, the heads side by side.
`scale` is 1/sqrt(head size) where none is given. A masked key's score gets `mask_filter_value` added. Unidirectional,
"every token can only attend to previous tokens" (and itself): the weight of a later one is 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact import elementary
from qfuzz.exact.arithmetic_model import FLOAT64, NONE, Rounding, float32_rounding
from qfuzz.exact.float32_sides import settled_float32
from qfuzz.exact.intervals import Interval, hull
from qfuzz.exact.reals import Bounds, Reals, Refine
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import INTEGER_RANGE, Element, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.rounded_activations import rounded_product
from qfuzz.ops.semantics import (
    MAX_WINDOWED,
    EnclosedImage,
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    check_narrow,
    per_tensor,
)
from qfuzz.ops.table import known_reals

Flags = npt.NDArray[np.bool_]

MAX_SCORE = 2.0**100
"""Scores of larger magnitude are not defined here: near the end of float32 kernels overflow whatever they do."""


class Attention(ExactOperator, frozen=True, kw_only=True, tag="attention"):
    """Self attention: x [batch, length, features], weight [features, 3*hidden], bias [3*hidden], and maybe a mask.

    Attributes
    ----------
    num_heads
        How many heads share the hidden size.
    unidirectional
        Whether tokens attend to themselves and those before them only.
    mask_filter_value
        What is added to the scores of masked keys.
    scale
        What Q K^T is multiplied with; None is 1/sqrt(head size).

    Notes
    -----
    The mask holds int32 in one of four forms: [batch, length, length] or [batch, length], 0 where a key is masked and 1
    elsewhere; [batch], the exclusive end of each sequence; [2*batch], all ends, then all inclusive starts. Other values
    (an end beyond the length, a dummy of one element) and a past state have no part in it.
    """

    arity = (3, 4)
    constant_inputs = (1, 2, 3)

    num_heads: int
    unidirectional: bool = False
    mask_filter_value: float = -10000.0
    scale: float | None = None

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight, bias = inputs[:3]
        if element != "float32":
            raise InvalidCase("output: quantized elements; attention gives float32 elements")
        check_narrow([x], element)
        q_x, q_w = per_tensor(x, "x"), weight.qtype
        if len(x.shape) != 3 or 0 in x.shape[1:]:
            raise InvalidCase(f"x: shape {x.shape}; needs [batch, length, features], only the batch may be empty")
        if len(weight.shape) != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] % 3 or not weight.shape[1]:
            raise InvalidCase(f"weight: shape {weight.shape}; needs ({x.shape[2]}, 3 * hidden size)")
        if q_w.axis not in (None, 1):
            raise InvalidCase(f"weight: scales on axis {q_w.axis}; per-column weights have them on axis 1")
        if bias.shape != weight.shape[1:] or bias.element != "float32":
            raise InvalidCase(f"bias: {bias.dtype} of shape {bias.shape}; needs float32 of {weight.shape[1:]}")
        hidden = weight.shape[1] // 3
        if self.num_heads < 1 or hidden % self.num_heads:
            raise InvalidCase(f"num_heads: {self.num_heads}; needs a divisor of the hidden size {hidden}")
        for name, value in (("mask_filter_value", self.mask_filter_value), ("scale", self.scale or 0.0)):
            if float32(value) != value or abs(value) > MAX_SCORE:
                raise InvalidCase(f"{name}: {value!r}; needs a float32 of magnitude {MAX_SCORE!r} at most")
        check_multipliers([q_x.scale[0] * s for s in (min(q_w.scale), max(q_w.scale))], element, "weight")
        batch, length = x.shape[:2]
        if len(inputs) > 3:
            shapes = ((batch,), (2 * batch,), (batch, length), (batch, length, length))
            if inputs[3].element != "int32" or inputs[3].shape not in shapes:
                raise InvalidCase(f"mask: {inputs[3].dtype} of shape {inputs[3].shape}; needs int32 of one of {shapes}")
        if batch * length**2 * max(self.num_heads * length, hidden) > MAX_WINDOWED:
            raise InvalidCase(f"x: shape {x.shape}: bounds would need more than {MAX_WINDOWED} numbers")
        return batch, length, hidden

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        q_x, q_w = inputs[0].qtype, inputs[1].qtype
        weight = constants[1].array.astype(np.float64) - np.array(q_w.zero_point, dtype=np.float64)
        (zero_point,) = q_x.zero_point
        worst = np.abs(weight).sum(axis=0) * max(q_x.qmax - zero_point, zero_point - q_x.qmin)
        if worst.max() > INTEGER_RANGE["int32"][1]:
            raise InvalidCase(f"weight: an accumulator can reach {worst.max():.0f}; int32 holds 2^31 - 1")
        units = np.array(q_w.scale) * q_x.scale[0]
        largest = float((worst * units + np.abs(constants[2].array.astype(np.float64))).max())
        head = inputs[1].shape[1] // 3 // self.num_heads
        score = abs(self._scale(head)) * head * largest**2 + abs(self.mask_filter_value)
        if not max(score, largest) <= MAX_SCORE:
            raise InvalidCase(f"weight: scores or values can reach {max(score, largest)!r}; at most {MAX_SCORE!r}")
        if 3 in constants:
            self._check_mask(constants[3].array, inputs[0].shape[1])

    def _check_mask(self, mask: npt.NDArray[np.int32], length: int) -> None:
        most = length if mask.ndim == 1 else 1
        if mask.size and not 0 <= mask.min() <= mask.max() <= most:
            raise InvalidCase(f"mask: values {mask.min()}..{mask.max()}; this form has 0..{most}")

    def _scale(self, head: int) -> float:
        return float(1.0 / np.sqrt(head)) if self.scale is None else self.scale

    def filtered(self, mask: npt.NDArray[np.int32] | None, batch: int, length: int) -> Flags:
        """Which scores [batch or 1, query, key] get the filter value."""
        if mask is None:
            return np.zeros((1, length, length), dtype=bool)
        if mask.ndim == 3:
            return np.asarray(mask == 0)
        if mask.ndim == 2:
            padding = mask == 0
        else:
            keys = np.arange(length)
            padding = keys >= mask[:batch, None]
            if mask.shape[0] != batch:
                padding = padding | (keys < mask[batch:, None])
        return np.repeat(padding[:, None], length, axis=1)

    def attended(self, length: int) -> Flags:
        """Which keys a query attends to at all."""
        every = np.ones((length, length), dtype=bool)
        return np.tril(every) if self.unidirectional else every

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight, bias = operands[:3]
        batch, length = x.type.shape[:2]
        w, _ = weight.centered()
        x_lo, x_hi = x.centered()
        if x.is_point:
            acc_lo = acc_hi = x_lo @ w
        else:
            positive, negative = np.maximum(w, 0.0), np.minimum(w, 0.0)
            acc_lo, acc_hi = x_lo @ positive + x_hi @ negative, x_hi @ positive + x_lo @ negative
        unit = np.array(weight.type.qtype.scale) * x.float_scale  # products of two float32 are exact
        b = np.abs(bias.lo)
        magnitudes: dict[str, Callable[[], Floats]] = {
            "accumulator": lambda: np.maximum(np.abs(acc_lo), np.abs(acc_hi)) * unit + b,
            "real": lambda: x.magnitude() @ np.abs(w) * unit + b,
            "affine": lambda: x.affine_magnitude() @ weight.affine_magnitude() * unit + b,
        }

        def rounded(block: int) -> tuple[Floats, Floats]:
            return rounded_product(x.magnitude() * x.float_scale, weight, block, summed=0)

        mask = operands[3].lo.astype(np.int32) if len(operands) > 3 else None
        heads = _Heads(self, self.filtered(mask, batch, length), self.attended(length))
        # One product and one sum: accumulators are exact in float64.
        slack = FLOAT64.gamma(2) * magnitudes["accumulator"]()
        projected = acc_lo * unit + bias.lo, acc_hi * unit + bias.lo
        around = projected[0] - slack, projected[1] + slack
        lo, hi = heads.output(around, FLOAT64)
        if x.is_point:
            approx, _ = heads.output(projected, NONE)
            error = np.maximum(hi - approx, approx - lo) * (1 + 2.0**-20)
            r = settled_float32(Reals(approx, error, heads.refine(acc_lo, unit, bias.lo)))
            return AttentionImage(r, r, around, magnitudes, weight.type.shape[0] + 1, heads, rounded)
        low, high = known_reals(lo), known_reals(hi)
        return AttentionImage(low, high, around, magnitudes, weight.type.shape[0] + 1, heads, rounded)


@dataclass(frozen=True)
class _Heads:
    """What follows the projections, in the order of contrib_ops/cpu/bert/attention_cpu_base.h, on intervals."""

    op: Attention
    filtered: Flags
    attended: Flags

    def output(self, projected: Interval, rounding: Rounding) -> Interval:
        """Bounds of softmax(scale Q K^T + mask) V for any Q, K, V within `projected`, rounded as `rounding` says.

        A score is a sum of d products, scaled, plus the mask: gamma_(d + k) of their magnitudes. The subtraction of the
        row's maximum cancels in the quotient but for its own rounding. Shares grow in their own score and fall in all
        others; exponentials are off by `function`, their sum, its reciprocal and the product by gamma_(S + k) more.
        The last product is a sum of S terms: gamma_(S + k) of sum |p v|; before that rounding it is a mean of the
        values with weights whose sum is off by as much as they are.
        """
        op, k = self.op, rounding.k
        (q_lo, k_lo, v_lo), (q_hi, k_hi, v_hi) = (self._split(side) for side in projected)
        length, head = q_lo.shape[2:]
        scale = op._scale(head)
        products = [a[:, :, :, None] * b[:, :, None] for a in (q_lo, q_hi) for b in (k_lo, k_hi)]
        low, high = (scale * pick.reduce(products).sum(axis=-1) for pick in (np.minimum, np.maximum))
        if scale < 0:
            low, high = high, low
        added = np.where(self.filtered, op.mask_filter_value, 0.0)[:, None]
        magnitude = np.maximum.reduce([np.abs(p) for p in products]).sum(axis=-1) * abs(scale) + np.abs(added)
        off = rounding.gamma(k + head) * magnitude + rounding.lost((k + head) * max(1.0, abs(scale)))
        low, high = low + added - off, high + added + off
        # float32 kernels add the lowest float32 instead: those scores stay so far below that nothing is left of them.
        top = np.where(self.attended, high, -np.inf).max(axis=-1, keepdims=True)
        away = rounding.unit * (1 + rounding.unit) * np.maximum(top - low, 0.0)
        low, high = (np.where(self.attended, side, -np.inf) for side in (low - away, high + away))
        p_lo, p_hi = self._shares(low, high)
        relative = (1 + rounding.gamma(k + length)) * (1 + 2.1 * rounding.function) - 1.0
        p_hi = p_hi * (1 + relative) + rounding.vanished
        p_lo = np.maximum(p_lo * (1 - relative) - rounding.vanished, 0.0)
        lo = p_lo @ np.maximum(v_lo, 0.0) + p_hi @ np.minimum(v_lo, 0.0)
        hi = p_hi @ np.maximum(v_hi, 0.0) + p_lo @ np.minimum(v_hi, 0.0)
        largest = np.maximum(np.abs(v_lo), np.abs(v_hi))
        least, greatest = self._extreme(v_lo, np.minimum), self._extreme(v_hi, np.maximum)
        stray = rounding.vanished * length * largest.max(axis=2, keepdims=True)
        lo = np.maximum(lo, least - relative * np.abs(least) - stray)
        hi = np.minimum(hi, greatest + relative * np.abs(greatest) + stray)
        off = rounding.gamma(k + length) * (p_hi @ largest) + rounding.lost(k + length)
        return self._join(lo - off), self._join(hi + off)

    def refine(self, acc: Floats, units: Floats, bias: Floats) -> Refine:
        """Narrows one output of known accumulators, in rationals."""
        op = self.op
        hidden = bias.size // 3
        head = hidden // op.num_heads
        units = np.broadcast_to(units, bias.shape)

        def projected(which: int, n: int, token: int, column: int) -> Fraction:
            c = which * hidden + column
            return int(acc[n, token, c]) * Fraction(float(units[c])) + Fraction(float(bias[c]))

        def bounds(i: int, bits: int) -> Bounds:
            n, query, column = (int(j) for j in np.unravel_index(i, (*acc.shape[:2], hidden)))
            tokens = np.flatnonzero(self.attended[query]).tolist()
            columns = range(column // head * head, column // head * head + head)
            added = {
                t: Fraction(op.mask_filter_value) * int(self.filtered[n % len(self.filtered), query, t]) for t in tokens
            }
            dots = {t: sum(projected(0, n, query, c) * projected(1, n, t, c) for c in columns) for t in tokens}
            scale = _scale_bounds(op.scale, head, bits + 300)
            top = max(tokens, key=lambda t: scale[0] * dots[t] + added[t])
            base = projected(2, n, top, column)
            moved, total = (Fraction(0), Fraction(0)), (Fraction(1), Fraction(1))
            for t in tokens:
                if t == top:
                    continue
                low, high = sorted(s * (dots[t] - dots[top]) + added[t] - added[top] for s in scale)
                share = elementary.exp(low, bits)[0], elementary.exp(high, bits)[1]
                total = total[0] + share[0], total[1] + share[1]
                part = sorted(p * (projected(2, n, t, column) - base) for p in share)
                moved = moved[0] + part[0], moved[1] + part[1]
            quotients = [m / t for m in moved for t in total]
            return base + min(quotients), base + max(quotients)

        return bounds

    def _split(self, projected: Floats) -> tuple[Floats, Floats, Floats]:
        """Q, K and V: [batch, heads, length, head size] each."""
        batch, length, width = projected.shape
        parts = projected.reshape(batch, length, 3, self.op.num_heads, width // 3 // self.op.num_heads)
        q, k, v = (np.swapaxes(parts[:, :, i], 1, 2) for i in range(3))
        return q, k, v

    def _join(self, heads: Floats) -> Floats:
        batch, n, length, size = heads.shape
        return np.asarray(np.swapaxes(heads, 1, 2).reshape(batch, length, n * size))

    def _shares(self, low: Floats, high: Floats) -> Interval:
        """Least and greatest shares e^s_j / sum of e^s_i, over all scores within low..high."""
        others = ~np.eye(low.shape[-1], dtype=bool) & self.attended[:, None, :]
        with np.errstate(over="ignore", invalid="ignore"):  # e^(s_i - s_j) beyond float64: a share of 0

            def share(own: Floats, rivals: Floats) -> Floats:
                ratios = np.exp(rivals[..., None, :] - own[..., :, None])
                return np.asarray(1.0 / (1.0 + np.where(others, ratios, 0.0).sum(axis=-1)))

            shares = share(low, high), share(high, low)
        return np.where(self.attended, shares[0], 0.0), np.where(self.attended, shares[1], 0.0)

    def _extreme(self, values: Floats, pick: np.ufunc) -> Floats:
        """Of the values that each query attends to."""
        if not self.op.unidirectional:
            return np.asarray(pick.reduce(values, axis=2, keepdims=True))
        return np.asarray(pick.accumulate(values, axis=2))


def _scale_bounds(scale: float | None, head: int, bits: int) -> Bounds:
    """`scale`, or 1/sqrt(head)."""
    if scale is not None:
        return Fraction(scale), Fraction(scale)
    root = math.isqrt(4**bits // head)  # floor(2^bits / sqrt(head))
    exact = root * root * head == 4**bits
    return Fraction(root, 2**bits), Fraction(root + (0 if exact else 1), 2**bits)


@dataclass(frozen=True)
class AttentionImage(EnclosedImage):
    """The outputs, and how far float32 kernels may be from them.

    Attributes
    ----------
    projected
        Float64 bounds of x W + b.
    magnitudes
        By terms of a contract, what the rounding of x W + b is relative to.
    n_summed
        Terms of one element of x W + b.
    rounded
        Where x is rounded to int8: how far that moves x W + b, and what its rounding is relative to then, too.
    """

    lower: Reals
    upper: Reals
    projected: Interval
    magnitudes: Mapping[str, Callable[[], Floats]]
    n_summed: int
    heads: _Heads
    rounded: Callable[[int], tuple[Floats, Floats]]

    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """`k` counts what each stage does beside its sums: the projection, the scores, the shares, the output."""
        rounding = float32_rounding(contract.k, contract.function_ulps)
        terms = "affine" if contract.terms == "fixed_point" else contract.terms
        n = contract.k + (self.n_summed if contract.accumulates_float else 0)
        off = rounding.gamma(n) * self.magnitudes[terms]() + rounding.lost(n)
        if contract.activation_block:
            moved, summed = self.rounded(contract.activation_block)
            off = off + moved * (1 + 2.0**-40) + rounding.gamma(n) * summed
        return hull(exact, self.heads.output((self.projected[0] - off, self.projected[1] + off), rounding))
