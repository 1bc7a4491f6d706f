"""max_pool, avg_pool, global_avg_pool, adaptive_avg_pool: windows over the spatial dimensions, 1-d to 3-d.

Semantics: ONNX MaxPool, AveragePool, GlobalAveragePool (opset 22); `torch.nn.functional.max_pool1d` to `max_pool3d`,
`avg_pool1d` to `avg_pool3d`, `adaptive_avg_pool1d` to `adaptive_avg_pool3d`. With
`ceil_mode` the last window must start inside the input or its leading padding (ATen/native/Pool.h,
pooling_output_shape_pad_lr; ONNX since opset 19). With `count_include_pad` an average divides by the part of the window
inside the padded input, not by what `ceil_mode` adds beyond it (ATen/native/cpu/AvgPoolKernel.cpp: pool_size).
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import MAX_ELEMENTS, TensorType, check_shape
from qfuzz.ops import sliding
from qfuzz.ops.semantics import (
    MAX_WINDOWED,
    ExactOperator,
    Image,
    LinearImage,
    Operand,
    check_per_dimension,
    check_rescaling,
    check_windows,
    float_scale,
    identity_image,
    linear_image,
)


def _spatial(x: TensorType) -> tuple[int, ...]:
    if len(x.shape) not in (3, 4, 5):
        raise InvalidCase(f"x: shape {x.shape}; pools are 1-d to 3-d, on [N, C, L] to [N, C, D, H, W]")
    if 0 in x.shape[1:]:
        raise InvalidCase(f"x: shape {x.shape}; only the batch may be empty")
    return x.shape[2:]


def _output_size(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil_mode: bool,
) -> tuple[int, ...]:
    sizes = shape[2:]
    n = len(sizes)
    for attribute, value, length, least in (
        ("kernel", kernel, n, 1),
        ("strides", strides, n, 1),
        ("dilations", dilations, n, 1),
        ("padding", padding, 2 * n, 0),
    ):
        check_per_dimension(attribute, value, length, least)
    out = []
    for i, size in enumerate(sizes):
        before, after = padding[i], padding[n + i]
        if max(before, after) > kernel[i] // 2:
            raise InvalidCase(f"padding: {padding}; at most half of the kernel {kernel}")
        reach = dilations[i] * (kernel[i] - 1) + 1
        free = size + before + after - reach
        if free < 0:
            raise InvalidCase(f"kernel: dilated kernel {reach} is larger than the padded input {size + before + after}")
        windows = free // strides[i] + 1
        if ceil_mode:
            windows = -(-free // strides[i]) + 1
            if (windows - 1) * strides[i] >= size + before:
                windows -= 1
        out.append(windows)
    check_windows(shape, kernel, padding, tuple(out))
    return tuple(out)


def windows(
    a: Floats,
    fill: float,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    dilations: tuple[int, ...],
    out: tuple[int, ...],
) -> Floats:
    """Windows [N, C, *out, *kernel] of `a`, padded with `fill` as far as the last window reaches."""
    n = len(kernel)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    after = [max(0, (out[i] - 1) * strides[i] + reach[i] - a.shape[2 + i] - padding[i]) for i in range(n)]
    return sliding.windows(sliding.padded(a, padding[:n], after, fill), kernel, strides, dilations, out)


class MaxPool(ExactOperator, frozen=True, kw_only=True, tag="max_pool"):
    """The largest value of each window; padding never wins.

    Attributes
    ----------
    kernel, strides, dilations
        One per spatial dimension.
    padding
        Before each spatial dimension, then after each; at most half of the kernel.
    ceil_mode
        Whether a last, partial window counts.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        sizes = _spatial(x)
        out = _output_size(x.shape, self.kernel, self.strides, self.padding, self.dilations, self.ceil_mode)
        for i, size in enumerate(sizes):
            # Every window must hold an element, or its maximum is not defined: taps that lie in padding are skipped.
            taps = np.arange(self.kernel[i]) * self.dilations[i]
            positions = np.arange(out[i])[:, None] * self.strides[i] - self.padding[i] + taps
            if not ((positions >= 0) & (positions < size)).any(axis=1).all():
                raise InvalidCase(f"padding: {self.padding}; a window of dilation {self.dilations} holds only padding")
        return (*x.shape[:2], *out)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        out = self.infer([x.type], element)

        def largest(a: Floats) -> Floats:
            taken = windows(a, -np.inf, self.kernel, self.strides, self.padding, self.dilations, out[2:])
            return np.asarray(taken.max(axis=tuple(range(-len(self.kernel), 0))))

        lo = largest(x.lo)
        return identity_image(x, lo, lo if x.is_point else largest(x.hi), out, element)


