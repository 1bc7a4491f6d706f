"""topk, sort: elements of one dimension in order, or where they stood.

Semantics: `torch.topk` (sorted) and `torch.sort` with ``stable=True``, "making sort stable, which guarantees that the
order of equivalent elements is preserved". Dequantizing increases, so that stored integers tell. Elements are
requantized where the output type differs; where it is int64, indices are given. Of equal elements topk may name any: no
text says which. Of unknown inputs, the k-th of the lower bounds bounds the k-th; their indices may be any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType, check_shape
from qfuzz.ops.movement import Moved
from qfuzz.ops.rearrangement import normal_axis
from qfuzz.ops.semantics import Image, Operand, SteppedImage, per_tensor
from qfuzz.ops.table import known_reals


@dataclass(frozen=True)
class PlacesImage(SteppedImage):
    """Indices: those of a stable order, and where any of equal elements may be named, from the first to the last."""

    lower: Reals
    upper: Reals
    first: Floats
    last: Floats

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        if self.is_point and contract.tie != "any":
            return self.lower.approx, self.lower.approx
        return self.first, self.last


class _Ordered(Moved, frozen=True, kw_only=True):
    axis: int

    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("int64",)

    def taken(self, ordered: Floats) -> Floats:
        """What is given of all elements in order, along the last dimension."""
        raise NotImplementedError

    @property
    def downwards(self) -> bool:
        """Whether the largest comes first."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        if element != "int64":
            return super().infer(inputs, element)
        per_tensor(inputs[0], "x")
        shape = self.shape_of(inputs[0].shape)
        check_shape(shape)
        return shape

    def move(self, a: Floats, zero: float) -> Floats:
        return self._back(np.sort(np.moveaxis(a, self.axis, -1), axis=-1)[..., :: -1 if self.downwards else 1])

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        if element != "int64":
            return super().image(operands, element)
        (x,) = operands
        if not x.is_point:
            shape = self.shape_of(x.type.shape)
            first, last = np.zeros(shape), np.full(shape, max(x.type.shape[self.axis] - 1.0, 0.0))
            return PlacesImage(known_reals(first), known_reals(last), first, last)
        rows = np.moveaxis(x.lo, self.axis, -1)
        order = np.argsort(-rows if self.downwards else rows, axis=-1, kind="stable")
        ordered = np.take_along_axis(rows, order, axis=-1)
        first, last = (
            self._back(np.take_along_axis(order, ends, axis=-1).astype(np.float64)) for ends in _equals(ordered)
        )
        places = known_reals(self._back(order.astype(np.float64)))
        return PlacesImage(places, places, first, last)

    def _back(self, rows: Floats) -> Floats:
        return np.ascontiguousarray(np.moveaxis(self.taken(rows), -1, self.axis))


def _equals(ordered: Floats) -> tuple[Ints, Ints]:
    """Where along the last dimension the first and the last of the elements stand that equal each one."""
    n = ordered.shape[-1]
    places = np.broadcast_to(np.arange(n), ordered.shape)
    starts = np.ones(ordered.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ends = np.ones(ordered.shape, dtype=bool)
    ends[..., :-1] = starts[..., 1:]
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, places, n)[..., ::-1], axis=-1)[..., ::-1]
    return first, last


class Sort(_Ordered, frozen=True, kw_only=True, tag="sort"):
    """Elements along `axis` in ascending order, or descending."""

    descending: bool = False

    @property
    def downwards(self) -> bool:
        return self.descending

    def taken(self, ordered: Floats) -> Floats:
        return ordered

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        normal_axis("axis", self.axis, len(shape))  # raises where it is none
        return shape


class Topk(_Ordered, frozen=True, kw_only=True, tag="topk"):
    """The `k` largest elements along `axis`, the largest first; or the smallest, the smallest first."""

    k: int
    largest: bool = True

    @property
    def downwards(self) -> bool:
        return self.largest

    def taken(self, ordered: Floats) -> Floats:
        return ordered[..., : self.k]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = normal_axis("axis", self.axis, len(shape))
        if not 0 <= self.k <= shape[axis]:
            raise InvalidCase(f"k: {self.k}; needs 0..{shape[axis]} for axis {self.axis} of {shape}")
        return (*shape[:axis], self.k, *shape[axis + 1 :])
