"""Networks as ONNX models, in the formats QOperator and QDQ. Pure: nothing is run, onnxruntime is not imported."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy.typing as npt
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, numpy_helper

from qfuzz.backends import onnx_absent, onnx_qdq, onnx_qoperator
from qfuzz.backends.onnx_builder import MICROSOFT, ONNX_DTYPES, WIDE, Lowering, lower_graph, told, told_name, value_info
from qfuzz.backends.onnx_forms import Said, say
from qfuzz.backends.onnx_opsets import OPSET
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, NotSupported, Support, Supported
from qfuzz.ir.tensor import DTYPES

IR_VERSION = 10
"""Version of the model format that belongs to `OPSET`."""

FORMATS: Mapping[str, Mapping[str, Lowering]] = MappingProxyType(
    {
        "qoperator": {**onnx_qoperator.LOWERINGS, **onnx_absent.LOWERINGS},
        "qdq": {**onnx_qdq.LOWERINGS, **onnx_absent.LOWERINGS},
    }
)
"""Format to its table of lowerings."""


class Lowered(NamedTuple):
    """A network as a model, in the forms that it asks for.

    Attributes
    ----------
    graph
        Serialized, without outputs.
    opset, ir
        Versions of the model.
    feeds
        What the model's further inputs are fed: constants of the network, scales, zero points.
    session
        What the session is told, as `onnx_executor.Session` reads it.
    """

    graph: bytes
    opset: int = OPSET
    ir: int = IR_VERSION
    feeds: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})
    session: tuple[str, ...] = ()


def lower(network: Network, format: str) -> Lowered:
    """The network in ``qoperator`` or ``qdq`` format.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it in this format.
    """
    graph = lower_graph(network, FORMATS[format], integers_only=format == "qoperator")
    if not network.forms and not _needs_younger_opset(network):
        return Lowered(graph.SerializeToString(deterministic=True))
    said = Said(graph, network, OPSET, IR_VERSION)
    say(said)
    data = graph.SerializeToString(deterministic=True)
    return Lowered(data, said.opset, said.ir, MappingProxyType(said.feeds), tuple(said.session))


def _needs_younger_opset(network: Network) -> bool:
    return any(t.dtype not in _OF_OPSET_22 for t in network.types.values())


_OF_OPSET_22 = ("uint8", "int8", "float32", "int32", "int64", "uint16", "int16", "uint4", "int4")


class Boundary:
    """The runtime's names and types of a network's inputs and outputs, where they are not the network's own.

    Parameters
    ----------
    feeds
        What further inputs are fed (`Lowered.feeds`).
    """

    def __init__(self, network: Network, feeds: Mapping[str, Array]) -> None:
        self._feeds = feeds
        self._told = {n: (WIDE[t.dtype], DTYPES[t.dtype]) for n, t in network.types.items() if t.dtype in WIDE}

    def fed(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Inputs as the runtime takes them."""
        if not self._told and not self._feeds:
            return inputs
        told = {
            (told_name(n) if n in self._told else n): (a.astype(self._told[n][0]) if n in self._told else a)
            for n, a in inputs.items()
        }
        return {**told, **self._feeds}

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of outputs as the runtime knows them."""
        return tuple(told_name(n) if n in self._told else n for n in names)

    def returned(self, names: Sequence[str], values: Mapping[str, Array]) -> dict[str, Array]:
        """What the runtime returned, by the network's names and in its types."""
        if not self._told:
            return dict(values)
        own = {n: values[r] for n, r in zip(names, self.names(names), strict=True) if r in values}
        return {n: (a.astype(self._told[n][1]) if n in self._told else a) for n, a in own.items()}


def tensor_file(name: str, array: npt.NDArray[Any]) -> bytes:
    """An array as the file of one ONNX tensor, as the ONNX backend tests keep inputs and outputs."""
    return bytes(numpy_helper.from_array(array, name).SerializeToString())


def serialize(network: Network, lowered: Lowered, taps: Sequence[str] = ()) -> bytes:
    """`lowered` as a model whose outputs are the network's, then `taps`.

    The bytes of a message are those of its fields, one after another, in the order of their numbers (protobuf.dev,
    "Encoding"): outputs are a graph's last field, and what comes before them is serialized once for all models.
    """
    outputs = [
        network.once(("onnx output", name), lambda name=name: _output(network, name))  # type: ignore[misc]
        for name in (*network.outputs, *taps)
    ]
    head, tail = _around(lowered.opset, lowered.ir)
    return b"".join((head, _delimited(_GRAPH, b"".join((lowered.graph, *outputs))), tail))


@cache
def _around(opset: int, ir: int) -> tuple[bytes, bytes]:
    """What comes before the graph of a model, and after it."""
    head = ModelProto(ir_version=ir, producer_name="qfuzz")
    tail = ModelProto(
        opset_import=[OperatorSetIdProto(domain="", version=opset), OperatorSetIdProto(domain=MICROSOFT, version=1)]
    )
    return head.SerializeToString(deterministic=True), tail.SerializeToString(deterministic=True)


def _output(network: Network, name: str) -> bytes:
    type_ = network.types[name]
    if type_.dtype in WIDE:
        cast = NodeProto(op_type="Cast", input=[name], output=[told_name(name)])
        cast.attribute.add(name="to", type=AttributeProto.INT, i=ONNX_DTYPES[WIDE[type_.dtype]])
        graph = GraphProto(node=[cast], output=[told(name, type_)])
    else:
        graph = GraphProto(output=[value_info(name, type_.dtype, type_.shape)])
    return bytes(graph.SerializeToString(deterministic=True))


_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number


def _delimited(field: int, data: bytes) -> bytes:
    """A field that holds `data`: its number and wire type 2, the length as a varint, the bytes."""
    length, size = bytearray(), len(data)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([field << 3 | 2]) + length + data


class Lowerer:
    """Lowers to one format: what is supported is what lowers. All lowerers of a format share a network's graph.

    Parameters
    ----------
    format
        ``qoperator`` or ``qdq``.
    refuse
        Raises `Unsupported` for a network that lowers to this graph, but that the runtime does not take.
    """

    def __init__(self, format: str, refuse: Callable[[Network, GraphProto], None] | None = None) -> None:
        self._format = format
        self._refuse = refuse

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel that takes it."""
        lowered = self._lowered(network)
        return lowered if isinstance(lowered, NotSupported) else Supported()

    def lowered(self, network: Network) -> Lowered:
        """The network's graph and what belongs to it; raises `Unsupported`."""
        lowered = self._lowered(network)
        if isinstance(lowered, NotSupported):
            raise Unsupported(lowered.reason)
        return lowered

    def model(self, network: Network, taps: Sequence[str] = ()) -> bytes:
        """The serialized model, with `taps` as further outputs; raises `Unsupported`."""
        return serialize(network, self.lowered(network), taps)

    def _lowered(self, network: Network) -> Lowered | NotSupported:
        return network.once(("onnx", self._format, self._refuse), lambda: self._lower(network))

    def _lower(self, network: Network) -> Lowered | NotSupported:
        try:
            lowered = lower(network, self._format)
            if self._refuse is not None:
                self._refuse(network, GraphProto.FromString(lowered.graph))
        except Unsupported as e:
            return NotSupported(str(e))
        return lowered
