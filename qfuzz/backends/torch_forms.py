"""Which types the eager kernels of one engine take. The calls are the same for all engines, and lowered once."""

from typing import Any

from qfuzz.backends.torch_int8_weights import is_given_as_reals, weights_of
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType


def refused_form(engine: str, network: Network, node: Node) -> str:
    """Why `engine` has no kernel for the types of `node`; nothing where it has, or where no engine has."""
    op: Any = node.op
    match op.name:
        case "conv" | "conv_pointwise":
            kernel = f"conv{len(op.strides)}d"
            return _contraction(engine, network, node, kernel) or _unpacked(engine, network, node)
        case "conv_transpose":
            kernel = f"conv_transpose{len(op.strides)}d"
            return _contraction(engine, network, node, kernel) or _transposed(engine, network, node)
        case "linear":
            return _contraction(engine, network, node, "linear") or _to_reals(engine, network, node)
        case "linear_pointwise":
            fused = "" if op.activation in ("none", "relu") else f"quantized::linear_{op.activation}"
            return _contraction(engine, network, node, "linear") or _onednn_only(engine, fused)
        case "conv_add":
            kernel = f"conv{len(op.strides)}d"
            return _contraction(engine, network, node, kernel) or _added(engine, network, node)
        case "linear_fp16":
            return _float16(engine, network, node)
        case "dynamic_linear":
            return _dynamic(engine, network, node)
        case "dynamic_conv":
            return _dynamic(engine, network, node) or _unpacked(engine, network, node)
        case "dynamic_conv_transpose":
            return _dynamic(engine, network, node) or _transposed(engine, network, node)
        case "recurrent":
            return _recurrent(engine, network, node)
        case "dynamic_quantize" if engine == "qnnpack" and op.reduce_range:
            return "reduce_range: QTensor.cpp sets it to false for QNNPACK"
        case "sigmoid" if engine == "qnnpack":
            return _qnnpack_sigmoid(network, node)
        case _:
            return ""


def _contraction(engine: str, network: Network, node: Node, kernel: str) -> str:
    x = network.types[node.inputs[0]]
    signed_too = engine == "onednn" and kernel == "linear"
    q_y = node.element
    if not isinstance(q_y, QType) and node.op.name != "linear":
        return ""
    if x.dtype != "uint8" and not signed_too:
        return f"x: {x.dtype}; {kernel} of {engine} takes quint8 activations"
    if isinstance(q_y, QType) and q_y.dtype != x.dtype:
        return f"output: {q_y.dtype}; {kernel} returns the dtype of its input, {x.dtype}"
    return _weight(engine, network, node, kernel)


def _weight(engine: str, network: Network, node: Node, kernel: str) -> str:
    """What prepacking takes."""
    weight = network.types[node.inputs[1]]
    if weight.dtype != "int8":
        return f"weight: {weight.dtype}; {kernel} is documented for qint8 weights only"
    if engine == "onednn" and any(weight.qtype.zero_point):
        return "weight: onednn takes symmetric weights, whose zero point is 0"
    return ""


def _onednn_only(engine: str, operator: str) -> str:
    if operator and engine != "onednn":
        return f"'Didn't find engine for operation {operator} {engine.upper()}'"
    return ""


def _added(engine: str, network: Network, node: Node) -> str:
    if network.types[node.inputs[2]].dtype != "uint8":
        return "other: 'The output tensor should have same dtype as the accum tensor.' (qconv.cpp)"
    return _onednn_only(engine, "quantized::conv2d_add")


def _unpacked(engine: str, network: Network, node: Node) -> str:
    op: Any = node.op
    if engine == "qnnpack" and network.form("packing") != "fresh" and len(op.strides) == 3:
        return "packing: 'QNNPACK only supports conv2d_unpack right now.' (conv_serialization.h, qconv_unpack.cpp)"
    return ""


def _to_reals(engine: str, network: Network, node: Node) -> str:
    if node.element == "float32" and engine in ("onednn", "qnnpack"):
        return (
            "output: 'apply_with_input_q_dq_qweight_dq_output_fp32 is not implemented for this packed parameter type'"
        )
    return ""


def _float16(engine: str, network: Network, node: Node) -> str:
    op: Any = node.op
    entry = network.form("entry")
    packs_itself = entry in ("unpacked", "aten", "older", "wrapped") and not op.relu
    if engine not in ("onednn", "qnnpack") or entry == "onednn" or packs_itself:
        return ""
    return f"quantized::linear_prepack_fp16 is 'currently not supported by {engine.upper()}' (qlinear_prepack.cpp)"


def _dynamic(engine: str, network: Network, node: Node) -> str:
    op: Any = node.op
    if engine == "qnnpack" and op.reduce_range:
        return "reduce_range: 'Currently, qnnpack incorrectly ignores reduce_range when it is set to true' (TORCH_WARN)"
    return _weight(engine, network, node, "its dynamic kernel")


def _recurrent(engine: str, network: Network, node: Node) -> str:
    """Why `engine` takes no such weights, or quantizes otherwise."""
    op: Any = node.op
    weights = [network.types[name] for name in node.inputs[1 : 1 + 4 * op.n_cells]]
    if weights[0].element == "float32":
        quantized = engine in ("qnnpack", "onednn")
        return f"weight: float32; linear_prepack_fp16 is not supported by {engine}, it says" if quantized else ""
    if engine == "qnnpack" and op.reduce_range:
        return "reduce_range: 'Currently, qnnpack incorrectly ignores reduce_range when it is set to true' (TORCH_WARN)"
    cell = len(network.types[node.inputs[0]].shape) == 2
    older = cell or is_given_as_reals(network, weights_of(node))
    if older and not op.reduce_range:  # these are FBGEMM's on every engine
        return ""
    if engine == "onednn" and any(any(w.qtype.zero_point) for w in weights if w.is_quantized):
        return "weight: onednn takes symmetric weights, whose zero point is 0"
    return ""


def _transposed(engine: str, network: Network, node: Node) -> str:
    """What qconv_prepack.cpp checks of a transposed convolution; which engines the module's docstring names."""
    op: Any = node.op
    if engine == "qnnpack":
        if len(op.strides) == 3:
            return "torch.ao.nn.quantized.ConvTranspose3d: 'Currently only the FBGEMM engine is implemented'"
        return ""
    if network.types[node.inputs[1]].qtype.axis is not None:
        return "weight: 'Per Channel Quantization is currently disabled for transposed conv' (qconv_prepack.cpp)"
    if engine == "onednn" and any(op.output_padding):
        return "output_padding: 'ONEDNN only supports zero output_padding' (qconv_prepack.cpp)"
    return ""


def _qnnpack_sigmoid(network: Network, node: Node) -> str:
    """QNNPACK's own kernel is for quint8."""
    q_y = node.element
    if network.types[node.inputs[0]].dtype != "uint8" or not isinstance(q_y, QType) or q_y.dtype != "uint8":
        return ""
    return "" if (q_y.scale[0], q_y.zero_point[0]) == (2.0**-8, 0) else fixed_output(2.0**-8, 0, "uint8")


def fixed_output(scale: float, zero_point: int, dtype: str) -> str:
    """Why an output of another type is refused."""
    return f"output: the kernel always gives scale {scale!r}, zero_point {zero_point} to {dtype}"
