"""One element's exact arithmetic as Python statements, with its numbers: what a reader checks by hand.

The statements set ``real`` to a `fractions.Fraction` in output units, before rounding and the zero point. They use the
standard library alone (decimal with 60 digits for elementary functions).
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.findings.by_hand_functions import DECIMAL, activation_lines, fraction, function_lines
from qfuzz.findings.by_hand_moved import filled, ordered, placed, sampled
from qfuzz.findings.by_hand_qparams import qparams_lines
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import qparams_at
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.comparison import Compare, CompareScalar
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger, Correlation
from qfuzz.ops.deviation import Std
from qfuzz.ops.dynamic import DynamicQuantize
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.ops.grid import GridSample
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.movement import Concat, Moved
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.qparams import ChooseQparams
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.reduction import Amax, Amin, Mean
from qfuzz.ops.scalar import AddScalar
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax

Array = npt.NDArray[Any]
Index = tuple[int, ...]


def element_by_hand(network: Network, node: Node, values: Mapping[str, Array], index: Index) -> list[str]:
    """Statements that compute element `index` of `node` from what it received (`values` by name, constants too)."""
    e = _Element(network, node, [np.asarray(values[i]) for i in node.inputs], index)
    match node.op:
        case Conv() | ConvPointwise() | ConvAdd():
            taps = _conv_taps(node.op, e.arrays[0], e.arrays[1], index)
            lines = e.followed(e.contraction(taps, index[1]))
        case ConvInteger():
            lines = e.accumulator(_conv_taps(node.op, e.arrays[0], e.arrays[1], index), index[1])
        case ConvTranspose():
            taps = _transposed_taps(node.op, e.arrays[0], e.arrays[1], index)
            lines = e.contraction(taps, index[1] % e.arrays[1].shape[1], index[1])
        case Linear() | LinearInteger() | LinearPointwise() | LinearAdd():
            pairs = [((*index[:-1], k), (index[-1], k)) for k in range(e.arrays[1].shape[1])]
            lines = (e.accumulator if isinstance(node.op, LinearInteger) else e.contraction)(pairs, index[-1])
            lines = e.followed(lines)
        case MatMul() | MatMulInteger():
            matched = _matrix_pairs(e.arrays[0], e.arrays[1], index)
            lines = (e.contraction if isinstance(node.op, MatMul) else e.accumulator)(matched, 0)
        case Sub():
            lines = e.elementwise("-")
        case Div():
            lines = e.quotient()
        case Minimum() | Maximum():
            lines = e.extreme("min" if isinstance(node.op, Minimum) else "max")
        case Where():
            lines = [f"real = {e.operand(0 if e.arrays[2][e.own(2)] else 1)}"]
        case Add() | Mul():
            lines = e.elementwise("+" if isinstance(node.op, Add) else "*")
        case AvgPool() | MaxPool() | GlobalAvgPool() | AdaptiveAvgPool():
            lines = e.pool()
        case Concat(axis=axis):
            lines = e.concat(axis)
        case Softmax(axis=axis):
            lines = e.softmax(axis)
        case Sort() | Topk():
            if node.element == "int64":
                return placed(node.op, e.arrays[0], index)
            lines = ordered(node.op, e.arrays[0], *e.scale(0), index)
        case GridSample():
            lines = sampled(node.op, e.arrays[0], e.arrays[1], *e.scale(0), index)
        case MaskedFill() | IndexPut() | ConstantPad():
            lines = filled(node.op, e.types, e.arrays, e.output.shape, *e.scale(0), index)
        case LayerNorm() | InstanceNorm() | GroupNorm():
            lines = e.normalized()
        case BatchNorm():
            lines = e.batch_norm()
        case Mean():
            lines = e.mean()
        case Std():
            lines = e.std()
        case AddScalar():
            scale, _ = e.scale(0)
            lines = [f"real = {e.operand(0)} + {node.op.steps(e.types[0].qtype)} * {scale}"]
        case Prelu():
            lines = e.prelu()
        case Amax() | Amin():
            lines = e.reduced_extreme("max" if isinstance(node.op, Amax) else "min")
        case Argmax():
            return e.argmax()
        case DynamicQuantize() | ChooseQparams():
            return qparams_lines(node.op, e.arrays[0], index)
        case Compare():
            return [f"real = Fraction(({e.operand(0)}) {_RELATIONS[node.op.relation]} ({e.operand(1)}))"]
        case CompareScalar():
            return [f"real = Fraction(({e.operand(0)}) {_RELATIONS[node.op.relation]} {fraction(node.op.other)})"]
        case Interpolate():
            lines = e.interpolated()
        case _:
            lines = e.unary()
    return [*lines, *e.divided()]


_RELATIONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


class _Element:
    def __init__(self, network: Network, node: Node, arrays: Sequence[Array], index: Index) -> None:
        self.node, self.arrays, self.index = node, arrays, index
        self.types = network.input_types(node)
        self.output = network.types[node.name]

    def scale(self, position: int, channel: int = 0) -> tuple[str, int]:
        """The scale (as source) and zero point of an input."""
        q = self.types[position].element
        if not isinstance(q, QType):
            return "1", 0
        at = channel if q.axis is not None else 0
        return fraction(q.scale[at]), q.zero_point[at]

    def accumulator(self, pairs: Sequence[tuple[Index, Index]], channel: int) -> list[str]:
        """The sum of products, which is the result of an operator on integers."""
        return [*self.products(pairs, channel), "real = Fraction(acc)"]

    def products(self, pairs: Sequence[tuple[Index, Index]], channel: int) -> list[str]:
        x, w = self.arrays[0], self.arrays[1]
        (_, zero_x), (_, zero_w) = self.scale(0), self.scale(1, channel)
        is_real = not self.types[0].is_quantized
        terms = [(float(x[a]) if is_real else int(x[a]), int(w[b])) for a, b in pairs]
        first = "Fraction(x)" if is_real else f"(x - {zero_x})"
        return [
            f"products = {terms!r}  # x, weight",
            f"acc = sum({first} * (w - {zero_w}) for x, w in products)",
        ]

    def contraction(
        self, pairs: Sequence[tuple[Index, Index]], channel: int, bias_channel: int | None = None
    ) -> list[str]:
        """`channel` is the weight's, `bias_channel` the bias's where it is another."""
        (scale_x, _), (scale_w, _) = self.scale(0), self.scale(1, channel)
        lines = [*self.products(pairs, channel), f"real = acc * {scale_x} * {scale_w}"]
        alpha, beta = (getattr(self.node.op, name, 1.0) for name in ("alpha", "beta"))
        if alpha != 1.0:
            lines.append(f"real *= {fraction(alpha)}  # alpha")
        at = 3 if isinstance(self.node.op, LinearAdd | ConvAdd) else 2
        if len(self.arrays) > at:
            own = channel if bias_channel is None else bias_channel
            bias, element = self.arrays[at][own], self.types[at].element
            if isinstance(element, QType):
                scale_b, zero_b = self.scale(at, own)
                value = f"({int(bias)} - {zero_b}) * {scale_b}"
            else:
                value = f"{int(bias)} * {scale_x} * {scale_w}" if element == "int32" else fraction(float(bias))
            lines.append(f"real += {value}{'' if beta == 1.0 else f' * {fraction(beta)}'}  # bias")
        return lines

    def followed(self, lines: list[str]) -> list[str]:
        """The real result of a layer, and what follows it."""
        match self.node.op:
            case LinearAdd() | ConvAdd():
                return [*lines, f"real += {self.operand(2)}  # other"]
            case LinearPointwise() | ConvPointwise() as op if op.activation != "none":
                return [*lines, "x = Fraction(real)", *activation_lines(op.post)]
            case _:
                return lines

    def elementwise(self, sign: str) -> list[str]:
        return [f"real = ({self.operand(0)}) {sign} ({self.operand(1)})"]

    def quotient(self) -> list[str]:
        divisor = self.types[1].qtype.zero_point[0]
        if int(self.arrays[1][self.own(1)]) != divisor:
            return self.elementwise("/")
        dividend = int(self.arrays[0][self.own(0)]) - self.types[0].qtype.zero_point[0]
        sign = "" if dividend > 0 else "-"
        return [f"real = {sign}Fraction(10) ** 90  # {dividend} * scale / 0 is an infinity; it saturates"]

    def extreme(self, function: str) -> list[str]:
        return [f"real = {function}([{', '.join(self.operand(i) for i in range(len(self.arrays)))}])"]

    def own(self, position: int) -> Index:
        """Where an input that is broadcast has the element."""
        shape = self.arrays[position].shape
        return tuple(0 if n == 1 else i for i, n in zip(self.index[len(self.index) - len(shape) :], shape, strict=True))

    def operand(self, position: int) -> str:
        """An input's own element as a real number."""
        scale, zero = self.scale(position)
        value = self.arrays[position][self.own(position)]
        if not isinstance(self.types[position].element, QType):
            return fraction(float(value))
        return f"({int(value)} - {zero}) * {scale}"

    def pool(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        scale, zero = self.scale(0)
        sizes = x.shape[2:]
        where = self.index[2:]
        if isinstance(op, GlobalAvgPool):
            taps, count = list(product(*(range(n) for n in sizes))), int(np.prod(sizes))
        elif isinstance(op, AdaptiveAvgPool):
            bounds = [windows[i] for i, windows in zip(where, op.windows(sizes), strict=True)]
            taps = list(product(*(range(start, end) for start, end in bounds)))
            count = len(taps)
        else:
            assert isinstance(op, MaxPool | AvgPool)
            dilations = op.dilations if isinstance(op, MaxPool) else (1,) * len(sizes)
            spans = [
                [p * s + k * d - b for k in range(n)]
                for p, s, d, b, n in zip(where, op.strides, dilations, op.padding, op.kernel, strict=False)
            ]
            taps = [t for t in product(*spans) if all(0 <= i < n for i, n in zip(t, sizes, strict=True))]
            count = 1
            if isinstance(op, AvgPool):
                out = op.infer(self.types, self.node.element)[2:]
                divisors = np.broadcast_to(op.divisors(sizes, out), out)
                count = int(divisors[where])
        values = [int(x[(*self.index[:2], *t)]) for t in taps]
        if isinstance(op, MaxPool):
            return [f"real = (max({values!r}) - {zero}) * {scale}"]
        return [f"real = sum(x - {zero} for x in {values!r}) * {scale} / {count}"]

    def concat(self, axis: int) -> list[str]:
        at = self.index[axis]
        for position, array in enumerate(self.arrays):
            if at < array.shape[axis]:
                scale, zero = self.scale(position)
                own = (*self.index[:axis], at, *self.index[axis + 1 :])
                return [f"real = ({int(array[own])} - {zero}) * {scale}"]
            at -= array.shape[axis]
        raise IndexError(f"{self.index} is outside the concatenation")

    def softmax(self, axis: int) -> list[str]:
        scale, _ = self.scale(0)
        row = [int(v) for v in np.moveaxis(self.arrays[0], axis, -1)[(*self.index[:axis], *self.index[axis + 1 :])]]
        own = row[self.index[axis]]
        return [
            *DECIMAL,
            f"shares = [exact(({own} - q) * {scale}) for q in {row!r}]  # x_i - x_j; the share is 1 / sum(exp(-d))",
            "real = Fraction(1 / sum((-d).exp() for d in shares))",
        ]

    def normalized(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
        flat = int(np.ravel_multi_index(self.index, x.shape))
        n = op.size(x.shape)
        row = [int(v) for v in x.ravel()[flat // n * n :][:n]]
        (scale, zero), (scale_w, zero_w) = self.scale(0), self.scale(1) if len(self.arrays) > 1 else ("1", 0)
        weight, *bias = [
            np.broadcast_to(op.laid_out(a.astype(np.float64), x.shape), x.shape)[self.index].item()
            for a in self.arrays[1:]
        ] or [1.0]
        unit = f" * {scale} * {scale_w}" if bias and self.types[2].element == "int32" else ""
        return [
            *DECIMAL,
            f"row = [(q - {zero}) * {scale} for q in {row!r}]",
            "mean = sum(row) / Fraction(len(row))",
            f"under = sum((x - mean) ** 2 for x in row) / len(row) + {fraction(op.epsilon)}  # variance + epsilon",
            f"real = ({int(x[self.index])} - {zero}) * {scale} - mean",
            f"real *= Fraction(1 / exact(under).sqrt()) * ({fraction(weight)} - {zero_w}) * {scale_w}",
            *(f"real += {fraction(b)}{unit}  # bias" for b in bias),
        ]

    def batch_norm(self) -> list[str]:
        op: Any = self.node.op
        (scale, zero), channel = self.scale(0), self.index[1]
        weight, bias, mean, variance = (fraction(float(a[channel])) for a in self.arrays[1:])
        return [
            *DECIMAL,
            f"under = {variance} + {fraction(op.epsilon)}  # variance + epsilon",
            f"real = ({int(self.arrays[0][self.index])} - {zero}) * {scale} - {mean}",
            f"real = real * Fraction(1 / exact(under).sqrt()) * {weight} + {bias}",
        ]

    def mean(self) -> list[str]:
        scale, zero = self.scale(0)
        window = self.reduced()
        return [f"real = sum(x - {zero} for x in {window!r}) * {scale} / {len(window)}"]

    def std(self) -> list[str]:
        op: Any = self.node.op
        scale, zero = self.scale(0)
        window = self.reduced()
        return [
            *DECIMAL,
            f"row = [(q - {zero}) * {scale} for q in {window!r}]",
            "mean = sum(row) / Fraction(len(row))",
            f"variance = sum((x - mean) ** 2 for x in row) / Fraction({len(window) - op.correction})",
            "real = Fraction(exact(variance).sqrt())",
        ]

    def prelu(self) -> list[str]:
        scale, zero = self.scale(1)
        slopes = self.arrays[1]
        slope = int(slopes[self.index[1] if slopes.size > 1 else 0])
        return [f"x = Fraction({self.operand(0)})", f"real = x if x > 0 else x * ({slope} - {zero}) * {scale}"]

    def reduced_extreme(self, which: str) -> list[str]:
        scale, zero = self.scale(0)
        return [f"real = ({which}({self.reduced()!r}) - {zero}) * {scale}"]

    def reduced(self) -> list[int]:
        """The elements that are reduced to this one."""
        op, x = self.node.op, self.arrays[0]
        assert isinstance(op, Mean | Amax | Amin | Std)
        axes = op.reduced(x.ndim)
        kept = iter(self.index)
        at = [0 if d in axes and not op.keepdims else next(kept) for d in range(x.ndim)]
        window: list[int] = x[tuple(slice(None) if d in axes else at[d] for d in range(x.ndim))].ravel().tolist()
        return window

    def argmax(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        assert isinstance(op, Argmax)
        axis = op.axis % x.ndim
        rest = self.index[axis + 1 :] if op.keepdims else self.index[axis:]
        row = [int(v) for v in np.moveaxis(x, axis, -1)[(*self.index[:axis], *rest)]]
        which = "last" if op.select_last_index else "first"
        most = "min(row)" if op.smallest else "max(row)"
        picked = f"max(i for i, q in enumerate(row) if q == {most})" if op.select_last_index else f"row.index({most})"
        largest = "smallest" if op.smallest else "largest"
        return [f"row = {row!r}", f"real = Fraction({picked})  # the {which} of the {largest}"]

    def interpolated(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        assert isinstance(op, Interpolate)
        scale, zero = self.scale(0)
        taps = [
            ((i, Fraction(1)),) if r is None else r.taps[i] for i, r in zip(self.index, op.rows(x.shape), strict=True)
        ]
        terms = []
        for chosen in product(*taps):
            weight = math.prod((w for _, w in chosen), start=Fraction(1))
            terms.append((weight.numerator, weight.denominator, int(x[tuple(i for i, _ in chosen)])))
        return [
            f"weighted = {terms!r}  # numerator and denominator of a weight, and the element",
            f"real = sum(Fraction(n, d) * (q - {zero}) for n, d, q in weighted) * {scale}",
        ]

    def unary(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        scale, zero = self.scale(0)
        source = self.source(x)
        if source is None:
            return ["real = Fraction(0)  # padding"]
        value = x[source].item()
        stored = fraction(float(value)) if isinstance(op, Quantize) else f"({value} - {zero})"
        lines = [f"x = Fraction({stored}) * {scale}"]
        return [*lines, *function_lines(op)]

    def source(self, x: Array) -> Index | None:
        """Which input element the output element is made of; None for padding."""
        if not isinstance(self.node.op, Moved):
            return self.index
        flat = int(self.node.op.move(np.arange(float(x.size)).reshape(x.shape), -1.0)[self.index])
        return None if flat < 0 else tuple(int(i) for i in np.unravel_index(flat, x.shape))

    def divided(self) -> list[str]:
        """A fused relu, and the division by the output scale."""
        lines = ["real = max(real, Fraction(0))  # fused relu"] if getattr(self.node.op, "relu", False) else []
        q = self.node.element
        if isinstance(q, QType):
            scale, _ = qparams_at(self.output, self.index)
            lines.append(f"real = real / {fraction(scale)}")
        return lines


def _matrix_pairs(a: Array, b: Array, index: Index) -> list[tuple[Index, Index]]:
    """What one element of a matrix product sums: a vector is a matrix of one row, or of one column, left out."""
    at = list(index)
    column = at.pop() if b.ndim > 1 else 0
    row = at.pop() if a.ndim > 1 else 0

    def own(shape: tuple[int, ...]) -> Index:
        return tuple(0 if n == 1 else i for i, n in zip(at[len(at) - len(shape) :], shape, strict=True))

    pairs = []
    for k in range(a.shape[-1]):
        at_a = (*own(a.shape[:-2]), row, k) if a.ndim > 1 else (k,)
        at_b = (*own(b.shape[:-2]), k, column) if b.ndim > 1 else (k,)
        pairs.append((at_a, at_b))
    return pairs


def _transposed_taps(op: ConvTranspose, x: Array, w: Array, index: Index) -> list[tuple[Index, Index]]:
    """The inputs whose tap of the kernel falls on one element."""
    per_group = x.shape[1] // op.groups
    group, filter_ = divmod(index[1], w.shape[1])
    taps = []
    for k in product(*(range(n) for n in w.shape[2:])):
        moves = zip(index[2:], op.padding, k, op.dilations, op.strides, strict=False)
        sources = [divmod(i + p - t * d, s) for i, p, t, d, s in moves]
        at = [quotient for quotient, rest in sources if rest == 0]
        if len(at) == len(sources) and all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
            for c in range(group * per_group, (group + 1) * per_group):
                taps.append(((index[0], c, *at), (c, filter_, *k)))
    return taps


def _conv_taps(op: Correlation, x: Array, w: Array, index: Index) -> list[tuple[Index, Index]]:
    spatial = x.ndim - 2
    per_group = x.shape[1] // op.groups
    first = index[1] // (w.shape[0] // op.groups) * per_group
    taps = []
    for c in range(per_group):
        for k in product(*(range(n) for n in w.shape[2:])):
            at = [index[2 + i] * op.strides[i] + k[i] * op.dilations[i] - op.padding[i] for i in range(spatial)]
            if all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
                taps.append(((index[0], first + c, *at), (index[1], c, *k)))
    return taps
