"""dynamic_linear, bit for bit: data quantized as the function body of DynamicQuantizeLinear says, then a linear layer.

Or as PyTorch does, with its steps and its smallest scale.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.exact.rounding import saturate
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import FLOAT32_MIN_NORMAL, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic import DynamicLinear
from qfuzz.ops.dynamic_range import QMAX, QMIN, SMALL_SCALE_THRESHOLD
from qfuzz.ops.linear import Linear
from qfuzz.ops.semantics import Operand


class DynamicEvaluation:
    """One dynamic_linear node on known inputs, under as many models of its products as are asked for.

    With an exact multiplier, elements are exact from the data on, but for those that other choices change; those, and
    all others, are computed with the float32 scale.
    """

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> None:
        assert isinstance(node.op, DynamicLinear)
        operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
        self._exact = node.op.image(operands, node.element).lower
        by_torch = node.op.chosen_as == "torch"
        steps = QMAX // 2 if node.op.reduce_range else QMAX
        stored, q = quantized(arrays[0], steps, float(SMALL_SCALE_THRESHOLD) if by_torch else 0.0)
        static = Node(node.name, Linear(relu=node.op.relu), node.inputs, node.element)
        x = TensorType(types[0].shape, q)
        self._static = ContractionEvaluation(static, (x, *types[1:]), (stored, *arrays[1:]))

    def stored(self, model: Contraction) -> Array:
        """The float32 numbers that the model computes."""
        computed = self._static.stored(model)
        if model.multiplier != "exact":
            return computed
        unchanged = computed == self._static.stored(Contraction())
        return np.where(unchanged, self._exact.nearest_float32().astype(np.float32), computed)

    def result(self, model: Contraction) -> Array:
        """The same."""
        return self.stored(model)

    def work(self, model: Contraction) -> int:
        """As of a linear layer."""
        return self._static.work(model)

    def on_the_way(self, model: Contraction, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """Scale and zero point of the data, then what a linear layer has."""
        yield "scale x", np.float32(self._static.q_x.scale[0])
        yield "zero point x", self._static.q_x.zero_point[0]
        yield from self._static.on_the_way(model, index)


def quantized(x: Array, steps: int, smallest: float) -> tuple[Array, QType]:
    """Stored integers of float32 data and their type, computed in float32; a scale of 1 for nothing but 0."""
    zero, levels = np.float32(0), np.float32(steps)
    low, high = x.min(initial=zero), x.max(initial=zero)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scale = np.float32((high - low) / levels) if high > low else np.float32(1)
        # Beyond that, nothing is defined, and no type has such a scale.
        scale = np.float32(np.clip(scale, FLOAT32_MIN_NORMAL, 1 / FLOAT32_MIN_NORMAL))
        zero_point = int(np.rint(np.clip(zero - low / scale, QMIN, QMAX)))
        scale = max(scale, np.float32(smallest))
        stored = saturate(np.rint(x / scale).astype(np.int64) + zero_point, QMIN, QMAX, "uint8")
    return stored, QType.per_tensor("uint8", float(scale), zero_point)
