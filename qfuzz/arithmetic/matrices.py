"""Matrix products of activations, and sums of integers, computed as a linear layer or a convolution would be.

A product of two stacks of matrices is a linear layer for each pair, whose weight is the second matrix transposed; sums
of integers are the accumulators of such a layer. So what is known of these kernels holds here, too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.windows import laid_out
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger, product_shape

Index = tuple[int, ...]

OPERATORS = ("matmul", "conv_integer", "linear_integer", "matmul_integer")

_ANY = QType.per_tensor("uint8", 1.0, 0)
"""The output's type of a layer of which only the accumulators are asked."""


class MatrixEvaluation:
    """One node on known inputs, under as many models of a contraction as are asked for."""

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> None:
        self.node, self.shape = node, node.op.infer(types, node.element)
        self.layers = dict(_layers(node, types, arrays))

    def stored(self, model: Contraction) -> Array:
        """What the model computes, in the output's shape: stored integers, or accumulators as int32."""
        if isinstance(self.node.element, QType):
            return self._joined([e.stored(model) for e in self.layers.values()], self.node.element.dtype)
        with np.errstate(invalid="ignore"):  # a model of dequantized operands sums other numbers
            return self.result(model).astype(np.int64).astype(np.int32)  # sums wrap, as those of a kernel do

    def result(self, model: Contraction) -> Array:
        """The number before rounding, in the output's shape."""
        if isinstance(self.node.element, QType):
            return self._joined([e.result(model) for e in self.layers.values()], "float64")
        sums = [laid_out(e.accumulator(model), e.op, e.shape) for e in self.layers.values()]
        return self._joined(sums, "float64")

    def work(self, model: Contraction) -> int:
        """The products, where they are taken one by one."""
        return sum(e.work(model) for e in self.layers.values())

    def on_the_way(self, model: Contraction, index: Index) -> Iterator[tuple[str, Any]]:
        """Accumulator and multiplier of one element."""
        stack = next((s for s in self.layers if s == index[: len(s)]), ())
        layer = self.layers[stack]
        inner = np.arange(int(np.prod(layer.shape))).reshape(layer.shape)
        at = np.unravel_index(int(inner.reshape(self._inner(layer))[index[len(stack) :]]), layer.shape)
        yield from layer.on_the_way(model, tuple(int(i) for i in at))

    def _inner(self, layer: ContractionEvaluation) -> Index:
        """The shape of one layer's part of the output: a vector's dimension of 1 is left out."""
        return self.shape[len(next(iter(self.layers))) :] if layer.shape != self.shape else layer.shape

    def _joined(self, parts: Sequence[Array], dtype: str) -> Array:
        whole = np.empty(self.shape, dtype=dtype)
        for stack, part in zip(self.layers, parts, strict=True):
            whole[stack] = part.reshape(whole[stack].shape)
        return whole


def _layers(
    node: Node, types: Sequence[TensorType], arrays: Sequence[Array]
) -> Iterator[tuple[Index, ContractionEvaluation]]:
    """Each index of the output's stack, and the layer that computes what is there; one layer without a stack."""
    op: Any = node.op
    element = node.element if isinstance(node.element, QType) else _ANY
    match op:
        case ConvInteger():
            as_conv = Conv(strides=op.strides, padding=op.padding, dilations=op.dilations, groups=op.groups)
            yield (), _layer(as_conv, types, arrays, element)
        case LinearInteger():
            x = arrays[0].reshape(-1, arrays[0].shape[-1])
            yield (), _layer(Linear(), [TensorType(x.shape, types[0].element), types[1]], [x, arrays[1]], element)
        case MatMul() | MatMulInteger():
            a, b = arrays
            a, b = (a if a.ndim > 1 else a[None, :]), (b if b.ndim > 1 else b[:, None])
            stack = product_shape(a.shape, b.shape)[:-2]
            a, b = np.broadcast_to(a, (*stack, *a.shape[-2:])), np.broadcast_to(b, (*stack, *b.shape[-2:]))
            linear = Linear(relu=getattr(op, "relu", False))
            for at in np.ndindex(*stack):
                pair = [a[at], np.ascontiguousarray(b[at].T)]
                own = [TensorType(v.shape, t.element) for v, t in zip(pair, types, strict=True)]
                yield at, _layer(linear, own, pair, element)
        case _:
            raise TypeError(f"{op.name} is no matrix product")


def _layer(op: Any, types: Sequence[TensorType], arrays: Sequence[Array], element: QType) -> ContractionEvaluation:
    names = tuple(f"v{i}" for i in range(len(arrays)))
    return ContractionEvaluation(Node("y", op, names, element), types, arrays)
