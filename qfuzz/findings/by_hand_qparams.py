"""Scales and zero points that follow from the data's range, as statements in exact rationals."""

from typing import Any

import numpy as np

from qfuzz.ops.dynamic import DynamicQuantize
from qfuzz.ops.dynamic_range import QMAX, SMALL_SCALE_THRESHOLD
from qfuzz.ops.qparams import ChooseQparams


def qparams_lines(op: DynamicQuantize | ChooseQparams, x: Any, index: tuple[int, ...]) -> list[str]:
    """Statements that compute one element of the node: a stored integer, or a zero point."""
    row = x[index[:-1]] if isinstance(op, ChooseQparams) and op.tokens else x
    below, above = max(0.0, -float(np.min(row, initial=0.0))), max(0.0, float(np.max(row, initial=0.0)))
    lines = [f"below, above = Fraction({below!r}), Fraction({above!r})  # how far the data reach from 0"]
    if isinstance(op, ChooseQparams):
        if op.symmetric:
            return [f"real = Fraction({128 if op.dtype == 'uint8' and not op.tokens else 0})"]
        lines.append(f"scale = max((below + above) / {op.quant_max - op.quant_min}, Fraction({op.least!r}))")
        cut = f"min(max({op.quant_min} + round(below / scale), {op.quant_min}), {op.quant_max})"
        return [*lines, f"real = Fraction({cut})"]
    least = SMALL_SCALE_THRESHOLD if op.chosen_as == "torch" else 0
    lines.append(f"own = (below + above) / {QMAX // 2 if op.reduce_range else QMAX}")
    lines.append("zero_point = round(below / own) if own else 0")
    if op.output == "zero_point":
        return [*lines, "real = Fraction(zero_point)"]
    lines.append(f"scale = max(own, Fraction({float(least)!r}))")
    return [*lines, f"real = Fraction((round(Fraction({float(x[index])!r}) / scale) if scale else 0) + zero_point)"]
