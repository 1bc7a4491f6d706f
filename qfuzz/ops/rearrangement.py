"""split, squeeze, unsqueeze, expand, gather, depth_to_space, space_to_depth: elements move, are repeated or selected.

Semantics: ONNX Split (opset 18), Squeeze and Unsqueeze (opset 21), Expand, Gather, DepthToSpace and SpaceToDepth (opset
13). Elements are requantized where the output type differs. Axes may be negative, as there: they count from the back.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.tensor import MAX_ELEMENTS, check_shape
from qfuzz.ops.movement import Moved


def normal_axis(attribute: str, axis: int, rank: int) -> int:
    """`axis` counted from the front; raises `InvalidCase` unless it lies in -rank..rank-1."""
    if not -rank <= axis < rank:
        raise InvalidCase(f"{attribute}: {axis}; needs {-rank}..{rank - 1} for rank {rank}")
    return axis % rank


def normal_axes(attribute: str, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Several of them; none may come twice."""
    normal = tuple(normal_axis(attribute, a, rank) for a in axes)
    if len(set(normal)) != len(normal):
        raise InvalidCase(f"{attribute}: {tuple(axes)}; names an axis of rank {rank} twice")
    return normal


class Split(Moved, frozen=True, kw_only=True, tag="split"):
    """One part of the input, cut along `axis`.

    Attributes
    ----------
    sizes
        Of all parts; they add up to the dimension.
    index
        Which of the parts this is. Nodes that differ in it only are one ONNX Split.
    counted
        Whether ONNX is told the number of parts and no sizes: all are equal, only the last may be smaller.
    """

    axis: int
    sizes: tuple[int, ...]
    index: int
    counted: bool = False

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = normal_axis("axis", self.axis, len(shape))
        if not self.sizes or min(self.sizes) < 0 or sum(self.sizes) != shape[axis]:
            raise InvalidCase(f"sizes: {self.sizes}; need sizes of at least 0 that add up to {shape[axis]}")
        if not 0 <= self.index < len(self.sizes):
            raise InvalidCase(f"index: {self.index}; needs 0..{len(self.sizes) - 1}, one of the parts")
        if self.counted and self.sizes != equal_parts(shape[axis], len(self.sizes)):
            raise InvalidCase(
                f"sizes: {self.sizes}; {len(self.sizes)} parts of {shape[axis]} are "
                f"{equal_parts(shape[axis], len(self.sizes))} where they are counted"
            )
        return (*shape[:axis], self.sizes[self.index], *shape[axis + 1 :])

    def move(self, a: Floats, zero: float) -> Floats:
        axis = self.axis % a.ndim
        start = sum(self.sizes[: self.index])
        return a[(slice(None),) * axis + (slice(start, start + self.sizes[self.index]),)]


