"""Which published arithmetics give every element of a layer's output, at a cost that a layer of real size can bear."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qfuzz.arithmetic.catalogue import family_of_node
from qfuzz.arithmetic.cause import Explanation, gives, kernels
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.family import Choices
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

AFFORDABLE = 2**24
"""Products that are taken one by one; models of a layer that would need more are not tried."""
FIRST_CHANNELS = 4
"""Output channels on which models are refuted before more are computed: as many as can be afforded, then all."""


class Fitting(NamedTuple):
    """Names of the models that give every element, and what weights they use: integers, dequantized floats, or both.

    Nothing is said of weights where a model was not tried that might use them otherwise.
    """

    names: tuple[str, ...]
    weights: tuple[str, ...]


def fitting(
    node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array, saturating_pairs: int
) -> Fitting:
    """The models of the catalogue that explain a layer.

    Parameters
    ----------
    types, arrays
        Of all inputs of `node`, constants included.
    saturating_pairs
        How many pairs of products leave int16. Where none does, saturating kernels compute as others do.
    """
    whole = _Part(node, types, arrays, got)
    left = [e for e in kernels(family_of_node(node, types)) if saturating_pairs or not _saturates(e)]
    for part in whole.beginnings():
        left = [e for e in left if part.is_explained(e.model) is not False]
    answers = [(e, whole.is_explained(e.model)) for e in left]
    giving = [e for e, answer in answers if answer]
    weights, unknown = _weights(giving), _weights([e for e, answer in answers if answer is None])
    told = sorted(weights, reverse=True) if unknown <= weights else ()
    return Fitting(tuple(dict.fromkeys(e.name for e in giving)), tuple(told))


def _weights(explanations: Sequence[Explanation]) -> frozenset[str]:
    return frozenset(e.model.operands for e in explanations if isinstance(e.model, Contraction))


def _saturates(explanation: Explanation) -> bool:
    model = explanation.model
    return isinstance(model, Contraction) and model.products.startswith("int16")


class _Part:
    """A layer, or its first output channels, which do not depend on the others."""

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array) -> None:
        self.node, self.types, self.arrays, self.got = node, types, arrays, got
        self.evaluation = family_of_node(node, types).evaluate(node, types, arrays)

    def is_explained(self, model: Choices) -> bool | None:
        """Whether a model gives every element; None where it is not tried."""
        return gives(self.evaluation, model, self.got) if self.evaluation.work(model) <= AFFORDABLE else None

    def beginnings(self) -> "Iterator[_Part]":
        """The first few channels, then as many as can be afforded."""
        op = self.node.op
        if isinstance(op, Linear) or (isinstance(op, Conv) and op.groups == 1):
            channels = len(self.arrays[1])
            products_each = max(1, self.got.size // max(1, channels) * math.prod(self.arrays[1].shape[1:]))
            for n in (FIRST_CHANNELS, AFFORDABLE // products_each):
                if 0 < n < channels:
                    yield self._beginning(n)

    def _beginning(self, n: int) -> "_Part":
        weight = self.types[1].qtype
        if weight.axis is not None:
            weight = QType(weight.dtype, weight.scale[:n], weight.zero_point[:n], weight.axis)
        weights, *biases = (a[:n] for a in self.arrays[1:])
        types = [
            self.types[0],
            TensorType(weights.shape, weight),
            *(TensorType(b.shape, t.element) for b, t in zip(biases, self.types[2:], strict=True)),
        ]
        axis = 1 if isinstance(self.node.op, Conv) else self.got.ndim - 1
        got = np.ascontiguousarray(np.take(self.got, range(n), axis=axis))
        return _Part(self.node, types, [self.arrays[0], weights, *biases], got)
