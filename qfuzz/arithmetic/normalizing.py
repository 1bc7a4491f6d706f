"""layer_norm, instance_norm, group_norm: exact, or as PyTorch's kernels compute them, whose variance cancels.

The kernels (QuantizedOpKernels.cpp, quantized_normalize_kernel and quantized_groupnorm_nhwc_kernel) take float32 means
of integers as they are stored and of their squares, and the difference of the second and the first one's square.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.float32 import Float32s, fma
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.ir.protocols import Array
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.semantics import Operand

OPERATORS = ("layer_norm", "instance_norm", "group_norm")

Kernel: TypeAlias = Literal[
    "own",
    "avx512",
    "avx2",
    "default",
    "avx512_channels_last",
    "avx2_channels_last",
    "default_channels_last",
]


class Normalizing(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `OPERATORS`.

    Attributes
    ----------
    kernel
        Others than ``own`` (faults): PyTorch's, for an instruction set, and for channels that come last.
    """

    kernel: Kernel = "own"


class _Vectors(NamedTuple):
    """How many bytes are quantized at once, and whether products and sums are contracted."""

    length: int
    fused: bool


_VECTORS = {"avx512": _Vectors(64, True), "avx2": _Vectors(32, True), "default": _Vectors(32, False)}
KERNELS = tuple(f"{isa}{last}" for last in ("", "_channels_last") for isa in _VECTORS)
FAULTS = {**rounded.FAULTS, "kernel": frozenset(KERNELS)}


class NormalizingEvaluation(RoundedEvaluation):
    """A normalization on known inputs."""

    def compute(self, model: Normalizing) -> Array:
        """Values in output units; the kernels' are integers, less the zero point."""
        if model.kernel == "own":
            return self.exact()
        isa, _, last = model.kernel.partition("_")
        return self._by_kernel(_VECTORS[isa], channels_last=bool(last))

    def _by_kernel(self, vectors: _Vectors, *, channels_last: bool) -> Array:
        op: Any = self.op
        assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
        shape = self.types[0].shape
        size = op.size(shape)
        mean, factor = self._statistics(size, vectors)
        operands = [Operand.point(t, a) for t, a in zip(self.types, self.arrays, strict=True)]
        weight, bias = (p.astype(np.float32) for p in op.parameters(operands))
        whole = np.ones((1, size), np.float32)
        mean, factor = ((m * whole).reshape(shape) for m in (mean, factor))
        x = self.centered(0).astype(np.float32)
        if channels_last:
            scale = factor * weight
            y = _product_and_sum(x, scale, _product_and_sum(-scale, mean, bias, vectors), vectors)
        elif isinstance(op, LayerNorm):
            y = _product_and_sum((x - mean) * factor, weight, bias, vectors)
        else:
            y = _product_and_sum(x - mean, factor * weight, bias, vectors)
        return self._quantized(y, self._in_vectors(vectors.length, size, channels_last=channels_last))

    def _statistics(self, size: int, vectors: _Vectors) -> tuple[Float32s, Float32s]:
        """Mean less the zero point, and the scale over the deviation, of each row."""
        op: Any = self.op
        n, scale = np.float32(size), self.scale(0)
        rows = self.arrays[0].astype(np.int64).reshape(-1, size)
        mean = rows.sum(axis=1, keepdims=True).astype(np.float32) / n
        squares = (rows * rows).sum(axis=1, keepdims=True).astype(np.float32) / n
        variance = np.maximum(_product_and_sum(-mean, mean, squares, vectors), np.float32(0))
        deviation = np.sqrt((variance * scale * scale).astype(np.float64) + op.epsilon)
        zero_point = np.float32(self.types[0].qtype.zero_point[0])
        return mean - zero_point, (float(scale) / deviation).astype(np.float32)

    def _in_vectors(self, length: int, size: int, *, channels_last: bool) -> npt.NDArray[np.bool_]:
        """Which elements are quantized by vectors: those of a channel all are, of rows and pixels not the last ones."""
        op: Any = self.op
        shape = self.types[0].shape
        if channels_last:
            in_group = shape[1] // (op.groups if isinstance(op, GroupNorm) else shape[1])
            place = np.arange(shape[1]) % in_group < in_group // length * length
            return np.broadcast_to(place.reshape(-1, *(1,) * (len(shape) - 2)), shape)
        if not isinstance(op, LayerNorm):
            return np.ones(shape, np.bool_)
        return np.broadcast_to(np.arange(size) < size // length * length, (*self._rows(), size)).reshape(shape)

    def _rows(self) -> tuple[int, ...]:
        op: Any = self.op
        return (int(self.arrays[0].size) // op.size(self.types[0].shape),)

    def _quantized(self, y: Float32s, in_vectors: npt.NDArray[np.bool_]) -> Array:
        """Integers less the zero point: rounded before it is added in vectors, with it elsewhere."""
        zero_point = np.float32(self.zero_point_y)
        inverse = np.float32(1) / self.scale_y
        together = np.rint(fma(y, np.asarray(inverse), np.asarray(zero_point))) - zero_point
        return np.where(in_vectors, np.rint(y * inverse), together)

    @property
    def zero_point_y(self) -> int:
        """Of the output."""
        element: Any = self.element
        return int(element.zero_point[0])


def _product_and_sum(a: Array, b: Array, c: Array, vectors: _Vectors) -> Float32s:
    """``a * b + c`` in float32, contracted to one rounding or not."""
    if vectors.fused:
        return fma(a, b, c)
    return np.asarray((a * b).astype(np.float32) + c, dtype=np.float32)
