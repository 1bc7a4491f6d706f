"""QuantizeLinear and DequantizeLinear in all their granularities and types, the same in both formats. Pure."""

from typing import Any

from qfuzz.backends.onnx_builder import ONNX_DTYPES, Attribute, Builder
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType, Real
from qfuzz.ops.quantization import Quantize, scale_type


def _attributes(q: QType) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {} if q.axis is None else {"axis": q.axis}
    return attributes | {"block_size": q.block} if q.block else attributes


def _qparams(b: Builder, q: QType, shape: tuple[int, ...], real: Real) -> tuple[str, str]:
    return b.blocked_qparams(q, shape, real) if q.block else b.qparams(q, real)


def quantize(b: Builder, node: Node) -> None:
    """One QuantizeLinear."""
    op: Any = node.op
    assert isinstance(op, Quantize)
    x = b.type(node)
    q: Any = node.element
    if q.dtype == "int32":
        raise Unsupported("output: int32; QuantizeLinear gives integers of 2 to 16 bits, or float8")
    real: Any = x.element
    told: Any = scale_type(q, real)
    attributes = _attributes(q)
    if not op.saturate:
        attributes["saturate"] = 0
    if told != real:
        attributes["precision"] = ONNX_DTYPES["float32"]
    b.emit("QuantizeLinear", [node.inputs[0], *_qparams(b, q, x.shape, told)], node.name, attributes)


def dequantize(b: Builder, node: Node) -> None:
    """One DequantizeLinear."""
    x = b.type(node)
    if x.dtype == "int32" and any(x.qtype.zero_point):
        raise Unsupported("x: int32 with zero points; 'there is no zero point' in it (DequantizeLinear)")
    real: Any = node.element
    told: Any = scale_type(x.qtype, real)
    attributes = _attributes(x.qtype)
    if told != real:
        attributes["output_dtype"] = ONNX_DTYPES[real]
    b.emit("DequantizeLinear", [node.inputs[0], *_qparams(b, x.qtype, x.shape, told)], node.name, attributes)
