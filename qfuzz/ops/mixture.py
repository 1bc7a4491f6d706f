"""moe: a mixture of experts with quantized weights, whose mixing weights are given.

Semantics: QMoE of onnxruntime/docs/ContribOperators.md (com.microsoft, version 1), in the form that its text defines:
8-bit weights of one scale a column, and `router_weights`: "router_probs is used only for Top-K expert selection, and
router_weights is used for aggregating expert outputs (the values at the selected expert indices are gathered and used
as mixing weights)", divided by their sum where `normalize_routing_weights` says so. An expert is act(x W1' + b1) W2' +
b2; SwiGLU is G sigmoid(alpha G) (L + beta) of the even and odd columns, with G = min(g, limit) and L = clamp(l, -limit,
limit).

Which of equal router values are selected, the text does not say: any of them is admissible; the exact reference takes
the first. Without `router_weights` it does not say what the weights are, either (a softmax of the selected, in fact).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from qfuzz.exact.arithmetic_model import FLOAT64, NONE, Rounding, float32_rounding
from qfuzz.exact.elementary import sigmoid_float64
from qfuzz.exact.intervals import Interval, anything, hull, magnitude, matrix_product, plus, times, widened
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.semantics import EnclosedImage, ExactOperator, Image, Operand
from qfuzz.ops.table import known_reals

Flags = npt.NDArray[np.bool_]

MIN_SCALE, MAX_SCALE = 2.0**-20, 2.0**8
"""Of weights; biases and mixing weights are below the latter, too: products of two layers stay finite and normal."""
LEAST_NORMALIZED = 2.0**-10
"""Mixing weights that are divided by their sum are at least this: no sum vanishes."""

MAX_INPUT = 2.0**16
"""Beyond it float32 kernels may overflow on their way, whatever they do: nothing is said of what they return."""


class Moe(ExactOperator, frozen=True, kw_only=True, tag="moe"):
    """Experts mixed for each token.

    Inputs are x [tokens, features] and router values [tokens, experts], both float32, then constants: mixing weights
    [tokens, experts] float32, W1 [experts, inner or 2*inner for swiglu, features], W2 [experts, features, inner], and,
    both or none, their biases [experts, rows]. W1 and W2 are uint8 with one scale, or one for each expert (axis 0), or
    one for each row of all experts (axis 1).

    Attributes
    ----------
    top
        How many experts are selected (`k`).
    activation
        Between the two layers of an expert.
    normalized
        Whether mixing weights are divided by their sum.
    alpha, beta, limit
        Of swiglu; no limit is None.
    """

    arity = (5, 7)
    constant_inputs = (2, 3, 4, 5, 6)

    top: int = 1
    activation: Literal["identity", "relu", "silu", "swiglu"] = "identity"
    normalized: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    limit: float | None = None

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, router, mixing, w1, w2 = inputs[:5]
        if {element, x.element, router.element, mixing.element} != {"float32"}:
            raise InvalidCase("x, router, mixing weights, output: moe reads and gives float32 elements")
        if len(x.shape) != 2 or not x.shape[1] or len(router.shape) != 2 or router.shape[0] != x.shape[0]:
            raise InvalidCase(
                f"router: shape {router.shape} for x of {x.shape}; needs [tokens, experts], [tokens, features]"
            )
        experts, features = router.shape[1], x.shape[1]
        if not 1 <= self.top <= experts:
            raise InvalidCase(f"top: {self.top}; needs 1..{experts}, as there are experts")
        if mixing.shape != router.shape:
            raise InvalidCase(f"mixing weights: shape {mixing.shape}; needs {router.shape}")
        inner = w2.shape[2] if len(w2.shape) == 3 else 0
        rows = inner * (2 if self.activation == "swiglu" else 1)
        needed = ((experts, rows, features), (experts, features, inner))
        if (w1.shape, w2.shape) != needed or not inner:
            raise InvalidCase(f"W1, W2: shapes {w1.shape}, {w2.shape}; needs {needed}")
        for name, w in (("W1", w1), ("W2", w2)):
            q = w.qtype
            if q.dtype != "uint8" or q.axis == 2:
                raise InvalidCase(f"{name}: {q.dtype} with scales on axis {q.axis}; needs uint8, and axis 0, 1 or none")
            if min(q.scale) < MIN_SCALE or max(q.scale) > MAX_SCALE:
                raise InvalidCase(f"{name}: scales {q.scale}; needs {MIN_SCALE!r} to {MAX_SCALE!r}")
        if len(inputs) == 6:
            raise InvalidCase("6 inputs; the biases come together")
        for name, given, shape in zip(("b1", "b2"), inputs[5:], ((experts, rows), (experts, features)), strict=False):
            if given.shape != shape or given.element != "float32":
                raise InvalidCase(f"{name}: {given.dtype} of shape {given.shape}; needs float32 of {shape}")
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("limit", self.limit or 0.0)):
            if float32(value) != value or abs(value) > 2.0**10 or (name == "limit" and value < 0):
                raise InvalidCase(f"{name}: {value!r}; needs a float32 of magnitude 1024 at most, a limit from 0 on")
        return x.shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        for position in (2, 5, 6):
            if position in constants and np.abs(constants[position].array).max(initial=0.0) > MAX_SCALE:
                raise InvalidCase(f"input {position}: needs magnitudes of {MAX_SCALE!r} at most")
        least = float(constants[2].array.min(initial=1.0))
        if self.normalized and least < LEAST_NORMALIZED:
            raise InvalidCase(f"mixing weights: {least!r}; those that are normalized are at least {LEAST_NORMALIZED!r}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, router = operands[:2]
        layers = [(w.centered()[0], _scales(w)) for w in operands[3:5]]
        mixture = _Mixture(
            self, (x.lo, x.hi), (router.lo, router.hi), operands[2].lo, layers, [o.lo for o in operands[5:]]
        )
        lo, hi = mixture.output(FLOAT64)
        if not (x.is_point and router.is_point):
            return MoeImage(known_reals(lo), known_reals(hi), mixture)
        approx, _ = mixture.output(NONE)
        error = np.maximum(np.maximum(hi - approx, approx - lo), 0.0) * (1 + 2.0**-20)
        r = Reals(approx, error, known_reals(approx).refine)
        return MoeImage(r, r, mixture)


def _scales(weight: Operand) -> Floats:
    """Laid out as [experts or 1, rows or 1]."""
    q = weight.type.qtype
    return np.array(q.scale).reshape((1, -1) if q.axis == 1 else (-1, 1))


@dataclass(frozen=True)
class _Mixture:
    """The experts of one node, evaluated on intervals.

    Attributes
    ----------
    layers
        Of W1 and W2: stored integers less their zero points, and scales as [experts or 1, rows or 1].
    biases
        b1 and b2, if there are any.
    """

    op: Moe
    x: Interval
    router: Interval
    mixing: Floats
    layers: Sequence[tuple[Floats, Floats]]
    biases: Sequence[Floats]

    def output(self, rounding: Rounding) -> Interval:
        """Bounds of the output, in the order of contrib_ops/cpu/moe/moe_quantization_cpu.cc.

        Weights are dequantized and multiplied in float32, as sums of n products and a bias: gamma_(n + k) of their
        magnitudes. Mixing adds one product and sum for each selected expert.
        """
        tokens, features = self.x[0].shape
        experts = self.mixing.shape[1]
        surely, maybe = self._selected(exact=not rounding.unit)
        total = self._total(surely, maybe)
        lo, hi, size = (np.zeros((tokens, features)) for _ in range(3))
        for e in range(experts):
            y = self._expert(e, rounding)
            weight = np.broadcast_to(self.mixing[:, e : e + 1], (tokens, 1))
            share = times((weight, weight), (1 / total[1], 1 / total[0])) if self.op.normalized else (weight, weight)
            part = times(y, share)
            possible, certain = maybe[:, e : e + 1], surely[:, e : e + 1]
            # Of an expert that may be left out, the part may be 0.
            lo = lo + np.where(possible, np.where(certain, part[0], np.minimum(part[0], 0.0)), 0.0)
            hi = hi + np.where(possible, np.where(certain, part[1], np.maximum(part[1], 0.0)), 0.0)
            size = size + np.where(possible, magnitude(part), 0.0)
        off = rounding.gamma(rounding.k + 2 * self.op.top) * size + np.where(
            size > 0, rounding.lost(2 * self.op.top), 0.0
        )
        return widened((lo, hi), off)

    def _selected(self, *, exact: bool) -> tuple[Flags, Flags]:
        """Which experts are selected surely, and which may be; the first of equals where `exact`."""
        lo, hi = self.router
        rank = np.arange(lo.shape[1])
        earlier = (rank[None, :] < rank[:, None])[None] if exact else np.zeros((1, 1, 1), dtype=bool)
        own_lo, own_hi = lo[:, :, None], hi[:, :, None]
        above = (lo[:, None, :] > own_hi) | ((lo[:, None, :] == own_hi) & earlier)
        rivals = (hi[:, None, :] > own_lo) | (hi[:, None, :] == own_lo) & (earlier if exact else True)
        others = ~np.eye(lo.shape[1], dtype=bool)[None]
        return (rivals & others).sum(axis=2) < self.op.top, (above & others).sum(axis=2) < self.op.top

    def _total(self, surely: Flags, maybe: Flags) -> Interval:
        """Bounds of the sum of the selected mixing weights, all of which are positive where it is asked for."""
        if not self.op.normalized:
            one = np.ones((len(self.mixing), 1))
            return one, one
        sure = np.where(surely, self.mixing, 0.0).sum(axis=1, keepdims=True)
        open_ = np.where(maybe & ~surely, self.mixing, np.nan)
        missing = self.op.top - surely.sum(axis=1)
        least, greatest = sure.copy(), sure.copy()
        for i in np.flatnonzero(missing).tolist():
            candidates = np.sort(open_[i][~np.isnan(open_[i])])
            n = int(missing[i])
            least[i] += candidates[:n].sum()
            greatest[i] += candidates[-n:].sum()
        return least, greatest

    def _expert(self, e: int, rounding: Rounding) -> Interval:
        inner = self._layer(0, e, self.x, rounding)
        return self._layer(1, e, self._activated(inner, rounding), rounding)

    def _layer(self, i: int, e: int, x: Interval, rounding: Rounding) -> Interval:
        weight, scales = self.layers[i]
        w, scale = weight[e].T, scales[min(e, len(scales) - 1)]
        z = matrix_product(x, w)
        z = z[0] * scale, z[1] * scale
        size = magnitude(x) @ np.abs(w) * scale
        if self.biases:
            bias = self.biases[i][e]
            z, size = plus(z, (bias, bias)), size + np.abs(bias)
        n = w.shape[0] + rounding.k
        return widened(z, rounding.gamma(n) * size + np.where(size > 0, rounding.lost(n), 0.0))

    def _activated(self, z: Interval, rounding: Rounding) -> Interval:
        op = self.op
        match op.activation:
            case "identity":
                return z
            case "relu":
                return np.maximum(z[0], 0.0), np.maximum(z[1], 0.0)
            case "silu":
                return self._swish(z, 1.0, rounding)
            case "swiglu":
                return self._gated(z, rounding)

    def _gated(self, z: Interval, rounding: Rounding) -> Interval:
        """G sigmoid(alpha G) (L + beta)."""
        op = self.op
        limit = np.inf if op.limit is None else op.limit
        gate = np.minimum(z[0][:, 0::2], limit), np.minimum(z[1][:, 0::2], limit)
        linear = np.clip(z[0][:, 1::2], -limit, limit), np.clip(z[1][:, 1::2], -limit, limit)
        off = rounding.gamma(1) * (magnitude(linear) + abs(op.beta))
        linear = widened((linear[0] + op.beta, linear[1] + op.beta), off)
        y = times(self._swish(gate, op.alpha, rounding), linear)
        return widened(y, rounding.gamma(1) * magnitude(y) + np.where(magnitude(y) > 0, rounding.lost(1), 0.0))

    def _swish(self, g: Interval, alpha: float, rounding: Rounding) -> Interval:
        """G sigmoid(alpha g): an exponential of an argument off by one rounding, a sum, a quotient, a product."""
        z = g[0] * alpha, g[1] * alpha
        lo, hi = (sigmoid_float64(side) for side in widened((min_of(z), max_of(z)), rounding.gamma(1) * magnitude(z)))
        relative = rounding.function + rounding.gamma(rounding.k)
        y = times(g, (lo * (1 - relative), hi * (1 + relative)))
        return widened(y, rounding.vanished * magnitude(g))


def min_of(z: Interval) -> Floats:
    """The lower side, whichever that is."""
    return np.minimum(z[0], z[1])


def max_of(z: Interval) -> Floats:
    """The upper side."""
    return np.maximum(z[0], z[1])


@dataclass(frozen=True)
class MoeImage(EnclosedImage):
    """The outputs, and how far float32 kernels may be from them."""

    lower: Reals
    upper: Reals
    mixture: _Mixture

    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """`k` counts what each stage does beside its sums."""
        if float(magnitude(self.mixture.x).max(initial=0.0)) > MAX_INPUT:
            return anything(self.lower.approx.shape)
        return hull(exact, self.mixture.output(float32_rounding(contract.k, contract.function_ulps)))
