"""argmax: where along an axis the largest element stands, or the smallest.

Semantics: ONNX ArgMax (opset 13), and the indices of `torch.max` and `torch.min`: of equal ones, the first. Scales are
positive, so that real values are in the order of their stored integers, and equal only where those are: an index is
decided exactly. A float32 kernel on dequantized values decides the same: rounding the product of a scale and a
difference of less than 24 bits keeps order and keeps apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.quantization import check_dequantized
from qfuzz.ops.rearrangement import normal_axis
from qfuzz.ops.semantics import ExactOperator, Image, Operand, per_tensor
from qfuzz.ops.table import known_reals


@dataclass(frozen=True)
class IndexImage(Image):
    """Indices: no kernel rounds them."""

    lower: Reals
    upper: Reals

    def error(self, contract: Contract) -> Floats:
        return np.zeros(())


class Argmax(ExactOperator, frozen=True, kw_only=True, tag="argmax"):
    """The index of the largest element along `axis`, a plain int64.

    Attributes
    ----------
    axis
        May be negative.
    keepdims
        Whether the axis stays, with length 1.
    select_last_index
        Whether the last of equal elements counts; else the first.
    smallest
        Whether the smallest element is meant.
    """

    axis: int
    keepdims: bool = True
    select_last_index: bool = False
    smallest: bool = False

    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("int64",)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        q = per_tensor(x, "x")
        if element != "int64":
            raise InvalidCase(f"output: needs plain int64 elements, got {element}")
        check_dequantized(q, "float32")
        axis = normal_axis("axis", self.axis, len(x.shape))
        if x.shape[axis] == 0:
            raise InvalidCase(f"axis: {self.axis}; an empty dimension of {x.shape} has no largest element")
        return (*x.shape[:axis], *((1,) if self.keepdims else ()), *x.shape[axis + 1 :])

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        bounds = (-x.hi, -x.lo) if self.smallest else (x.lo, x.hi)
        lo, hi = (np.moveaxis(a, self.axis, -1) for a in bounds)
        possible = self._wins(lo, hi)
        first = possible.argmax(axis=-1)
        low = known_reals(np.asarray(first, dtype=np.float64).reshape(shape))
        if x.is_point:
            return IndexImage(low, low)
        last = lo.shape[-1] - 1 - possible[..., ::-1].argmax(axis=-1)
        return IndexImage(low, known_reals(np.asarray(last, dtype=np.float64).reshape(shape)))

    def _wins(self, lo: Floats, hi: Floats) -> npt.NDArray[np.bool_]:
        """Where the last axis can hold the selected element: it beats the least values of all those before and after.

        Of equal ones the first counts, so that it must be larger than what comes before it, and not smaller than what
        comes after; the other way round for the last.
        """
        least = np.full((*lo.shape[:-1], 1), -np.inf)
        before = np.concatenate([least, np.maximum.accumulate(lo, axis=-1)[..., :-1]], axis=-1)
        after = np.concatenate([np.maximum.accumulate(lo[..., ::-1], axis=-1)[..., ::-1][..., 1:], least], axis=-1)
        if self.select_last_index:
            return np.asarray((hi >= before) & (hi > after))
        return np.asarray((hi > before) & (hi >= after))
