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
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    kernel = f"conv{len(op.strides)}d"
    q_y = qtype_out(node)
    settings = (list(op.strides), symmetric(op.padding), list(op.dilations))
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        f"torch.ops.quantized.{kernel}_prepack",
        weight_of(b, node),
        bias_of(b, node),
        *(literal(s) for s in settings),
        literal(op.groups),
    )
    suffix = "_relu" if op.relu else ""
    overload = "" if kernel == "conv1d" else ".new"
    b.call(
        node.name,
        f"torch.ops.quantized.{kernel}{suffix}{overload}",
        b.x(node),
        packed,
        scale_of(q_y),
        zero_point_of(q_y),
    )


def _conv_transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvTranspose)
    if op.relu:
        raise Unsupported("relu: torch registers no conv_transpose with a fused relu")
    kernel = f"torch.ops.quantized.conv_transpose{len(op.strides)}d"
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
    q_y = qtype_out(node)
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), "torch.ops.quantized.linear_prepack", weight_of(b, node), bias_of(b, node)
    )
    kernel = "linear_relu" if op.relu else "linear"
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), packed, scale_of(q_y), zero_point_of(q_y))


def weight_of(b: Builder, node: Node) -> Arg:
    """The quantized weight tensor, made in the prepare part."""
    name = node.inputs[1]
    q = qtype_in(b, node, 1)
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


def bias_of(b: Builder, node: Node) -> Arg:
    """The float32 bias, or none."""
    if len(node.inputs) < 3:
        return literal(None)
    if b.type(node, 2).element != "float32":
        raise Unsupported(f"bias: {b.type(node, 2).dtype}; torch's eager kernels take a float32 bias")
    return b.constant(node.inputs[2])


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv": _conv,
        "conv_transpose": _conv_transpose,
        "linear": _linear,
    }
)
