"""embedding and embedding_bag as torch's eager kernels on packed tables: an object of rows, or rows as plain bytes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable, variables
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import form_of
from qfuzz.ir.network import Node
from qfuzz.ir.tensor import TensorType, laid_out
from qfuzz.ops.embedding_bag import EmbeddingBag
from qfuzz.ops.embedding_rows import EmbeddingRows
from qfuzz.ops.weight_only import Embedding

BITS = {"uint8": 8, "uint4": 4, "uint2": 2}
_PREPACK = "aten/src/ATen/native/quantized/cpu/qembeddingbag_prepack.cpp"
_BY_ROWS = f"table: a packed one has the scales of its rows (TORCH_CHECK in prepack(), {_PREPACK})"
PARAMETERS = {8: "float32", 4: "float16", 2: "float16"}
"""What rows of so many bits hold of their scale and bias (`_PREPACK`, scale_bias_bytes)."""


def _embedding(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Embedding)
    table, indices = b.type(node, 0), b.type(node, 1)
    bits = BITS.get(table.dtype, 0)
    if bits not in (8, 4):
        raise Unsupported(f"table: {table.dtype}; embedding takes quint8 and quint4x2")
    if len(table.shape) != 2 or op.axis != 0:
        raise Unsupported("table: rows of a matrix are what embedding looks up")
    if table.qtype.axis != 0 or table.qtype.block:
        raise Unsupported(_BY_ROWS)
    if len(indices.shape) not in (1, 2):
        raise Unsupported(f"indices: rank {len(indices.shape)}; one or two dimensions (qembeddingbag.cpp)")
    if (b.network.constant_data[node.inputs[1]].array < 0).any():
        raise Unsupported("indices: some count from the end; torch.nn.Embedding has none below 0")
    scale, bias = EmbeddingBag(parameters="float32").parameters_of(table)
    if bits == 4 and not all((a.astype(np.float16) == a).all() for a in (scale, bias)):
        raise Unsupported(f"table: scale or bias is no float16, which rows of 4 bits hold ({_PREPACK})")
    b.call(node.name, f"torch.ops.quantized.embedding_{_name(bits)}", _packed(b, node), b.constant(node.inputs[1]))


def _embedding_bag(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, EmbeddingBag)
    table = b.type(node, 0)
    bits = BITS[table.dtype]
    if op.parameters != PARAMETERS[bits]:
        raise Unsupported(f"parameters: {op.parameters}; rows of {bits} bits hold {PARAMETERS[bits]} ({_PREPACK})")
    as_bytes = bits == 2 or form_of(b.network.forms, "table") == "bytes"
    given = {name: node.inputs[i] for name, i in op.read(len(b.type(node, 1).shape)).items()}
    b.call(
        node.name,
        f"torch.ops.quantized.embedding_bag_{_name(bits)}{'_rowwise_offsets' * as_bytes}",
        _bytes(b, node) if as_bytes else _packed(b, node),
        b.constant(given["indices"]),
        _optional(b, given.get("offsets")),
        literal(False),
        literal(("sum", "mean").index(op.mode)),
        literal(op.pruned),
        _optional(b, given.get("weights")),
        _optional(b, given.get("mapping")),
        literal(op.include_last_offset),
    )


def _embedding_rows(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, EmbeddingRows)
    shape = b.type(node, 0).shape
    if op.bits < 8 and len(shape) != 2:
        raise Unsupported(f"x: rank {len(shape)}; tables of {op.bits} bits are matrices ({_PREPACK}, size(0), size(1))")
    if shape[-1] % (8 // op.bits):
        raise Unsupported(f"x: {shape[-1]} features; 'prepack only works for the number of columns a multiple of'")
    kernel = f"torch.ops.quantized.embedding_bag_{_name(op.bits)}"
    packed = b.fresh(f"{node.name}_packed")
    if b.network.form("call") == "overload" and len(shape) == 2:
        ends = [b.fresh(f"{node.name}_{end}") for end in ("least", "greatest")]
        for end, function in zip(ends, ("torch.amin", "torch.amax"), strict=True):
            b.call(end, function, b.x(node), literal(1), literal(True))
        both = b.fresh(f"{node.name}_ends")
        b.call(both, "torch.cat", variables(tuple(ends)), literal(1))
        b.call(packed, f"{kernel}_prepack_with_rowwise_min_max", b.x(node), variable(both))
    else:
        b.call(packed, f"{kernel}_prepack", b.x(node))
    b.call(node.name, f"{kernel}_unpack", variable(packed))


def _name(bits: int) -> str:
    return "byte" if bits == 8 else f"{bits}bit"


def _optional(b: Builder, name: str | None) -> Arg:
    return literal(None) if name is None else b.constant(name)


def _packed(b: Builder, node: Node) -> Arg:
    """The table as a packed object, made of a quantized tensor; rows of 4 bits only come from quantizing numbers."""
    name, type_ = node.inputs[0], b.type(node, 0)
    q = type_.qtype
    if q.axis is None:
        raise Unsupported(_BY_ROWS)
    out = b.fresh(f"{node.name}_table")
    qparams = [b.numbers(f"{out}_{what}", values, "float32")
               for what, values in (("scales", q.scale), ("zero_points", tuple(map(float, q.zero_point))))]  # fmt: skip
    if q.dtype == "uint8":
        array = b.constant(name)
        tensor = b.prepare_call(out, "torch._make_per_channel_quantized_tensor", array, *qparams, literal(0))
    else:
        numbers = b.numbers(f"{out}_numbers", _dequantized(b, name, type_), "float32")
        dtype = torch_name("torch.quint4x2")
        tensor = b.prepare_call(out, "torch.quantize_per_channel", numbers, *qparams, literal(0), dtype)
    return b.prepare_call(b.fresh(f"{node.name}_packed"), "torch.ops.quantized.embedding_bag_prepack", tensor)


def _dequantized(b: Builder, name: str, type_: TensorType) -> tuple[Any, ...]:
    q = type_.qtype
    stored = b.network.constant_data[name].array.astype(np.float64)
    scale, zero_point = (laid_out(q, values, type_.shape) for values in (q.scale, q.zero_point))
    return tuple(((stored - zero_point) * scale).astype(np.float32).tolist())


def _bytes(b: Builder, node: Node) -> Arg:
    """The table as rows of bytes: elements, the first in the lowest bits, then scale and bias."""
    op: Any = node.op
    type_ = b.type(node, 0)
    bits = BITS[type_.dtype]
    each = 8 // bits
    stored = b.network.constant_data[node.inputs[0]].array.astype(np.uint8)
    if stored.shape[1] % each:
        raise Unsupported(f"table: {stored.shape[1]} features of {bits} bits; a row of bytes has no half of one")
    elements = stored.reshape(len(stored), -1, each) << (np.arange(each, dtype=np.uint8) * bits)
    rows = [elements.sum(axis=2, dtype=np.uint8)]
    for values in op.parameters_of(type_):
        rows.append(values.astype(op.parameters).reshape(-1, 1).view(np.uint8))
    packed = tuple(np.concatenate(rows, axis=1).tolist())
    return b.numbers(b.fresh(f"{node.name}_rows"), packed, "uint8")


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {"embedding": _embedding, "embedding_bag": _embedding_bag, "embedding_rows": _embedding_rows}
)
