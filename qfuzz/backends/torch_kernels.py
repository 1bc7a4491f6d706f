"""What kernels on quantized tensors share: the types that they take and give. Pure: nothing here imports torch."""

from qfuzz.backends.torch_builder import Builder
from qfuzz.backends.torch_forms import fixed_output
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType

QUANTIZED = {"uint8": "quint8", "int8": "qint8"}
WITH_INT32 = QUANTIZED | {"int32": "qint32"}


def qtype_in(b: Builder, node: Node, position: int = 0) -> QType:
    """Quantized type of an input of `node`."""
    return b.type(node, position).qtype


def qtype_out(node: Node) -> QType:
    """Quantized type of the output; raises `Unsupported` where it is none."""
    q = node.element
    if not isinstance(q, QType):
        raise Unsupported(f"output {q}: the kernel returns a quantized tensor")
    return q


def same_dtype(b: Builder, node: Node, q: QType) -> None:
    """Every kernel here takes operands of one dtype and returns it."""
    for position in range(len(node.inputs)):
        dtype = qtype_in(b, node, position).dtype
        if dtype != q.dtype:
            raise Unsupported(
                f"input {position}: {dtype} where the output is {q.dtype}; the kernel has one dtype for all"
            )


def keep_qparams(b: Builder, node: Node) -> None:
    """Raise `Unsupported` unless the output's type is the input's."""
    if node.element != b.type(node, 0).element:
        raise Unsupported("output: the kernel keeps the scale, zero point and dtype of its input")


def fixed_qparams(b: Builder, node: Node, scale: float, unsigned: int, signed: int) -> None:
    """Raise `Unsupported` unless the output has the one scale and zero point that the kernel gives.

    `scale` is that of bytes; the numbers of qint32 are 2^24 times as many, around 0.
    """
    q = qtype_out(node)
    same_dtype(b, node, q)
    zero_point = {"uint8": unsigned, "int8": signed}.get(q.dtype, 0)
    scale = scale * 2.0**-24 if q.dtype == "int32" else scale
    if (q.scale[0], q.zero_point[0]) != (scale, zero_point):
        raise Unsupported(fixed_output(scale, zero_point, q.dtype))
