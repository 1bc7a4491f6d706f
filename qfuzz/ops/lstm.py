"""lstm: one layer on float32 sequences, whose input and hidden state are quantized as they come.

Semantics: DynamicQuantizeLSTM of onnxruntime/docs/ContribOperators.md (com.microsoft, version 1), whose equations are
those of ONNX LSTM with the default activations: with Xq and Hq the dequantized values of DynamicQuantizeLinear (ONNX,
opset 11) of X and of H(t-1),

    i, o, f, g = sigmoid, sigmoid, sigmoid, tanh of (Xq W + Hq R + Wb + Rb + P C), the peepholes P of i, o, f only
    C(t) = f C(t-1) + i g        H(t) = o tanh(C(t))

What is quantized as one tensor, the text does not say. X is; H(t-1) is, in the exact reference: kernels may cut the
batch into equal parts, one a thread (uni_directional_lstm.cc), and each such cut is admissible.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qfuzz.exact.arithmetic_model import FLOAT64, NONE, Rounding, float32_rounding
from qfuzz.exact.elementary import sigmoid_float64
from qfuzz.exact.intervals import Interval, anything, hull, magnitude, matrix_product, plus, times, widened
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.dynamically import quantized
from qfuzz.ops.semantics import EnclosedImage, ExactOperator, Image, Operand
from qfuzz.ops.table import known_reals

MAX_STEPS = 16
"""Of a sequence: bounds grow from step to step."""
MAX_WEIGHT, MIN_SCALE = 2.0**60, 2.0**-36
"""Scales, biases and states are below this, and scales above that: products of scales are normal, sums finite."""

MAX_INPUT = 2.0**60
"""Beyond it float32 kernels overflow on their way, whatever they do: nothing is said of what they return."""


class Lstm(ExactOperator, frozen=True, kw_only=True, tag="lstm"):
    """Long short-term memory, with quantized weights.

    Inputs are x [length, batch, features] float32, W [directions, features, 4*hidden] and R [directions, hidden,
    4*hidden] of one dtype, then as many as there are of: bias [directions, 8*hidden], the initial H and C [directions,
    batch, hidden], peepholes [directions, 3*hidden]; gates in the order i, o, f, g.

    Attributes
    ----------
    direction
        In which order steps are taken; both are two layers side by side.
    input_forget
        Whether f is 1 - i.
    clip
        What bounds the input of every activation, "in the range of [-threshold, +threshold]"; None is no bound. C(t) is
        the input of the last one.
    output
        ``y``: all H [length, directions, batch, hidden]; ``y_h`` or ``y_c``: the last of H or C, without the length.
    """

    arity = (3, 7)
    constant_inputs = (1, 2, 3, 4, 5, 6)

    direction: Literal["forward", "reverse", "bidirectional"] = "forward"
    input_forget: bool = False
    clip: float | None = None
    output: Literal["y", "y_h", "y_c"] = "y"

    @property
    def n_directions(self) -> int:
        """How many layers there are."""
        return 2 if self.direction == "bidirectional" else 1

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, w = inputs[:2]
        if element != "float32" or x.element != "float32":
            raise InvalidCase("x, output: lstm reads and gives float32 elements")
        if len(x.shape) != 3 or 0 in x.shape[::2] or x.shape[0] > MAX_STEPS:
            raise InvalidCase(
                f"x: shape {x.shape}; needs [length, batch, features], a length of 1 to {MAX_STEPS}, and features"
            )
        if self.clip is not None and not (0.0 < self.clip <= MAX_WEIGHT and float32(self.clip) == self.clip):
            raise InvalidCase(f"clip: {self.clip!r}; needs a float32 in 0..{MAX_WEIGHT!r}")
        length, batch, features = x.shape
        n = self.n_directions
        hidden = w.shape[2] // 4 if len(w.shape) == 3 else 0
        shapes = [(n, features, 4 * hidden), (n, hidden, 4 * hidden), (n, 8 * hidden), *[(n, batch, hidden)] * 2]
        shapes.append((n, 3 * hidden))
        for name, given, needed in zip(("W", "R", "bias", "H", "C", "P"), inputs[1:], shapes, strict=False):
            if given.shape != needed or not hidden:
                raise InvalidCase(f"{name}: shape {given.shape}; needs {needed}")
            if name not in "WR" and given.element != "float32":
                raise InvalidCase(f"{name}: {given.dtype} elements; needs float32")
        if inputs[1].dtype != inputs[2].dtype:
            raise InvalidCase(
                f"R: {inputs[2].dtype} where W has {inputs[1].dtype}; the schema has one type T2 for both"
            )
        for name, given in zip("WR", inputs[1:3], strict=True):
            axis = given.qtype.axis
            if axis is not None and axis != (2 if n == 1 else 0):
                wanted = "columns (axis 2)" if n == 1 else "directions (axis 0)"
                raise InvalidCase(f"{name}: scales on axis {axis}; needs one scale, or those of its {wanted}")
            if max(given.qtype.scale) > MAX_WEIGHT or min(given.qtype.scale) < MIN_SCALE:
                raise InvalidCase(f"{name}: scales {given.qtype.scale}; needs {MIN_SCALE!r} to {MAX_WEIGHT!r}")
            if given.shape[1] * 255 * 255 > INTEGER_RANGE["int32"][1]:
                raise InvalidCase(f"{name}: {given.shape[1]} rows; accumulators could leave int32")
        return (length, n, batch, hidden) if self.output == "y" else (n, batch, hidden)

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        for position in range(3, len(inputs)):
            largest = float(np.abs(constants[position].array).max(initial=0.0))
            if largest > MAX_WEIGHT:
                raise InvalidCase(f"input {position}: a value of magnitude {largest!r}; at most {MAX_WEIGHT!r}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x = operands[0]
        layers = _Layers(self, (x.lo, x.hi), [_centered(o) for o in operands[1:3]], [o.lo for o in operands[3:]],
                         [_scales(o) for o in operands[1:3]])  # fmt: skip
        batch = x.type.shape[1]
        lo, hi = layers.outputs(FLOAT64, batch)
        if not x.is_point:
            return LstmImage(known_reals(lo), known_reals(hi), layers, batch)
        approx, _ = layers.outputs(NONE, batch)
        error = np.maximum(hi - approx, approx - lo) * (1 + 2.0**-20)
        r = Reals(approx, error, known_reals(approx).refine)
        return LstmImage(r, r, layers, batch)


def _centered(weight: Operand) -> Floats:
    return weight.centered()[0]


def _scales(weight: Operand) -> Floats:
    """Laid out as [directions or 1, columns or 1]."""
    q = weight.type.qtype
    assert isinstance(q, QType)
    return np.array(q.scale).reshape((1, -1) if q.axis == 2 else (-1, 1))


@dataclass(frozen=True)
class _Layers:
    """The layers of one node, evaluated on intervals.

    Attributes
    ----------
    weights, scales
        Of W and R: stored integers less their zero points, and scales as [directions or 1, columns or 1].
    rest
        Bias, initial H and C, peepholes, as far as they are given.
    """

    op: Lstm
    x: Interval
    weights: Sequence[Floats]
    rest: Sequence[Floats]
    scales: Sequence[Floats]

    def outputs(self, rounding: Rounding, rows: int) -> Interval:
        """Bounds of the output where `rows` of the batch are quantized together."""
        batch = self.x[0].shape[1]
        layers = []
        if batch == 0:
            hidden = self.weights[1].shape[1]
            shape = (self.op.n_directions, 0, hidden)
            nothing = np.zeros((self.x[0].shape[0], *shape) if self.op.output == "y" else shape)
            return nothing, nothing
        for j in range(self.op.n_directions):
            backward = self.op.direction == "reverse" or j == 1
            parts = [self._layer(j, backward, slice(i, i + rows), rounding) for i in range(0, batch, rows)]
            batch_axis = 1 if self.op.output == "y" else 0
            layers.append([np.concatenate([p[side] for p in parts], axis=batch_axis) for side in (0, 1)])
        axis = 1 if self.op.output == "y" else 0
        return np.stack([y[0] for y in layers], axis=axis), np.stack([y[1] for y in layers], axis=axis)

    def _layer(self, j: int, backward: bool, rows: slice, rounding: Rounding) -> Interval:
        """One direction, on some rows of the batch: [length, rows, hidden], or its last state.

        The kernel multiplies accumulators with fl(scale * weight scale), adds the second to the first, then
        fl(Wb + Rb), then the peephole: gamma_k of the magnitudes of all of them. Gates are off by `function`; C sums
        two products, H is one.
        """
        (w, r), (scale_w, scale_r) = self.weights, (s[min(j, len(s) - 1)] for s in self.scales)
        hidden = r.shape[1]
        batch = self.x[0].shape[1]
        given = dict(zip(("bias", "h", "c", "p"), self.rest, strict=False))
        bias = given["bias"][j] if "bias" in given else np.zeros(8 * hidden)
        peepholes = given["p"][j].reshape(3, hidden) if "p" in given else np.zeros((3, hidden))
        h, c = (self._known(given[n][j][rows] if n in given else np.zeros((batch, hidden))[rows]) for n in "hc")
        x_q, x_scale = quantized(self.x, rounding)
        terms_x = times(matrix_product((x_q[0][:, rows], x_q[1][:, rows]), w[j]), x_scale)
        off = rounding.gamma(rounding.k)
        steps = []
        order = range(self.x[0].shape[0])
        for t in reversed(order) if backward else order:
            h_q, h_scale = quantized(h, rounding)
            from_h = times(matrix_product(h_q, r[j]), h_scale)
            terms = [(terms_x[0][t] * scale_w, terms_x[1][t] * scale_w), (from_h[0] * scale_r, from_h[1] * scale_r)]
            total = magnitude(terms[0]) + magnitude(terms[1]) + np.abs(bias[: 4 * hidden]) + np.abs(bias[4 * hidden :])
            summed = plus(plus(*terms), self._known(bias[: 4 * hidden] + bias[4 * hidden :]))

            def gate(
                i: int, looked_at: Interval | None = None, summed: Interval = summed, total: Floats = total
            ) -> Interval:
                block = slice(i * hidden, (i + 1) * hidden)
                z, size = (summed[0][:, block], summed[1][:, block]), total[:, block]
                if looked_at is not None:
                    seen = times(looked_at, self._known(peepholes[i]))
                    z, size = plus(z, seen), size + magnitude(seen)
                z = widened(z, off * size + np.where(size > 0, rounding.lost(rounding.k), 0.0))
                z = self._clipped(z)
                return _tanh(z, rounding) if i == 3 else _sigmoid(z, rounding)

            i, g = gate(0, c), gate(3)
            f = widened((1.0 - i[1], 1.0 - i[0]), np.asarray(off)) if self.op.input_forget else gate(2, c)
            kept, new = times(f, c), times(i, g)
            size = magnitude(kept) + magnitude(new)
            c = widened(plus(kept, new), off * size + np.where(size > 0, rounding.lost(3), 0.0))
            h = times(gate(1, c), _tanh(self._clipped(c), rounding))
            size = magnitude(h)
            h = widened(h, off * size + np.where(size > 0, rounding.lost(1), 0.0))
            steps.append(h)
        if self.op.output != "y":
            return h if self.op.output == "y_h" else c
        steps = steps[::-1] if backward else steps
        return np.stack([s[0] for s in steps]), np.stack([s[1] for s in steps])

    def _clipped(self, z: Interval) -> Interval:
        clip = math.inf if self.op.clip is None else self.op.clip
        return np.clip(z[0], -clip, clip), np.clip(z[1], -clip, clip)

    def _known(self, values: Floats) -> Interval:
        return values, values


def _sigmoid(z: Interval, rounding: Rounding) -> Interval:
    lo, hi = (sigmoid_float64(side) for side in z)
    lo, hi = lo - rounding.function * (lo + rounding.addend), hi + rounding.function * (hi + rounding.addend)
    return np.clip(lo, 0.0, 1.0), np.clip(hi, 0.0, 1.0)


def _tanh(z: Interval, rounding: Rounding) -> Interval:
    lo, hi = (np.tanh(side) for side in z)
    return lo - rounding.function * np.abs(lo), hi + rounding.function * np.abs(hi)


@dataclass(frozen=True)
class LstmImage(EnclosedImage):
    """The outputs, and what float32 kernels may make of them: other roundings of the dynamic quantization, too."""

    lower: Reals
    upper: Reals
    layers: _Layers
    batch: int

    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """`k` counts what is done to a term of a gate: its scale, products and sums."""
        if float(magnitude(self.layers.x).max(initial=0.0)) > MAX_INPUT:
            return anything(self.lower.approx.shape)
        rounding = float32_rounding(contract.k, contract.function_ulps, contract.function_addend)
        reached = exact
        for rows in sorted({math.ceil(self.batch / n) for n in range(1, self.batch + 1)}):
            reached = hull(reached, self.layers.outputs(rounding, rows))
        return reached
