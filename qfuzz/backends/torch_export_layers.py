"""conv, linear and what is fused to them as onednn calls: weights are packed once, qparams are arguments."""

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
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable
from qfuzz.backends.torch_kernels import qtype_out
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import BYTES, QType, dtype_of
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.post_operation import Activation, PostOperation


def _conv(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Conv)
    _refuse_unfused("relu" if op.relu else "none", len(op.strides))
    qtype_out(node)
    _followed_convolution(b, node, "qconv_pointwise", _clipped(op.relu))


def _conv_pointwise(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvPointwise)
    _refuse_unfused(op.activation, len(op.strides))
    of_rank = len(op.strides) == 2 or not _with_tensors(b)  # of the others, only the general one takes tensors
    kernel = f"qconv{f'{len(op.strides)}d' if of_rank else ''}_pointwise"
    _followed_convolution(b, node, kernel, _post_operation(op.post))


def _followed_convolution(b: Builder, node: Node, kernel: str, post: tuple[Arg, Arg, Arg]) -> None:
    packed, weight, settings = _convolution(b, node)
    called = _kernel(b, kernel, "default")
    b.call(node.name, called, *packed, *weight, _bias(b, node), *settings, *output_arguments(node), *post)


def _conv_add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ConvAdd)
    if len(op.strides) != 2:
        raise Unsupported(f"conv{len(op.strides)}d: what is added is fused with conv2d only")
    packed, weight, settings = _convolution(b, node)
    other = _accumulated(b, node, memory_format=torch_name("torch.channels_last"))
    b.call(
        node.name,
        _kernel(b, "qconv2d_pointwise", "binary"),
        *packed,
        *weight,
        other[0],
        _bias(b, node, 3),
        *settings,
        *output_arguments(node),
        *other[1:],
        literal("sum"),
        literal(None),
        *_clipped(op.relu),
    )


def _refuse_unfused(activation: Activation, spatial: int) -> None:
    if activation not in FUSED_WITH_CONV[spatial]:
        raise Unsupported(f"{activation}: conv{spatial}d is fused with {', '.join(FUSED_WITH_CONV[spatial])} only")


def _convolution(b: Builder, node: Node) -> tuple[list[Arg], list[Arg], list[Arg]]:
    """The activation with its qparams and the packed weight; the weight's qparams; what is said of the windows."""
    op: Any = node.op
    q_x = b.type(node, 0).qtype
    if q_x.dtype != "uint8":
        raise Unsupported(f"x: {q_x.dtype}; qconv_pointwise takes uint8 activations")
    weight, scales, zero_points = _weight(b, node)
    settings = [literal(list(s)) for s in (op.strides, symmetric(op.padding), op.dilations)]
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"),
        "torch.ops.onednn.qconv_prepack",
        weight,
        scales,
        scale_of(q_x),
        zero_point_of(q_x),
        *settings,
        literal(op.groups),
        literal(None),
    )
    return [*_activation(b, node), packed], [scales, zero_points], [*settings, literal(op.groups)]


def _linear(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Linear)
    refuse_factors(node)
    qtype_out(node)
    _followed_product(b, node, _clipped(op.relu))


def _linear_pointwise(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LinearPointwise)
    _followed_product(b, node, _post_operation(op.post))


def _followed_product(b: Builder, node: Node, post: tuple[Arg, Arg, Arg]) -> None:
    kernel = _kernel(b, "qlinear_pointwise", "default")
    b.call(node.name, kernel, *_product(b, node), _bias(b, node), *output_arguments(node), *post)


def _linear_add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LinearAdd)
    how = "sum"
    if b.type(node, 2).element == "float32" and isinstance(node.element, QType):
        how, other = "add", (b.x(node, 2), literal(1.0), literal(0))
    else:
        other = _accumulated(b, node)
    b.call(
        node.name,
        _kernel(b, "qlinear_pointwise", "binary"),
        *_product(b, node),
        other[0],
        _bias(b, node, 3),
        *output_arguments(node),
        *other[1:],
        literal(how),
        literal(1.0),
        *_clipped(op.relu),
    )


def _product(b: Builder, node: Node) -> list[Arg]:
    """The activation with its qparams, and the packed weight with its own."""
    weight, scales, zero_points = _weight(b, node)
    packed = b.prepare_call(b.fresh(f"{node.name}_packed"), "torch.ops.onednn.qlinear_prepack", weight, literal(None))
    return [*_activation(b, node), packed, scales, zero_points]


