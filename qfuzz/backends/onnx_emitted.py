"""What operators a model has, and in which types each of them reads and writes quantized values. Pure."""

from collections.abc import Mapping

from onnx import ModelProto, TensorProto, shape_inference

from qfuzz.backends.onnx_kernels import NARROW, Key

_QUANTIZED = {TensorProto.DataType.Value(n.upper()): n for n in NARROW if n.upper() in TensorProto.DataType.keys()}  # noqa: SIM118
"""Number of an element type to its name, where quantized values are stored in it."""


def emitted(model: bytes) -> Mapping[Key, frozenset[str]]:
    """Operators of the model's nodes, each with the types of `NARROW` that reach it.

    These are the types of its own inputs and outputs, and, where those are real numbers, of what DequantizeLinear made
    them from and of what QuantizeLinear makes of them.
    """
    read = shape_inference.infer_shapes(ModelProto.FromString(model))
    graph = read.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    dequantized = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    quantized = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    found: dict[Key, set[str]] = {}
    for node in graph.node:
        around = [*node.input, *node.output]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            around += [dequantized.get(name, "") for name in node.input]
            around += [quantized.get(name, "") for name in node.output]
        reached = {_QUANTIZED[t] for t in (types.get(name, 0) for name in around) if t in _QUANTIZED}
        found.setdefault((node.domain, node.op_type), set()).update(reached)
    return {key: frozenset(reached) for key, reached in found.items()}
