"""Integers as float32 real numbers, by choice."""

from typing import Any, Literal, TypeAlias

import numpy as np

from qfuzz.arithmetic.float32 import Float32s, fma
from qfuzz.ir.protocols import Array

Dequantized: TypeAlias = Literal["dequantized", "dequantized_fma"]
"""``dequantized``: fl(s * (q - z)); ``dequantized_fma``: fma(s, q, fl(s * -z)), PyTorch's vectors."""

Output: TypeAlias = Literal["own", "divided", "reciprocal", "reciprocal_fused"]
"""How a float32 real number comes into output units: divided by s_y, or times fl(1 / s_y), or fma(v, fl(1 / s_y), z_y),
as compilers contract ``z + v * inv``. ``own``: it is there."""


def dequantized(centered: Array, zero_point: int, scale: np.float32, choice: Any) -> Float32s:
    """float32 real numbers of integers less their zero point."""
    if choice == "dequantized_fma":
        stored = (centered + zero_point).astype(np.float32)
        return fma(np.broadcast_to(scale, stored.shape), stored, np.asarray(scale * np.float32(-zero_point)))
    return np.asarray(centered.astype(np.float32) * scale)
