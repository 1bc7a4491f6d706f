"""Reals with stored weights, in both formats: dequantized by a node, or by the kernel that reads them. Pure.

QDQ: DequantizeLinear before MatMul, Gemm or Gather. QOperator: MatMulNBits and GatherBlockQuantized of com.microsoft
(onnxruntime/docs/ContribOperators.md), whose weights are unsigned integers packed into bytes, in blocks.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.backends.onnx_builder import MICROSOFT, Attributes, Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import DTYPES, TensorType, blocks_of, laid_out
from qfuzz.ops.weight_only import Embedding

Array = npt.NDArray[Any]

BITS: Mapping[str, int] = MappingProxyType({"uint2": 2, "int2": 2, "uint4": 4, "int4": 4, "uint8": 8, "int8": 8})


# DequantizeLinear, then a float32 operator.


def _dequantized(b: Builder, name: str, data: Array, scales: Array, zero_points: Array, attributes: Attributes) -> str:
    """A DequantizeLinear of a constant; `name` is told apart by how the constant is laid out."""
    real = f"{name}/real"
    if b.is_new(real):
        b.emit(
            "DequantizeLinear", [b.initializer(name, data), b.shared(scales), b.shared(zero_points)], real, attributes
        )
    return real


def _parameters(q: QType, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Scales and zero points of a tensor of `shape`: a scalar, a vector, or one for each block."""
    laid = () if q.axis is None else blocks_of(q, shape) if q.block else (-1,)
    return (
        np.array(q.scale, dtype=np.float32).reshape(laid),
        np.array(q.zero_point, dtype=DTYPES[q.dtype]).reshape(laid),
    )


def _as_it_is(b: Builder, name: str, type_: TensorType) -> str:
    q = type_.qtype
    axis = {} if q.axis is None else {"axis": q.axis}
    data = b.network.constant_data[name].array
    attributes = axis | {"block_size": q.block} if q.block else axis
    return _dequantized(b, name, data, *_parameters(q, type_.shape), attributes)


def _transposed(b: Builder, name: str, type_: TensorType) -> str:
    """The dequantized weight as [K, N], stored so."""
    q = type_.qtype
    scales, zero_points = _parameters(q, type_.shape)
    axis = {} if q.axis is None else {"axis": 1 - q.axis}
    attributes = axis | {"block_size": q.block} if q.block else axis
    data = np.ascontiguousarray(b.network.constant_data[name].array.T)
    turned = (np.ascontiguousarray(scales.T), np.ascontiguousarray(zero_points.T))
    return _dequantized(b, f"{name}/transposed", data, *turned, attributes)


