"""Edits of cases that keep them whole: what belongs together changes together."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.ir.network import Case, Constant, Input, Network, Node, dead_values
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType, blocks_of

replace = msgspec.structs.replace

Array = npt.NDArray[Any]

Candidate = Callable[[], Case]
"""Makes a case, or raises `InvalidCase` where the edit leads to none."""
Pass = Callable[[Case], Iterator[Candidate]]
"""Smaller candidates, most promising first."""


def with_arrays(case: Case, arrays: Mapping[str, Array], ops: Mapping[str, Operator] | None = None) -> Case:
    """`case` with other data (and shapes) of some inputs and constants, and other operators of some nodes."""
    network = case.network
    inputs, tensors = [], []
    for value, tensor in zip(network.inputs, case.inputs, strict=True):
        array = arrays.get(value.name)
        inputs.append(value if array is None else replace(value, type=_reshaped(value.type, array.shape)))
        tensors.append(tensor if array is None else Tensor(array))
    constants = [
        c if c.name not in arrays else Constant(c.name, _reshaped(c.type, arrays[c.name].shape), Tensor(arrays[c.name]))
        for c in network.constants
    ]
    nodes = [n if not ops or n.name not in ops else replace(n, op=ops[n.name]) for n in network.nodes]
    changed = replace(network, inputs=tuple(inputs), constants=tuple(constants), nodes=tuple(nodes))
    return Case(changed, tuple(tensors))


def _reshaped(type_: TensorType, shape: tuple[int, ...]) -> TensorType:
    return TensorType(tuple(shape), type_.element)


def take(case: Case, cuts: Mapping[tuple[str, int], Array], ops: Mapping[str, Operator] | None = None) -> Case:
    """Only some indices of some dimensions, given as (input or constant, dimension) -> the indices kept.

    Scales and zero points of a per-axis type go with their axis.
    """
    network = case.network

    def cut(name: str, array: Array) -> Array:
        for (owner, dimension), kept in cuts.items():
            if owner == name:
                array = np.take(array, kept, axis=dimension)
        return array

    def cut_type(name: str, type_: TensorType, shape: tuple[int, ...]) -> TensorType:
        q = type_.element
        if isinstance(q, QType) and q.block:
            return TensorType(
                shape, _cut_blocks(q, type_.shape, {d: k for (owner, d), k in cuts.items() if owner == name})
            )
        kept = cuts.get((name, q.axis)) if isinstance(q, QType) and q.axis is not None else None
        if isinstance(q, QType) and kept is not None:
            q = replace(q, scale=tuple(q.scale[i] for i in kept), zero_point=tuple(q.zero_point[i] for i in kept))
        return TensorType(shape, q)

    inputs, tensors = [], []
    for value, tensor in zip(network.inputs, case.inputs, strict=True):
        array = cut(value.name, tensor.array)
        inputs.append(Input(value.name, cut_type(value.name, value.type, array.shape)))
        tensors.append(Tensor(array))
    constants = []
    for c in network.constants:
        array = cut(c.name, c.data.array)
        constants.append(Constant(c.name, cut_type(c.name, c.type, array.shape), Tensor(array)))
    nodes = [n if not ops or n.name not in ops else replace(n, op=ops[n.name]) for n in network.nodes]
    changed = replace(network, inputs=tuple(inputs), constants=tuple(constants), nodes=tuple(nodes))
    return Case(changed, tuple(tensors))


def _cut_blocks(q: QType, shape: tuple[int, ...], cuts: Mapping[int, Array]) -> QType:
    """A blocked type with the indices that are kept; a block made of several has the parameters of the first."""
    places = np.arange(len(q.scale)).reshape(blocks_of(q, shape))
    for dimension, kept in cuts.items():
        kept_places = kept[:: q.block] // q.block if dimension == q.axis else kept
        places = np.take(places, kept_places, axis=dimension)
    chosen = places.ravel().tolist()
    return replace(q, scale=tuple(q.scale[i] for i in chosen), zero_point=tuple(q.zero_point[i] for i in chosen))


def with_elements(case: Case, change: Callable[[str, Element], Element]) -> Case:
    """Every value's element type passed through `change(name, element)`; the data stays as it is."""
    network = case.network
    changed = replace(
        network,
        inputs=tuple(Input(i.name, TensorType(i.type.shape, change(i.name, i.type.element))) for i in network.inputs),
        constants=tuple(
            Constant(c.name, TensorType(c.type.shape, change(c.name, c.type.element)), c.data)
            for c in network.constants
        ),
        nodes=tuple(replace(n, element=change(n.name, n.element)) for n in network.nodes),
    )
    return Case(changed, case.inputs)


def with_node(case: Case, node: Node, constants: tuple[Constant, ...] | None = None) -> Case:
    """`case` with `node` in place of the one of its name."""
    network = case.network
    nodes = tuple(node if n.name == node.name else n for n in network.nodes)
    return pruned(network, case.feeds, nodes=nodes, constants=network.constants if constants is None else constants)


def pruned(network: Network, feeds: Mapping[str, Tensor], **changes: Any) -> Case:
    """A case of `network` with other parts, without what no output depends on then."""
    whole = replace(network, **changes)
    dead = set(dead_values(whole))
    live = replace(
        whole,
        inputs=tuple(i for i in whole.inputs if i.name not in dead),
        constants=tuple(c for c in whole.constants if c.name not in dead),
        nodes=tuple(n for n in whole.nodes if n.name not in dead),
    )
    return Case(live, tuple(feeds[i.name] for i in live.inputs))


def data_of(case: Case, name: str) -> Array:
    """What an input or a constant holds."""
    constants = case.network.constant_data
    return (constants[name] if name in constants else case.feeds[name]).array
