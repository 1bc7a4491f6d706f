"""Layers on float32 data, as torch's eager kernels have them: quantized as they come, or with float16 weights."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, symmetric
from qfuzz.backends.torch_calls import Arg, literal, torch_name
from qfuzz.backends.torch_int8_weights import int8_weight, is_given_as_reals
from qfuzz.backends.torch_kernels import qtype_in
from qfuzz.backends.torch_layers import QUANTIZED, bias_of, packed_linear, weight_of
from qfuzz.backends.torch_wrappers import given_bias
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.dynamic import DynamicLinear
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.half_weights import LinearFp16


def _dynamic_linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, DynamicLinear)
    _check_chooser(op)
    entry = b.network.form("entry")
    plain = not (op.relu or op.reduce_range) and qtype_in(b, node, 1).is_per_tensor
    plain = plain and b.type(node, 1).dtype == "int8"
    if plain and entry in _INT8_WEIGHT and (entry != "unpacked" or is_given_as_reals(b.network, node.inputs[1:2])):
        b.call(node.name, _INT8_WEIGHT[entry], b.x(node), *int8_weight(b, node), given_bias(b, node, bias_of(b, node)))
        return
    kernel = "linear_relu_dynamic" if op.relu else "linear_dynamic"
    packed = packed_linear(b, node)
    if b.network.form("packing") == "shared":
        _used_by_a_static_layer(b, node, packed)
    b.call(node.name, f"{QUANTIZED}.{kernel}", b.x(node), packed, literal(op.reduce_range))


def _used_by_a_static_layer(b: Builder, node: Node, packed: Arg) -> None:
    """A call of the other layer that takes such weights, on zeros."""
    zeros, quantized, nothing = (b.fresh(f"{node.name}_{n}") for n in ("zeros", "quantized", "static"))
    plain = literal(1.0), literal(0)
    shape = literal(list(b.type(node, 0).shape))
    given = b.prepare_call(zeros, "torch.zeros", shape, dtype=torch_name("torch.uint8"))
    x = b.prepare_call(quantized, "torch._make_per_tensor_quantized_tensor", given, *plain)
    b.prepare_call(nothing, f"{QUANTIZED}.linear", x, packed, *plain)


def _dynamic_conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, DynamicConv | DynamicConvTranspose)
    _check_chooser(op)
    transposed = isinstance(op, DynamicConvTranspose)
    kernel = f"{QUANTIZED}.conv{'_transpose' * transposed}{len(op.strides)}d"
    more = [list(op.output_padding)] if isinstance(op, DynamicConvTranspose) else []
    settings = (list(op.strides), symmetric(op.padding), *more, list(op.dilations), op.groups)
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        f"{kernel}_prepack",
        weight_of(b, node),
        bias_of(b, node),
        *(literal(s) for s in settings),
    )
    b.call(node.name, f"{kernel}_dynamic", b.x(node), packed, literal(op.reduce_range))


_INT8_WEIGHT = {
    "older": "torch.fbgemm_linear_int8_weight",
    **dict.fromkeys(("aten", "unpacked"), "torch.fbgemm_linear_int8_weight_fp32_activation"),
}
"""Form to the layer whose weight is packed apart from its type; unpacked: it comes as reals."""


def _check_chooser(op: Any) -> None:
    if op.chosen_as != "torch":
        raise Unsupported("chosen_as: torch chooses no scale below its SMALL_SCALE_THRESHOLD, ONNX does")


def _linear_fp16(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LinearFp16)
    entry = b.network.form("entry")
    relu = "relu_" if op.relu else ""
    x, weight, bias = b.x(node), b.constant(node.inputs[1]), bias_of(b, node)

    def packed(target: str, *args: Arg) -> Arg:
        return b.prepare_call(b.fresh(f"{node.name}_packed"), target, *args)

    if entry == "onednn":
        pack = packed("torch.ops.onednn.linear_prepack_fp16", weight, literal(None))
        b.call(node.name, f"torch.ops.onednn.linear_{relu}dynamic_fp16", x, pack, bias)
    elif entry == "unpacked" and not op.relu:
        b.call(node.name, f"{QUANTIZED}.linear_dynamic_fp16_unpacked_weight", x, weight, bias)
    elif entry in _PACKED_MATRIX and not op.relu:
        pack_with, kernel, *more = _PACKED_MATRIX[entry]
        last = [literal(b.type(node, 1).shape[0])] if more else []
        b.call(node.name, kernel, x, packed(pack_with, weight), given_bias(b, node, bias), *last)
    else:
        pack = packed(f"{QUANTIZED}.linear_prepack_fp16", weight, bias)
        b.call(node.name, f"{QUANTIZED}.linear_{relu}dynamic_fp16", x, pack)


_PACKED_MATRIX = {
    "older": ("torch.fbgemm_pack_gemm_matrix_fp16", "torch.fbgemm_linear_fp16_weight"),
    "aten": ("torch.fbgemm_pack_gemm_matrix_fp16", "torch.fbgemm_linear_fp16_weight_fp32_activation"),
    "wrapped": (
        "torch.ops._quantized.wrapped_fbgemm_pack_gemm_matrix_fp16",
        "torch.ops._quantized.wrapped_fbgemm_linear_fp16_weight",
        "out_channel",
    ),
}
"""Form to what packs the weight, the layer, and what it is told beside."""

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "dynamic_linear": _dynamic_linear,
        "dynamic_conv": _dynamic_conv,
        "dynamic_conv_transpose": _dynamic_conv,
        "linear_fp16": _linear_fp16,
    }
)
