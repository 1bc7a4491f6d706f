"""Binary operators and activations as torch's eager quantized kernels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, literal
from qfuzz.backends.torch_kernels import fixed_qparams, keep_qparams, qtype_out, same_dtype
from qfuzz.ir.network import Node
from qfuzz.ops.activation import Clamp, Elu, LeakyRelu
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.softmax import Softmax


def _add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Add)
    _binary(b, node, "add_relu" if op.relu else "add")


def _mul(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mul)
    _binary(b, node, "mul_relu" if op.relu else "mul")


def _binary(b: Builder, node: Node, kernel: str) -> None:
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node, 0), b.x(node, 1), scale_of(q), zero_point_of(q))


def _relu(b: Builder, node: Node) -> None:
    keep_qparams(b, node)
    b.call(node.name, "torch.relu", b.x(node))


def _clamp(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Clamp)
    keep_qparams(b, node)
    if (op.min, op.max) == (0.0, 6.0):
        b.call(node.name, "torch.ops.quantized.relu6", b.x(node))
    else:
        b.call(node.name, "torch.clamp", b.x(node), literal(op.min), literal(op.max))


def _leaky_relu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LeakyRelu)
    _activation(b, node, "leaky_relu", literal(op.negative_slope), literal(False))


def _elu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Elu)
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, "torch.ops.quantized.elu", b.x(node), scale_of(q), zero_point_of(q), literal(op.alpha))


def _hardswish(b: Builder, node: Node) -> None:
    _activation(b, node, "hardswish")


def _sigmoid(b: Builder, node: Node) -> None:
    _activation(b, node, "sigmoid")


def _softmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Softmax)
    _activation(b, node, "softmax", literal(op.axis))


def _activation(b: Builder, node: Node, kernel: str, *settings: Arg) -> None:
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), *settings, scale_of(q), zero_point_of(q))


def _hardsigmoid(b: Builder, node: Node) -> None:
    fixed_qparams(b, node, 2.0**-8, 0, -128)
    b.call(node.name, "torch.nn.functional.hardsigmoid", b.x(node))


def _tanh(b: Builder, node: Node) -> None:
    fixed_qparams(b, node, 2.0**-7, 128, 0)
    b.call(node.name, "torch.tanh", b.x(node))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "add": _add,
        "mul": _mul,
        "relu": _relu,
        "clamp": _clamp,
        "sigmoid": _sigmoid,
        "tanh": _tanh,
        "leaky_relu": _leaky_relu,
        "elu": _elu,
        "hardsigmoid": _hardsigmoid,
        "hardswish": _hardswish,
        "softmax": _softmax,
    }
)
