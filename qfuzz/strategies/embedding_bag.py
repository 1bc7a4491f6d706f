"""The drawing side of embedding_bag."""

import numpy as np

from qfuzz.ir.qtype import PlainInteger, QuantizedDType
from qfuzz.ir.tensor import DTYPES
from qfuzz.ops.embedding_bag import EmbeddingBag
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.weight_only import granular, stored

TABLES: tuple[QuantizedDType, ...] = ("uint8", "uint4", "uint8", "uint4", "uint2")
FEATURES = (16, 1, 2, 4, 8, 12, 15, 17, 31, 32, 33, 48, 64, 80, 130, 272, 528)
"""Kernels have vectors of 8 and 16, and more of them at once than there are registers above 128 and 256 features."""
LENGTHS = (1, 2, 3, 0, 4, 7, 16, 17, 40)


def draw_embedding_bag(b: Builder) -> None:
    """An embedding_bag node, which ends a branch: it reads constants only."""
    d = b.d
    source = b.current
    dtype = d.pick(TABLES)
    shape = (d.pick((1, 2, 3, 5, 9)), d.pick(FEATURES))
    q = granular(b, dtype, shape, (0, 0, 0, 0, 0, 0, 0, None))
    inputs = [b.add_constant("t", q, stored(b, q, shape))]
    as_offsets = d.integer(0, 3) < 3
    bags = d.pick((1, 2, 3, 4, 8, 0))
    include_last_offset = as_offsets and d.integer(0, 1) == 1
    bags = bags if include_last_offset or not as_offsets else max(bags, 1)
    if as_offsets:
        most = d.pick(LENGTHS)
        lengths = fill.below(fill.words(d.key(), bags), most + 1)
    else:
        lengths = np.full(bags, max(d.pick(LENGTHS), 1))
    pruned = d.rarely(3)
    n, n_rows = int(lengths.sum()), shape[0] + (d.integer(0, 4) if pruned else 0)
    at = fill.below(fill.words(d.key(), n), n_rows)
    at_shape = (n,) if as_offsets else (bags, n // bags if bags else 1)
    integers: tuple[PlainInteger, ...] = ("int64", "int32")
    dtype_i, dtype_o = d.pick(integers), d.pick(integers)
    inputs.append(b.add_constant("i", dtype_i, at.astype(DTYPES[dtype_i]).reshape(at_shape)))
    if as_offsets:
        offsets = np.concatenate([[0], np.cumsum(lengths)])[: bags + include_last_offset]
        inputs.append(b.add_constant("o", dtype_o, offsets.astype(DTYPES[dtype_o])))
    mean = not b.flavour.common and d.rarely(8)
    weighted = not mean and d.integer(0, 1) == 1
    if weighted:
        unit = 2.0 ** d.integer(-2, 2) if d.integer(0, 1) else b.scale(1.0, 4)
        weights = fill.reals(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), at.shape, unit)
        inputs.append(b.add_constant("w", "float32", weights.reshape(at_shape)))
    if pruned:
        mapping = fill.below(fill.words(d.key(), n_rows), shape[0] + 1) - 1
        inputs.append(b.add_constant("m", "int32", mapping.astype(np.int32)))
    op = EmbeddingBag(
        mode="mean" if mean else "sum",
        include_last_offset=include_last_offset,
        weighted=weighted,
        pruned=pruned,
        parameters="float32" if dtype == "uint8" else "float16",
    )
    b.add_node(op, tuple(inputs), "float32")
    if d.integer(0, 1):
        b.forms.append(("table", "bytes"))
    b.current = source
