"""Reduction passes towards what says nothing: attributes and types."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Node
from qfuzz.ir.qtype import BYTES, INTEGER_RANGE, REALS, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType, laid_out
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.reduce.data import simpler_floats, simpler_integers
from qfuzz.reduce.edit import Array, Candidate, Pass, data_of, replace, with_elements, with_node
from qfuzz.reduce.order import plain_value


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
            yield from simpler_floats(value)


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
        real = (data_of(case, node.inputs[2]).astype(np.float64) - laid_out(q, q.zero_point, bias.shape)) * laid_out(
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
        if not isinstance(node.op, Conv | ConvTranspose | Linear):
            continue
        for position in node.op.constant_inputs[:1]:
            name = node.inputs[position]
            q = network.types[name].element
            if not isinstance(q, QType) or q.dtype in BYTES:
                continue
            data, shape = data_of(case, name).astype(np.int64), network.types[name].shape
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


def per_tensor_types(case: Case) -> Iterator[Candidate]:
    """One scale and zero point for all channels or blocks: each one's in turn."""
    for name, type_ in case.network.types.items():
        q = type_.element
        if isinstance(q, QType) and q.axis is not None:
            for s, z in list(dict.fromkeys(zip(q.scale, q.zero_point, strict=True)))[:16]:
                plain = QType(q.dtype, (s,), (z,))
                yield partial(with_elements, case, partial(_named, name, plain))


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
    for s in simpler_floats(scale):
        if s > 0:
            yield replace(q, scale=(s,))
    for z in simpler_integers(zero_point):
        if q.qmin <= z <= q.qmax:
            yield replace(q, zero_point=(z,))


SAYING_NOTHING: list[Pass] = [
    *(simpler_attributes, plain_reals, plain_biases, byte_weights, per_tensor_types, scale_together, simpler_types),
]
