"""concat, concat_relu, reshape, transpose, slice, pad, flatten: elements move, and are requantized where types differ.

Semantics: ONNX Concat, Reshape, Transpose, Slice, Pad, Flatten; `torch.cat`, `reshape`, `permute`, `constant_pad_nd`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import MAX_ELEMENTS, TensorType, check_shape
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_rescaling,
    float_scale,
    identity_image,
    linear_image,
)


class Concat(ExactOperator, frozen=True, kw_only=True, tag="concat"):
    """Inputs one after the other along `axis`; each may have its own scale and zero point."""

    axis: int

    arity: ClassVar[tuple[int, int]] = (1, 8)
    relu: ClassVar[bool] = False

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        first = inputs[0].shape
        if not 0 <= self.axis < len(first):
            raise InvalidCase(f"axis: {self.axis}; needs 0..{len(first) - 1} for shape {first}")
        for i, t in enumerate(inputs):
            check_rescaling(t, element)
            same = len(t.shape) == len(first) and all(
                a == b for d, (a, b) in enumerate(zip(t.shape, first, strict=True)) if d != self.axis
            )
            if not same:
                raise InvalidCase(f"input {i}: shape {t.shape}; all but axis {self.axis} must be as in {first}")
        return (*first[: self.axis], sum(t.shape[self.axis] for t in inputs), *first[self.axis + 1 :])

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        shape = self.infer([o.type for o in operands], element)
        sizes = [o.type.shape[self.axis] for o in operands]
        scales = np.repeat(np.array([o.float_scale for o in operands]), sizes)
        m = Multiplier.ratio(scales.reshape((-1,) + (1,) * (len(shape) - self.axis - 1)), float_scale(element))
        is_point = all(o.is_point for o in operands)
        integers = all(o.are_integers for o in operands)

        def joined(parts: Sequence[Floats]) -> Floats:
            return np.concatenate(parts, axis=self.axis)

        centered = [o.centered() for o in operands]

        def real() -> Floats:
            return joined([o.magnitude() for o in operands]) * m.approx

        return linear_image(
            [Term(joined([c[0] for c in centered]), m, are_integers=integers)],
            None if is_point else [Term(joined([c[1] for c in centered]), m, are_integers=integers)],
            shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: joined([o.affine_magnitude() for o in operands]) * m.approx,
            bounds=(Fraction(0) if self.relu else None, None),
        )


class ConcatRelu(Concat, frozen=True, kw_only=True, tag="concat_relu"):
    """The same, and 0 where it is negative."""

    relu: ClassVar[bool] = True


class Moved(ExactOperator, frozen=True, kw_only=True):
    """An operator whose every output element is one input element, or zero."""

    def move(self, a: Floats, zero: float) -> Floats:
        """The output's stored values; `zero` stands for a real 0."""
        raise NotImplementedError

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output's shape."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        out = self.shape_of(x.shape)
        check_shape(out)
        return out

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        zero = float(x.zero_points)
        lo = self.move(x.lo, zero)
        return identity_image(x, lo, lo if x.is_point else self.move(x.hi, zero), lo.shape, element)


class Reshape(Moved, frozen=True, kw_only=True, tag="reshape"):
    """The same elements, in row-major order, in `shape`."""

    shape: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if any(d < 0 for d in self.shape) or math.prod(self.shape) != math.prod(shape):
            raise InvalidCase(f"shape: {self.shape}; needs as many elements as {shape} has")
        return self.shape

    def move(self, a: Floats, zero: float) -> Floats:
        return a.reshape(self.shape)


class Flatten(Moved, frozen=True, kw_only=True, tag="flatten"):
    """Dimensions from `start_axis` on made one, as `torch.flatten`; ONNX Flatten where it is 1."""

    start_axis: int = 1

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not 0 <= self.start_axis < len(shape):
            raise InvalidCase(f"start_axis: {self.start_axis}; needs 0..{len(shape) - 1} for shape {shape}")
        return (*shape[: self.start_axis], math.prod(shape[self.start_axis :]))

    def move(self, a: Floats, zero: float) -> Floats:
        return a.reshape(self.shape_of(a.shape))


class Transpose(Moved, frozen=True, kw_only=True, tag="transpose"):
    """Dimensions in the order `perm`."""

    perm: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(self.perm) != list(range(len(shape))):
            raise InvalidCase(f"perm: {self.perm}; needs each of 0..{len(shape) - 1} once for shape {shape}")
        return tuple(shape[p] for p in self.perm)

    def move(self, a: Floats, zero: float) -> Floats:
        return a.transpose(self.perm)


class Slice(Moved, frozen=True, kw_only=True, tag="slice"):
    """Every `step`-th index of `axis` from `start` up to, not including, `stop`."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not 0 <= self.axis < len(shape):
            raise InvalidCase(f"axis: {self.axis}; needs 0..{len(shape) - 1} for shape {shape}")
        if not 0 <= self.start <= self.stop <= shape[self.axis] or not 1 <= self.step <= MAX_ELEMENTS:
            raise InvalidCase(
                f"start, stop, step: {self.start}, {self.stop}, {self.step}; "
                f"needs 0 <= start <= stop <= {shape[self.axis]} and step in 1..{MAX_ELEMENTS}"
            )
        size = len(range(self.start, self.stop, self.step))
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])

    def move(self, a: Floats, zero: float) -> Floats:
        return a[(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]


class Pad(Moved, frozen=True, kw_only=True, tag="pad"):
    """Real zeros around: before each dimension, then after each. Of negative numbers, so many elements are left out."""

    padding: tuple[int, ...]

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = len(shape)
        if len(self.padding) != 2 * n:
            raise InvalidCase(f"padding: {self.padding}; needs {2 * n} values for shape {shape}")
        for d, size in enumerate(shape):
            if min(self.padding[d], 0) + min(self.padding[n + d], 0) < -size:
                raise InvalidCase(f"padding: {self.padding}; leaves out more than the {size} elements of dimension {d}")
        return tuple(d + self.padding[i] + self.padding[n + i] for i, d in enumerate(shape))

    def move(self, a: Floats, zero: float) -> Floats:
        out = np.full(self.shape_of(a.shape), zero)
        sides = [(self.padding[d], self.padding[a.ndim + d], size) for d, size in enumerate(a.shape)]
        kept = a[tuple(slice(max(-before, 0), size - max(-after, 0)) for before, after, size in sides)]
        out[tuple(slice(max(b, 0), max(b, 0) + n) for (b, _, _), n in zip(sides, kept.shape, strict=True))] = kept
        return out
