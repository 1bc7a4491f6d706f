"""flip, channel_shuffle, unfold, reflection_pad: elements turned round, interleaved, repeated in windows, mirrored.

Semantics: `torch.flip`, `torch.nn.functional.channel_shuffle`, `torch.Tensor.unfold`, `torch.nn.functional.pad` with
mode ``reflect`` or ``circular``. Elements are requantized where the output type differs.
"""

from typing import Literal

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.tensor import MAX_ELEMENTS
from qfuzz.ops.movement import Moved
from qfuzz.ops.rearrangement import normal_axes, normal_axis


class Flip(Moved, frozen=True, kw_only=True, tag="flip"):
    """The order of elements turned round along `axes`, which may be negative, and none at all."""

    axes: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        normal_axes("axes", self.axes, len(shape))  # raises where one is none
        return shape

    def move(self, a: Floats, zero: float) -> Floats:
        return np.flip(a, axis=self.axes)


class ChannelShuffle(Moved, frozen=True, kw_only=True, tag="channel_shuffle"):
    """Channels [N, C, *] cut into `groups` of equal size, and taken one of each group in turn."""

    groups: int

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 3:
            raise InvalidCase(f"x: shape {shape}; needs [N, C, *] of three dimensions at least")
        if not 1 <= self.groups <= MAX_ELEMENTS or shape[1] % self.groups:
            raise InvalidCase(f"groups: {self.groups}; needs a number that divides the {shape[1]} channels")
        return shape

    def move(self, a: Floats, zero: float) -> Floats:
        n, c, *sizes = a.shape
        return a.reshape(n, self.groups, c // self.groups, *sizes).swapaxes(1, 2).reshape(a.shape)


class Unfold(Moved, frozen=True, kw_only=True, tag="unfold"):
    """Windows over `axis`, which lie along a new last dimension.

    Attributes
    ----------
    size, step
        Length of a window, and from one to the next. Only windows within the dimension count.
    """

    axis: int
    size: int
    step: int = 1

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = normal_axis("axis", self.axis, len(shape))
        if not 0 <= self.size <= shape[axis] or not 1 <= self.step <= MAX_ELEMENTS:
            raise InvalidCase(
                f"size, step: {self.size}, {self.step}; needs 0 <= size <= {shape[axis]} and step in 1..{MAX_ELEMENTS}"
            )
        windows = (shape[axis] - self.size) // self.step + 1
        return (*shape[:axis], windows, *shape[axis + 1 :], self.size)

    def move(self, a: Floats, zero: float) -> Floats:
        axis = self.axis % a.ndim
        starts = np.arange(self.shape_of(a.shape)[axis]) * self.step
        taken = np.take(a, starts[:, None] + np.arange(self.size), axis=axis)
        return np.moveaxis(taken, axis + 1, -1)


class ReflectionPad(Moved, frozen=True, kw_only=True, tag="reflection_pad"):
    """The last dimensions continued by their mirror image, whose mirror is the outermost element.

    Attributes
    ----------
    padding
        Before each of the last dimensions, then after each; shorter than the dimension, or as long where circular.
    mode
        ``circular``: no mirror image, but what the other end begins with.
    """

    padding: tuple[int, ...]
    mode: Literal["reflect", "circular"] = "reflect"

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = len(self.padding) // 2
        if not 1 <= n <= 3 or len(self.padding) % 2 or len(shape) not in (n + 1, n + 2):
            raise InvalidCase(f"padding: {self.padding}; needs two values for each spatial dimension of {shape}")
        if 0 in shape[len(shape) - n - 1 :]:
            raise InvalidCase(f"x: shape {shape}; only the batch may be empty")
        for i, size in enumerate(shape[-n:]):
            most = size if self.mode == "circular" else size - 1
            if not 0 <= min(self.padding[i], self.padding[n + i]) <= max(self.padding[i], self.padding[n + i]) <= most:
                raise InvalidCase(f"padding: {self.padding}; needs 0..{most} for a dimension of {size}")
        own = (d + self.padding[i] + self.padding[n + i] for i, d in enumerate(shape[-n:]))
        return (*shape[:-n], *own)

    def move(self, a: Floats, zero: float) -> Floats:
        n = len(self.padding) // 2
        sides = [(self.padding[i], self.padding[n + i]) for i in range(n)]
        around = [(0, 0)] * (a.ndim - n) + sides
        return np.pad(a, around, mode="wrap") if self.mode == "circular" else np.pad(a, around, mode="reflect")
