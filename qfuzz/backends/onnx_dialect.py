"""Networks as ONNX models, in the formats QOperator and QDQ. Pure: nothing is run, onnxruntime is not imported."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy.typing as npt
from onnx import GraphProto, ModelProto, OperatorSetIdProto, numpy_helper

from qfuzz.backends import onnx_qdq, onnx_qoperator
from qfuzz.backends.onnx_builder import MICROSOFT, Lowering, lower_graph, value_info
from qfuzz.backends.onnx_forms import Said, say
from qfuzz.backends.onnx_opsets import OPSET
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support, Supported

IR_VERSION = 10
"""Version of the model format that belongs to `OPSET`."""

FORMATS: Mapping[str, Mapping[str, Lowering]] = MappingProxyType(
    {"qoperator": onnx_qoperator.LOWERINGS, "qdq": onnx_qdq.LOWERINGS}
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
    graph = lower_graph(network, FORMATS[format])
    if not network.forms:
        return Lowered(graph.SerializeToString(deterministic=True))
    said = Said(graph, network, OPSET, IR_VERSION)
    say(said)
    data = graph.SerializeToString(deterministic=True)
    return Lowered(data, said.opset, said.ir, MappingProxyType(said.feeds), tuple(said.session))


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
    graph = GraphProto(output=[value_info(name, network.types[name])])
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