class AvgPool(ExactOperator, frozen=True, kw_only=True, tag="avg_pool"):
    """The mean of each window.

    Attributes
    ----------
    kernel, strides
        One per spatial dimension.
    padding
        Zeros before each spatial dimension, then after each; at most half of the kernel.
    ceil_mode
        Whether a last, partial window counts.
    count_include_pad
        Whether padding counts in the divisor.
    divisor_override
        What sums are divided by, whatever a window holds; 0 for the number of elements that count. PyTorch only.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int = 0

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        if not 0 <= self.divisor_override <= MAX_ELEMENTS:
            raise InvalidCase(f"divisor_override: {self.divisor_override}; needs 0..{MAX_ELEMENTS}")
        ones = (1,) * len(self.kernel)
        check_summed(x, math.prod(self.kernel))
        _spatial(x)  # raises where there is none
        return (*x.shape[:2], *_output_size(x.shape, self.kernel, self.strides, self.padding, ones, self.ceil_mode))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        ones = (1,) * len(self.kernel)

        def summed(a: Floats) -> Floats:
            taken = windows(a, 0.0, self.kernel, self.strides, self.padding, ones, shape[2:])
            return np.asarray(taken.sum(axis=tuple(range(-len(self.kernel), 0))))

        return mean_image(x, element, shape, summed, self.divisors(x.type.shape[2:], shape[2:]), math.prod(self.kernel))

    def divisors(self, sizes: tuple[int, ...], out: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """What each window's sum is divided by, mostly how many elements it counts; broadcasts to [*out]."""
        n = len(sizes)
        if self.divisor_override:
            return np.full((1,) * n, self.divisor_override, dtype=np.int64)
        counts = np.ones((1,) * n, dtype=np.int64)
        for i, size in enumerate(sizes):
            start = np.arange(out[i]) * self.strides[i] - self.padding[i]
            end = np.minimum(start + self.kernel[i], size + self.padding[n + i])
            if not self.count_include_pad:
                start, end = np.maximum(start, 0), np.minimum(end, size)
            counts = counts * (end - start).reshape((-1,) + (1,) * (n - i - 1))
        return counts


class GlobalAvgPool(ExactOperator, frozen=True, kw_only=True, tag="global_avg_pool"):
    """The mean over all spatial dimensions, which become 1."""

    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        check_summed(x, math.prod(x.shape[2:]))
        return (*x.shape[:2], *(1 for _ in _spatial(x)))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        axes = tuple(range(2, len(shape)))
        n = math.prod(x.type.shape[2:])

        def summed(a: Floats) -> Floats:
            return np.asarray(a.sum(axis=axes, keepdims=True))

        return mean_image(x, element, shape, summed, np.full((1,) * len(axes), n), n)


class AdaptiveAvgPool(ExactOperator, frozen=True, kw_only=True, tag="adaptive_avg_pool"):
    """The mean of windows that cut the input into so many parts, and overlap where they do not divide it.

    Window i of n over a dimension of size s reaches from floor(i * s / n) to, not including, ceil((i + 1) * s / n)
    (ATen/native/AdaptivePooling.h: start_index, end_index).

    Attributes
    ----------
    output_size
        How many windows, for each spatial dimension.
    """

    output_size: tuple[int, ...]

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        sizes = _spatial(x)
        check_per_dimension("output_size", self.output_size, len(sizes), 0)
        check_summed(x, math.prod(sizes))
        shape = (*x.shape[:2], *self.output_size)
        check_shape(shape)
        for size, out in zip(sizes, self.output_size, strict=True):
            if size * out > MAX_WINDOWED:
                raise InvalidCase(f"output_size: {out} of {size}; their product may be {MAX_WINDOWED} at most")
        return shape

    def windows(self, sizes: tuple[int, ...]) -> list[list[tuple[int, int]]]:
        """Where windows start and end, for each spatial dimension."""
        return [
            [(i * size // n, -(-(i + 1) * size // n)) for i in range(n)]
            for size, n in zip(sizes, self.output_size, strict=True)
        ]

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        shape = self.infer([x.type], element)
        bounds = self.windows(x.type.shape[2:])

        def summed(a: Floats) -> Floats:
            for d, windows_ in enumerate(bounds, start=2):
                inside = [(np.arange(a.shape[d]) >= start) & (np.arange(a.shape[d]) < end) for start, end in windows_]
                taken = np.array(inside, dtype=np.float64).reshape(len(windows_), a.shape[d])
                a = np.moveaxis(np.tensordot(a, taken, axes=(d, 1)), -1, d)
            return a

        counts = np.ones((1,) * len(bounds), dtype=np.int64)
        for d, windows_ in enumerate(bounds):
            own = np.array([end - start for start, end in windows_], dtype=np.int64)
            counts = counts * own.reshape((-1,) + (1,) * (len(bounds) - d - 1))
        return mean_image(x, element, shape, summed, counts, int(counts.max(initial=1)))


def check_summed(x: TensorType, n: int) -> None:
    """Raise `InvalidCase` where float64 would not hold a sum of `n` elements exactly."""
    if x.dtype == "int32" and n > 2**20:
        raise InvalidCase(f"x: {n} elements of int32 are summed; 2^20 at most, whose sums float64 holds")


def mean_image(
    x: Operand,
    element: Element,
    shape: tuple[int, ...],
    summed: Callable[[Floats], Floats],
    divisor: npt.NDArray[np.int64],
    n_summed: int,
) -> LinearImage:
    """The image of sums of `n_summed` elements at most over `divisor`, which broadcasts against them."""
    m = Multiplier.quotient(x.float_scale, float_scale(element))
    lo, hi = x.centered()
    sum_lo = summed(lo)
    sum_hi = sum_lo if x.is_point else summed(hi)
    unit = m.approx / divisor
    return linear_image(
        [Term(sum_lo, m, divisor)],
        None if x.is_point else [Term(sum_hi, m, divisor)],
        shape,
        element,
        accumulator=lambda: np.maximum(np.abs(sum_lo), np.abs(sum_hi)) * unit,
        real=lambda: summed(x.magnitude()) * unit,
        affine=lambda: summed(x.affine_magnitude()) * unit,
        n_summed=n_summed,
    )
