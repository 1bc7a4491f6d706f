"""conv, conv_transpose, linear as torch's eager quantized kernels: weights are packed first, bound to the engine."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import (
    Builder,
    Lowering,
    refuse_factors,
    scale_of,
    symmetric,
    zero_point_of,
)
from qfuzz.backends.torch_calls import Arg, literal
from qfuzz.backends.torch_kernels import qtype_in, qtype_out
from qfuzz.backends.torch_wrappers import WRAPPERS, dequantized, linear_of_reals, wraps
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearPointwise

QUANTIZED = "torch.ops.quantized"
FUSED_WITH_LINEAR = ("none", "relu", "leaky_relu", "tanh")


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    _convolution(b, node, relu=op.relu)


def _conv_pointwise(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvPointwise)
    if op.activation not in ("none", "relu"):
        raise Unsupported(f"{op.activation}: convolutions are fused with relu only")
    _convolution(b, node, relu=op.activation == "relu")


def _convolution(b: Builder, node: Node, *, relu: bool) -> None:
    op: Any = node.op
    kernel = f"conv{len(op.strides)}d"
    q_y = qtype_out(node)
    settings = [literal(s) for s in (list(op.strides), symmetric(op.padding), list(op.dilations), op.groups)]
    older = b.network.form("entry") == "older" and kernel != "conv1d"
    prepack = "conv_prepack" if older and kernel == "conv2d" else f"{kernel}_prepack"
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), f"{QUANTIZED}.{prepack}", weight_of(b, node), bias_of(b, node), *settings
    )
    suffix = "_relu" if relu else ""
    overload = "" if kernel == "conv1d" else ".default" if older else ".new"
    said_again = settings if older else []
    out = (scale_of(q_y), zero_point_of(q_y))
    b.call(node.name, f"{QUANTIZED}.{kernel}{suffix}{overload}", b.x(node), packed, *said_again, *out)


def _conv_add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvAdd)
    if len(op.strides) != 2:
        raise Unsupported(f"conv{len(op.strides)}d: what is added is fused with conv2d only")
    q_y = qtype_out(node)
    settings = [literal(s) for s in (list(op.strides), symmetric(op.padding), list(op.dilations), op.groups)]
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        f"{QUANTIZED}.conv2d_prepack",
        weight_of(b, node),
        bias_of(b, node, 3),
        *settings,
    )
    kernel = "conv2d_add_relu" if op.relu else "conv2d_add"
    b.call(node.name, f"{QUANTIZED}.{kernel}", b.x(node), b.x(node, 2), packed, scale_of(q_y), zero_point_of(q_y))


def _conv_transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvTranspose)
    if op.relu:
        raise Unsupported("relu: torch registers no conv_transpose with a fused relu")
    kernel = f"{QUANTIZED}.conv_transpose{len(op.strides)}d"
    q_y = qtype_out(node)
    settings = (list(op.strides), symmetric(op.padding), list(op.output_padding), list(op.dilations), op.groups)
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        f"{kernel}_prepack",
        weight_of(b, node),
        bias_of(b, node),
        *(literal(s) for s in settings),
    )
    b.call(node.name, kernel, b.x(node), packed, scale_of(q_y), zero_point_of(q_y))


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Linear)
    refuse_factors(node)
    if node.element == "float32":
        _linear_to_reals(b, node)
        return
    q_y = qtype_out(node)
    if b.network.form("entry") in WRAPPERS and wraps(b, node):
        linear_of_reals(b, node, weight_of(b, node), bias_of(b, node))
        return
    kernel = "linear_relu" if op.relu else "linear"
    b.call(node.name, f"{QUANTIZED}.{kernel}", b.x(node), packed_linear(b, node), scale_of(q_y), zero_point_of(q_y))


def _linear_pointwise(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LinearPointwise)
    if op.activation not in FUSED_WITH_LINEAR:
        raise Unsupported(f"{op.activation}: linear is fused with {', '.join(FUSED_WITH_LINEAR)} only")
    q_y = qtype_out(node)
    slope = [literal(op.negative_slope)] if op.activation == "leaky_relu" else []
    kernel = "linear" if op.activation == "none" else f"linear_{op.activation}"
    out = (scale_of(q_y), zero_point_of(q_y))
    b.call(node.name, f"{QUANTIZED}.{kernel}", b.x(node), packed_linear(b, node), *out, *slope)


def _linear_to_reals(b: Builder, node: Node) -> None:
    """The kernel takes reals, which it quantizes again: those that x stands for become x."""
    op: Any = node.op
    q_x = qtype_in(b, node)
    kernel = f"linear_with_input_q_dq_qweight_dq_{'relu_' * op.relu}output_fp32"
    reals = dequantized(b, node)
    b.call(node.name, f"{QUANTIZED}.{kernel}", reals, scale_of(q_x), zero_point_of(q_x), packed_linear(b, node))


def packed_linear(b: Builder, node: Node) -> Arg:
    """Weight and bias of a linear layer as its kernels take them."""
    return b.prepare_call(
        b.fresh(f"{node.name}_packed"), f"{QUANTIZED}.linear_prepack", weight_of(b, node), bias_of(b, node)
    )


def weight_of(b: Builder, node: Node, position: int = 1) -> Arg:
    """The quantized weight tensor, made in the prepare part."""
    name = node.inputs[position]
    q = qtype_in(b, node, position)
    array = b.constant(name)
    out = b.fresh(f"{node.name}_weight")
    if q.axis is None:
        return b.prepare_call(out, "torch._make_per_tensor_quantized_tensor", array, scale_of(q), zero_point_of(q))
    return b.prepare_call(
        out,
        "torch._make_per_channel_quantized_tensor",
        array,
        b.numbers(f"{out}_scales", q.scale, "float64"),
        b.numbers(f"{out}_zero_points", q.zero_point, "int64"),
        literal(q.axis),
    )


def bias_of(b: Builder, node: Node, position: int = 2) -> Arg:
    """The float32 bias, or none."""
    if len(node.inputs) <= position:
        return literal(None)
    if b.type(node, position).element != "float32":
        raise Unsupported(f"bias: {b.type(node, position).dtype}; torch's eager kernels take a float32 bias")
    return b.constant(node.inputs[position])


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv": _conv,
        "conv_transpose": _conv_transpose,
        "conv_pointwise": _conv_pointwise,
        "conv_add": _conv_add,
        "linear_pointwise": _linear_pointwise,
        "linear": _linear,
    }
)
