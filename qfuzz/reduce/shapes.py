"""Reduction passes over shapes: indices, groups, products, kernels, dimensions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType, qparams_at
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Reshape, Slice
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.reference import image_of
from qfuzz.reduce.edit import Array, Candidate, Pass, data_of, replace, take, with_arrays
from qfuzz.reduce.links import linked_dimensions

GROUPED = Conv | ConvInteger | ConvTranspose | DynamicConv | DynamicConvTranspose
"""Operators whose weights have a kernel, and channels in groups."""


def drop_indices(case: Case) -> Iterator[Candidate]:
    """Fewer indices of each class of linked dimensions: halves, quarters, single ones; any subset can remain."""
    for dimensions in linked_dimensions(case.network):
        name, axis = min(dimensions)
        for kept in _subsets(case.network.types[name].shape[axis]):
            yield partial(take, case, dict.fromkeys(dimensions, kept), _fitted(case, dimensions, kept))


def _fitted(case: Case, dimensions: frozenset[tuple[str, int]], kept: Array) -> dict[str, Operator]:
    """Operators whose attributes repeat a shape, with the shape that is left."""
    ops: dict[str, Operator] = {}
    for node in case.network.nodes:
        match node.op:
            case Reshape(shape=shape):
                before = case.network.types[node.inputs[0]].shape
                cut = [d for name, d in dimensions if name == node.inputs[0]]
                now = [len(kept) if d in cut else n for d, n in enumerate(before)]
                # The cut dimension is the target's where leading dimensions agree; else everything goes flat.
                agree = all(d < len(shape) and shape[: d + 1] == before[: d + 1] for d in cut)
                fitted = [len(kept) if agree and d in cut else n for d, n in enumerate(shape)]
                ops[node.name] = replace(node.op, shape=tuple(fitted) if agree else (int(np.prod(now)),))
            case Slice(axis=axis, stop=stop) if (node.inputs[0], axis) in dimensions:
                ops[node.name] = replace(node.op, start=min(node.op.start, len(kept)), stop=min(stop, len(kept)))
            case Interpolate(sizes=sizes, axes=axes) if sizes and not axes:
                cut = [d for name, d in dimensions if name == node.inputs[0]]
                stays = case.network.types[node.inputs[0]].shape
                fitted = [len(kept) if d in cut and sizes[d] == n else sizes[d] for d, n in enumerate(stays)]
                ops[node.name] = replace(node.op, sizes=tuple(fitted))
            case _:
                pass
    return ops


def drop_groups(case: Case) -> Iterator[Candidate]:
    """Fewer groups of a convolution, with their channels and filters."""
    fed = {i.name for i in case.network.inputs}
    for node in case.network.nodes:
        if not isinstance(node.op, GROUPED) or node.op.groups == 1 or node.inputs[0] not in fed:
            continue
        groups = node.op.groups
        channels = case.network.types[node.inputs[0]].shape[1] // groups
        filters = case.network.types[node.inputs[1]].shape[0] // groups
        if isinstance(node.op, ConvTranspose | DynamicConvTranspose):
            yield from _drop_groups_transposed(case, node, channels)
            continue
        for kept in _subsets(groups):
            cuts = {(node.inputs[0], 1): _members(kept, channels)}
            cuts |= {(name, 0): _members(kept, filters) for name in node.inputs[1:]}
            ops: dict[str, Operator] = {node.name: replace(node.op, groups=len(kept))}
            yield partial(take, case, cuts, ops)
        if filters > 1:
            for f in range(filters):
                first = np.arange(groups) * filters + f
                yield partial(take, case, {(name, 0): first for name in node.inputs[1:]})


def _drop_groups_transposed(case: Case, node: Node, channels: int) -> Iterator[Candidate]:
    """Fewer groups of a transposed convolution: its weight has their channels first, and the filters of one group."""
    weight = case.network.types[node.inputs[1]].shape
    groups = weight[0] // channels
    for kept in _subsets(groups):
        cuts = {(name, axis): _members(kept, channels) for name, axis in ((node.inputs[0], 1), (node.inputs[1], 0))}
        cuts |= {(name, 0): _members(kept, weight[1]) for name in node.inputs[2:]}
        ops: dict[str, Operator] = {node.name: replace(node.op, groups=len(kept))}
        yield partial(take, case, cuts, ops)
    if weight[1] > 1:
        for f in range(weight[1]):
            cuts = {(name, 0): np.arange(groups) * weight[1] + f for name in node.inputs[2:]}
            yield partial(take, case, {(node.inputs[1], 1): np.array([f]), **cuts})


def merge_products(case: Case) -> Iterator[Candidate]:
    """A convolution or linear node alone, as one or two products that sum to what many did.

    Where a bug shows at one accumulator only (a tie, say), no product can be left out, but few do the work of many.
    """
    network = case.network
    if len(network.nodes) != 1 or not isinstance(network.nodes[0].op, Conv | Linear):
        return
    (node,) = network.nodes
    if not network.types[node.inputs[0]].is_quantized:
        return
    q_x, q_w = (network.types[i].qtype for i in node.inputs[:2])
    if not isinstance(node.element, QType):
        return
    operands = [Operand.point(t, data_of(case, i)) for t, i in zip(network.input_types(node), node.inputs, strict=True)]
    r = image_of(node, operands).lower.approx
    channels = np.moveaxis(r, -1 if isinstance(node.op, Linear) else 1, 0)
    for c, of_channel in enumerate(channels[:8]):
        at = c if q_w.axis is not None else 0
        plain = QType(q_w.dtype, (q_w.scale[at],), (q_w.zero_point[at],))
        bias = 0.0
        if len(node.inputs) > 2:
            bias, type_ = float(data_of(case, node.inputs[2])[c]), network.types[node.inputs[2]]
            if type_.is_quantized:
                scale, zero_point = qparams_at(type_, (c,))
                bias = (bias - zero_point) * scale
            if type_.element != "int32":
                bias /= q_x.scale[0] * plain.scale[0]
        accs = np.rint(of_channel.ravel()[:16] * node.element.scale[0] / (q_x.scale[0] * plain.scale[0]) - bias)
        for acc in dict.fromkeys(int(a) for a in accs):
            for products in _as_products(acc, q_x, plain):
                yield partial(_of_products, case, node, c, plain, products)


def _as_products(acc: int, q_x: QType, q_w: QType) -> Iterator[list[tuple[int, int]]]:
    """Stored (x, weight) pairs whose centered products sum to `acc`: one, or one and a remainder times 1."""
    (z_x,), (z_w,) = q_x.zero_point, q_w.zero_point
    for w in (1, -1, 2, 3, 5, 8, 16, 31, 64, 100, 127, -2, -3, -8, -31, -127):
        x, rest = divmod(acc, w) if w > 0 else divmod(-acc, -w)
        pairs = [(x + z_x, w + z_w), (rest * (1 if w > 0 else -1) + z_x, 1 + z_w)][: 2 if rest else 1]
        if all(q_x.qmin <= a <= q_x.qmax and q_w.qmin <= b <= q_w.qmax for a, b in pairs):
            yield pairs


def _of_products(case: Case, node: Node, channel: int, q_w: QType, pairs: list[tuple[int, int]]) -> Case:
    network = case.network
    names = node.inputs
    x_type, w_type = network.types[names[0]], network.types[names[1]]
    tail = (1,) * (len(w_type.shape) - 2)
    x = np.array([a for a, _ in pairs], dtype=x_type.dtype)
    w = np.array([b for _, b in pairs], dtype=w_type.dtype).reshape(1, len(pairs), *tail)
    x = x.reshape(*(1,) * (len(x_type.shape) - 1), len(pairs)) if isinstance(node.op, Linear) else x.reshape(w.shape)
    op: Operator = node.op
    if isinstance(op, Conv):
        n = len(op.strides)
        op = replace(op, strides=(1,) * n, dilations=(1,) * n, padding=(0,) * (2 * n), groups=1)
    constants = [Constant(names[1], TensorType(w.shape, q_w), Tensor(w))]
    for name in names[2:]:
        one = data_of(case, name)[channel : channel + 1]
        element = network.types[name].element
        if isinstance(element, QType) and element.axis is not None:
            element = QType(element.dtype, (element.scale[channel],), (element.zero_point[channel],))
        constants.append(Constant(name, TensorType((1,), element), Tensor(one)))
    fed = Input(names[0], TensorType(x.shape, x_type.element))
    whole = Network((fed,), tuple(constants), (replace(node, op=op),), network.outputs, network.forms)
    return Case(whole, (Tensor(x),))


def _members(kept: Array, size: int) -> Array:
    return (np.asarray(kept)[:, None] * size + np.arange(size)).ravel()


def _subsets(size: int) -> Iterator[Array]:
    """Index sets to keep: nothing, single ones, then complements of ever smaller runs (delta debugging)."""
    everything = np.arange(size)
    if size == 0:
        return
    yield everything[:0]
    if size == 1:
        return
    for i in range(min(size, 64)):
        yield everything[i : i + 1]
    run = size // 2
    while run >= 1:
        for start in range(0, size, run):
            kept = np.concatenate([everything[:start], everything[start + run :]])
            if kept.size > 1:
                yield kept
        run //= 2


def cut_kernels(case: Case) -> Iterator[Candidate]:
    """Kernels and inputs of pools and convolutions smaller together, so that the output keeps its size."""
    fed = {i.name for i in case.network.inputs}
    for node in case.network.nodes:
        kernel = getattr(node.op, "kernel", None)
        weight = node.inputs[1] if isinstance(node.op, GROUPED) else None
        if node.inputs[0] not in fed or (kernel is None and weight is None):
            continue
        x = node.inputs[0]
        sizes = case.network.types[x].shape[2:]
        taps = kernel if kernel is not None else case.network.types[str(weight)].shape[2:]
        for i, (size, k) in enumerate(zip(sizes, taps, strict=True)):
            if k < 2 or size < 2:
                continue
            smaller = None if kernel is None else replace(node.op, kernel=(*kernel[:i], k - 1, *kernel[i + 1 :]))
            ops: dict[str, Operator] = {} if smaller is None else {node.name: smaller}
            for drop_x in range(min(size, 8)):
                rest_x = np.delete(np.arange(size), drop_x)
                for drop_w in range(min(k, 8)) if weight is not None else (0,):
                    cuts = {(x, 2 + i): rest_x}
                    if weight is not None:
                        cuts[weight, 2 + i] = np.delete(np.arange(k), drop_w)
                    yield partial(take, case, cuts, ops)


def fewer_dimensions(case: Case) -> Iterator[Candidate]:
    """A single node's inputs without a dimension of size 1, where the operator allows it."""
    network = case.network
    if len(network.nodes) != 1 or network.constants:
        return
    (node,) = network.nodes
    rank = min(len(t.shape) for t in case.inputs)
    for d in range(rank):
        if all(len(t.shape) == rank and t.shape[d] == 1 for t in case.inputs):
            changes: dict[str, Any] = {}
            if hasattr(node.op, "axis") and node.op.axis > d:
                changes["axis"] = node.op.axis - 1
            if isinstance(node.op, Reshape):
                changes["shape"] = tuple(network.types[node.name].shape[i] for i in range(len(node.op.shape)) if i != d)
            ops = {node.name: replace(node.op, **changes)}
            arrays = {i.name: np.squeeze(t.array, axis=d) for i, t in zip(network.inputs, case.inputs, strict=True)}
            yield partial(with_arrays, case, arrays, ops)


SHAPES: list[Pass] = [drop_indices, drop_groups, merge_products, cut_kernels, fewer_dimensions]