def _with_tensors(b: Builder) -> bool:
    """Whether scale and zero point of the activation are tensors, as where they are computed."""
    return b.network.form("quantizer") in ("tensors", "list")


def _activation(b: Builder, node: Node) -> list[Arg]:
    """The activation with its scale and zero point."""
    q = b.type(node, 0).qtype
    if q.dtype not in BYTES:
        raise Unsupported(f"x: {q.dtype}; the kernel takes uint8 and int8")
    if not _with_tensors(b):
        return [b.x(node), scale_of(q), zero_point_of(q)]
    scale = b.number(f"{node.name}_scale", q.scale[0], "float32")
    return [b.x(node), scale, b.number(f"{node.name}_zero_point", q.zero_point[0], "int64")]


def _kernel(b: Builder, name: str, overload: str) -> str:
    """The overload of an onednn operator for this form."""
    tensor = {"default": "tensor", "binary": "binary_tensor"}
    return f"torch.ops.onednn.{name}.{tensor[overload] if _with_tensors(b) else overload}"


def _weight(b: Builder, node: Node) -> tuple[Arg, Arg, Arg]:
    """The plain integers, scales and zero points of the weight."""
    q = b.type(node, 1).qtype
    if q.dtype != "int8":
        raise Unsupported(f"weight: {q.dtype}; the kernel takes int8 weights")
    if any(q.zero_point):
        raise Unsupported("weight: onednn takes symmetric weights, whose zero point is 0")
    scales = b.numbers(f"{node.name}_scales", q.scale, "float32")
    return b.constant(node.inputs[1]), scales, b.numbers(f"{node.name}_zero_points", q.zero_point, "int64")


def _bias(b: Builder, node: Node, position: int = 2) -> Arg:
    if len(node.inputs) <= position:
        return literal(None)
    if b.type(node, position).element != "float32":
        raise Unsupported(f"bias: {b.type(node, position).dtype}; the kernel takes a float32 bias")
    return b.constant(node.inputs[position])


def _accumulated(b: Builder, node: Node, **layout: Arg) -> tuple[Arg, Arg, Arg]:
    """A copy of what is added, for the kernel writes its sum into it; its scale and zero point."""
    q, y = b.type(node, 2).element, node.element
    if dtype_of(q) != dtype_of(y):
        raise Unsupported(f"other: {dtype_of(q)}; the sum is written into it, so that its dtype is the output's")
    name = b.fresh(f"{node.name}_other")
    b.call(name, ".clone", b.x(node, 2), **layout)
    if not isinstance(q, QType):
        return variable(name), literal(1.0), literal(0)
    return variable(name), scale_of(q), zero_point_of(q)


def output_arguments(node: Node) -> tuple[Arg, Arg, Arg]:
    """Scale, zero point and dtype of the output."""
    q = node.element
    if not isinstance(q, QType):
        return literal(1.0), literal(0), torch_name(f"torch.{q}")
    if q.dtype not in BYTES:
        raise Unsupported(f"output: {q.dtype}; the kernel gives uint8, int8, float32 and bfloat16")
    return scale_of(q), zero_point_of(q), torch_name(f"torch.{q.dtype}")


def _clipped(relu: bool) -> tuple[Arg, Arg, Arg]:
    return literal("relu" if relu else "none"), literal([]), literal("")


def _post_operation(post: PostOperation) -> tuple[Arg, Arg, Arg]:
    """Name, arguments and algorithm."""
    match post.activation:
        case "hardtanh":
            return literal("hardtanh"), literal([post.min, post.max]), literal("")
        case "leaky_relu":
            return literal("leaky_relu"), literal([post.negative_slope]), literal("")
        case "gelu" | "gelu_tanh":
            return literal("gelu"), literal([]), literal("tanh" if post.activation == "gelu_tanh" else "none")
        case _:
            return literal(post.activation), literal([]), literal("")


FUSED_WITH_CONV: Mapping[int, tuple[Activation, ...]] = MappingProxyType(
    {1: ("none", "relu"), 2: ("none", "relu", "hardtanh", "hardswish", "swish"), 3: ("none",)}
)
"""Spatial dimensions to what may follow: `supported_postop` in aten/src/ATen/native/quantized/cpu/qconv.cpp."""

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv": _conv,
        "linear": _linear,
        "conv_pointwise": _conv_pointwise,
        "linear_pointwise": _linear_pointwise,
        "conv_add": _conv_add,
        "linear_add": _linear_add,
    }
)
"""Operator name to the function that writes its calls."""
