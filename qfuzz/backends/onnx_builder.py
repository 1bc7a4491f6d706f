"""What the ONNX dialects share: writing a graph for a network, node by node.

Values of the network keep their names; all that a dialect adds has a slash in its name, which no value has.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto

from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType

Attribute: TypeAlias = int | float | str | tuple[int, ...]
Attributes: TypeAlias = Mapping[str, Attribute]
Lowering: TypeAlias = Callable[["Builder", Node], None]
"""Writes the ONNX nodes of one node, or raises `Unsupported` with the reason why there is no kernel for it."""

NONE: Attributes = MappingProxyType({})
MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

ONNX_DTYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


_DATA_TYPES = {np.dtype(name): number for name, number in ONNX_DTYPES.items()}
"""The same by NumPy's dtype objects, whose names are slow to ask for."""


class Builder:
    """Collects the graph of one network. Equal constants are stored once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.graph = GraphProto(name="qfuzz")
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._qparams: dict[QType, tuple[str, str]] = {}
        self._made: set[str] = set()

    def type(self, node: Node, position: int = 0) -> TensorType:
        """Type of an input of `node`."""
        return self.network.types[node.inputs[position]]

    def qtype(self, node: Node, position: int = 0) -> QType:
        """Quantized type of an input of `node`."""
        return self.type(node, position).qtype

    def emit(
        self, op_type: str, inputs: Sequence[str], output: str, attributes: Attributes = NONE, domain: str = ""
    ) -> str:
        """One ONNX node; its output."""
        proto = self.graph.node.add(op_type=op_type, input=inputs, output=[output], domain=domain)
        for name, value in attributes.items():
            _add_attribute(proto, name, value)
        return output

    def is_new(self, name: str) -> bool:
        """Whether a derived value of that name is asked for the first time."""
        if name in self._made:
            return False
        self._made.add(name)
        return True

    def initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        """A constant of that name, stored once."""
        if self.is_new(name):
            self._add_tensor(name, array)
        return name

    def constant(self, name: str) -> str:
        """A constant of the network, as it is."""
        return self.initializer(name, self.network.constant_data[name].array)

    def shared(self, array: npt.NDArray[Any]) -> str:
        """A constant without a name of its own."""
        key = (array.dtype.char, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = f"constant/{len(self._shared)}"
            self._add_tensor(self._shared[key], array)
        return self._shared[key]

    def qparams(self, q: QType) -> tuple[str, str]:
        """Scale and zero point of a type: scalars, or vectors along its axis."""
        if q not in self._qparams:
            shape = () if q.axis is None else (len(q.scale),)
            scale = np.array(q.scale, dtype=np.float32).reshape(shape)
            zero_point = np.array(q.zero_point, dtype=q.dtype).reshape(shape)
            self._qparams[q] = self.shared(scale), self.shared(zero_point)
        return self._qparams[q]

    def integers(self, *values: int) -> str:
        """A vector of int64."""
        return self.shared(np.array(values, dtype=np.int64))

    def _add_tensor(self, name: str, array: npt.NDArray[Any]) -> None:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self.graph.initializer.add(
            name=name, dims=array.shape, data_type=_DATA_TYPES[array.dtype], raw_data=little.tobytes()
        )


def lower_graph(network: Network, lowerings: Mapping[str, Lowering]) -> GraphProto:
    """The network's graph, with its inputs and without outputs.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    b = Builder(network)
    for value in network.inputs:
        b.graph.input.append(value_info(value.name, value.type))
    for node in network.nodes:
        try:
            lowerings[node.op.name](b, node)
        except KeyError:
            raise Unsupported(f"{node.op.name} {node.name!r}: this dialect has no kernel for it") from None
        except Unsupported as e:
            raise Unsupported(f"{node.op.name} {node.name!r}: {e}") from None
    return b.graph


def value_info(name: str, type_: TensorType) -> ValueInfoProto:
    """Name, dtype and shape of a graph's input or output."""
    info = ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = ONNX_DTYPES[type_.dtype]
    dimensions = info.type.tensor_type.shape
    for size in type_.shape:
        dimensions.dim.add(dim_value=size)
    return info


def quantized(element: Element) -> QType:
    """The output's type, for a kernel that returns stored integers."""
    if not isinstance(element, QType):
        raise Unsupported(f"output: {element}; the kernel returns stored integers")
    return element


def _add_attribute(node: NodeProto, name: str, value: Attribute) -> None:
    if isinstance(value, tuple):
        node.attribute.add(name=name, type=AttributeProto.INTS, ints=value)
    elif isinstance(value, str):
        node.attribute.add(name=name, type=AttributeProto.STRING, s=value.encode())
    elif isinstance(value, float):
        node.attribute.add(name=name, type=AttributeProto.FLOAT, f=value)
    else:
        node.attribute.add(name=name, type=AttributeProto.INT, i=int(value))
