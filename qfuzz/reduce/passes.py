"""Reduction passes: plain functions from a case to smaller candidates, most promising first. The driver judges."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from qfuzz.ir.alone import node_alone
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import BYTES, INTEGER_RANGE, REALS, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType, laid_out, qparams_at
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Reshape, Slice
from qfuzz.ops.selection import Maximum, Minimum
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.reference import exact_outputs, image_of
from qfuzz.reduce.edit import Array, pruned, replace, take, with_arrays, with_elements, with_node
from qfuzz.reduce.links import linked_dimensions
from qfuzz.reduce.order import plain_value

GROUPED = Conv | ConvInteger | ConvTranspose
"""Operators whose weights have a kernel, and channels in groups."""

Candidate = Callable[[], Case]
"""Makes a case, or raises `InvalidCase` where the edit leads to none."""
Pass = Callable[[Case], Iterator[Candidate]]


def plain_forms(case: Case) -> Iterator[Candidate]:
    """Say the network the plain way, in all dimensions of form or in one more."""
    network = case.network
    for kept in dict.fromkeys([(), *(tuple(f for f in network.forms if f != said) for said in network.forms)]):
        if kept != network.forms:
            yield partial(Case, replace(network, forms=kept), case.inputs)


def one_node_alone(case: Case) -> Iterator[Candidate]:
    """Each node by itself, fed with the exact values that it receives."""
    if len(case.network.nodes) > 1:
        values = exact_outputs(case)
        for node in case.network.nodes:
            yield partial(node_alone, case, node.name, values)


def cut_network(case: Case) -> Iterator[Candidate]:
    """Drop what comes after a node, or feed a node's output as an input."""
    network = case.network
    if len(network.nodes) == 1:
        return
    for node in network.nodes:
        yield partial(pruned, network, case.feeds, outputs=(node.name,))
    values = exact_outputs(case)
    for node in network.nodes:
        if node.name in network.outputs:
            continue

        def fed(node: Node = node) -> Case:
            new = Input(node.name, network.types[node.name])
            rest = tuple(n for n in network.nodes if n.name != node.name)
            feeds = {**case.feeds, node.name: Tensor(values[node.name])}
            return pruned(network, feeds, inputs=(*network.inputs, new), nodes=rest)

        yield fed


def drop_concat_inputs(case: Case) -> Iterator[Candidate]:
    """Concatenate, or compare, fewer inputs."""
    for node in case.network.nodes:
        if isinstance(node.op, Concat | Minimum | Maximum) and len(node.inputs) > 1:
            for i in range(len(node.inputs)):
                rest = node.inputs[:i] + node.inputs[i + 1 :]
                yield partial(with_node, case, replace(node, inputs=rest))


def drop_bias(case: Case) -> Iterator[Candidate]:
    """Leave the last constant out: a bias, a mask."""
    for node in case.network.nodes:
        last = len(node.inputs) - 1
        if last >= node.op.arity[0] and last in node.op.constant_inputs:
            yield partial(with_node, case, replace(node, inputs=node.inputs[:last]))


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
        if isinstance(node.op, ConvTranspose):
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
    operands = [Operand.point(t, _data(case, i)) for t, i in zip(network.input_types(node), node.inputs, strict=True)]
    r = image_of(node, operands).lower.approx
    channels = np.moveaxis(r, -1 if isinstance(node.op, Linear) else 1, 0)
    for c, of_channel in enumerate(channels[:8]):
        at = c if q_w.axis is not None else 0
        plain = QType(q_w.dtype, (q_w.scale[at],), (q_w.zero_point[at],))
        bias = 0.0
        if len(node.inputs) > 2:
            bias, type_ = float(_data(case, node.inputs[2])[c]), network.types[node.inputs[2]]
            if type_.is_quantized:
                scale, zero_point = qparams_at(type_, (c,))
                bias = (bias - zero_point) * scale
            if type_.element != "int32":
                bias /= q_x.scale[0] * plain.scale[0]
        accs = np.rint(of_channel.ravel()[:16] * node.element.scale[0] / (q_x.scale[0] * plain.scale[0]) - bias)
        for acc in dict.fromkeys(int(a) for a in accs):
            for products in _as_products(acc, q_x, plain):
                yield partial(_of_products, case, node, c, plain, products)


def _data(case: Case, name: str) -> Array:
    constants = case.network.constant_data
    return (constants[name] if name in constants else case.feeds[name]).array


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
        one = _data(case, name)[channel : channel + 1]
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


def simpler_attributes(case: Case) -> Iterator[Candidate]:
    """Attributes set to what says nothing: all entries, then each entry, then one step towards it."""
    for node in case.network.nodes:
        for name in node.op.__struct_fields__:
            plain = plain_value(node.op, name)
            if plain is None or name == "groups":
                continue
            for value in _simpler_values(getattr(node.op, name), plain):
                yield partial(_with_attribute, case, node, name, value)