def _reshaped(b: Builder, name: str, type_: TensorType) -> str:
    """The dequantized weight as [K, N], from blocks that stand apart: [N, blocks, length]."""
    q = type_.qtype
    n, k = type_.shape
    scales, zero_points = (a[..., None] for a in _parameters(q, type_.shape))
    blocks = b.network.constant_data[name].array.reshape(n, k // q.block, q.block)
    attributes = {"axis": 2, "block_size": q.block}
    apart = _dequantized(b, f"{name}/blocks", blocks, scales, zero_points, attributes)
    whole = f"{name}/blocks/whole"
    if b.is_new(whole):
        b.emit("Reshape", [apart, b.integers(n, k)], whole)
        b.emit("Transpose", [whole], f"{whole}/transposed", {"perm": (1, 0)})
    return f"{whole}/transposed"


def _refuse_halves(b: Builder, node: Node) -> None:
    if node.element != "float32":
        raise Unsupported(f"x: {node.element}; said here with float32 only")


def qdq_weight_only_linear(b: Builder, node: Node) -> None:
    """MatMul and Add, or Gemm for matrices, of a dequantized weight."""
    _refuse_halves(b, node)
    graph = b.network.form("weight_graph")
    x, name, weight = b.type(node), node.inputs[1], b.type(node, 1)
    bias = [b.constant(node.inputs[2])] if len(node.inputs) == 3 else []
    is_matrix = len(x.shape) == 2
    if graph == "transposed" and is_matrix:
        b.emit("Gemm", [node.inputs[0], _as_it_is(b, name, weight), *bias], node.name, {"transB": 1})
        return
    if graph == "transposed":
        real = f"{_as_it_is(b, name, weight)}/transposed"
        if b.is_new(real):
            b.emit("Transpose", [_as_it_is(b, name, weight)], real, {"perm": (1, 0)})
    elif graph == "reshaped" and weight.qtype.block and weight.shape[1] % weight.qtype.block == 0:
        real = _reshaped(b, name, weight)
    else:
        real = _transposed(b, name, weight)
    if graph == "gemm" and is_matrix:
        b.emit("Gemm", [node.inputs[0], real, *bias], node.name)
        return
    product = b.emit("MatMul", [node.inputs[0], real], f"{node.name}/product" if bias else node.name)
    if bias:
        b.emit("Add", [product, *bias], node.name)


def qdq_embedding(b: Builder, node: Node) -> None:
    """Gather of a dequantized table."""
    op: Any = node.op
    assert isinstance(op, Embedding)
    table = _as_it_is(b, node.inputs[0], b.type(node))
    b.emit("Gather", [table, b.constant(node.inputs[1])], node.name, {"axis": op.axis})


# Kernels that dequantize.


def _unsigned(q: QType, stored: Array) -> Array:
    """Stored integers or zero points as the unsigned ones of as many bits."""
    return (stored.astype(np.int64) - q.qmin).astype(np.uint8)


def packed(values: npt.NDArray[np.uint8], bits: int, filler: int = 0) -> npt.NDArray[np.uint8]:
    """Unsigned integers packed along the last axis, the first into the lowest bits; `filler` completes a byte."""
    per_byte = 8 // bits
    padding = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % per_byte)]
    whole = np.pad(values, padding, constant_values=filler).reshape(*values.shape[:-1], -1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.asarray((whole << shifts).sum(axis=-1, dtype=np.uint8))


def _check_block(block: int) -> None:
    if block < 16 or block & (block - 1):
        raise Unsupported(f"blocks of {block}: the kernel takes blocks of a power of two, of at least 16")


def _block_of(b: Builder, k: int) -> int:
    """The length of blocks where the weight has none: what the form says, or the power of two that fits K best."""
    form = b.network.form("nbits_block")
    return min(256, max(16, 1 << (k - 1).bit_length())) if form == "fitting" else int(form)


def _spread(values: tuple[float, ...], q: QType, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """One value for each block along `axis`, whatever the type's own granularity."""
    full = np.broadcast_to(laid_out(q, values, shape), shape)
    return np.ascontiguousarray(np.take(full, np.arange(0, shape[axis], block), axis=axis))


def nbits_weight_only_linear(b: Builder, node: Node) -> None:
    """One MatMulNBits."""
    _refuse_halves(b, node)
    name, weight = node.inputs[1], b.type(node, 1)
    q, (n, k) = weight.qtype, weight.shape
    bits, block = BITS[q.dtype], q.block or _block_of(b, k)
    _check_block(block)
    middle = 1 << (bits - 1)
    stored = _unsigned(q, b.network.constant_data[name].array)
    stored = np.pad(stored, [(0, 0), (0, -k % block)]).reshape(n, -1, block)
    scales = _spread(q.scale, q, weight.shape, 1, block).astype(np.float32)
    zero_points = _unsigned(q, _spread(q.zero_point, q, weight.shape, 1, block))
    reals = b.network.form("nbits_zero_points") == "reals"
    given = b.shared(zero_points.astype(np.float32) if reals else packed(zero_points, bits, middle))
    inputs = [node.inputs[0], b.initializer(f"{name}/packed", packed(stored, bits)), b.shared(scales), given]
    if len(node.inputs) == 3:
        inputs += ["", b.constant(node.inputs[2])]
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block}
    b.emit("MatMulNBits", inputs, node.name, attributes, MICROSOFT)


def _block_axis(q: QType, rank: int, gathered: int) -> int:
    """The axis along which a table of GatherBlockQuantized has its blocks: its own, or one that all scales span."""
    own = (q.axis,) if q.block and q.axis is not None else tuple(a for a in range(rank) if a != q.axis)
    along = [a for a in own if a != gathered]
    if not along:
        raise Unsupported(f"axis {gathered}: GatherBlockQuantized has its blocks along another axis than it gathers")
    return along[-1]


def nbits_embedding(b: Builder, node: Node) -> None:
    """One GatherBlockQuantized."""
    op: Any = node.op
    assert isinstance(op, Embedding)
    name, table = node.inputs[0], b.type(node)
    q, rank = table.qtype, len(table.shape)
    if q.dtype in ("uint16", "int16"):
        raise Unsupported(f"table: {q.dtype}; GatherBlockQuantized takes 2, 4 and 8 bits, and float8")
    in_bytes = not q.is_float and (BITS[q.dtype] != 4 or b.network.form("table") == "bytes")
    axis = _block_axis(q, rank, op.axis)
    block = q.block or max(16, 1 << (max(table.shape[axis], 1) - 1).bit_length())
    _check_block(block)
    data = b.network.constant_data[name].array
    scales = _spread(q.scale, q, table.shape, axis, block).astype(np.float32)
    zero_points = _spread(q.zero_point, q, table.shape, axis, block)
    attributes = {"gather_axis": op.axis, "quantize_axis": axis, "block_size": block}
    indices = b.constant(node.inputs[1])
    if not in_bytes:
        inputs = [b.constant(name), indices, b.shared(scales)]
        inputs += [] if q.is_float else [b.shared(zero_points.astype(DTYPES[q.dtype]))]
        b.emit("GatherBlockQuantized", inputs, node.name, attributes, MICROSOFT)
        return
    bits = BITS[q.dtype]
    if op.axis != 0 or axis != rank - 1 or table.shape[-1] % (8 // bits):
        raise Unsupported(
            f"axis {op.axis}, blocks along {axis} of {table.shape}: of packed bytes GatherBlockQuantized gathers along "
            "axis 0, has its blocks along the last, and fills whole bytes"
        )
    stored = b.initializer(f"{name}/packed", packed(_unsigned(q, data), bits))
    given = b.shared(packed(_unsigned(q, zero_points), bits, 1 << (bits - 1)))
    b.emit("GatherBlockQuantized", [stored, indices, b.shared(scales), given], node.name,
           attributes | {"bits": bits}, MICROSOFT)  # fmt: skip


QDQ: Mapping[str, Lowering] = MappingProxyType(
    {"weight_only_linear": qdq_weight_only_linear, "embedding": qdq_embedding}
)
QOPERATOR: Mapping[str, Lowering] = MappingProxyType(
    {"weight_only_linear": nbits_weight_only_linear, "embedding": nbits_embedding}
)
"""Operator name to the function that writes its nodes, or says why there are none."""
