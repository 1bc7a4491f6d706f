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
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.softmax import Softmax

Array = npt.NDArray[Any]
Index = tuple[int, ...]


def element_by_hand(network: Network, node: Node, values: Mapping[str, Array], index: Index) -> list[str]:
    """Statements that compute element `index` of `node` from what it received (`values` by name, constants too)."""
    e = _Element(network, node, [np.asarray(values[i]) for i in node.inputs], index)
    match node.op:
        case Conv():
            lines = e.contraction(_conv_taps(node.op, e.arrays[0], e.arrays[1], index), index[1])
        case ConvInteger():
            lines = e.accumulator(_conv_taps(node.op, e.arrays[0], e.arrays[1], index), index[1])
        case ConvTranspose():
            taps = _transposed_taps(node.op, e.arrays[0], e.arrays[1], index)
            lines = e.contraction(taps, index[1] % e.arrays[1].shape[1], index[1])
        case Linear() | LinearInteger():
            pairs = [((*index[:-1], k), (index[-1], k)) for k in range(e.arrays[1].shape[1])]
            lines = (e.contraction if isinstance(node.op, Linear) else e.accumulator)(pairs, index[-1])
        case MatMul() | MatMulInteger():
            matched = _matrix_pairs(e.arrays[0], e.arrays[1], index)
            lines = (e.contraction if isinstance(node.op, MatMul) else e.accumulator)(matched, 0)
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

    def accumulator(self, pairs: Sequence[tuple[Index, Index]], channel: int) -> list[str]:
        """The sum of products, which is the result of an operator on integers."""
        return [*self.products(pairs, channel), "real = Fraction(acc)"]

    def products(self, pairs: Sequence[tuple[Index, Index]], channel: int) -> list[str]:
        x, w = self.arrays[0], self.arrays[1]
        (_, zero_x), (_, zero_w) = self.scale(0), self.scale(1, channel)
        terms = [(int(x[a]), int(w[b])) for a, b in pairs]
        return [
            f"products = {terms!r}  # x, weight",
            f"acc = sum((x - {zero_x}) * (w - {zero_w}) for x, w in products)",
        ]

    def contraction(
        self, pairs: Sequence[tuple[Index, Index]], channel: int, bias_channel: int | None = None
    ) -> list[str]:
        """`channel` is the weight's, `bias_channel` the bias's where it is another."""
        (scale_x, _), (scale_w, _) = self.scale(0), self.scale(1, channel)
        lines = [*self.products(pairs, channel), f"real = acc * {scale_x} * {scale_w}"]
        alpha, beta = (getattr(self.node.op, name, 1.0) for name in ("alpha", "beta"))
        if alpha != 1.0:
            lines.append(f"real *= {_fraction(alpha)}  # alpha")
        if len(self.arrays) > 2:
            bias = self.arrays[2][channel if bias_channel is None else bias_channel]
            is_integer = self.types[2].element == "int32"
            value = f"{int(bias)} * {scale_x} * {scale_w}" if is_integer else _fraction(float(bias))
            lines.append(f"real += {value}{'' if beta == 1.0 else f' * {_fraction(beta)}'}  # bias")
        return lines

    def elementwise(self, sign: str) -> list[str]:
        parts = []
        for position, array in enumerate(self.arrays):
            own = self.index[len(self.index) - array.ndim :]
            at = tuple(0 if n == 1 else i for i, n in zip(own, array.shape, strict=True))
            scale, zero = self.scale(position)
            parts.append(f"({int(array[at])} - {zero}) * {scale}")
        return [f"real = {f' {sign} '.join(f'({p})' for p in parts)}"]

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


def _conv_taps(op: Conv | ConvInteger, x: Array, w: Array, index: Index) -> list[tuple[Index, Index]]:
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
