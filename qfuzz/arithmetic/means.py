"""Averages of windows, and of whole images."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.dequantized import Output
from qfuzz.arithmetic.family import Published
from qfuzz.arithmetic.float32 import sequential_sum
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.protocols import Array
from qfuzz.ops.pooling import AvgPool, windows


class Mean(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `avg_pool` and `global_avg_pool`.

    Attributes
    ----------
    multiplier
        Of the integer sum over n elements: ``float32`` fl(fl(s_x / s_y) / n); ``float32_joint`` fl(s_x / fl(s_y * n));
        ``float32_inverted_twice`` fl(1 / fl(1 / m)) of the first. ``dequantized``: none; float32 real numbers are
        summed in the window's order and divided by n.
    divisor
        ``kernel`` (a fault where the operator says otherwise): n is the kernel's size at every window.
    """

    multiplier: Literal["exact", "float32", "float32_joint", "float32_inverted_twice", "dequantized"] = "exact"
    output: Output = "own"
    divisor: Literal["own", "kernel"] = "own"


FAULTS = {**rounded.FAULTS, "divisor": frozenset({"kernel"})}


def why_not(m: Mean) -> str | None:
    """Why these choices do not go together, or None."""
    if (m.output != "own") != (m.multiplier == "dequantized"):
        return "only dequantized operands come into output units after the sum"
    return rounded.why_not(m) if m.multiplier == "exact" else rounded.why_not_of_floats(m)


class MeanEvaluation(RoundedEvaluation):
    """A pool on known inputs."""

    def compute(self, model: Mean) -> Array:
        """Means in output units."""
        shape = self.op.infer(self.types, self.element)
        divisor = own = self._divisors(shape)
        if model.divisor == "kernel":
            divisor = np.full(shape, math.prod(self._kernel()), dtype=np.int64)
        if model.multiplier == "exact":
            return self.exact() if (own == divisor).all() else self._exactly(divisor)
        n = divisor.astype(np.float32)
        if model.multiplier == "dequantized":
            real = self.centered(0).astype(np.float32) * self.scale(0)
            return self.over_scale(sequential_sum(self._windows(real, shape)) / n, model.output)
        total = self._windows(self.centered(0).astype(np.float64), shape).sum(axis=-1).astype(np.float32)
        if model.multiplier == "float32_joint":
            return np.asarray(total * (self.scale(0) / (self.scale_y * n)))
        m = (self.scale(0) / self.scale_y) / n
        one = np.float32(1)
        return np.asarray(total * (m if model.multiplier == "float32" else one / (one / m)))

    def on_the_way(self, model: Mean, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """The sum of the window's integers less the zero point, and what it is divided by."""
        shape = self.op.infer(self.types, self.element)
        yield "sum", int(self._windows(self.centered(0), shape)[index].sum())
        whole = math.prod(self._kernel())
        yield "divisor", whole if model.divisor == "kernel" else self._divisors(shape)[index]

    def _exactly(self, divisor: Ints) -> Floats:
        """Means over another count, in float64: a fault's, whose ties nobody promises."""
        shape = divisor.shape
        total = self._windows(self.centered(0).astype(np.float64), shape).sum(axis=-1)
        return np.asarray(total * (float(self.scale(0)) / float(self.scale_y)) / divisor)

    def _kernel(self) -> tuple[int, ...]:
        return self.op.kernel if isinstance(self.op, AvgPool) else self.types[0].shape[2:]

    def _divisors(self, shape: tuple[int, ...]) -> Ints:
        if isinstance(self.op, AvgPool):
            return np.broadcast_to(self.op.divisors(self.types[0].shape[2:], shape[2:]), shape)
        return np.full(shape, math.prod(self._kernel()), dtype=np.int64)

    def _windows(self, a: Array, shape: tuple[int, ...]) -> Array:
        """[*shape, taps]."""
        if not isinstance(self.op, AvgPool):
            return a.reshape(*shape, math.prod(self._kernel()))
        op = self.op
        ones = (1,) * len(op.kernel)
        return windows(a, 0.0, op.kernel, op.strides, op.padding, ones, shape[2:]).reshape(*shape, math.prod(op.kernel))


PUBLISHED: tuple[Published, ...] = (
    Published(
        "PyTorch avg_pool2d, vectors of channels_last",
        Mean(multiplier="float32"),
        "pytorch QuantizedOpKernels.cpp _qavg_pool_nhwc_kernel: QuantizeAvx512 with the inverse scale",
    ),
    Published(
        "PyTorch avg_pool2d, scalars",
        Mean(multiplier="float32_inverted_twice", zero_point="before_rounding"),
        "pytorch QuantizedOpKernels.cpp _qavg_pool_nhwc_kernel: quantize_val with scale 1 / multiplier",
    ),
    Published(
        "QNNPACK average pool",
        Mean(multiplier="float32_joint"),
        "pytorch aten/src/ATen/native/quantized/cpu/qnnpack, pytorch_qnnp_compute_avgpool_quantization_params, as "
        "measured",
    ),
    Published(
        "MLAS global average pool",
        Mean(multiplier="float32_joint", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/qlgavgpool.cpp",
    ),
    Published(
        "ONNX Runtime QLinearAveragePool",
        Mean(multiplier="dequantized", output="divided", zero_point="before_rounding"),
        "microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/qlinear_pool.cc",
    ),
    Published(
        "dequantize, float32 average pool, quantize of ONNX Runtime",
        Mean(multiplier="dequantized", output="divided", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/providers/cpu/nn/pool_functors.h; mlas/lib/quantize.cpp",
    ),
    Published(
        "TFLite and CMSIS-NN average pool",
        Mean(rounding="half_away", zero_point="before_rounding"),
        "tensorflow/lite/kernels/internal/reference/integer_ops/pooling.h: the stored integers' mean, half away from 0",
    ),
)
