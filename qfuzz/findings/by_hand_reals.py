"""One element of a product of stored floating-point numbers as Python statements."""

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from qfuzz.findings.by_hand_functions import fraction
from qfuzz.ir.tensor import TensorType, qparams_at

Array = npt.NDArray[Any]


def scaled_product(types: Sequence[TensorType], arrays: Sequence[Array], index: tuple[int, ...]) -> list[str]:
    """Element `index` of a scaled_mm; where its row holds no finite numbers only, in floating point."""
    channel = index[1]
    x, w = ([float(v) for v in arrays[i][at]] for i, at in enumerate(index))
    scale_x, scale_w = (fraction(qparams_at(types[i], (at, 0))[0]) for i, at in enumerate(index)) if x else ("1", "1")
    bias = float(arrays[2][channel]) if len(arrays) == 3 else 0.0
    if not all(map(math.isfinite, x)):
        total = sum((a * b for a, b in zip(x, w, strict=True) if not math.isfinite(a)), 0.0)
        if math.isnan(total):
            return ["real = Fraction(0)  # it is NaN: infinities that are opposed, or times 0"]
        return [f"real = {'-' * (total < 0)}Fraction(10) ** 90  # an infinity"]
    pairs = list(zip(x, w, strict=True))
    return [
        f"products = {pairs!r}  # x, weight",
        f"real = sum(Fraction(x) * Fraction(w) for x, w in products) * {scale_x} * {scale_w}",
        *([f"real += {fraction(bias)}  # bias"] if bias else []),
    ]
