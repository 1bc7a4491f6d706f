"""What the ONNX dialects share: writing a graph for a network, node by node.

Values of the network keep their names; all that a dialect adds has a slash in its name, which no value has.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from qfuzz.backends.onnx_source import TOLD
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import BYTES, FLOAT8, INTEGER_RANGE, Element, QType, Real
from qfuzz.ir.tensor import DTYPES, TensorType, blocks_of

Attribute: TypeAlias = int | float | str | tuple[int, ...]
Attributes: TypeAlias = Mapping[str, Attribute]
Lowering: TypeAlias = Callable[["Builder", Node], None]
"""Writes the ONNX nodes of one node, or raises `Unsupported` with the reason why there is no kernel for it."""

NONE: Attributes = MappingProxyType({})
MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

ONNX_DTYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    **{name: getattr(TensorProto, name.upper()) for name in INTEGER_RANGE},
    **{name: getattr(TensorProto, name.replace("_", "").upper()) for name in FLOAT8},
}

_DATA_TYPES = {DTYPES[name]: number for name, number in ONNX_DTYPES.items()}
"""The same by NumPy's dtype objects, whose names are slow to ask for."""

WIDE: Mapping[str, str] = MappingProxyType(
    {
        "int4": "int8",
        "uint4": "uint8",
        "int2": "int8",
        "uint2": "uint8",
        "bfloat16": "float32",
        **dict.fromkeys(FLOAT8, "float32"),
    }
)
"""Types that the runtime's Python interface neither takes nor gives, to those that it is told instead: a Cast holds
every value."""


class Builder:
    """Collects the graph of one network. Equal constants are stored once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.graph = GraphProto(name="qfuzz")
        self._shared: dict[tuple[np.dtype[Any], tuple[int, ...], bytes], str] = {}
        self._qparams: dict[tuple[QType, Real], tuple[str, str]] = {}
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
        self.emit_all(op_type, inputs, [output], attributes, domain)
        return output

    def emit_all(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Attributes = NONE,
        domain: str = "",
    ) -> None:
        """One ONNX node with all its outputs."""
        proto = self.graph.node.add(op_type=op_type, input=inputs, output=outputs, domain=domain)
        for name, value in attributes.items():
            _add_attribute(proto, name, value)

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
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = f"constant/{len(self._shared)}"
            self._add_tensor(self._shared[key], array)
        return self._shared[key]

    def qparams(self, q: QType, real: Real = "float32") -> tuple[str, str]:
        """Scale (as a number of type `real`) and zero point of a type: scalars, or vectors along its axis."""
        if (q, real) not in self._qparams:
            shape = () if q.axis is None else (len(q.scale),)
            self._qparams[q, real] = self._laid_out(q, real, shape)
        return self._qparams[q, real]

    def blocked_qparams(self, q: QType, shape: tuple[int, ...], real: Real = "float32") -> tuple[str, str]:
        """Scales and zero points of a tensor of `shape` that has one for each block."""
        return self._laid_out(q, real, blocks_of(q, shape))

    def _laid_out(self, q: QType, real: Real, shape: tuple[int, ...]) -> tuple[str, str]:
        scale = np.array(q.scale, dtype=DTYPES[real]).reshape(shape)
        zero_point = np.array(q.zero_point, dtype=DTYPES[q.dtype]).reshape(shape)
        return self.shared(scale), self.shared(zero_point)

    def integers(self, *values: int) -> str:
        """A vector of int64."""
        return self.shared(np.array(values, dtype=np.int64))

    def _add_tensor(self, name: str, array: npt.NDArray[Any]) -> None:
        if array.dtype.kind == "V":  # packed, or told as bits
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            return
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self.graph.initializer.add(
            name=name, dims=array.shape, data_type=_DATA_TYPES[array.dtype], raw_data=little.tobytes()
        )


def lower_graph(network: Network, lowerings: Mapping[str, Lowering], *, integers_only: bool = False) -> GraphProto:
    """The network's graph, with its inputs and without outputs.

    `integers_only`: the kernels compute on stored integers, which are bytes.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    b = Builder(network)
    for value in network.inputs:
        if value.type.dtype in WIDE:
            b.graph.input.append(told(value.name, value.type))
            keeps = {"saturate": 0} if value.type.dtype in FLOAT8 else {}  # infinities
            b.emit("Cast", [told_name(value.name)], value.name, {"to": ONNX_DTYPES[value.type.dtype], **keeps})
        else:
            b.graph.input.append(value_info(value.name, value.type.dtype, value.type.shape))
    for node in network.nodes:
        try:
            lowering = lowerings[node.op.name]
            if node.op.name not in OF_ALL_TYPES:
                _refuse_int32(network, node)
            if node.op.name in OF_BYTES or (integers_only and node.op.name not in OF_ALL_TYPES):
                _check_bytes(b, node)
            lowering(b, node)
        except KeyError:
            raise Unsupported(f"{node.op.name} {node.name!r}: this dialect has no kernel for it") from None
        except Unsupported as e:
            raise Unsupported(f"{node.op.name} {node.name!r}: {e}") from None
    return b.graph


OF_BYTES = ("conv_integer", "linear_integer", "matmul_integer")
"""Operators whose kernels are the same in both formats, on bytes."""

OF_ALL_TYPES = ("quantize", "dequantize", "weight_only_linear", "embedding")
"""Operators whose kernels take other storage types than bytes in both formats."""


WITH_BIAS = ("conv", "linear", "conv_transpose")
"""Operators whose third input is a bias."""


def _refuse_int32(network: Network, node: Node) -> None:
    """Raise `Unsupported` where an activation is quantized int32; biases may be."""
    for name in (*(i for i in node.inputs if i not in network.constant_data), node.name):
        q = network.types[name].element
        if isinstance(q, QType) and q.dtype == "int32":
            raise Unsupported(f"{name}: int32; activations are what QuantizeLinear gives, which has 2 to 16 bits")


def _check_bytes(b: Builder, node: Node) -> None:
    biases = node.inputs[2:] if node.op.name in WITH_BIAS else ()  # the lowering says which ones there are
    for name in (*node.inputs, node.name):
        if name in biases:
            continue
        q = b.network.types[name].element
        if isinstance(q, QType) and (q.dtype not in BYTES or q.block):
            raise Unsupported(f"{name}: {q.dtype}{' in blocks' * bool(q.block)}; kernels on stored integers take bytes")


def told_name(name: str) -> str:
    """What an input or output of a type in `WIDE` is called where it is told in another."""
    return f"{name}{TOLD}"


def told(name: str, type_: TensorType) -> ValueInfoProto:
    """Such an input or output."""
    return value_info(told_name(name), WIDE[type_.dtype], type_.shape)


def value_info(name: str, dtype: str, shape: tuple[int, ...]) -> ValueInfoProto:
    """Name, dtype and shape of a graph's input or output."""
    info = ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = ONNX_DTYPES[dtype]
    dimensions = info.type.tensor_type.shape
    dimensions.SetInParent()  # also where it has no dimension
    for size in shape:
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
