"""The stored inputs that each output of a convolution or linear layer sums, as rows in the weight's order."""

import math

import numpy as np
import numpy.typing as npt

from qfuzz.exact.rounding import Ints
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear


def columns(op: Conv | Linear, x: Ints, weight_shape: tuple[int, ...], pad: int) -> Ints:
    """Inputs [rows, groups, K] of the output positions; a filter [channels, K] of group g multiplies column g.

    Parameters
    ----------
    pad
        The stored integer that padding holds.
    """
    if isinstance(op, Linear):
        return x.reshape(math.prod(x.shape[:-1]), 1, x.shape[-1])
    spatial = x.ndim - 2
    kernel = weight_shape[2:]
    pads = [(0, 0), (0, 0), *((op.padding[i], op.padding[spatial + i]) for i in range(spatial))]
    padded = np.pad(x, pads, constant_values=pad)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(op.dilations, kernel, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
    windows = windows[
        (
            slice(None),
            slice(None),
            *(slice(None, None, s) for s in op.strides),
            *(slice(None, None, d) for d in op.dilations),
        )
    ]
    out = windows.shape[2 : 2 + spatial]
    # [N, C, *out, *kernel] -> [N, *out, G, C/G, *kernel]
    moved = np.moveaxis(windows, 1, 1 + spatial)
    return moved.reshape(x.shape[0] * math.prod(out), op.groups, math.prod(weight_shape[1:]))


def laid_out(values: npt.NDArray[np.generic], op: Conv | Linear, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Results [rows, channels] in the output's `shape`."""
    if isinstance(op, Linear):
        return values.reshape(shape)
    moved = np.moveaxis(values.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return np.ascontiguousarray(moved)


def pair_order(weight_shape: tuple[int, ...], products: str) -> Ints:
    """Positions within a filter [C, *kernel], or n for a zero, in the order in which products are taken in pairs.

    Parameters
    ----------
    products
        ``int16_pairs``: as the dimensions are; ``int16_pairs_channels_last``: channels last, pairs may cross taps;
        ``int16_pairs_per_tap``: channels last, where an odd channel of a tap is paired with a zero; of a linear layer,
        more than 256 channels are taken in two halves, the first one the larger (oneDNN's gemm, as measured from 257 to
        765 channels).
    """
    n, taps = math.prod(weight_shape[1:]), math.prod(weight_shape[2:])
    order = np.arange(n).reshape(-1, taps)
    if products == "int16_pairs":
        order = order.reshape(1, n)
    elif products == "int16_pairs_channels_last":
        order = order.T.reshape(1, n)
    elif len(weight_shape) == 2 and n > 256:
        order = np.pad(order.ravel(), (0, n % 2), constant_values=n).reshape(2, -1)
    else:
        order = order.T
    return np.pad(order, [(0, 0), (0, order.shape[1] % 2)], constant_values=n).ravel()
