"""How many adjacent products leave int16: what a CPU without VNNI gets wrong, whatever this one has.

x86 vpmaddubsw multiplies uint8 by int8 and sums adjacent pairs with saturation to int16 (Intel SDM, volume 2).
"""

from collections.abc import Sequence

import numpy as np

from qfuzz.arithmetic.windows import columns, pair_order
from qfuzz.exact.rounding import Ints
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import INTEGER_RANGE
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

_LOW, _HIGH = -(2**15), 2**15 - 1
_ORDERS = ("int16_pairs", "int16_pairs_channels_last", "int16_pairs_per_tap")
_BLOCK = 2**22
"""Sums looked at together: 32 MiB of int64."""


def pairs_beyond_int16(node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> tuple[int, int]:
    """How many pairs of products a convolution or linear layer sums, and how many of these sums leave int16.

    Pairs are taken in the orders of `windows.pair_order`; the worst of them is counted. int8 activations are shifted to
    uint8 first, as kernels do. (0, 0) for other operators.
    """
    if not isinstance(node.op, Conv | Linear) or types[1].dtype != "int8":
        return 0, 0
    x, w = arrays[0].astype(np.int64), arrays[1].astype(np.int64)
    shift = 128 if types[0].dtype == "int8" else 0
    rows = columns(node.op, x, w.shape, types[0].qtype.zero_point[0]) + shift
    filters = w.reshape(w.shape[0], -1)
    orders = {order.tobytes(): order for order in (pair_order(w.shape, o) for o in _ORDERS)}
    counted = (_saturating(rows, filters, order) for order in orders.values())
    return max((n, pairs) for pairs, n in counted)[::-1]


def _saturating(rows: Ints, filters: Ints, order: Ints) -> tuple[int, int]:
    """Pairs in all, and those whose sum leaves int16. Position n of `order` is a zero."""
    even = np.pad(filters, [(0, 0), (0, 1)])[:, order]
    n_pairs = even.shape[1] // 2 * rows.shape[0] * len(filters)
    if rows.size == 0:
        return n_pairs, 0
    first, second = even[:, 0::2], even[:, 1::2]
    # Only pairs of weights that could leave int16 for some inputs are looked at: there are few.
    largest = INTEGER_RANGE["uint8"][1]
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    risky = (positive * largest > _HIGH) | (negative * largest < _LOW)
    padded = np.pad(rows, [(0, 0), (0, 0), (0, 1)])
    per_group = len(filters) // rows.shape[1]
    count = 0
    for pair in np.flatnonzero(risky.any(axis=0)).tolist():
        channels = np.flatnonzero(risky[:, pair])
        groups = channels // per_group
        one, other = padded[:, :, order[2 * pair]], padded[:, :, order[2 * pair + 1]]
        step = max(1, _BLOCK // len(channels))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            sums = one[block, groups] * first[channels, pair] + other[block, groups] * second[channels, pair]
            count += int(np.count_nonzero((sums < _LOW) | (sums > _HIGH)))
    return n_pairs, count
