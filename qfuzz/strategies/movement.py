"""The drawing side of concat, concat_relu, reshape, transpose, slice, pad, flatten."""

import math

from qfuzz.ir.qtype import QType
from qfuzz.ops.movement import Concat, ConcatRelu, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.qtypes import draw_zero_point


def same(b: Builder) -> QType:
    """The current value's type, seldom another one."""
    return b.same_or_output(b.qtype.scale[0])


def fits_any(b: Builder) -> bool:
    """Whether the current value has a dimension."""
    return len(b.type.shape) >= 1


def draw_concat(b: Builder) -> None:
    """The current value beside others: earlier ones of a fitting shape, itself, or new inputs of their own scale."""
    _draw_concat(b, Concat)


def draw_concat_relu(b: Builder) -> None:
    """The same with a fused relu."""
    _draw_concat(b, ConcatRelu)


def _draw_concat(b: Builder, kind: type[Concat]) -> None:
    d = b.d
    shape = b.type.shape
    axis = d.integer(0, len(shape) - 1) if not b.flavour.common else min(1, len(shape) - 1)
    inputs = [b.current]
    for _ in range(d.integer(1, 2)):
        if d.rarely(3):
            inputs.append(b.current)
            continue
        size = d.pick((shape[axis], 1, 3))
        other = (*shape[:axis], size, *shape[axis + 1 :])
        if math.prod(other) > MAX_VALUE_ELEMENTS:
            continue
        same = d.integer(0, 1) == 0
        q = (
            b.qtype
            if same
            else QType.per_tensor(b.qtype.dtype, b.scale(b.qtype.scale[0]), draw_zero_point(d, b.qtype.dtype))
        )
        inputs.append(b.add_input(other, q))
    element = b.qtype if d.integer(0, 1) == 0 else b.output(max(b.types[i].qtype.scale[0] for i in inputs), spread=1)
    if element.dtype != b.qtype.dtype:
        element = b.qtype
    b.add_node(kind(axis=axis), tuple(inputs), element)


def draw_reshape(b: Builder) -> None:
    """A reshape node that merges, splits or reverses dimensions."""
    d = b.d
    shape = b.type.shape
    n = math.prod(shape)
    options = [shape, (n,), (1, *shape), tuple(reversed(shape)), (shape[0], n // shape[0] if shape[0] else 0)]
    target = d.pick(options)
    b.add_node(Reshape(shape=target if math.prod(target) == n else shape), (b.current,), same(b))


def draw_flatten(b: Builder) -> None:
    """A flatten node."""
    rank = len(b.type.shape)
    start = 1 if b.flavour.common and rank > 1 else b.d.integer(0, rank - 1)
    b.add_node(Flatten(start_axis=start), (b.current,), same(b))


def draw_transpose(b: Builder) -> None:
    """A transpose node."""
    d = b.d
    left = list(range(len(b.type.shape)))
    perm = []
    while left:
        perm.append(left.pop(d.integer(0, len(left) - 1)))
    b.add_node(Transpose(perm=tuple(perm)), (b.current,), same(b))


def draw_slice(b: Builder) -> None:
    """A slice node; empty slices now and then."""
    d = b.d
    axis = d.integer(0, len(b.type.shape) - 1)
    size = b.type.shape[axis]
    start = d.integer(0, max(size - 1, 0))
    stop = size if size == 0 else d.integer(start if not b.flavour.common and d.rarely(16) else start + 1, size)
    b.add_node(Slice(axis=axis, start=min(start, stop), stop=stop, step=d.integer(1, 3)), (b.current,), same(b))


def draw_pad(b: Builder) -> None:
    """A pad node: spatial dimensions mostly."""
    padding = padding_of(b)
    b.add_node(Pad(padding=padding), (b.current,), same(b))


def padding_of(b: Builder) -> tuple[int, ...]:
    """Before each dimension of the current value, then after each."""
    d = b.d
    shape = b.type.shape
    rank = len(shape)
    padding = [0] * (2 * rank)
    for axis in range(rank if d.rarely(4) else min(2, rank - 1), rank):
        padding[axis], padding[rank + axis] = d.integer(0, 2), d.integer(0, 2)
    if rank == 1 or not any(padding):
        padding[rank - 1] = d.integer(0, 2)
    if shape[-1] > 1 and d.rarely(6):  # so many elements less
        padding[d.pick((rank - 1, 2 * rank - 1))] = -d.integer(1, shape[-1] - 1)
    if math.prod(n + padding[i] + padding[rank + i] for i, n in enumerate(shape)) > 2 * MAX_VALUE_ELEMENTS:
        padding = [0] * (2 * rank)
    return tuple(padding)
