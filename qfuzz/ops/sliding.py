"""Windows that slide over an array [N, C, *spatial], as views of it.

NumPy's own `pad` and `sliding_window_view` do the same; on the small arrays here their checks take ten times as long as
the work. `np.ndarray` checks that no view leaves its buffer.
"""

import math
from collections.abc import Sequence

import numpy as np

from qfuzz.exact.rounding import Floats


def padded(a: Floats, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Floats:
    """`a` with so many elements of `value` before and after each spatial dimension, contiguous."""
    if not any(before) and not any(after):
        return np.ascontiguousarray(a)
    sizes = a.shape[2:]
    out = np.full((*a.shape[:2], *(n + b + e for n, b, e in zip(sizes, before, after, strict=True))), value)
    inside = [slice(b, b + n) for n, b in zip(sizes, before, strict=True)]
    out[(slice(None), slice(None), *inside)] = a
    return out


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """What ONNX's auto_pad SAME_* pads each dimension by, both ends together (Conv: output = ceil(input / stride)).

    With strides beyond the kernel the specification's formula may give less than nothing, and no text says what that
    means (microsoft/onnxruntime#10086).
    """
    return [
        (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]


def windows(
    a: Floats, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Floats:
    """Windows [N, C, *out, *kernel] of the contiguous `a`."""
    steps = a.strides[2:]
    moves = (s * n for s, n in zip(strides, steps, strict=True))
    taps = (d * n for d, n in zip(dilations, steps, strict=True))
    return np.ndarray((*a.shape[:2], *out, *kernel), a.dtype, a, 0, (*a.strides[:2], *moves, *taps))


def columns(
    a: Floats, groups: int, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Floats:
    """The same windows as the columns of one matrix a group: [groups, C/groups * kernel, N * out]."""
    n, channels = a.shape[:2]
    each = channels // groups
    by_batch, by_channel, *steps = a.strides
    moves = (s * n for s, n in zip(strides, steps, strict=True))
    taps = (d * n for d, n in zip(dilations, steps, strict=True))
    view: Floats = np.ndarray(
        (groups, each, *kernel, n, *out),
        a.dtype,
        a,
        0,
        (each * by_channel, by_channel, *taps, by_batch, *moves),
    )
    return view.reshape(groups, each * math.prod(kernel), n * math.prod(out))
