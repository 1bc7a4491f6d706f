"""Elements put in order, filled in, or read at the places of a grid, as Python statements that set ``real``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.findings.by_hand_functions import fraction
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.ops.grid import GridSample, taps_of
from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.semantics import Operand

Array = npt.NDArray[Any]
Index = tuple[int, ...]


def ordered(op: Sort | Topk, x: Array, scale: str, zero: int, index: Index) -> list[str]:
    """One of a line of elements that are sorted."""
    row, place = _line(op, x, index)
    return [f"real = (sorted({row!r}, reverse={op.downwards})[{place}] - {zero}) * {scale}"]


def placed(op: Sort | Topk, x: Array, index: Index) -> list[str]:
    """Where one of a line of elements that are sorted stood; the first of equal ones comes first."""
    row, place = _line(op, x, index)
    order = f"sorted(range(len(row)), key=row.__getitem__, reverse={op.downwards})"
    return [f"row = {row!r}", f"real = Fraction({order}[{place}])"]


def _line(op: Sort | Topk, x: Array, index: Index) -> tuple[list[int], int]:
    axis = op.axis % len(index)
    return np.moveaxis(x, axis, -1)[(*index[:axis], *index[axis + 1 :])].tolist(), index[axis]


def filled(
    op: MaskedFill | IndexPut | ConstantPad,
    types: Sequence[TensorType],
    arrays: Sequence[Array],
    shape: tuple[int, ...],
    scale: str,
    zero: int,
    index: Index,
) -> list[str]:
    """The number, or the element that stays."""
    operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
    if np.broadcast_to(op.filled(operands)[0], shape)[index]:
        return [f"real = {fraction(op.value)}"]
    kept = op.placed(arrays[0].astype(np.float64), operands)[index]
    return [f"real = ({int(kept)} - {zero}) * {scale}"]


def sampled(op: GridSample, x: Array, grid: Array, scale: str, zero: int, index: Index) -> list[str]:
    """An average of the elements around a place."""
    n, c, *at = index
    sizes = (x.shape[2], x.shape[3])
    ((row, column),) = op.places(grid[(n, *at)].astype(np.float64), sizes)
    terms = [f"({int(x[n, c, i, j])} - {zero}) * {fraction(w)}" for i, j, w in taps_of(row.at, column.at, sizes)]
    return [f"real = ({' + '.join(terms) or '0'}) * {scale}  # row {row.at}, column {column.at}"]
