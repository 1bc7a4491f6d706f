"""Networks and cases: a DAG of operators over typed values, and concrete inputs for it. Frozen, validated, hashable."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.forms import DEFAULTS, check_forms, form_of
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import INTEGER_RANGE, Element
from qfuzz.ir.tensor import Tensor, TensorType

T = TypeVar("T")


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that the case feeds."""

    name: str
    type: TensorType


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that belongs to the network: a weight, or a bias."""

    name: str
    type: TensorType
    data: Tensor


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operator applied to named values. Its single output carries the node's name.

    Attributes
    ----------
    name
        Name of the node and of the value that it computes.
    op
        The operator with its attributes.
    inputs
        Names of values; graph inputs, constants or earlier nodes.
    element
        What the output's elements are; a `QType` is what the real result is quantized to.
    """

    name: str
    op: Operator
    inputs: tuple[str, ...]
    element: Element


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True, omit_defaults=True):
    """A DAG of nodes in topological order. Every rule is checked when it is made.

    `forms` say how it is to be said where that is not the plain way (`qfuzz.ir.forms`).
    """

    inputs: tuple[Input, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    forms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _validate(self)

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """Type of every value, by name."""
        return MappingProxyType(_infer(self))

    @cached_property
    def constant_data(self) -> Mapping[str, Tensor]:
        """Data of every constant, by name."""
        return MappingProxyType({c.name: c.data for c in self.constants})

    @cached_property
    def _once(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, kept with the network: what follows from it alone is made once for all who ask.

        It must not lead back to the network, as an exception does through its traceback: that would be a cycle, and
        runners live without the collector that frees those.
        """
        kept = self._once
        if key not in kept:
            kept[key] = make()
        made: T = kept[key]
        return made

    def form(self, dimension: str) -> str:
        """The value of a dimension of form."""
        return form_of(self.forms, dimension) if self.forms else DEFAULTS[dimension]

    @property
    def is_invalid(self) -> bool:
        """Whether its form changes it to what should be refused."""
        return self.form("invalid") != DEFAULTS["invalid"]

    def said_of(self, node: Node) -> tuple[str, ...]:
        """What a contract may depend on: the network's forms, and the type of what `node` reads first."""
        return (*self.forms, f"x={self.types[node.inputs[0]].dtype}")

    @property
    def leaves(self) -> tuple[Input | Constant, ...]:
        """Everything that holds data: inputs, then constants."""
        return (*self.inputs, *self.constants)

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(n for n in self.nodes if n.name == name)

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Types of the values that `node` reads."""
        return tuple(self.types[name] for name in node.inputs)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read the value `name`."""
        return tuple(n for n in self.nodes if name in n.inputs)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A network and one concrete tensor for each of its inputs, in their order."""

    network: Network
    inputs: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        expected = self.network.inputs
        if len(self.inputs) != len(expected):
            raise InvalidCase(f"case: {len(self.inputs)} input tensors; the network has {len(expected)} inputs")
        for value, tensor in zip(expected, self.inputs, strict=True):
            _check_tensor(f"input {value.name!r}", value.type, tensor)
            if not _is_finite(tensor) and not all(n.op.takes_non_finite for n in self.network.consumers(value.name)):
                raise InvalidCase(f"input {value.name!r}: data holds NaN or infinity; what reads it takes finite data")

    @cached_property
    def feeds(self) -> Mapping[str, Tensor]:
        """Input tensors by name."""
        return MappingProxyType({v.name: t for v, t in zip(self.network.inputs, self.inputs, strict=True)})

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What inputs and constants hold, by name."""
        return {name: t.array for name, t in (*self.feeds.items(), *self.network.constant_data.items())}

    @property
    def n_elements(self) -> int:
        """All elements of its inputs and constants together."""
        return sum(t.array.size for t in self.inputs) + sum(c.data.array.size for c in self.network.constants)


def _check_tensor(where: str, type_: TensorType, tensor: Tensor) -> None:
    if tensor.dtype != type_.dtype:
        raise InvalidCase(f"{where}: data is {tensor.dtype}, its type says {type_.dtype}")
    if tensor.shape != type_.shape:
        raise InvalidCase(f"{where}: data has shape {tensor.shape}, its type says {type_.shape}")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.dtype in INTEGER_RANGE or bool(np.isfinite(tensor.array).all())


def _validate(network: Network) -> None:
    values: list[Input | Constant | Node] = [*network.inputs, *network.constants, *network.nodes]
    seen: set[str] = set()
    for v in values:
        if not v.name or not v.name.isidentifier() or not v.name.isascii():
            raise InvalidCase(f"network: value name {v.name!r}; a name is an ASCII identifier")
        if v.name in seen:
            raise InvalidCase(f"network: the name {v.name!r} is used twice; every value has its own")
        seen.add(v.name)
    if not network.nodes:
        raise InvalidCase("network: no nodes; there is nothing to compute")
    for c in network.constants:
        _check_tensor(f"constant {c.name!r}", c.type, c.data)
        if not _is_finite(c.data):
            raise InvalidCase(f"constant {c.name!r}: data holds NaN or infinity; constants are finite")
    if not network.outputs:
        raise InvalidCase("network: no outputs; there is nothing to compare")
    if len(set(network.outputs)) != len(network.outputs):
        raise InvalidCase(f"network: outputs {network.outputs}; each is named once")
    node_names = {n.name for n in network.nodes}
    for o in network.outputs:
        if o not in node_names:
            raise InvalidCase(f"network: output {o!r} is computed by no node")
    for i in network.inputs:
        q = i.type.element
        if q in INTEGER_RANGE and q != "bool":
            raise InvalidCase(f"input {i.name!r}: plain {q}; activations are quantized, or real, and conditions bool")
    if network.forms:
        check_forms(network.forms)
        if network.is_invalid and len(network.nodes) > 1:
            raise InvalidCase(f"forms: invalid, and {len(network.nodes)} nodes; it is said of one node alone")
    network.types  # noqa: B018  the shape and type rules of every node


def _infer(network: Network) -> dict[str, TensorType]:
    types: dict[str, TensorType] = {v.name: v.type for v in network.leaves}
    constants = {c.name for c in network.constants}
    for n in network.nodes:
        where = f"{n.op.name} {n.name!r}"
        for name in n.inputs:
            if name not in types:
                raise InvalidCase(f"{where}: input {name!r} is no input, constant or earlier node")
        try:
            n.op.check_arity(len(n.inputs))
            for position, name in enumerate(n.inputs):
                if position not in n.op.free_inputs and (name in constants) != (position in n.op.constant_inputs):
                    wanted = "a constant" if position in n.op.constant_inputs else "an input or a node, not a constant"
                    raise InvalidCase(f"input {position} ({name!r}) must be {wanted}")
            operands = [types[i] for i in n.inputs]
            if n.element in INTEGER_RANGE and n.element not in n.op.plain_outputs:
                raise InvalidCase(f"output: plain {n.element}; {n.op.name} gives quantized or real elements")
            shape = n.op.infer(operands, n.element)
            n.op.check_constants(
                {i: network_constant(network, n.inputs[i]) for i in n.op.constant_inputs if i < len(n.inputs)}, operands
            )
            types[n.name] = TensorType(tuple(shape), n.element)
        except InvalidCase as e:
            raise InvalidCase(f"{where}: {e}") from None
    return types


def network_constant(network: Network, name: str) -> Tensor:
    """Data of the constant `name`."""
    return next(c.data for c in network.constants if c.name == name)


def dead_values(network: Network) -> tuple[str, ...]:
    """Names of inputs, constants and nodes that no output depends on."""
    needed: set[str] = set(network.outputs)
    for n in reversed(network.nodes):
        if n.name in needed:
            needed.update(n.inputs)
    everything: Sequence[Input | Constant | Node] = (*network.inputs, *network.constants, *network.nodes)
    return tuple(v.name for v in everything if v.name not in needed)
