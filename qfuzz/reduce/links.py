"""Which dimensions of inputs and constants belong together: an index dropped from one goes from all of them."""

from collections.abc import Callable, Sequence

from qfuzz.ir.network import Network, Node
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.attention import Attention
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.deviation import Std
from qfuzz.ops.dynamic import DynamicLinear, DynamicQuantize
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_nbits import DynamicNbitsLinear
from qfuzz.ops.embedding import EmbedLayerNorm
from qfuzz.ops.embedding_bag import EmbeddingBag
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.ops.filling import ConstantPad, IndexPut
from qfuzz.ops.grid import GridSample
from qfuzz.ops.half_weights import LinearFp16
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.lstm import Lstm
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.mixture import Moe
from qfuzz.ops.movement import Concat, Flatten, Moved, Pad, Reshape, Slice, Transpose
from qfuzz.ops.normalization import GroupNorm, InstanceNorm
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.qparams import ChooseQparams
from qfuzz.ops.recurrent import Recurrent
from qfuzz.ops.reduction import Amax, Amin, Mean
from qfuzz.ops.repetition import GatherElements
from qfuzz.ops.scaled_mm import ScaledMm
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
        case (
            Conv(groups=groups)
            | DynamicConv(groups=groups)
            | ConvInteger(groups=groups)
            | ConvPointwise(groups=groups)
            | ConvAdd(groups=groups)
        ):
            if groups == 1:
                join(x[1], read[1][1])
            if isinstance(node.op, ConvAdd):
                join(x[0], read[2][0])
                join(read[1][0], read[2][1])
            for bias in read[3 if isinstance(node.op, ConvAdd) else 2 :]:
                join(read[1][0], bias[0])
            return [x[0], read[1][0] if groups == 1 else None, *(None for _ in range(rank - 2))]
        case ConvTranspose(groups=groups) | DynamicConvTranspose(groups=groups):
            join(x[1], read[1][0])
            if len(read) > 2 and groups == 1:
                join(read[1][1], read[2][0])
            return [x[0], read[1][1] if groups == 1 else None, *(None for _ in range(rank - 2))]
        case MatMul() | MatMulInteger():
            return _product(x, read[1], types, join)
        case LinearAdd():
            join(x[-1], read[1][1])
            for other in (*read[2:3], *([*x[:-1], bias[0]] for bias in read[3:])):
                for mine, theirs in zip((*x[:-1], read[1][0]), other, strict=True):
                    join(mine, theirs)
            return [*x[:-1], read[1][0]]
        case (
            Linear()
            | LinearInteger()
            | DynamicLinear()
            | DynamicNbitsLinear()
            | LinearFp16()
            | WeightOnlyLinear()
            | LinearPointwise()
            | ScaledMm()
        ):
            join(x[-1], read[1][1])
            if len(read) > 2:
                join(read[1][0], read[2][0])
            return [*x[:-1], read[1][0]]
        case Attention():
            join(x[2], read[1][0])
            if len(read) > 3:
                for mine, theirs in zip((x[0], x[1], x[1]), read[3] if len(read[3]) > 1 else [], strict=False):
                    join(mine, theirs)
                if len(read[3]) == 1 and types[3].shape[0] == types[0].shape[0]:
                    join(x[0], read[3][0])
            return [x[0], x[1], None]
        case EmbedLayerNorm():
            for table in (read[2], read[3], read[4], *read[6:]):
                join(x[1], table[-1])
            if len(read) > 5:
                join(read[1][0], read[5][0])
                join(read[1][1], read[5][1])
            return [read[1][0], read[1][1], x[1]]
        case Moe():
            tokens = (read[1][0], read[2][0])
            experts = (read[2][1], *(read[i][0] for i in range(3, len(read))))
            features = (read[3][2], read[4][1], *(read[i][1] for i in range(6, len(read))))
            for own, others in ((x[0], tokens), (read[1][1], experts), (x[1], features)):
                for other_label in others:
                    join(own, other_label)
            return [x[0], x[1]]
        case Lstm():
            join(x[2], read[1][1])
            for state in read[4:6]:
                join(x[1], state[1])
            return [x[0], None, x[1], None] if rank == 4 else [None, x[1], None]
        case Recurrent():
            cell, op = len(x) == 2, node.op
            for i in range(2 if op.bidirectional else 1):
                join(x[-1], read[1 + 4 * i][1])
            batch = x[0] if cell or op.batch_first else x[1]
            for state in read[1 + 4 * op.n_cells :]:
                join(batch, state[0 if cell else 1])
            if rank == 2:
                return [batch, None]
            return [None, batch, None] if op.output != "y" else [*x[:2], None]
        case Embedding(axis=axis):
            return [*x[:axis], *read[1], *x[axis + 1 :]]
        case FakeQuantize(axis=axis):
            for one_a_channel in (labels for labels in read[1:] if labels):
                join(x[axis], one_a_channel[0])
            return x
        case BatchNorm() | InstanceNorm() | GroupNorm():
            for one_a_channel in read[1:]:
                join(x[1], one_a_channel[0])
            return x
        case EmbeddingBag():
            at = node.op.read(len(read[1]))
            if "weights" in at:
                for mine, theirs in zip(read[1], read[at["weights"]], strict=True):
                    join(mine, theirs)
            bags = read[at["offsets"]] if "offsets" in at else read[1]
            return [None if node.op.include_last_offset else bags[0], x[1]]
        case Prelu():
            if types[1].shape[0] > 1:
                join(x[1], read[1][0])
            return x
        case MaxPool() | AvgPool() | GlobalAvgPool() | AdaptiveAvgPool():
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
        case Moved() | Argmax() | Amax() | Amin() | Mean() | Std() if rank != len(x):
            return [None] * rank
        case GatherElements():
            return [None] * rank
        case GridSample():
            join(x[0], read[1][0])
            return [x[0], x[1], read[1][1], read[1][2]]
        case IndexPut() | ConstantPad() | Pad():
            grown = (1,) + (0,) * (2 * rank) if isinstance(node.op, IndexPut) else node.op.padding
            return [None if grown[d] or grown[rank + d] else label for d, label in enumerate(x)]
        case Moved() | Argmax() | Amax() | Amin() | Interpolate():
            sizes = types[0].shape
            fixed = node.op.axes if isinstance(node.op, Interpolate) else ()
            stays = [d for d in range(rank) if sizes[d] == out.shape[d] and d not in fixed and d - rank not in fixed]
            return [label if d in stays else None for d, label in enumerate(x)]
        case DynamicQuantize(output="scale" | "zero_point"):
            return []
        case ChooseQparams(tokens=tokens):
            return [*x[:-1], None] if tokens else [None]
        case _:
            merged = [None] * rank
            for labels, t in zip(read, types, strict=True):
                offset = rank - len(labels)
                for d, label in enumerate(labels):
                    if t.shape[d] == out.shape[offset + d]:
                        merged[offset + d] = join(merged[offset + d], label)
            return merged


def _product(a: Labels, b: Labels, types: Sequence[TensorType], join: Join) -> Labels:
    """Labels of a matrix product: rows of `a`, columns of `b`, and stacks of either that broadcast."""
    join(a[-1], b[-2] if len(b) > 1 else b[0])
    rank = max(len(a), len(b))
    stack: Labels = [None] * max(rank - 2, 0)
    for labels, t in zip((a, b), types, strict=True):
        offset = rank - len(labels)
        for d, label in enumerate(labels[:-2]):
            if t.shape[d] > 1:
                stack[offset + d] = join(stack[offset + d], label)
    return [*stack, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())]
