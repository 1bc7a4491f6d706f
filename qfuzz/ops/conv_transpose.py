"""conv_transpose: transposed convolution in 1-d to 3-d, with groups, strides, dilation, padding and output padding.

Semantics: ONNX ConvTranspose (onnx/docs/Operators.md, opset 22), `torch.nn.functional.conv_transpose2d`. Every input
element is multiplied by the kernel, and what falls on one place is summed; padding cuts places off at both ends, output
padding adds empty ones at the far end.

"Each padding value in output_padding must be less than the corresponding stride/dilation dimension": the stroke may
mean either or both, and ONNX's own tests have output padding that is no less than the dilation. So it is below the
stride here; whether it may be no less than the stride, but below the dilation, no text says.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType, check_shape
from qfuzz.ops.contraction import check_activation, check_bias, check_weight, contraction_image, require_sums
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_per_dimension,
    check_windows,
)


class ConvTranspose(ExactOperator, frozen=True, kw_only=True, tag="conv_transpose"):
    """Transposed convolution of `x` [N, C, *spatial] with `weight` [C, M/groups, *kernel], plus `bias` [M].

    The weight's scales per channel stand on its axis 1, as quantization tools write them; groups share them.

    Attributes
    ----------
    strides, dilations
        One per spatial dimension.
    padding
        Places cut off before each spatial dimension, then after each.
    output_padding
        Places added after each, fewer than its stride.
    groups
        Divides C; M is as many as groups times the weight's dimension 1.
    relu
        Negative results become 0 before quantization.
    says_sizes
        The network is said with the output's sizes (ONNX's `output_shape`) in place of `padding`, which is then what
        the specification computes from them: of an odd number of places, one more is cut off before.
    """

    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilations: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    relu: bool = False
    says_sizes: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        spatial = len(x.shape) - 2
        check_activation(x, element)
        if spatial not in (1, 2, 3):
            raise InvalidCase(
                f"x: shape {x.shape}; conv_transpose is 1-d, 2-d or 3-d, on [N, C, L], [N, C, H, W] or [N, C, D, H, W]"
            )
        if len(weight.shape) != len(x.shape):
            raise InvalidCase(f"weight: shape {weight.shape}; needs rank {len(x.shape)} as x has")
        for attribute, value, length, least in (
            ("strides", self.strides, spatial, 1),
            ("dilations", self.dilations, spatial, 1),
            ("padding", self.padding, 2 * spatial, 0),
            ("output_padding", self.output_padding, spatial, 0),
        ):
            check_per_dimension(attribute, value, length, least)
        channels = x.shape[1]
        if self.groups < 1 or channels < 1 or channels % self.groups:
            raise InvalidCase(f"groups: {self.groups}; it divides {channels} channels, at least 1")
        if 0 in weight.shape or weight.shape[0] != channels:
            raise InvalidCase(f"weight: shape {weight.shape}; dimension 0 is the {channels} channels, none is empty")
        out = tuple(self._size(i, x.shape[2 + i], weight.shape[2 + i], spatial) for i in range(spatial))
        check_windows(x.shape, weight.shape[2:], self.padding, out)
        check_shape((x.shape[0], weight.shape[1] * self.groups, *_uncut(out, self)))
        check_weight(x, weight, element, axis=1)
        filters = weight.shape[1] * self.groups
        check_bias(inputs, filters, element)
        return (x.shape[0], filters, *out)

    def _size(self, i: int, size: int, kernel: int, spatial: int) -> int:
        """The output's size in a spatial dimension."""
        before, after, more = self.padding[i], self.padding[spatial + i], self.output_padding[i]
        if more >= self.strides[i]:
            raise InvalidCase(f"output_padding: {more}; needs less than the stride, {self.strides[i]}")
        if self.says_sizes and before - after not in (0, 1):
            raise InvalidCase(
                f"padding: {before} before and {after} after; sizes said mean as many, or one more before"
            )
        full = self.strides[i] * (size - 1) + self.dilations[i] * (kernel - 1) + 1 + more
        if size < 1 or full - before - after < 1:
            raise InvalidCase(f"padding: {before} and {after} of {full} places; at least one is left")
        return full - before - after

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        sums = self.channel_magnitudes(constants[1], inputs[1].qtype)
        require_sums(sums, inputs, self.channel_scales(inputs[1]), constants.get(2))

    def channel_magnitudes(self, weight: Tensor, q: QType) -> npt.NDArray[np.int64]:
        """The sum of |weight - zero_point| for each output channel."""
        stored = weight.array.astype(np.int64)
        zero_points = np.array(q.zero_point, dtype=np.int64).reshape((-1,) + (1,) * (stored.ndim - 2))
        each = np.abs(stored - zero_points).reshape(self.groups, -1, *stored.shape[1:])
        return np.asarray(each.sum(axis=(1, *range(3, each.ndim))).ravel())

    def channel_scales(self, weight: TensorType) -> tuple[float, ...]:
        """The weight's scale for all output channels, or for each: groups share those of the type."""
        q = weight.qtype
        return q.scale if q.axis is None else q.scale * self.groups

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        weight = operands[1]
        shape = self.infer([o.type for o in operands], element)
        return contraction_image(
            operands,
            element,
            lambda a, w: scattered(a, w, self, shape),
            shape,
            channel_axis=1,
            n_summed=weight.type.shape[0] // self.groups * math.prod(weight.type.shape[2:]),
            relu=self.relu,
            scales=self.channel_scales(weight.type),
        )


def _uncut(sizes: tuple[int, ...], op: ConvTranspose) -> tuple[int, ...]:
    """The output's spatial `sizes` before padding cuts them."""
    return tuple(n + op.padding[i] + op.padding[len(sizes) + i] for i, n in enumerate(sizes))


def scattered(a: Floats, w: Floats, op: ConvTranspose, shape: tuple[int, ...]) -> Floats:
    """Exact transposed convolution of centered values to `shape`: float64 while magnitudes stay below 2^53."""
    n, sizes = a.shape[0], a.shape[2:]
    spatial = len(sizes)
    x = a.reshape(n, op.groups, a.shape[1] // op.groups, math.prod(sizes))
    places = _uncut(shape[2:], op)
    full = np.zeros((*shape[:2], *places))
    for number, tap in enumerate(product(*(range(k) for k in w.shape[2:]))):
        kernel = w.reshape(*w.shape[:2], -1)[:, :, number].reshape(op.groups, -1, w.shape[1])
        part = np.matmul(kernel.transpose(0, 2, 1), x).reshape(*shape[:2], *sizes)
        reached: list[slice] = [slice(None), slice(None)]
        for t, d, size, s in zip(tap, op.dilations, sizes, op.strides, strict=True):
            reached.append(slice(t * d, t * d + (size - 1) * s + 1, s))
        full[tuple(reached)] += part
    kept = [slice(None), slice(None), *(slice(op.padding[i], op.padding[i] + shape[2 + i]) for i in range(spatial))]
    return np.ascontiguousarray(full[tuple(kept)])