def _with_attribute(case: Case, node: Node, name: str, value: Any) -> Case:
    return with_node(case, replace(node, op=replace(node.op, **{name: value})))


def _simpler_values(value: Any, plain: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        yield tuple(plain for _ in value)
        for i, entry in enumerate(value):
            for simpler in _simpler_values(entry, plain):
                yield (*value[:i], simpler, *value[i + 1 :])
    elif value != plain:
        yield plain
        if isinstance(value, bool | str):
            return
        if isinstance(value, int):
            if abs(value - plain) > 1:
                yield value - 1 if value > plain else value + 1
        else:
            yield from _simpler_floats(value)


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


def per_tensor_types(case: Case) -> Iterator[Candidate]:
    """One scale and zero point for all channels or blocks: each one's in turn."""
    for name, type_ in case.network.types.items():
        q = type_.element
        if isinstance(q, QType) and q.axis is not None:
            for s, z in list(dict.fromkeys(zip(q.scale, q.zero_point, strict=True)))[:16]:
                plain = QType(q.dtype, (s,), (z,))
                yield partial(with_elements, case, partial(_named, name, plain))


def plain_biases(case: Case) -> Iterator[Candidate]:
    """Biases with scales of their own as counts of scale_x * scale_w, as near as those come."""
    network = case.network
    for node in network.nodes:
        if len(node.inputs) < 3 or not isinstance(node.op, Conv | ConvTranspose | Linear):
            continue
        x, weight, bias = network.input_types(node)
        if not bias.is_quantized or not x.is_quantized:
            continue
        q, q_w = bias.qtype, weight.qtype
        real = (_data(case, node.inputs[2]).astype(np.float64) - laid_out(q, q.zero_point, bias.shape)) * laid_out(
            q, q.scale, bias.shape
        )
        units = np.tile(q_w.scale, bias.shape[0] // len(q_w.scale)) * x.qtype.scale[0]
        counts = np.clip(np.rint(real / units), *INTEGER_RANGE["int32"]).astype(np.int32)
        yield partial(_with_constant, case, node.inputs[2], "int32", counts)


def _with_constant(case: Case, name: str, element: Element, data: Array) -> Case:
    network = case.network
    new = Constant(name, TensorType(data.shape, element), Tensor(data))
    constants = tuple(new if c.name == name else c for c in network.constants)
    return Case(replace(network, constants=constants), case.inputs)


def byte_weights(case: Case) -> Iterator[Candidate]:
    """int8 in the place of other weights, as near as it comes."""
    network = case.network
    for node in network.nodes:
        for position in node.op.constant_inputs[:1]:
            name = node.inputs[position]
            q = network.types[name].element
            if not isinstance(node.op, Conv | ConvTranspose | Linear) or not isinstance(q, QType) or q.dtype in BYTES:
                continue
            data, shape = _data(case, name).astype(np.int64), network.types[name].shape
            centered = np.clip(data - laid_out(q, q.zero_point, shape).astype(np.int64), -128, 127).astype(np.int8)
            yield partial(
                _with_constant, case, name, replace(q, dtype="int8", zero_point=(0,) * len(q.scale)), centered
            )


def plain_reals(case: Case) -> Iterator[Candidate]:
    """float32 in the place of other reals, and bytes in the place of other outputs."""
    network = case.network
    for value, tensor in zip(network.inputs, case.inputs, strict=True):
        if value.type.element in REALS[1:]:
            yield partial(_as_float32, case, value, tensor)
    for node in network.nodes:
        if node.element in REALS[1:]:
            yield partial(with_elements, case, partial(_named, node.name, "float32"))
        elif isinstance(node.element, QType) and node.element.dtype not in BYTES and node.element.is_per_tensor:
            for dtype in BYTES:
                simpler = QType.per_tensor(dtype, node.element.scale[0], 0)
                yield partial(with_elements, case, partial(_named, node.name, simpler))


def _as_float32(case: Case, value: Input, tensor: Tensor) -> Case:
    network = case.network
    plain = Input(value.name, TensorType(value.type.shape, "float32"))
    inputs = tuple(plain if i.name == value.name else i for i in network.inputs)
    tensors = (Tensor(t.array.astype(np.float32)) if t is tensor else t for t in case.inputs)
    return Case(replace(network, inputs=inputs), tuple(tensors))


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


def simpler_types(case: Case) -> Iterator[Candidate]:
    """Scales to 1 or powers of two or fewer bits, zero points to 0: equal types together first, then one by one."""
    network = case.network
    elements = {v.name: v.type.element for v in network.leaves}
    elements |= {n.name: n.element for n in network.nodes}
    quantized = {name: e for name, e in elements.items() if isinstance(e, QType)}
    for e in dict.fromkeys(quantized.values()):
        for simpler in _simpler_qtypes(e):
            yield partial(with_elements, case, partial(_equal, e, simpler))
    for name, e in quantized.items():
        if sum(other == e for other in quantized.values()) > 1:
            for simpler in _simpler_qtypes(e):
                yield partial(with_elements, case, partial(_named, name, simpler))


def scale_together(case: Case) -> Iterator[Candidate]:
    """All scales times one power of two, so that one of them becomes 1."""
    elements = [v.type.element for v in case.network.leaves]
    elements += [n.element for n in case.network.nodes]
    scales = dict.fromkeys(s for e in elements if isinstance(e, QType) for s in e.scale)
    for s in scales:
        if s == 1.0:
            continue

        def divided(name: str, e: Element, s: float = s) -> Element:
            if not isinstance(e, QType):
                return e
            return replace(e, scale=tuple(float32(v / s) for v in e.scale))

        yield partial(with_elements, case, divided)


def _named(name: str, simpler: Element, each: str, old: Element) -> Element:
    """`simpler` for the value `name`."""
    return simpler if each == name else old


def _equal(replaced: Element, simpler: Element, each: str, old: Element) -> Element:
    """`simpler` for every value of the element type `replaced`."""
    return simpler if old == replaced else old


def _simpler_qtypes(q: QType) -> Iterator[QType]:
    if q.axis is not None:
        n = len(q.scale)
        if any(q.zero_point):
            yield replace(q, zero_point=(0,) * n)
        for scales in ((1.0,) * n, tuple(2.0 ** round(np.log2(s)) for s in q.scale)):
            if scales != q.scale:
                yield replace(q, scale=scales)
        return
    (scale,), (zero_point,) = q.scale, q.zero_point
    for s in _simpler_floats(scale):
        if s > 0:
            yield replace(q, scale=(s,))
    for z in _simpler_integers(zero_point):
        if q.qmin <= z <= q.qmax:
            yield replace(q, zero_point=(z,))


def _simpler_floats(x: float) -> Iterator[float]:
    """1, the powers of two around, then mantissas of few bits; all float32."""
    if x == 0:
        return
    yield 1.0
    mantissa, exponent = np.frexp(x)
    for e in (exponent - 1, exponent):
        yield float(np.copysign(np.ldexp(1.0, int(e)), x))
    for bits in (2, 3, 4, 6, 8, 12, 16, 20, 22):
        yield float(np.ldexp(np.rint(mantissa * 2**bits), int(exponent) - bits))


def _simpler_integers(v: int) -> Iterator[int]:
    for candidate in dict.fromkeys((0, 1, -1, v // 2 if v >= 0 else -(-v // 2), v - 1 if v > 0 else v + 1)):
        if abs(candidate) < abs(v):
            yield candidate


def simpler_data(case: Case) -> Iterator[Candidate]:
    """Runs of elements to 0 or the zero point, then single elements to 0, 1, or smaller."""
    network = case.network
    tensors = [(i.name, i.type, t) for i, t in zip(network.inputs, case.inputs, strict=True)]
    tensors += [(c.name, c.type, c.data) for c in network.constants]
    for name, type_, tensor in tensors:
        flat = tensor.array.ravel()
        fills = dict.fromkeys([0, *(type_.element.zero_point[:1] if isinstance(type_.element, QType) else ())])
        run = flat.size
        while run >= 1:
            for start in range(0, flat.size, run):
                for fill in fills:
                    if (flat[start : start + run] != fill).any():
                        yield partial(_with_filled, case, name, tensor, slice(start, start + run), fill)
            run //= 2
        for i in range(min(flat.size, 256)):
            for value in _simpler_elements(flat[i].item(), tensor.dtype):
                yield partial(_with_filled, case, name, tensor, slice(i, i + 1), value)


def _simpler_elements(value: float, dtype: str) -> Iterator[float]:
    if dtype not in INTEGER_RANGE:
        yield from (v for v in (0.0, 1.0, float(np.rint(value)), *_simpler_floats(float(value))) if v != value)
        return
    lo, hi = INTEGER_RANGE[dtype]
    yield from (v for v in _simpler_integers(int(value)) if lo <= v <= hi)


def _with_filled(case: Case, name: str, tensor: Tensor, where: slice, value: float) -> Case:
    return with_arrays(case, {name: _filled(tensor, where, value)})


def _filled(tensor: Tensor, where: slice, value: float) -> Array:
    array = tensor.array.copy()
    array.reshape(-1)[where] = value
    return array


STRUCTURE: list[Pass] = [plain_forms, one_node_alone, cut_network, drop_concat_inputs, drop_bias]
SHAPES: list[Pass] = [drop_indices, drop_groups, merge_products, cut_kernels, fewer_dimensions]
SAYING_NOTHING: list[Pass] = [
    *(simpler_attributes, plain_reals, plain_biases, byte_weights, per_tensor_types, scale_together, simpler_types),
]
DATA: list[Pass] = [simpler_data]

TIERS: list[list[Pass]] = [STRUCTURE, SHAPES, SAYING_NOTHING, DATA]
"""Each tier is run to its fixpoint before the next; the whole list again until no single step is left."""
