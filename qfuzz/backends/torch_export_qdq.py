"""Networks as exported graphs have them before anything is fused: dequantized, a float operator of aten, quantized.

What PT2E quantization writes: quantized_decomposed calls around float32 operators, and weights that stay stored
integers until they are dequantized. Pure: nothing here imports torch.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from qfuzz.backends import torch_decomposed, torch_scaled_mm
from qfuzz.backends.torch_builder import Builder, Lowering, lower, once, refuse_factors, symmetric
from qfuzz.backends.torch_calls import Arg, CallList, literal, torch_name, variable, variables
from qfuzz.backends.torch_pools import half_kernel
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import BYTES, QType
from qfuzz.ops.post_operation import PostOperation

Reals: TypeAlias = list[Arg]
Emit: TypeAlias = Callable[["_Float"], Arg]
"""Writes a node's float calls, and gives their result."""

_DECOMPOSED = "torch.ops.quantized_decomposed"
_F = "torch.nn.functional"


def lower_qdq(network: Network) -> CallList:
    """The network as float operators between quantized_decomposed calls.

    Raises
    ------
    Unsupported
        Naming the node and why there is no such graph.
    """
    return once(
        network,
        "torch export qdq",
        lambda: lower(Builder(network), LOWERINGS, torch_decomposed.feed, torch_decomposed.declared),
    )


class _Float:
    """The float calls of one node, between its dequantized inputs and its quantized output."""

    def __init__(self, b: Builder, node: Node) -> None:
        self.b, self.node = b, node
        self.op: Any = node.op

    def call(self, target: str, *args: Arg, **kwargs: Arg) -> Arg:
        """One call; its result."""
        out = self.b.fresh(f"{self.node.name}_real")
        self.b.call(out, target, *args, **kwargs)
        return variable(out)

    def x(self, position: int = 0) -> Arg:
        """An input as float32: dequantized where it is stored."""
        t, name = self.b.type(self.node, position), self.node.inputs[position]
        is_constant = name in self.b.network.constant_data
        given = self.b.constant(name) if is_constant else self.b.x(self.node, position)
        q = t.element
        if not isinstance(q, QType):
            if q != "float32":
                raise Unsupported(f"{name}: {q}; float operators take float32")
            return given
        if q.dtype not in BYTES or q.block:
            raise Unsupported(f"{name}: {q.dtype}; bytes are dequantized here, with a scale for each channel at most")
        ends = literal(q.qmin), literal(q.qmax), torch_name(f"torch.{q.dtype}")
        if q.is_per_tensor:
            numbers = literal(q.scale[0]), literal(q.zero_point[0])
            return self.call(f"{_DECOMPOSED}.dequantize_per_tensor.default", given, *numbers, *ends)
        scales = self.b.numbers(f"{self.node.name}_scales", q.scale, "float32")
        zero_points = self.b.numbers(f"{self.node.name}_zero_points", q.zero_point, "int64")
        kernel = f"{_DECOMPOSED}.dequantize_per_channel.default"
        return self.call(kernel, given, scales, zero_points, literal(q.axis), *ends)

    def all(self) -> Reals:
        """All inputs."""
        return [self.x(i) for i in range(len(self.node.inputs))]

    def bias(self, position: int = 2) -> Arg:
        """The bias, or None."""
        return self.x(position) if len(self.node.inputs) > position else literal(None)

    def finish(self, real: Arg) -> None:
        """Quantize the result, or give it as it is."""
        q, name = self.node.element, self.node.name
        if q == "float32":
            self.b.call(name, "torch.clone", real)
            return
        if not isinstance(q, QType) or q.dtype not in BYTES:
            raise Unsupported(f"output: {q}; float operators give float32, which is quantized to bytes here")
        numbers = literal(q.scale[0]), literal(q.zero_point[0])
        ends = literal(q.qmin), literal(q.qmax), torch_name(f"torch.{q.dtype}")
        self.b.call(name, f"{_DECOMPOSED}.quantize_per_tensor.default", real, *numbers, *ends)

    def relu(self, real: Arg) -> Arg:
        """What a fused relu makes of it."""
        return self.call("torch.relu", real) if self.op.relu else real

    def post(self, real: Arg) -> Arg:
        """What follows a layer."""
        post: PostOperation = self.op.post
        match post.activation:
            case "none":
                return real
            case "hardtanh":
                return self.call(f"{_F}.hardtanh", real, literal(post.min), literal(post.max))
            case "leaky_relu":
                return self.call(f"{_F}.leaky_relu", real, literal(post.negative_slope))
            case "gelu" | "gelu_tanh":
                how = literal("none" if post.activation == "gelu" else "tanh")
                return self.call(f"{_F}.gelu", real, approximate=how)
            case "swish":
                return self.call(f"{_F}.silu", real)
            case _:
                return self.call(f"{_F}.{post.activation}", real)


def _around(emit: Emit) -> Lowering:
    """The lowering of a node whose float calls `emit` writes."""

    def lowering(b: Builder, node: Node) -> None:
        f = _Float(b, node)
        f.finish(emit(f))

    return lowering


def _named(target: str, *attributes: str) -> Emit:
    """One call of all inputs, then attributes."""
    return lambda f: f.call(target, *f.all(), *(literal(getattr(f.op, a)) for a in attributes))


def _convolved(f: _Float, bias: int = 2) -> Arg:
    op = f.op
    settings = [literal(list(s)) for s in (op.strides, symmetric(op.padding), op.dilations)]
    return f.call(f"{_F}.conv{len(op.strides)}d", f.x(), f.x(1), f.bias(bias), *settings, literal(op.groups))