def equal_parts(size: int, n: int) -> tuple[int, ...] | None:
    """What ONNX Split with num_outputs `n` makes of `size`; None where not even the last part would be left."""
    chunk = -(-size // n)
    last = size - chunk * (n - 1)
    return (*(chunk,) * (n - 1), last) if last >= 0 else None


class Squeeze(Moved, frozen=True, kw_only=True, tag="squeeze"):
    """Dimensions `axes`, each of length 1, left out; all of length 1 where `axes` is empty."""

    axes: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axes = normal_axes("axes", self.axes, len(shape))
        if any(shape[a] != 1 for a in axes):
            raise InvalidCase(f"axes: {self.axes}; only dimensions of length 1 can be left out of {shape}")
        if not axes:
            return tuple(d for d in shape if d != 1)
        return tuple(d for i, d in enumerate(shape) if i not in axes)

    def move(self, a: Floats, zero: float) -> Floats:
        return a.reshape(self.shape_of(a.shape))


class Unsqueeze(Moved, frozen=True, kw_only=True, tag="unsqueeze"):
    """Dimensions of length 1 put in, so that they stand at `axes` of the output."""

    axes: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(shape) + len(self.axes)
        axes = normal_axes("axes", self.axes, rank)
        left = iter(shape)
        return tuple(1 if i in axes else next(left) for i in range(rank))

    def move(self, a: Floats, zero: float) -> Floats:
        return a.reshape(self.shape_of(a.shape))


class Expand(Moved, frozen=True, kw_only=True, tag="expand"):
    """Input and `shape` broadcast against each other: a dimension of `shape` may be 1, or missing, as well."""

    shape: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_shape(self.shape)
        try:
            return tuple(int(d) for d in np.broadcast_shapes(shape, self.shape))
        except ValueError:
            raise InvalidCase(f"shape: {self.shape} and {shape} do not broadcast") from None

    def move(self, a: Floats, zero: float) -> Floats:
        return np.broadcast_to(a, self.shape_of(a.shape))


def check_count(indices: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise `InvalidCase` unless `shape` is sane, and holds as many elements as there are `indices`."""
    check_shape(shape)
    if math.prod(shape) != len(indices):
        raise InvalidCase(f"indices: {len(indices)} of them; shape {shape} has another number")


def check_indices(indices: tuple[int, ...], axis: int, shape: tuple[int, ...]) -> None:
    """Raise `InvalidCase` unless each index names an entry of `axis` of `shape`, from either end."""
    size = shape[axis]
    if any(not -size <= i < size for i in indices):
        raise InvalidCase(f"indices: {indices}; need {-size}..{size - 1} for axis {axis} of {shape}")


class Gather(Moved, frozen=True, kw_only=True, tag="gather"):
    """Entries of `axis` at constant `indices`, whose dimensions stand in the place of that axis.

    Attributes
    ----------
    indices
        In row-major order; negative ones count from the back.
    indices_shape
        Their shape; an empty shape is one index, and the axis goes away.
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
        check_indices(self.indices, axis, shape)
        return (*shape[:axis], *self.indices_shape, *shape[axis + 1 :])

    def move(self, a: Floats, zero: float) -> Floats:
        return np.take(a, np.array(self.indices, dtype=np.int64).reshape(self.indices_shape), axis=self.axis)


def _image(shape: tuple[int, ...], blocksize: int) -> tuple[int, ...]:
    if len(shape) != 4:
        raise InvalidCase(f"x: shape {shape}; needs [N, C, H, W]")
    if not 1 <= blocksize <= MAX_ELEMENTS:
        raise InvalidCase(f"blocksize: {blocksize}; needs 1..{MAX_ELEMENTS}")
    return shape


class DepthToSpace(Moved, frozen=True, kw_only=True, tag="depth_to_space"):
    """Channels [N, C, H, W] made blocks of pixels.

    Attributes
    ----------
    blocksize
        Height and width of a block; its square divides C.
    mode
        ``DCR`` takes block positions from the channel's slow part, ``CRD`` (PyTorch's pixel_shuffle) from its fast one.
    """

    blocksize: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n, c, h, w = _image(shape, self.blocksize)
        if c % self.blocksize**2:
            raise InvalidCase(f"blocksize: {self.blocksize}; its square must divide the {c} channels")
        return n, c // self.blocksize**2, h * self.blocksize, w * self.blocksize

    def move(self, a: Floats, zero: float) -> Floats:
        n, c, h, w = a.shape
        b = self.blocksize
        if self.mode == "DCR":
            blocks = a.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            blocks = a.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return blocks.reshape(self.shape_of(a.shape))


class SpaceToDepth(Moved, frozen=True, kw_only=True, tag="space_to_depth"):
    """Blocks of pixels of [N, C, H, W] made channels.

    Attributes
    ----------
    blocksize
        Height and width of a block; it divides H and W.
    mode
        Block positions become the channel's slow part (``DCR``, as in ONNX), or its fast one (``CRD``, PyTorch's
        pixel_unshuffle).
    """

    blocksize: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n, c, h, w = _image(shape, self.blocksize)
        if h % self.blocksize or w % self.blocksize:
            raise InvalidCase(f"blocksize: {self.blocksize}; it must divide height and width of {shape}")
        return n, c * self.blocksize**2, h // self.blocksize, w // self.blocksize

    def move(self, a: Floats, zero: float) -> Floats:
        n, c, h, w = a.shape
        b = self.blocksize
        blocks = a.reshape(n, c, h // b, b, w // b, b)
        blocks = blocks.transpose(0, 3, 5, 1, 2, 4) if self.mode == "DCR" else blocks.transpose(0, 1, 3, 5, 2, 4)
        return blocks.reshape(self.shape_of(a.shape))
