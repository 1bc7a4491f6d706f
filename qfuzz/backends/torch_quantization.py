"""quantize and dequantize as torch's eager calls: per tensor and per channel, of every quantized dtype that it has."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Declared, literal, torch_name, variable, variables
from qfuzz.backends.torch_kernels import WITH_INT32, qtype_out
from qfuzz.backends.torch_memory import place
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.scalar import AddScalar, MulScalar

STORED: Mapping[str, str] = MappingProxyType({**WITH_INT32, "uint4": "quint4x2", "uint2": "quint2x4"})
"""Storage type to the quantized dtype that stores it."""
PACKED = ("uint4", "uint2")
"""Types of which several share a byte."""


def feed(b: Builder, name: str, type_: TensorType) -> None:
    """An input: a quantized tensor over the integers that it is given, or reals as they are."""
    q = type_.element
    if not isinstance(q, QType):
        place(b, name, type_, None)
        return
    _storage(q, name)
    if q.dtype in PACKED:
        raise Unsupported(f"{name}: {q.dtype}; no call makes a {STORED[q.dtype]} tensor of integers")

    def make(array: str) -> None:
        if q.is_per_tensor:
            b.call(name, "torch._make_per_tensor_quantized_tensor", variable(array), scale_of(q), zero_point_of(q))
            return
        scales = b.numbers(f"{name}_scales", q.scale, "float32")
        zero_points = b.numbers(f"{name}_zero_points", q.zero_point, "int64")
        made = "torch._make_per_channel_quantized_tensor"
        b.call(name, made, variable(array), scales, zero_points, literal(q.axis))

    place(b, name, type_, make)


def declared(network: Network, node: Node) -> Declared:
    """What the tensor of a node must say of itself."""
    q = node.element
    if not isinstance(q, QType):
        return Declared(node.name, node.name, str(q))
    if isinstance(node.op, AddScalar | MulScalar):  # the scale that the kernel derives is a float64
        derived = node.op.derived(network.types[node.inputs[0]].qtype)
        return Declared(node.name, node.name, STORED[q.dtype], derived.scale, derived.zero_point)
    if q.is_per_tensor:
        return Declared(node.name, node.name, STORED[q.dtype], q.scale[0], q.zero_point[0])
    return Declared(node.name, node.name, STORED[q.dtype], q.scale, q.zero_point, q.axis)


def _storage(q: QType, where: str) -> str:
    """The quantized dtype of a type; raises `Unsupported` where torch has none."""
    if q.block:
        raise Unsupported(f"{where}: blocks of {q.block}; quantized tensors have one scale, or one a channel")
    if q.dtype not in STORED:
        raise Unsupported(f"{where}: {q.dtype}; quantized tensors store {', '.join(STORED)}")
    return STORED[q.dtype]


def _quantize(b: Builder, node: Node) -> None:
    q = qtype_out(node)
    if b.type(node, 0).element != "float32":
        raise Unsupported(f"x: {b.type(node, 0).dtype}; quantize_tensor_per_tensor_affine expects a Float Tensor")
    dtype = torch_name(f"torch.{_storage(q, 'output')}")
    said = b.network.form("quantizer")
    if not q.is_per_tensor:
        floats = said == "float_qparams"
        if not floats and q.dtype in PACKED:
            raise Unsupported(f"output: {q.dtype}; per channel, {STORED[q.dtype]} takes float zero points")
        scales = b.numbers(f"{node.name}_scales", q.scale, "float32")
        zero_points = b.numbers(f"{node.name}_zero_points", q.zero_point, "float32" if floats else "int64")
        b.call(node.name, "torch.quantize_per_channel", b.x(node), scales, zero_points, literal(q.axis), dtype)
        return
    quantize = "torch.quantize_per_tensor"
    match said:
        case "tensors":
            scale = b.number(f"{node.name}_scale", q.scale[0], "float32")
            zero_point = b.number(f"{node.name}_zero_point", q.zero_point[0], "int64")
            b.call(node.name, quantize, b.x(node), scale, zero_point, dtype)
        case "list":
            scales = b.numbers(f"{node.name}_scales", (1.0, *q.scale), "float32")
            zero_points = b.numbers(f"{node.name}_zero_points", (0, *q.zero_point), "int64")
            out = f"{b.fresh(f'{node.name}_first')}, {node.name}"
            b.call(out, quantize, variables((node.inputs[0],) * 2), scales, zero_points, dtype)
        case _:
            b.call(node.name, quantize, b.x(node), scale_of(q), zero_point_of(q), dtype)


def _dequantize(b: Builder, node: Node) -> None:
    _storage(b.type(node, 0).qtype, "x")
    if node.element != "float32":
        raise Unsupported(f"output: {node.element}; the kernel returns float32")
    if b.network.form("quantizer") == "list":
        b.call(f"{node.name},", "torch.dequantize", variables(node.inputs))
    else:
        b.call(node.name, ".dequantize", b.x(node))


def _requantize(b: Builder, node: Node) -> None:
    """Dropout, which takes a scale and a zero point, and at inference returns what it is given."""
    q = qtype_out(node)
    if q != b.type(node, 0).element:
        raise Unsupported("torch has no kernel from quantized to quantized; dequantize and quantize are two")
    b.call(node.name, "torch.ops.quantized.dropout", b.x(node), scale_of(q), zero_point_of(q))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {"quantize": _quantize, "dequantize": _dequantize, "requantize": _requantize}
)
