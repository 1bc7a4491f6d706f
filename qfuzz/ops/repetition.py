"""tile, gather_elements: elements are repeated, or picked one by one.

Semantics: ONNX Tile and GatherElements (opset 13). Elements are requantized where the output type differs.
"""

from typing import Literal

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.tensor import MAX_ELEMENTS
from qfuzz.ops.movement import Moved
from qfuzz.ops.rearrangement import check_count, check_indices, normal_axis


class Tile(Moved, frozen=True, kw_only=True, tag="tile"):
    """The input repeated as a whole: `repeats` times along each dimension, which may be 0 times."""

    repeats: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(self.repeats) != len(shape) or any(not 0 <= r <= MAX_ELEMENTS for r in self.repeats):
            raise InvalidCase(f"repeats: {self.repeats}; needs {len(shape)} values in 0..{MAX_ELEMENTS} for {shape}")
        return tuple(d * r for d, r in zip(shape, self.repeats, strict=True))

    def move(self, a: Floats, zero: float) -> Floats:
        return np.tile(a, self.repeats)


class GatherElements(Moved, frozen=True, kw_only=True, tag="gather_elements"):
    """For each element of the output, the one at the same place but for `axis`, where a constant index says which.

    Attributes
    ----------
    indices
        In row-major order; negative ones count from the back.
    indices_shape
        Their shape, and the output's: of the input's rank, and nowhere longer than it but along `axis`.
    index_dtype
        How ONNX stores them.
    """

    axis: int
    indices: tuple[int, ...]
    indices_shape: tuple[int, ...]
    index_dtype: Literal["int64", "int32"] = "int64"

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = normal_axis("axis", self.axis, len(shape))
        check_count(self.indices, self.indices_shape)
        if len(self.indices_shape) != len(shape) or any(
            n > size for d, (n, size) in enumerate(zip(self.indices_shape, shape, strict=True)) if d != axis
        ):
            raise InvalidCase(
                f"indices_shape: {self.indices_shape}; needs {len(shape)} sizes, those of {shape} at most but on axis "
                f"{axis}"
            )
        check_indices(self.indices, axis, shape)
        return self.indices_shape

    def move(self, a: Floats, zero: float) -> Floats:
        axis = self.axis % a.ndim
        near = a[tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(self.indices_shape))]
        chosen = np.array(self.indices, dtype=np.int64).reshape(self.indices_shape)
        return np.asarray(np.take_along_axis(near, np.where(chosen < 0, chosen + a.shape[axis], chosen), axis=axis))
