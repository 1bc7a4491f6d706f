"""Networks as ONNX models, in the forms QOperator and QDQ. Pure: nothing is run, onnxruntime is not imported."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
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
    return serialize(network, lower_graph(network, FORMATS[form]), taps)


def tensor_file(name: str, array: npt.NDArray[Any]) -> bytes:
    """An array as the file of one ONNX tensor, as the ONNX backend tests keep inputs and outputs."""
    return bytes(numpy_helper.from_array(array, name).SerializeToString())


def serialize(network: Network, graph: GraphProto, taps: Sequence[str] = ()) -> bytes:
    """`graph` as a model whose outputs are the network's, then `taps`."""
    del graph.output[:]
    graph.output.extend(value_info(name, network.types[name]) for name in (*network.outputs, *taps))
    opsets = [OperatorSetIdProto(domain="", version=OPSET), OperatorSetIdProto(domain=MICROSOFT, version=1)]
    model = ModelProto(ir_version=IR_VERSION, producer_name="qfuzz", opset_import=opsets, graph=graph)
    return bytes(model.SerializeToString(deterministic=True))


class Lowerer:
    """Lowers to one form, and keeps the last network's graph: what is supported is what lowers.

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
        self._last: tuple[Network, GraphProto | Unsupported] | None = None

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel that takes it."""
        lowered = self._lowered(network)
        return NotSupported(str(lowered)) if isinstance(lowered, Unsupported) else Supported()

    def model(self, network: Network, taps: Sequence[str] = ()) -> bytes:
        """The serialized model, with `taps` as further outputs; raises `Unsupported`."""
        lowered = self._lowered(network)
        if isinstance(lowered, Unsupported):
            raise lowered
        return serialize(network, lowered, taps)

    def _lowered(self, network: Network) -> GraphProto | Unsupported:
        if self._last is None or self._last[0] is not network:
            self._last = (network, self._lower(network))
        return self._last[1]

    def _lower(self, network: Network) -> GraphProto | Unsupported:
        try:
            graph = _graph(_Identity(network), self._form)
            if self._refuse is not None:
                self._refuse(network, graph)
        except Unsupported as e:
            return e
        return graph


class _Identity:
    """A network, compared by identity: hashing its constants would cost more than lowering it."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.network is other.network

    def __hash__(self) -> int:
        return id(self.network)


@lru_cache(maxsize=2)
def _graph(key: _Identity, form: str) -> GraphProto:
    """The last network's graph in each form: all levels of optimization share it."""
    return lower_graph(key.network, FORMATS[form])
