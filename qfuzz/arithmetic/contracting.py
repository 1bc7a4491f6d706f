"""A convolution or linear layer on known inputs, bit for bit as a combination of choices computes it."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic.contraction import BEFORE, FIXED_POINT, IN_STEPS, Contraction
from qfuzz.arithmetic.finish import stored, surrogates
from qfuzz.arithmetic.fixed_point import halves_of_shift, multiplied_once, multiplied_q31, quantized_multiplier
from qfuzz.arithmetic.float32 import bfloat16, fma, pairwise_sum, sequential_sum
from qfuzz.arithmetic.windows import columns, laid_out, pair_order
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.semantics import float_scale


class ContractionEvaluation:
    """One node on known inputs, under as many models as are asked for. Steps that models share are computed once."""

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> None:
        assert isinstance(node.op, Conv | Linear)
        self.op, self.element = node.op, node.element
        self.scale_y = float_scale(node.element)
        self.types, self.arrays = types, arrays
        self.shape = node.op.infer(types, node.element)
        self.x, self.w = arrays[0].astype(np.int64), arrays[1].astype(np.int64)
        self.channels: int = self.w.shape[0]
        self.q_x, self.q_w = types[0].qtype, types[1].qtype
        self.zero_w = np.broadcast_to(np.array(self.q_w.zero_point, dtype=np.int64), (self.channels,))
        self.scale_w = np.broadcast_to(np.array(self.q_w.scale), (self.channels,))
        self.relu = node.op.relu
        self._known: dict[tuple[str, ...], Array] = {}

    def stored(self, model: Contraction) -> Array:
        """What the model computes, in the output's shape: stored integers, or float32 numbers that nothing rounds."""
        if not isinstance(self.element, QType):
            real = self.scaled(model).astype(np.float32)
            return laid_out(np.maximum(real, np.float32(0)) if self.relu else real, self.op, self.shape)
        q = stored(
            self.scaled(model),
            self.element,
            rounding=model.rounding,
            zero_point=model.zero_point,
            clamp=model.clamp,
            relu=model.relu if self.relu else None,
        )
        return laid_out(q, self.op, self.shape)

    def result(self, model: Contraction) -> Array:
        """The number before rounding, in output units and the output's shape."""
        return laid_out(self.scaled(model), self.op, self.shape)

    def work(self, model: Contraction) -> int:
        """The products, where they are taken one by one: saturating pairs, and sums in floating point."""
        one_by_one = model.products.startswith("int16") or model.accumulator.startswith("float32")
        taps = math.prod(self.w.shape[1:])
        return math.prod(self.shape) * taps if one_by_one or model.operands == "dequantized" else 0

    def on_the_way(self, model: Contraction, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """Accumulator, bias and multiplier of one element."""
        m = model
        row, channel = self._place(index)
        saturated = self._saturated(m, row, channel)
        if saturated:
            yield "saturated pairs", saturated
        yield "accumulator", self.accumulator(m)[row, channel]
        if len(self.arrays) > 2:
            yield "bias", self._bias_of(m, channel)
        if m.multiplier in FIXED_POINT or m.multiplier in ("exact", "float64"):
            both = self.q_x.scale[0] * float(self.scale_w[channel])
            multiplier = both / self.scale_y
            if m.multiplier in FIXED_POINT:
                mantissa, exponent = quantized_multiplier(np.array(multiplier))
                yield "multiplier", f"{int(mantissa)} * 2^{int(exponent) - 31}"
            else:
                yield "multiplier", multiplier
        elif m.operands == "integers" and m.multiplier not in IN_STEPS:
            yield "multiplier", self._float32_multiplier(m)[channel]
        else:
            x, w, y = self._float32_scales(m)
            if m.operands == "integers" and m.multiplier.startswith("scaled_apart"):
                yield "times scale x", x
                yield "times scale w", w[channel]
            elif m.operands == "integers":
                yield "times scale x * scale w", np.asarray(x * w)[channel]
            yield ("over scale y", y) if m.multiplier.endswith("divided") else ("times 1 / scale y", np.float32(1) / y)

    def operands_of(self, index: tuple[int, ...]) -> tuple[Ints, Ints, int, int]:
        """Stored inputs and weights that one element sums, and their zero points."""
        row, channel = self._place(index)
        rows, filters, zero_x, zero_w = self._rows(Contraction())
        return rows[row, self._group(channel)], filters[channel], zero_x, int(zero_w[channel])

    def _place(self, index: tuple[int, ...]) -> tuple[int, int]:
        """Row and channel of an element."""
        places = np.arange(math.prod(self.shape)).reshape(-1, self.channels)
        place = int(laid_out(places, self.op, self.shape)[index])
        return place // self.channels, place % self.channels

    def _group(self, channel: int) -> int:
        groups = self.op.groups if isinstance(self.op, Conv) else 1
        return channel // (self.channels // groups)

    def _saturated(self, m: Contraction, row: int, channel: int) -> str:
        """The pairs of products that leave int16, where the model saturates them."""
        if not m.products.startswith("int16"):
            return ""
        rows, filters, _, _ = self._rows(m)
        x = np.append(self._multiplied(m, rows)[row, self._group(channel)] + self._shift, 0)
        w = np.append(filters[channel], 0)
        order = pair_order(self.w.shape, m.products)
        texts = []
        for i, j in order.reshape(-1, 2):
            total = int(x[i] * w[i] + x[j] * w[j])
            if not -(2**15) <= total < 2**15:
                texts.append(f"{x[i]}*{w[i]} + {x[j]}*{w[j]} = {total} -> {max(-(2**15), min(total, 2**15 - 1))}")
        return "; ".join(texts) or "none"

    def _bias_of(self, m: Contraction, channel: int) -> Any:
        """The bias as the model adds it."""
        if m.bias == "int32":
            return self._int32_bias()[channel]
        stored = self.arrays[2][channel]
        if self.types[2].element == "int32" and (m.bias in BEFORE or m.bias in ("exact", "unscaled")):
            return stored
        if m.bias in BEFORE and m.operands == "integers":
            both = self._scale_product()[channel]
            one = np.float32(1)
            return np.float32(stored) / both if m.bias == "before_multiplier" else np.float32(stored) * (one / both)
        return self._float_bias()[channel]

    def accumulator(self, m: Contraction) -> Array:
        """Sums of products [rows, channels], without the bias: int64, or float32 or float64 where the model sums so."""
        key: tuple[str, ...] = ("acc", m.operands, m.products, m.accumulator, m.padding, m.zero_points, m.tail)
        if m.operands == "dequantized":
            key = (*key, m.bias)  # such a sum may begin with the bias
        return self._once(key, lambda: self._accumulate(m))

    def scaled(self, m: Contraction) -> Array:
        """Results in output units before rounding [rows, channels], with the bias."""
        key = ("scaled", m.operands, m.products, m.accumulator, m.padding, m.zero_points, m.tail, m.channel_scale)
        return self._once((*key, m.multiplier, m.bias, m.scales, m.rounding if m.multiplier in FIXED_POINT else ""),
                          lambda: self._scale(m))  # fmt: skip

    def _once(self, key: tuple[str, ...], compute: Any) -> Array:
        if key not in self._known:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
                self._known[key] = compute()
        return self._known[key]

    def _rows(self, m: Contraction) -> tuple[Ints, Ints, int, Ints]:
        """Stored inputs [rows, groups, K], weights [channels, K], and what is subtracted from each."""
        (zero_x,) = self.q_x.zero_point
        rows = columns(self.op, self.x, self.w.shape, 0 if m.padding == "stored_zero" else zero_x)
        filters = self.w.reshape(self.channels, -1)
        zero_w: Ints = self.zero_w
        if m.zero_points == "swapped":
            zero_x, zero_w = int(self.zero_w[0]), np.full(self.channels, zero_x)
        per_group = self.w.shape[1]
        if m.tail == "dropped" and per_group % 8 and per_group > 1:
            keep = np.ones(self.w.shape[1:], dtype=bool)
            keep[-1] = False
            rows, filters = rows[..., keep.ravel()], filters[:, keep.ravel()]
        return rows, filters, zero_x, zero_w

    def _accumulate(self, m: Contraction) -> Array:
        rows, filters, zero_x, zero_w = self._rows(m)
        if m.operands == "dequantized":
            scale_x = np.float32(self.q_x.scale[0])
            x = (rows - zero_x).astype(np.float32) * scale_x
            w = (filters - zero_w[:, None]).astype(np.float32) * self.scale_w.astype(np.float32)[:, None]
            return self._float_sum(m, x, w)
        if m.products == "reduced_range":
            halved = np.rint((filters - zero_w[:, None]) / 2).astype(np.int64)
            if m.accumulator == "float32_sequential":
                return self._float_sum(m, (rows - zero_x).astype(np.float32), (2 * halved).astype(np.float32))
            return 2 * _matmul(rows - zero_x, halved)
        if m.products == "exact":
            centered = filters - zero_w[:, None]
            if m.accumulator == "float32_sequential":
                return self._float_sum(m, (rows - zero_x).astype(np.float32), centered.astype(np.float32))
            return _matmul(rows - zero_x, centered)
        return self._pairs(m, rows, filters, zero_x, zero_w)

    def _float_sum(self, m: Contraction, x: Array, w: Array) -> Array:
        """[rows, groups, K] by [channels, K], summed in floating point."""
        x = _per_channel(x, self.channels)
        if m.accumulator == "float64":
            return np.asarray((x.astype(np.float64) * w.astype(np.float64)).sum(axis=-1))
        bias = self._first_addend(m)
        if m.accumulator == "float32_fma":
            total: Array = np.broadcast_to(bias, (x.shape[0], self.channels)).astype(np.float32)
            for k in range(x.shape[-1]):
                total = fma(x[..., k], w[..., k], total)
            return total
        products = x * w
        if m.accumulator == "float32_pairwise":
            return pairwise_sum(products) + bias
        with_bias = np.concatenate([np.broadcast_to(bias[:, None], (*products.shape[:-1], 1)), products], axis=-1)
        return sequential_sum(with_bias.astype(np.float32))

    def _first_addend(self, m: Contraction) -> npt.NDArray[np.float32]:
        """The bias that a float32 sum begins with: of dequantized operands only."""
        if m.operands == "dequantized" and m.bias == "before_multiplier" and len(self.arrays) > 2:
            return self._float_bias()
        return np.zeros(self.channels, dtype=np.float32)

    def _pairs(self, m: Contraction, rows: Ints, filters: Ints, zero_x: int, zero_w: Ints) -> Array:
        """Kernels multiply stored integers and correct for the zero points afterwards; int8 is shifted to uint8."""
        shift, n = self._shift, filters.shape[1]
        order = pair_order(self.w.shape, m.products) if m.tail == "summed" else pair_order((1, n), "int16_pairs")
        multiplied = self._multiplied(m, rows)
        # Position n is that of the zero that an odd number of products is filled up with.
        rows_even = np.pad(multiplied + shift, [(0, 0)] * (rows.ndim - 1) + [(0, 1)])[..., order]
        filters_even = np.pad(filters, [(0, 0), (0, 1)])[:, order]
        in_float = m.accumulator == "float32_sequential"
        summed: Array = np.empty((rows.shape[0], self.channels), dtype=np.float32 if in_float else np.int64)
        step = max(1, 2**22 // max(1, filters_even.size))
        for start in range(0, rows.shape[0], step):
            part = _per_channel(rows_even[start : start + step], self.channels) * filters_even
            pairs = np.clip(part[..., 0::2] + part[..., 1::2], -(2**15), 2**15 - 1)
            summed[start : start + step] = sequential_sum(pairs.astype(np.float32)) if in_float else pairs.sum(axis=-1)
        sums_x, sums_w = _per_channel(rows, self.channels).sum(axis=-1), filters.sum(axis=-1)
        correction = n * zero_x * zero_w - (zero_x + shift) * sums_w - zero_w * sums_x
        if multiplied is not rows:
            correction = correction + _matmul(rows - multiplied, filters)
        return np.asarray(summed + correction.astype(summed.dtype))

    @property
    def _shift(self) -> int:
        """What makes uint8 of a stored input."""
        return 128 if self.q_x.dtype == "int8" else 0

    def _multiplied(self, m: Contraction, rows: Ints) -> Ints:
        """The stored inputs that pairs are made of: `rows`, but 0 as uint8 where kernels leave padding out."""
        ends_with_taps = m.products == "int16_pairs_per_tap" and m.tail == "summed"
        if ends_with_taps and isinstance(self.op, Conv) and any(self.op.padding):
            return columns(self.op, self.x, self.w.shape, -self._shift)
        return rows

    def _float_bias(self) -> npt.NDArray[np.float32]:
        """The bias as a real number in float32."""
        if self.types[2].element == "int32":
            return self.arrays[2].astype(np.float32) * self._scale_product()
        return self.arrays[2].astype(np.float32)

    def _scale_product(self) -> npt.NDArray[np.float32]:
        return np.float32(self.q_x.scale[0]) * self.scale_w.astype(np.float32)

    def _int32_bias(self) -> Ints:
        if len(self.arrays) < 3:
            return np.zeros(self.channels, dtype=np.int64)
        if self.types[2].element == "int32":
            return self.arrays[2].astype(np.int64)
        return np.clip(np.rint(self.arrays[2] / self._scale_product()), -(2.0**31), 2.0**31 - 1).astype(np.int64)

    def _scale(self, m: Contraction) -> Array:
        acc = self.accumulator(m)
        if m.channel_scale == "next":
            original, self.scale_w = self.scale_w, np.roll(self.scale_w, -1)
            try:
                return self._multiply(m, acc)
            finally:
                self.scale_w = original
        return self._multiply(m, acc)

    def _multiply(self, m: Contraction, acc: Array) -> Array:
        has_bias = len(self.arrays) > 2
        scale_y = self.scale_y
        if m.operands == "integers" and has_bias and m.bias == "int32":
            acc = acc + self._int32_bias().astype(acc.dtype)
        match m.multiplier:
            case "exact":
                r = self._exactly(acc, with_bias=has_bias and (m.bias == "exact" or self._float_unscaled(m)))
                return r + self.arrays[2] if has_bias and m.bias == "unscaled" and not self._float_unscaled(m) else r
            case "q31" | "q31_single" | "fixed16":
                return _fixed_point(m, acc.astype(np.int64), self.q_x.scale[0] * self.scale_w / scale_y)
            case "float64":
                return self._in_float64(m, acc.astype(np.float64), has_bias=has_bias)
            case _:
                return self._in_float32(m, acc, has_bias=has_bias)

    def _in_float32(self, m: Contraction, acc: Array, *, has_bias: bool) -> Array:
        one = np.float32(1)
        x, w, y = self._float32_scales(m)
        both = np.asarray(x * w)
        t: Array = acc.astype(np.float32)
        if m.operands == "dequantized":
            if has_bias and m.bias != "before_multiplier":
                t = t + (
                    self._float_bias() if m.bias == "after_multiplier" else self._int32_bias().astype(np.float32) * both
                )
            return t / y if m.multiplier == "scaled_divided" else t * (one / y)
        if has_bias and m.bias in BEFORE:
            bias = self.arrays[2].astype(np.float32)
            if self.types[2].element == "int32":
                t = t + bias
            elif m.bias == "before_multiplier_fused":
                t = fma(bias, one / both, t)
            else:
                t = t + (bias / both if m.bias == "before_multiplier" else bias * (one / both))
        if m.multiplier in IN_STEPS:
            t = (t * x) * w if m.multiplier.startswith("scaled_apart") else t * both
            if has_bias and m.bias == "after_multiplier":
                t = t + self._float_bias()
            return t / y if m.multiplier.endswith("divided") else t * (one / y)
        t = t * self._float32_multiplier(m)
        if has_bias and m.bias == "after_multiplier":
            t = t + self._float_bias() / y
        return t

    def _float32_scales(self, m: Contraction) -> tuple[np.float32, npt.NDArray[np.float32], np.float32]:
        """Scales of input, weights of each channel, and output, as the model has them."""
        one = np.float32(1)
        x, w = np.float32(self.q_x.scale[0]), self.scale_w.astype(np.float32)
        y = np.float32(self.scale_y)
        if m.scales == "inverted_twice":
            w, y = one / (one / w), one / (one / y)
        return (x if m.scales == "own" else one / (one / x)), w, y

    def _float_unscaled(self, m: Contraction) -> bool:
        """A float32 bias has no unscaled form: it is added as it should be."""
        return m.bias == "unscaled" and self.types[2].element == "float32"

    def _float32_multiplier(self, m: Contraction) -> npt.NDArray[np.float32]:
        x, y, w = np.float32(self.q_x.scale[0]), np.float32(self.scale_y), self.scale_w.astype(np.float32)
        match m.multiplier:
            case "float32_reciprocal":
                return np.asarray((x * w) * (np.float32(1) / y))
            case "float32_weight_first":
                return np.asarray(x * (w / y))
            case "bfloat16":
                return bfloat16((x * w) / y).astype(np.float32)
            case _:
                return np.asarray((x * w) / y)

    def _in_float64(self, m: Contraction, acc: Floats, *, has_bias: bool) -> Floats:
        scale_y = self.scale_y
        both = self.q_x.scale[0] * self.scale_w
        bias = np.zeros(self.channels)
        if has_bias and m.bias != "int32":
            bias = self.arrays[2].astype(np.float64) * (both if self.types[2].element == "int32" else 1.0)
        if m.bias in BEFORE:
            if has_bias and self.types[2].element == "int32":
                in_steps = self.arrays[2].astype(np.float64)
            else:
                in_steps = bias / both if m.bias == "before_multiplier" else bias * (1 / both)
            return np.asarray((acc + in_steps) * (both / scale_y))
        return np.asarray(acc * (both / scale_y) + bias / scale_y)

    def _exactly(self, acc: Array, *, with_bias: bool) -> Floats:
        both, scale_y = self.q_x.scale[0] * self.scale_w, self.scale_y
        bias = np.zeros(self.channels)
        if with_bias:
            bias = self.arrays[2].astype(np.float64) * (both if self.types[2].element == "int32" else 1.0)
        product_, addend = acc * (both / scale_y), bias / scale_y
        approx = np.asarray(product_ + addend)
        # Three roundings of either addend, and one of the sum.
        error = np.asarray((np.abs(product_) + np.abs(addend)) * 2.0**-50)

        def refine(i: int, bits: int) -> tuple[Fraction, Fraction]:
            row, channel = divmod(i, self.channels)
            scale = Fraction(self.q_x.scale[0]) * Fraction(float(self.scale_w[channel]))
            value = Fraction(acc[row, channel].item()) * scale
            if with_bias:
                own = Fraction(self.arrays[2][channel].item())
                value += own * scale if self.types[2].element == "int32" else own
            return (value / Fraction(scale_y),) * 2

        r = Reals(approx, error, refine)
        return surrogates(r) if isinstance(self.element, QType) else r.nearest_float32()


def _per_channel(rows: Array, channels: int) -> Array:
    """[rows, groups, ...] repeated so that each channel has its group's, or [rows, 1, ...]."""
    groups = rows.shape[1]
    return np.repeat(rows, channels // groups, axis=1) if groups > 1 else rows


def _matmul(rows: Ints, filters: Ints) -> Ints:
    """[rows, groups, K] by [channels, K] -> [rows, channels]; exact in float64 below 2^53."""
    groups, channels = rows.shape[1], filters.shape[0]
    grouped = filters.astype(np.float64).reshape(groups, channels // groups, -1)
    acc = np.matmul(rows.astype(np.float64).transpose(1, 0, 2), grouped.transpose(0, 2, 1))
    return np.asarray(acc.transpose(1, 0, 2).reshape(rows.shape[0], channels).astype(np.int64))


def _fixed_point(m: Contraction, acc: Ints, multiplier: Floats) -> Floats:
    """Accumulators times fixed-point multipliers, before the last shift's rounding, as `finish.surrogates`."""
    if m.multiplier == "q31":
        return halves_of_shift(*multiplied_q31(acc, multiplier))
    return halves_of_shift(*multiplied_once(acc, multiplier, 15 if m.multiplier == "fixed16" else 31))
