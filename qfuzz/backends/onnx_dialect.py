"""Networks as ONNX models, in the forms QOperator and QDQ. Pure: model bytes, nothing is run, onnxruntime is not imported."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from onnx import GraphProto, ModelProto, OperatorSetIdProto

from qfuzz.backends import onnx_qdq, onnx_qoperator
from qfuzz.backends.onnx_builder import MICROSOFT, Lowering, lower_graph, value_info
from qfuzz.ir.network import Network

OPSET = 21
"""ONNX opset of every model: all of onnxruntime 1.20 and later have it."""
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


def serialize(network: Network, graph: GraphProto, taps: Sequence[str] = ()) -> bytes:
    """`graph` as a model whose outputs are the network's, then `taps`."""
    del graph.output[:]
    graph.output.extend(value_info(name, network.types[name]) for name in (*network.outputs, *taps))
    opsets = [OperatorSetIdProto(domain="", version=OPSET), OperatorSetIdProto(domain=MICROSOFT, version=1)]
    model = ModelProto(ir_version=IR_VERSION, producer_name="qfuzz", opset_import=opsets, graph=graph)
    return model.SerializeToString(deterministic=True)
