"""How many adjacent products leave int16: what a CPU without VNNI gets wrong, whatever this one has.

x86 vpmaddubsw multiplies uint8 by int8 and sums adjacent pairs with saturation to int16 (Intel SDM, volume 2).
"""

from collections.abc import Sequence

import numpy as np

from qfuzz.arithmetic.windows import channels_last, columns
from qfuzz.exact.rounding import Ints
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import INTEGER_RANGE
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

_LOW, _HIGH = -(2**15), 2**15 - 1


def pairs_beyond_int16(node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> tuple[int, int]:
    """How many pairs of products a convolution or linear layer sums, and how many of these sums leave int16.

    Pairs are taken along the weight as stored, and along its channels; the worse of the two orders is counted. int8
    activations are shifted to uint8 first, as kernels do. (0, 0) for other operators.
    """
    if not isinstance(node.op, Conv | Linear) or types[1].dtype != "int8":
        return 0, 0
    x, w = arrays[0].astype(np.int64), arrays[1].astype(np.int64)
    shift = 128 if types[0].dtype == "int8" else 0
    rows = columns(node.op, x, w.shape, types[0].qtype.zero_point[0]) + shift
    filters = w.reshape(w.shape[0], -1)
    n_pairs = (filters.shape[1] + 1) // 2 * rows.shape[0] * filters.shape[0]
    orders = [np.arange(filters.shape[1])]
    if w.ndim > 2 and w.shape[1] > 1:
        orders.append(channels_last(w.shape))
    return n_pairs, max(_saturating(rows[..., order], filters[:, order]) for order in orders)


def _saturating(rows: Ints, filters: Ints) -> int:
    if rows.size == 0:
        return 0
    if filters.shape[1] % 2:
        rows = np.concatenate([rows, np.zeros((*rows.shape[:-1], 1), dtype=np.int64)], axis=-1)
        filters = np.concatenate([filters, np.zeros((len(filters), 1), dtype=np.int64)], axis=-1)
    first, second = filters[:, 0::2], filters[:, 1::2]
    # Only pairs of weights that could leave int16 for some inputs are looked at: there are few.
    largest = INTEGER_RANGE["uint8"][1]
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    risky = (positive * largest > _HIGH) | (negative * largest < _LOW)
    per_group = len(filters) // rows.shape[1]
    count = 0
    for channel, pair in np.argwhere(risky).tolist():
        group = rows[:, channel // per_group]
        sums = group[:, 2 * pair] * first[channel, pair] + group[:, 2 * pair + 1] * second[channel, pair]
        count += int(np.count_nonzero((sums < _LOW) | (sums > _HIGH)))
    return count
