"""Nodes that move or compare elements, of whatever type: their operator is the same on integers and on real values."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.audit.onnx_values import Call, Operand, Reading, Work, attributes_only, plain, single, windows
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import Element, QType
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import MaxPool


def max_pool(call: Call, x: Operand, element: Element, got: Array) -> Work:
    """The node as a max pool of `x`."""
    kernel = call.attribute("kernel_shape")
    strides, padding, dilations = windows(call, x.array.shape[2:], kernel)
    op = MaxPool(
        kernel=kernel,
        strides=strides,
        padding=padding,
        dilations=dilations,
        ceil_mode=bool(call.attribute("ceil_mode", 0)),
    )
    return Work(op, (x,), element, got)


def max_pool_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a MaxPool of a value of that shape."""
    empty = Operand(np.broadcast_to(np.uint8(0), shape), "float32")
    return max_pool(call, empty, "float32", empty.array).op


def transpose_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a Transpose."""
    return Transpose(perm=call.attribute("perm", tuple(reversed(range(len(shape))))))


def reshape_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a node that keeps all elements in their order."""
    return Reshape(shape=call.result().shape)


def flatten_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a Flatten, which always makes a matrix."""
    if call.attribute("axis", 1) == 1 and len(shape) >= 2:
        return Flatten(start_axis=1)
    return reshape_op(call, shape)


def slice_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a Slice along one axis."""
    starts, ends = (call.constant(i, "what is sliced").reshape(-1).tolist() for i in (1, 2))
    axes = call.array(3).reshape(-1).tolist() if call.has(3) else list(range(len(starts)))
    steps = call.array(4).reshape(-1).tolist() if call.has(4) else [1] * len(starts)
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        d = axis % len(shape)
        if step < 0:
            raise InvalidCase(f"a slice of step {step}: qfuzz has forward ones only")
        indices = range(*slice(start, end, step).indices(shape[d]))
        if len(indices) != shape[d]:
            cuts.append(Slice(axis=d, start=indices.start, stop=max(indices.stop, indices.start), step=step))
    if len(cuts) > 1:
        raise InvalidCase(f"a slice of {len(cuts)} axes at once: qfuzz slices one")
    return cuts[0] if cuts else Slice(axis=0, start=0, stop=shape[0], step=1)


def pad_op(call: Call, shape: tuple[int, ...]) -> Operator:
    """The operator of a Pad with a constant; which one is the caller's to look at."""
    attributes_only(call, mode="constant")
    n = len(shape)
    pads = list(call.attribute("pads", ())) or call.constant(1, "the padding").reshape(-1).tolist()
    axes = [a % n for a in call.array(3).reshape(-1).tolist()] if call.has(3) else list(range(n))
    padding = [0] * (2 * n)
    for i, axis in enumerate(axes):
        padding[axis], padding[n + axis] = pads[i], pads[len(axes) + i]
    return Pad(padding=tuple(padding))


ShapedOp = Callable[[Call, tuple[int, ...]], Operator]

SHAPED: Mapping[str, ShapedOp] = MappingProxyType(
    {
        "MaxPool": max_pool_op,
        "Transpose": transpose_op,
        "Reshape": reshape_op,
        "Squeeze": reshape_op,
        "Unsqueeze": reshape_op,
        "Identity": reshape_op,
        "Flatten": flatten_op,
        "Slice": slice_op,
        "Pad": pad_op,
    }
)
"""ONNX operator to what makes its qfuzz operator from the shape of its first input."""


def _moved(op: ShapedOp) -> Reading:
    def reading(call: Call) -> Iterator[Work]:
        x = plain(call.array(0))
        yield single(call, op(call, x.array.shape), (x,), x.element)

    return reading


def _pad(call: Call) -> Iterator[Work]:
    x = plain(call.array(0))
    fill = int(call.array(2).reshape(())) if call.has(2) else int(call.attribute("value", 0))
    q = QType.per_tensor("uint8" if x.array.dtype == np.uint8 else "int8", 1.0, fill)
    yield single(call, pad_op(call, x.array.shape), (Operand(x.array, q),), q)


def _concat(call: Call) -> Iterator[Work]:
    operands = tuple(plain(call.array(i)) for i in range(len(call.node.input)))
    axis = call.attribute("axis") % operands[0].array.ndim
    yield single(call, Concat(axis=axis), operands, operands[0].element)


def _split(call: Call) -> Iterator[Work]:
    x: Any = plain(call.array(0))
    axis = call.attribute("axis", 0) % x.array.ndim
    start = 0
    for position, name in enumerate(call.node.output):
        if not name:
            raise InvalidCase("a part of the split is not returned")
        got = call.result(position)
        stop = start + got.shape[axis]
        yield single(call, Slice(axis=axis, start=start, stop=stop), (x,), x.element, got)
        start = stop


MOVEMENT: Mapping[str, Reading] = MappingProxyType(
    {name: _moved(op) for name, op in SHAPED.items()} | {"Pad": _pad, "Concat": _concat, "Split": _split}
)
"""Operator to its reading where it moves stored integers."""
