"""Networks as ONNX models, in the forms QOperator and QDQ. Pure: nothing is run, onnxruntime is not imported."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy.typing as npt
from onnx import GraphProto, ModelProto, OperatorSetIdProto, numpy_helper

from qfuzz.backends import onnx_qdq, onnx_qoperator
from qfuzz.backends.onnx_builder import MICROSOFT, Lowering, lower_graph, value_info
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support, Supported

OPSET = 22
"""ONNX opset of every model: its text is the first to say where the last window of ceil_mode ends."""
IR_VERSION = 10
"""Version of the model format that belongs to `OPSET`."""

FORMATS: Mapping[str, Mapping[str, Lowering]] = MappingProxyType(
    {"qoperator": onnx_qoperator.LOWERINGS, "qdq": onnx_qdq.LOWERINGS}
)
"""Form to its table of lowerings."""


def lower(network: Network, form: str, taps: Sequence[str] = ()) -> bytes:
    """The network as a serialized ONNX model whose outputs are the network's, then `taps`.

    Parameters
    ----------
    form
        ``qoperator`` or ``qdq``.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it in this form.
    """
    return serialize(network, lower_graph(network, FORMATS[form]).SerializeToString(deterministic=True), taps)


def tensor_file(name: str, array: npt.NDArray[Any]) -> bytes:
    """An array as the file of one ONNX tensor, as the ONNX backend tests keep inputs and outputs."""
    return bytes(numpy_helper.from_array(array, name).SerializeToString())


def serialize(network: Network, graph: bytes, taps: Sequence[str] = ()) -> bytes:
    """`graph`, a serialized graph without outputs, as a model whose outputs are the network's, then `taps`.

    The bytes of a message are those of its fields, one after another, in the order of their numbers (protobuf.dev,
    "Encoding"): outputs are a graph's last field, and what comes before them is serialized once for all models.
    """
    outputs = [
        network.once(("onnx output", name), lambda name=name: _output(network, name))  # type: ignore[misc]
        for name in (*network.outputs, *taps)
    ]
    return b"".join((_HEAD, _delimited(_GRAPH, b"".join((graph, *outputs))), _TAIL))


def _output(network: Network, name: str) -> bytes:
    graph = GraphProto(output=[value_info(name, network.types[name])])
    return bytes(graph.SerializeToString(deterministic=True))


_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_HEAD = ModelProto(ir_version=IR_VERSION, producer_name="qfuzz").SerializeToString(deterministic=True)
_TAIL = ModelProto(
    opset_import=[OperatorSetIdProto(domain="", version=OPSET), OperatorSetIdProto(domain=MICROSOFT, version=1)]
).SerializeToString(deterministic=True)


def _delimited(field: int, data: bytes) -> bytes:
    """A field that holds `data`: its number and wire type 2, the length as a varint, the bytes."""
    length, size = bytearray(), len(data)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([field << 3 | 2]) + length + data


class Lowerer:
    """Lowers to one form: what is supported is what lowers. All lowerers of a form share a network's graph.

    Parameters
    ----------
    form
        ``qoperator`` or ``qdq``.
    refuse
        Raises `Unsupported` for a network that lowers to this graph, but that the runtime does not take.
    """

    def __init__(self, form: str, refuse: Callable[[Network, GraphProto], None] | None = None) -> None:
        self._form = form
        self._refuse = refuse

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel that takes it."""
        lowered = self._lowered(network)
        return lowered if isinstance(lowered, NotSupported) else Supported()

    def model(self, network: Network, taps: Sequence[str] = ()) -> bytes:
        """The serialized model, with `taps` as further outputs; raises `Unsupported`."""
        lowered = self._lowered(network)
        if isinstance(lowered, NotSupported):
            raise Unsupported(lowered.reason)
        return serialize(network, lowered, taps)

    def _lowered(self, network: Network) -> bytes | NotSupported:
        return network.once(("onnx", self._form, self._refuse), lambda: self._lower(network))

    def _lower(self, network: Network) -> bytes | NotSupported:
        try:
            graph = lower_graph(network, FORMATS[self._form])
            if self._refuse is not None:
                self._refuse(network, graph)
        except Unsupported as e:
            return NotSupported(str(e))
        return bytes(graph.SerializeToString(deterministic=True))
