"""float32 as kernels compute it, one rounding an operation: fused multiply-add, and sums in a stated order."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32s = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def fma(a: Array, b: Array, c: Array) -> Float32s:
    """``a * b + c`` of float32 arrays, rounded once.

    The product of two float32 is exact in float64. The sum is rounded to odd there: 53 bits are at least 2 * 24 + 2, so
    that the final rounding to float32 is the correct one (Boldo and Melquiond, "Emulation of FMA and correctly rounded
    sums: proved algorithms using rounding to odd", 2008).
    """
    product, addend = np.asarray(a, dtype=np.float64) * b, np.asarray(c, dtype=np.float64)
    total = product + addend
    # Knuth's two-sum: what the sum has lost.
    shadow = total - product
    lost = (product - (total - shadow)) + (addend - shadow)
    even = (total.view(np.int64) & 1) == 0
    odd = np.where((lost != 0) & even, np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total)
    return odd.astype(np.float32)


def sequential_sum(products: Float32s) -> Float32s:
    """Sum over the last axis, one product after another."""
    total = np.zeros(products.shape[:-1], dtype=np.float32)
    for k in range(products.shape[-1]):
        total = total + products[..., k]
    return total


def pairwise_sum(products: Float32s) -> Float32s:
    """Sum over the last axis as a binary tree: the first half's sum plus the second half's."""
    n = products.shape[-1]
    if n == 1:
        return products[..., 0]
    return np.asarray(pairwise_sum(products[..., : n // 2]) + pairwise_sum(products[..., n // 2 :]))


def bfloat16(x: Array) -> Floats:
    """Rounded to the 8 significant bits of a bfloat16, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(x, dtype=np.float64))
    return np.asarray(np.ldexp(np.rint(mantissa * 256.0) / 256.0, exponent))
