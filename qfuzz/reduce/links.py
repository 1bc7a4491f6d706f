"""Which dimensions of inputs and constants belong together: an index dropped from one goes from all of them."""

from collections.abc import Callable, Sequence

from qfuzz.ir.network import Network, Node
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.weight_only import Embedding, WeightOnlyLinear

Dimension = tuple[str, int]
Labels = list[Dimension | None]
"""Per dimension of a value, the input's or constant's dimension that it follows; None where it follows none."""


def linked_dimensions(network: Network) -> list[frozenset[Dimension]]:
    """Classes of dimensions of inputs and constants that can only be cut together, in a stable order."""
    parent: dict[Dimension, Dimension] = {}

    def find(d: Dimension) -> Dimension:
        while parent[d] != d:
            d = parent[d]
        return d

    def join(a: Dimension | None, b: Dimension | None) -> Dimension | None:
        if a is None or b is None:
            return a if b is None else b
        parent[find(b)] = find(a)
        return find(a)

    labels: dict[str, Labels] = {}
    for value in network.leaves:
        own: Labels = [(value.name, i) for i in range(len(value.type.shape))]
        labels[value.name] = own
        parent.update({d: d for d in own if d is not None})
    for node in network.nodes:
        read = [labels[i] for i in node.inputs]
        labels[node.name] = _follow(node, read, network.input_types(node), network.types[node.name], join)
    classes: dict[Dimension, set[Dimension]] = {}
    for d in parent:
        classes.setdefault(find(d), set()).add(d)
    return [frozenset(c) for c in classes.values()]


Join = Callable[[Dimension | None, Dimension | None], Dimension | None]


def _follow(node: Node, read: Sequence[Labels], types: Sequence[TensorType], out: TensorType, join: Join) -> Labels:
    """Labels of the node's output, joining those that must stay equal. A missing link only costs attempts."""
    x = read[0]
    rank = len(out.shape)
    match node.op:
        case Conv(groups=groups):
            if groups == 1:
                join(x[1], read[1][1])
            if len(read) > 2:
                join(read[1][0], read[2][0])
            return [x[0], read[1][0] if groups == 1 else None, *(None for _ in range(rank - 2))]
        case Linear() | WeightOnlyLinear():
            join(x[-1], read[1][1])
            if len(read) > 2:
                join(read[1][0], read[2][0])
            return [*x[:-1], read[1][0]]
        case Embedding(axis=axis):
            return [*x[:axis], *read[1], *x[axis + 1 :]]
        case MaxPool() | AvgPool() | GlobalAvgPool():
            return [x[0], x[1], *(None for _ in range(rank - 2))]
        case Concat(axis=axis):
            merged = list(x)
            for other in read[1:]:
                merged = [None if d == axis else join(a, b) for d, (a, b) in enumerate(zip(merged, other, strict=True))]
            merged[axis] = None
            return merged
        case Transpose(perm=perm):
            return [x[p] for p in perm]
        case Slice(axis=axis):
            return [None if d == axis else label for d, label in enumerate(x)]
        case Pad(padding=padding):
            return [None if padding[d] or padding[rank + d] else label for d, label in enumerate(x)]
        case Reshape() | Flatten():
            same = 0
            while same < min(len(x), rank) and types[0].shape[same] == out.shape[same]:
                same += 1
            return [*x[:same], *(None for _ in range(rank - same))]
        case _:
            merged = [None] * rank
            for labels, t in zip(read, types, strict=True):
                offset = rank - len(labels)
                for d, label in enumerate(labels):
                    if t.shape[d] == out.shape[offset + d]:
                        merged[offset + d] = join(merged[offset + d], label)
            return merged
