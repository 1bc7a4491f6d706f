"""Which published arithmetics give every element of a layer's output, at a cost that a layer of real size can bear."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.cause import Explanation, gives, kernels
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

AFFORDABLE = 2**25
"""Products that are taken one by one; models of a layer that would need more are not tried."""
FIRST_CHANNELS = 4
"""Output channels on which models are refuted before the others are computed."""


class Fitting(NamedTuple):
    """Names of the models that give every element, and what weights they use: integers, dequantized floats, or both."""

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
    family = family_of(node.op.name)
    left = [e for e in kernels(family) if saturating_pairs or not _saturates(e)]
    for stage in (_few_channels(node, types, arrays, got), (node, types, arrays, got)):
        if stage is not None:
            part, part_types, part_arrays, part_got = stage
            evaluation = family.evaluate(part, part_types, part_arrays)
            affordable = [e for e in left if evaluation.work(e.model) <= AFFORDABLE]
            left = [e for e in affordable if gives(evaluation, e.model, part_got)]
    weights = {e.model.operands for e in left if isinstance(e.model, Contraction)}
    return Fitting(tuple(dict.fromkeys(e.name for e in left)), tuple(sorted(weights, reverse=True)))


def _saturates(explanation: Explanation) -> bool:
    model = explanation.model
    return isinstance(model, Contraction) and model.products.startswith("int16")


def _few_channels(
    node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array
) -> tuple[Node, list[TensorType], list[Array], Array] | None:
    """The layer with its first output channels only, which do not depend on the others."""
    op = node.op
    if not isinstance(op, Conv | Linear) or getattr(op, "groups", 1) != 1 or len(arrays[1]) <= FIRST_CHANNELS:
        return None
    n = FIRST_CHANNELS
    weight = types[1].qtype
    if weight.axis is not None:
        weight = QType(weight.dtype, weight.scale[:n], weight.zero_point[:n], weight.axis)
    parts: list[Array] = [arrays[0], arrays[1][:n], *(a[:n] for a in arrays[2:])]
    part_types = [
        types[0],
        TensorType(parts[1].shape, weight),
        *(TensorType(a.shape, t.element) for a, t in zip(parts[2:], types[2:], strict=True)),
    ]
    channel_axis = 1 if isinstance(op, Conv) else got.ndim - 1
    return node, part_types, parts, np.ascontiguousarray(np.take(got, range(n), axis=channel_axis))
