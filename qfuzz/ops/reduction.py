"""mean, amax, amin: the mean over axes, the largest and the smallest element.

Semantics: ONNX ReduceMean (opset 18), ReduceMax and ReduceMin (opset 20). Of ReduceMean, "reduction over an empty set
of values yields undefined", of the others an infinity, which stands for no stored integer: no networks here.
"""

import math
from collections.abc import Sequence

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.pooling import check_summed, mean_image
from qfuzz.ops.rearrangement import normal_axes
from qfuzz.ops.semantics import ExactOperator, Image, Operand, check_rescaling, identity_image


def check_ascending(axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise `InvalidCase` unless `axes` are ascending axes of `shape`, counted from the front."""
    rank = len(shape)
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < rank for a in axes):
        raise InvalidCase(f"axes: {axes}; needs ascending axes in 0..{rank - 1} for shape {shape}")


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], *, keepdims: bool) -> tuple[int, ...]:
    """What is left of `shape` where `axes` are reduced."""
    if keepdims:
        return tuple(1 if d in axes else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in axes)


class Mean(ExactOperator, frozen=True, kw_only=True, tag="mean"):
    """The mean over `axes`.

    Attributes
    ----------
    axes
        Ascending. None at all are all of them, or with `noop_with_empty_axes` truly none.
    keepdims
        Whether reduced dimensions stay, with size 1.
    """

    axes: tuple[int, ...]
    keepdims: bool = True
    noop_with_empty_axes: bool = False

    def reduced(self, rank: int) -> tuple[int, ...]:
        """The axes that are reduced of a value of `rank` dimensions."""
        return self.axes if self.axes or self.noop_with_empty_axes else tuple(range(rank))

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        check_ascending(self.axes, x.shape)
        axes = self.reduced(len(x.shape))
        check_summed(x, math.prod(x.shape[a] for a in axes))
        if any(x.shape[a] == 0 for a in axes):
            raise InvalidCase(f"axes: {axes} of shape {x.shape}; the mean of no elements is undefined")
        return reduced_shape(x.shape, axes, keepdims=self.keepdims)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        axes = self.reduced(len(x.type.shape))
        n = math.prod(x.type.shape[a] for a in axes)

        def summed(a: Floats) -> Floats:
            return np.asarray(a.sum(axis=axes, keepdims=self.keepdims))

        return mean_image(x, element, shape, summed, np.full((), n), n)


class _Extreme(ExactOperator, frozen=True, kw_only=True):
    """The largest or the smallest element over `axes`: dequantizing increases, so that stored integers tell.

    Attributes
    ----------
    axes
        In any order, and negative ones count from the back. None at all are all of them, or with
        `noop_with_empty_axes` truly none.
    keepdims
        Whether reduced dimensions stay, with size 1.
    """

    axes: tuple[int, ...]
    keepdims: bool = True
    noop_with_empty_axes: bool = False

    def extreme(self, a: Floats, axes: tuple[int, ...]) -> Floats:
        """The largest or the smallest of stored integers."""
        raise NotImplementedError

    def reduced(self, rank: int) -> tuple[int, ...]:
        """The axes that are reduced of a value of `rank` dimensions, counted from the front."""
        axes = normal_axes("axes", self.axes, rank)
        return axes if axes or self.noop_with_empty_axes else tuple(range(rank))

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        axes = self.reduced(len(x.shape))
        if any(x.shape[a] == 0 for a in axes):
            raise InvalidCase(f"axes: {self.axes} of shape {x.shape}; of no elements none is the {self.name}")
        return reduced_shape(x.shape, axes, keepdims=self.keepdims)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        axes = self.reduced(len(x.type.shape))
        lo = self.extreme(x.lo, axes).reshape(shape)
        hi = lo if x.is_point else self.extreme(x.hi, axes).reshape(shape)
        return identity_image(x, lo, hi, shape, element)


class Amax(_Extreme, frozen=True, kw_only=True, tag="amax"):
    """The largest element over `axes`."""

    def extreme(self, a: Floats, axes: tuple[int, ...]) -> Floats:
        return np.asarray(a.max(axis=axes))


class Amin(_Extreme, frozen=True, kw_only=True, tag="amin"):
    """The smallest element over `axes`."""

    def extreme(self, a: Floats, axes: tuple[int, ...]) -> Floats:
        return np.asarray(a.min(axis=axes))
