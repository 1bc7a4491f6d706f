"""topk, sort: elements of one dimension in order. Which of equal ones comes first makes no difference to values.

Semantics: the values of `torch.topk` (sorted) and `torch.sort`. Dequantizing increases, so that stored integers tell.
Elements are requantized where the output type differs. Of unknown inputs, the k-th of the lower bounds bounds the k-th.
"""

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ops.movement import Moved
from qfuzz.ops.rearrangement import normal_axis


class Sort(Moved, frozen=True, kw_only=True, tag="sort"):
    """Elements along `axis` in ascending order, or descending."""

    axis: int
    descending: bool = False

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        normal_axis("axis", self.axis, len(shape))  # raises where it is none
        return shape

    def move(self, a: Floats, zero: float) -> Floats:
        ascending = np.sort(a, axis=self.axis)
        return np.flip(ascending, axis=self.axis) if self.descending else ascending


class Topk(Moved, frozen=True, kw_only=True, tag="topk"):
    """The `k` largest elements along `axis`, the largest first; or the smallest, the smallest first."""

    k: int
    axis: int
    largest: bool = True

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = normal_axis("axis", self.axis, len(shape))
        if not 0 <= self.k <= shape[axis]:
            raise InvalidCase(f"k: {self.k}; needs 0..{shape[axis]} for axis {self.axis} of {shape}")
        return (*shape[:axis], self.k, *shape[axis + 1 :])

    def move(self, a: Floats, zero: float) -> Floats:
        axis = self.axis % a.ndim
        ordered = Sort(axis=axis, descending=self.largest).move(a, zero)
        return ordered[(slice(None),) * axis + (slice(self.k),)]