def _multiplied(f: _Float, bias: int = 2) -> Arg:
    return f.call(f"{_F}.linear", f.x(), f.x(1), f.bias(bias))


def _linear(f: _Float) -> Arg:
    refuse_factors(f.node)
    return f.relu(_multiplied(f))


def _transposed(f: _Float) -> Arg:
    op = f.op
    settings = [op.strides, symmetric(op.padding), op.output_padding, op.groups, op.dilations]
    given = [literal(list(s) if isinstance(s, tuple) else s) for s in settings]
    return f.relu(f.call(f"{_F}.conv_transpose{len(op.strides)}d", f.x(), f.x(1), f.bias(), *given))


def _binary(target: str) -> Emit:
    def emit(f: _Float) -> Arg:
        real = f.call(target, *f.all())
        return f.relu(real) if hasattr(f.op, "relu") else real

    return emit


def _chained(target: str) -> Emit:
    def emit(f: _Float) -> Arg:
        real, *others = f.all()
        for other in others:
            real = f.call(target, real, other)
        return real

    return emit


def _max_pool(f: _Float) -> Arg:
    op = f.op
    settings = (op.kernel, op.strides, half_kernel(op.kernel, op.padding, op.dilations), op.dilations)
    given = [literal(list(s)) for s in settings]
    return f.call(f"{_F}.max_pool{len(op.kernel)}d", f.x(), *given, literal(op.ceil_mode))


def _avg_pool(f: _Float) -> Arg:
    op = f.op
    settings = [literal(list(s)) for s in (op.kernel, op.strides, half_kernel(op.kernel, op.padding))]
    flags = [literal(op.ceil_mode), literal(op.count_include_pad)]
    if op.divisor_override:
        if len(op.kernel) == 1:
            raise Unsupported("divisor_override: torch's avg_pool1d has none")
        flags.append(literal(op.divisor_override))
    return f.call(f"{_F}.avg_pool{len(op.kernel)}d", f.x(), *settings, *flags)


def _adaptive(size: Callable[[_Float], list[int]]) -> Emit:
    def emit(f: _Float) -> Arg:
        wanted = size(f)
        return f.call(f"{_F}.adaptive_avg_pool{len(wanted)}d", f.x(), literal(wanted))

    return emit


def _padded(f: _Float) -> Arg:
    rank = len(f.op.padding) // 2
    ends = [n for d in reversed(range(rank)) for n in (f.op.padding[d], f.op.padding[rank + d])]
    return f.call(f"{_F}.pad", f.x(), literal(ends))


def _mean(f: _Float) -> Arg:
    axes = f.op.reduced(len(f.b.type(f.node, 0).shape))
    if not axes:
        raise Unsupported("axes: none; torch.mean of no dimensions is that of all")
    return f.call("torch.mean", f.x(), literal(list(axes)), literal(f.op.keepdims))


def _concat(f: _Float) -> Arg:
    names = tuple(arg.value for arg in f.all())
    return f.call("torch.cat", variables(names), literal(f.op.axis))


_EMITS: dict[str, Emit] = {
    "requantize": lambda f: f.x(),
    "conv": lambda f: f.relu(_convolved(f)),
    "linear": _linear,
    "conv_pointwise": lambda f: f.post(_convolved(f)),
    "linear_pointwise": lambda f: f.post(_multiplied(f)),
    "conv_add": lambda f: f.relu(f.call("torch.add", _convolved(f, 3), f.x(2))),
    "linear_add": lambda f: f.relu(f.call("torch.add", _multiplied(f, 3), f.x(2))),
    "conv_transpose": _transposed,
    "matmul": _binary("torch.matmul"),
    "add": _binary("torch.add"),
    "sub": _binary("torch.sub"),
    "mul": _binary("torch.mul"),
    "div": _binary("torch.div"),
    "minimum": _chained("torch.minimum"),
    "maximum": _chained("torch.maximum"),
    "relu": _named("torch.relu"),
    "clamp": _named("torch.clamp", "min", "max"),
    "leaky_relu": _named(f"{_F}.leaky_relu", "negative_slope"),
    "elu": _named("torch.ops.aten.elu.default", "alpha", "scale", "input_scale"),
    "sigmoid": _named("torch.sigmoid"),
    "tanh": _named("torch.tanh"),
    "hardsigmoid": _named(f"{_F}.hardsigmoid"),
    "hardswish": _named(f"{_F}.hardswish"),
    "softmax": _named("torch.softmax", "axis"),
    "gelu": lambda f: f.call(f"{_F}.gelu", f.x(), approximate=literal(f.op.approximate)),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _adaptive(lambda f: [1] * (len(f.b.type(f.node, 0).shape) - 2)),
    "adaptive_avg_pool": _adaptive(lambda f: list(f.op.output_size)),
    "mean": _mean,
    "concat": _concat,
    "reshape": lambda f: f.call(".reshape", f.x(), literal(list(f.op.shape))),
    "flatten": _named("torch.flatten", "start_axis"),
    "transpose": lambda f: f.call(".permute", f.x(), literal(list(f.op.perm))),
    "slice": _named("torch.ops.aten.slice.Tensor", "axis", "start", "stop", "step"),
    "pad": _padded,
}

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {name: _around(emit) for name, emit in _EMITS.items()}
    | dict(torch_decomposed.LOWERINGS)
    | dict(torch_scaled_mm.LOWERINGS)
)
"""Operator name to the function that writes its calls."""
