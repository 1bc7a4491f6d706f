"""Products whose activations a kernel may round to int8 on the way, in blocks that share a scale.

onnxruntime/docs/ContribOperators.md, MatMulNBits: with accuracy_level 4 "input A can be quantized with the same
block_size to int8", which is what a session makes of DequantizeLinear and MatMul unless it is told otherwise.
"""

import numpy as np

from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.tensor import laid_out
from qfuzz.ops.semantics import Operand


def rounded_product(x: Floats, weight: Operand, block: int, *, summed: int) -> tuple[Floats, Floats]:
    """By how much rounding moves a product with `weight` at most, and the magnitudes of all that is summed then.

    Parameters
    ----------
    x
        Magnitudes of the activations [..., K], as reals.
    block
        How many neighbours along K share a scale, where the weight has no blocks of its own.
    summed
        The axis of the weight that is K.
    """
    q = weight.type.qtype
    scales = laid_out(q, q.scale, weight.type.shape)
    step = _int8_error(_block_maximum(x, q.block or block))
    size = np.abs(scales * weight.centered()[0])
    apart = scales * (np.abs(weight.lo - q.qmin) + np.abs(weight.zero_points - q.qmin))
    if summed:
        size, apart = size.T, apart.T
    # What scales of the blocks lose to underflow, times integers of 127 at most, is far below 2^-140.
    return step @ size + 2.0**-140 * apart.sum(axis=0), (x + step) @ apart


def _block_maximum(values: Floats, block: int) -> Floats:
    """The largest of the block along the last axis that each value belongs to."""
    length = values.shape[-1]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -length % block)])
    largest = padded.reshape(*values.shape[:-1], -(-length // block), block).max(axis=-1)
    return np.asarray(largest.repeat(block, axis=-1)[..., :length])


def _int8_error(largest: Floats) -> Floats:
    """How far from a real number the nearest int8, times a block's scale, may be.

    The scale is largest / 127, and the integer the nearest to x * (127 / largest): half a step, and three roundings of
    numbers up to `largest`. Where the reciprocal overflows float32, what remains may be nothing of the number.
    """
    return np.where(largest < 2.0**-100, largest, largest * (0.5 / 127 + gamma(3)))
