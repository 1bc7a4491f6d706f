"""recurrent: cells and layers of RNN, LSTM and GRU on float32, with stored weights, as PyTorch has them.

Semantics: the equations of torch.nn.RNNCell, LSTM and GRU, with x and h each quantized as one tensor before they are
multiplied with int8 weights (torch.ao.nn.quantized.dynamic: "A dynamic quantized LSTM module with floating point tensor
as inputs and outputs"). The scale is the range, extended to 0, over 255 or 127 steps (reduce_range), and not below
`SMALLEST` (QuantUtils.h, ChooseQuantizationParams: "we don't want to use scales in fp16 subnormal range"). Weights of
float32 are rounded to float16, "saturated to max or min representable values", and nothing else is quantized.

    RNN   h' = tanh or relu of a,                  a = W x + b + R h + c
    LSTM  C' = s(a_f) C + s(a_i) tanh(a_g)         h' = s(a_o) tanh(C'), s the sigmoid
    GRU   h' = (1 - z) n + z h                     n = tanh(W_n x + b_n + s(a_r) (R_n h + c_n)), z = s(a_z)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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

Kind = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
GATES: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
MAX_STEPS, MAX_LAYERS = 16, 3
MAX_REAL, MIN_SCALE = 2.0**40, 2.0**-36
"""Scales of weights, biases and states are below the first, scales above the second: products are normal numbers."""
SMALLEST = float32(6.1e-5)
HALF_MAX = 65504.0


class Recurrent(ExactOperator, frozen=True, kw_only=True, tag="recurrent"):
    """A cell on x [batch, features], or layers on x [length, batch, features].

    After x come, for each layer and direction, W [gates * hidden, features], R [gates * hidden, hidden] and their
    biases [gates * hidden]; then h [layers * directions, batch, hidden] and, for an LSTM, C; of a cell [batch, hidden].
    Later layers read what all directions of the one before gave. All weights are int8, or all float32.

    Attributes
    ----------
    kind
        Which equations. Gates are in the order i, f, g, o of an LSTM, and r, z, n of a GRU.
    layers, bidirectional, batch_first
        As in torch.nn.LSTM; a cell has one layer, and one direction.
    reduce_range
        Whether what is quantized has 127 steps.
    output
        ``y``: h of all steps (of a cell: the new one); ``h`` or ``c``: the last of each layer and direction.
    """

    kind: Kind = "rnn_tanh"
    layers: int = 1
    bidirectional: bool = False
    batch_first: bool = False
    reduce_range: bool = True
    output: Literal["y", "h", "c"] = "y"

    arity = (6, 3 + 4 * 2 * MAX_LAYERS)
    constant_inputs = tuple(range(1, 3 + 4 * 2 * MAX_LAYERS))

    @property
    def n_cells(self) -> int:
        """How many layers and directions there are."""
        return self.layers * (2 if self.bidirectional else 1)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x = inputs[0]
        if element != "float32" or x.element != "float32":
            raise InvalidCase("x, output: recurrent reads and gives float32 elements")
        if len(x.shape) not in (2, 3) or not x.shape[-1]:
            raise InvalidCase(f"x: shape {x.shape}; needs [batch, features] or [length, batch, features], and features")
        cell = len(x.shape) == 2
        if not 1 <= self.layers <= MAX_LAYERS or (cell and (self.n_cells > 1 or self.batch_first)):
            raise InvalidCase(f"layers: {self.layers}; needs 1 to {MAX_LAYERS}, of a cell one, in one direction")
        if (self.output == "c" and self.kind != "lstm") or (cell and self.output == "h"):
            raise InvalidCase(f"output: {self.output}; only an LSTM has c, and the h of a cell is y")
        length, batch = (1, x.shape[0]) if cell else x.shape[1::-1] if self.batch_first else x.shape[:2]
        if not 1 <= length <= MAX_STEPS:
            raise InvalidCase(f"x: shape {x.shape}; needs a length of 1 to {MAX_STEPS}")
        states = 2 if self.kind == "lstm" else 1
        if len(inputs) != 1 + 4 * self.n_cells + states:
            raise InvalidCase(f"{len(inputs)} inputs; needs {1 + 4 * self.n_cells + states}")
        hidden = inputs[2].shape[1] if len(inputs[2].shape) == 2 else 0
        if not hidden:
            raise InvalidCase(f"R: shape {inputs[2].shape}; needs [gates * hidden, hidden]")
        directions = 2 if self.bidirectional else 1
        rows = GATES[self.kind] * hidden
        for i in range(self.n_cells):
            read = x.shape[-1] if i < directions else directions * hidden
            shapes = ((rows, read), (rows, hidden), (rows,), (rows,))
            for name, given, shape in zip("WRbc", inputs[1 + 4 * i :], shapes, strict=False):
                if given.shape != shape:
                    raise InvalidCase(f"{name} of {i}: shape {given.shape}; needs {shape}")
                if name in "WR":
                    self._check_weight(name, given, inputs[1])
                elif given.element != "float32":
                    raise InvalidCase(f"{name} of {i}: {given.dtype}; needs float32")
        state = (batch, hidden) if cell else (self.n_cells, batch, hidden)
        for name, given in zip("hc", inputs[-states:], strict=False):
            if given.shape != state or given.element != "float32":
                raise InvalidCase(f"{name}: {given.dtype} of shape {given.shape}; needs float32 of {state}")
        if cell or self.output != "y":
            return state
        y = (batch, length) if self.batch_first else (length, batch)
        return (*y, directions * hidden)

    def _check_weight(self, name: str, given: TensorType, first: TensorType) -> None:
        q = given.element
        if q == "float32" and first.element == "float32":
            return
        if not isinstance(q, QType) or q.dtype != "int8" or first.dtype != "int8" or q.block or q.axis not in (None, 0):
            raise InvalidCase(f"{name}: {given.dtype}; all are int8, per tensor or by rows (axis 0), or all float32")
        if max(q.scale) > MAX_REAL or min(q.scale) < MIN_SCALE:
            raise InvalidCase(f"{name}: scales {q.scale}; needs {MIN_SCALE!r} to {MAX_REAL!r}")
        if given.shape[1] * 255 * 255 > INTEGER_RANGE["int32"][1]:
            raise InvalidCase(f"{name}: {given.shape[1]} columns; accumulators could leave int32")

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        for position, constant in constants.items():
            if inputs[position].element == "float32":
                largest = float(np.abs(constant.array).max(initial=0.0))
                if not largest <= MAX_REAL:
                    raise InvalidCase(f"input {position}: a value of magnitude {largest!r}; at most {MAX_REAL!r}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x = operands[0]
        network = _Network(self, (x.lo, x.hi), tuple(_cell_of(operands[1 + 4 * i : 5 + 4 * i]) for i in
                           range(self.n_cells)), [o.lo for o in operands[1 + 4 * self.n_cells :]])  # fmt: skip
        lo, hi = network.outputs(FLOAT64)
        if not x.is_point:
            return RecurrentImage(known_reals(lo), known_reals(hi), network, (lo, hi))
        approx, _ = network.outputs(NONE)
        error = np.maximum(hi - approx, approx - lo) * (1 + 2.0**-20)
        r = Reals(approx, error, known_reals(approx).refine)
        return RecurrentImage(r, r, network, (lo, hi))


class _Weight(NamedTuple):
    """Stored integers less the zero point, and their scales; of float16 weights, themselves, and none."""

    values: Floats
    scales: Floats | None
    bias: Floats


def _cell_of(operands: Sequence[Operand]) -> tuple[_Weight, _Weight]:
    """W and R of a cell, with their biases."""
    w, r = (_weight(operands[i], operands[2 + i].lo) for i in (0, 1))
    return w, r


def _weight(weight: Operand, bias: Floats) -> _Weight:
    q = weight.type.element
    if isinstance(q, QType):
        return _Weight(weight.centered()[0], np.array(q.scale), bias)
    halves = np.clip(weight.lo, -HALF_MAX, HALF_MAX).astype(np.float32).astype(np.float16)
    return _Weight(halves.astype(np.float64), None, bias)


@dataclass(frozen=True)
class _Network:
    """The layers of one node, evaluated on intervals."""

    op: Recurrent
    x: Interval
    cells: Sequence[tuple[_Weight, _Weight]]
    states: Sequence[Floats]

    def outputs(self, rounding: Rounding) -> Interval:
        """Bounds of the output."""
        op = self.op
        cell = self.x[0].ndim == 2
        known = self.x[0] is self.x[1]
        sides = [s[None] if cell else s.swapaxes(0, 1) if op.batch_first else s for s in self.x]
        read: Interval = (sides[0], sides[0] if known else sides[1])
        states = [s[None] if cell else s for s in self.states]
        last: list[tuple[Interval, Interval]] = []
        for _layer in range(op.layers):
            given = []
            for direction in range(2 if op.bidirectional else 1):
                i = len(last)
                first = [(own, own) for own in (s[i] for s in states)]
                y, h, c = self._direction(i, read, first[0], first[-1], rounding, backward=direction == 1)
                last.append((h, c))
                given.append(y)
            read = (np.concatenate([y[0] for y in given], axis=2), np.concatenate([y[1] for y in given], axis=2))
        if op.output == "y":
            lo, hi = (s[0] if cell else s.swapaxes(0, 1) if op.batch_first else s for s in read)
            return lo, hi
        which = [pair[op.output == "c"] for pair in last]
        lo, hi = (np.stack([w[side] for w in which]) for side in (0, 1))
        return (lo[0], hi[0]) if cell else (lo, hi)

    def _direction(
        self, i: int, x: Interval, h: Interval, c: Interval, rounding: Rounding, *, backward: bool
    ) -> tuple[Interval, Interval, Interval]:
        """All h, the last h, and the last C."""
        w, r = self.cells[i]
        from_x = self._linear(x, w, rounding)
        length = x[0].shape[0]
        steps: list[Interval] = []
        for t in reversed(range(length)) if backward else range(length):
            own = from_x[0][t], from_x[1][t]
            h, c = self._step(own, self._linear(h, r, rounding), h, c, rounding)
            steps.append(h)
        steps = steps[::-1] if backward else steps
        return (np.stack([s[0] for s in steps]), np.stack([s[1] for s in steps])), h, c

    def _linear(self, x: Interval, w: _Weight, rounding: Rounding) -> Interval:
        """The product with quantized data, or with data as they are; all its roundings are in the bounds."""
        if w.scales is None:
            product = matrix_product(x, w.values.T)
            size = magnitude(x) @ np.abs(w.values).T + np.abs(w.bias)
            n = rounding.k + w.values.shape[1]
        else:
            steps = 127 if self.op.reduce_range else 255
            stored, scale = quantized(x, rounding, steps, SMALLEST)
            product = times(matrix_product(stored, w.values.T), scale)
            product = product[0] * w.scales, product[1] * w.scales
            size, n = magnitude(product) + np.abs(w.bias), rounding.k
        total = product[0] + w.bias, product[1] + w.bias
        return widened(total, rounding.gamma(n) * size + np.where(size > 0, rounding.lost(n), 0.0))

    def _step(
        self, x: Interval, h_in: Interval, h: Interval, c: Interval, rounding: Rounding
    ) -> tuple[Interval, Interval]:
        """H and C after one step, from both products."""
        hidden = h[0].shape[-1]

        def part(a: Interval, block: int) -> Interval:
            cut = slice(block * hidden, (block + 1) * hidden)
            return a[0][:, cut], a[1][:, cut]

        def gate(block: int) -> Interval:
            return _added(part(x, block), part(h_in, block), rounding)

        if self.op.kind == "rnn_relu":
            z = gate(0)
            h = np.maximum(z[0], 0.0), np.maximum(z[1], 0.0)
            return h, c
        if self.op.kind == "rnn_tanh":
            return _tanh(gate(0), rounding), c
        if self.op.kind == "lstm":
            i, f, o = (_sigmoid(gate(n), rounding) for n in (0, 1, 3))
            g = _tanh(gate(2), rounding)
            c = _added(_multiplied(f, c, rounding), _multiplied(i, g, rounding), rounding)
            return _multiplied(o, _tanh(c, rounding), rounding), c
        reset, update = (_sigmoid(gate(n), rounding) for n in (0, 1))
        new = _tanh(_added(part(x, 2), _multiplied(reset, part(h_in, 2), rounding), rounding), rounding)
        if not rounding.unit:  # 1 - z has no digits left where z is near 1
            a = gate(1)[0]
            mixed = sigmoid_float64(-a) * new[0] + sigmoid_float64(a) * h[0]
            return (mixed, mixed), c
        ends = [[new[side] + z * (h[side] - new[side]) for z in update] for side in (0, 1)]
        size = (magnitude(h) + magnitude(new)) * update[1] + magnitude(new)
        between = np.minimum(*ends[0]), np.maximum(*ends[1])
        return widened(between, rounding.gamma(3) * size + np.where(size > 0, rounding.lost(3), 0.0)), c


def _added(a: Interval, b: Interval, rounding: Rounding) -> Interval:
    return widened(plus(a, b), np.asarray(rounding.gamma(1) * (magnitude(a) + magnitude(b))))


def _multiplied(a: Interval, b: Interval, rounding: Rounding) -> Interval:
    size = magnitude(a) * magnitude(b)
    return widened(times(a, b), rounding.gamma(1) * size + np.where(size > 0, rounding.lost(1), 0.0))


def _sigmoid(z: Interval, rounding: Rounding) -> Interval:
    lo, hi = (sigmoid_float64(side) for side in z)
    lo, hi = lo - rounding.function * lo - rounding.vanished, hi + rounding.function * hi + rounding.vanished
    return np.clip(lo, 0.0, 1.0), np.clip(hi, 0.0, 1.0)


def _tanh(z: Interval, rounding: Rounding) -> Interval:
    lo, hi = (np.tanh(side) for side in z)
    off = [rounding.function * np.abs(side) + np.where(side != 0, rounding.lost(1), 0.0) for side in (lo, hi)]
    return np.clip(lo - off[0], -1.0, 1.0), np.clip(hi + off[1], -1.0, 1.0)


@dataclass(frozen=True)
class RecurrentImage(EnclosedImage):
    """The outputs, and what float32 kernels may make of them: other roundings of what is quantized, too."""

    lower: Reals
    upper: Reals
    network: _Network
    enclosed: Interval

    def ends(self, contract: Contract) -> Interval:
        return self.enclosed if contract.terms == "exact" else self.reached(contract, self.enclosed)

    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """`k` counts what is done to a term of a product with weights: its scale, factors and bias."""
        if float(magnitude(self.network.x).max(initial=0.0)) > MAX_REAL:
            return anything(self.lower.approx.shape)
        rounding = float32_rounding(contract.k, contract.function_ulps)
        return hull(exact, self.network.outputs(rounding))
