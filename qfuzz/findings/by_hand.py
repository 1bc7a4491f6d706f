"""One element's exact arithmetic as Python statements, with its numbers: what a reader checks by hand.

The statements set ``real`` to a `fractions.Fraction` in output units, before rounding and the zero point. They use the
standard library alone (decimal with 60 digits for elementary functions).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax

Array = npt.NDArray[Any]
Index = tuple[int, ...]


def element_by_hand(network: Network, node: Node, values: Mapping[str, Array], index: Index) -> list[str]:
    """Statements that compute element `index` of `node` from what it received (`values` by name, constants too)."""
    e = _Element(network, node, [np.asarray(values[i]) for i in node.inputs], index)
    match node.op:
        case Conv():
            lines = e.contraction(_conv_taps(node.op, e.arrays[0], e.arrays[1], index), index[1])
        case Linear():
            pairs = [((*index[:-1], k), (index[-1], k)) for k in range(e.arrays[1].shape[1])]
            lines = e.contraction(pairs, index[-1])
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
        case AvgPool() | MaxPool() | GlobalAvgPool():
            lines = e.pool()
        case Concat(axis=axis):
            lines = e.concat(axis)
        case Softmax(axis=axis):
            lines = e.softmax(axis)
        case _:
            lines = e.unary()
    return [*lines, *e.divided()]


class _Element:
    def __init__(self, network: Network, node: Node, arrays: Sequence[Array], index: Index) -> None:
        self.node, self.arrays, self.index = node, arrays, index
        self.types = network.input_types(node)

    def scale(self, position: int, channel: int = 0) -> tuple[str, int]:
        """The scale (as source) and zero point of an input."""
        q = self.types[position].element
        if not isinstance(q, QType):
            return "1", 0
        at = channel if q.axis is not None else 0
        return _fraction(q.scale[at]), q.zero_point[at]

    def contraction(self, pairs: Sequence[tuple[Index, Index]], channel: int) -> list[str]:
        x, w = self.arrays[0], self.arrays[1]
        (scale_x, zero_x), (scale_w, zero_w) = self.scale(0), self.scale(1, channel)
        terms = [(int(x[a]), int(w[b])) for a, b in pairs]
        lines = [
            f"products = {terms!r}  # x, weight",
            f"acc = sum((x - {zero_x}) * (w - {zero_w}) for x, w in products)",
        ]
        if len(self.arrays) > 2 and self.types[2].element == "int32":
            lines.append(f"acc += {int(self.arrays[2][channel])}  # bias")
        lines.append(f"real = acc * {scale_x} * {scale_w}")
        if len(self.arrays) > 2 and self.types[2].element == "float32":
            lines.append(f"real += {_fraction(float(self.arrays[2][channel]))}  # bias")
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
        return f"({int(self.arrays[position][self.own(position)])} - {zero}) * {scale}"

    def pool(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        scale, zero = self.scale(0)
        sizes = x.shape[2:]
        where = self.index[2:]
        if isinstance(op, GlobalAvgPool):
            taps, count = list(product(*(range(n) for n in sizes))), int(np.prod(sizes))
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
            *_DECIMAL,
            f"shares = [exact(({own} - q) * {scale}) for q in {row!r}]  # x_i - x_j; the share is 1 / sum(exp(-d))",
            "real = Fraction(1 / sum((-d).exp() for d in shares))",
        ]

    def unary(self) -> list[str]:
        op, x = self.node.op, self.arrays[0]
        scale, zero = self.scale(0)
        source = self.source(x)
        if source is None:
            return ["real = Fraction(0)  # padding"]
        value = x[source].item()
        stored = _fraction(float(value)) if isinstance(op, Quantize) else f"({value} - {zero})"
        lines = [f"x = Fraction({stored}) * {scale}"]
        match op:
            case Relu():
                return [*lines, "real = max(x, Fraction(0))"]
            case Clamp(min=low, max=high):
                return [*lines, f"real = min(max(x, {_fraction(low)}), {_fraction(high)})"]
            case LeakyRelu(negative_slope=slope):
                return [*lines, f"real = x if x > 0 else x * {_fraction(slope)}"]
            case Hardsigmoid():
                return [*lines, "real = min(max(x / 6 + Fraction(1, 2), Fraction(0)), Fraction(1))"]
            case Hardswish():
                return [*lines, "real = x * min(max(x + 3, Fraction(0)), Fraction(6)) / 6"]
            case Sigmoid():
                return [*lines, *_DECIMAL, "real = Fraction(1 / (1 + (-exact(x)).exp()))"]
            case Tanh():
                return [*lines, *_DECIMAL, "real = Fraction(2 / (1 + (-2 * exact(x)).exp()) - 1)"]
            case Elu(alpha=alpha):
                negative = f"Fraction(exact(x).exp() - 1) * {_fraction(alpha)}"
                return [*lines, *_DECIMAL, f"real = x if x > 0 else {negative}"]
            case _:
                return [*lines, "real = x"]

    def source(self, x: Array) -> Index | None:
        """Which input element the output element is made of; None for padding."""
        match self.node.op:
            case Reshape() | Flatten():
                shape = self.node.op.infer(self.types, self.node.element)
                flat = int(np.ravel_multi_index(self.index, shape))
                return tuple(int(i) for i in np.unravel_index(flat, x.shape))
            case Transpose(perm=perm):
                at = [0] * x.ndim
                for i, p in zip(self.index, perm, strict=True):
                    at[p] = i
                return tuple(at)
            case Slice(axis=axis, start=start, step=step):
                return (*self.index[:axis], start + step * self.index[axis], *self.index[axis + 1 :])
            case Pad(padding=padding):
                at_x = tuple(i - padding[d] for d, i in enumerate(self.index))
                return at_x if all(0 <= i < n for i, n in zip(at_x, x.shape, strict=True)) else None
            case _:
                return self.index

    def divided(self) -> list[str]:
        """A fused relu, and the division by the output scale."""
        lines = ["real = max(real, Fraction(0))  # fused relu"] if getattr(self.node.op, "relu", False) else []
        q = self.node.element
        if isinstance(q, QType):
            lines.append(f"real = real / {_fraction(q.scale[0])}")
        return lines


_DECIMAL = [
    "getcontext().prec = 60",
    "getcontext().clear_traps()  # exp of a large number is infinite, and one over it 0",
    "def exact(f): return Decimal(f.numerator) / Decimal(f.denominator)",
]


def _fraction(x: float) -> str:
    numerator, denominator = x.as_integer_ratio()
    return f"Fraction({numerator}, {denominator})" if denominator != 1 else f"Fraction({numerator})"


def _conv_taps(op: Conv, x: Array, w: Array, index: Index) -> list[tuple[Index, Index]]:
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
