"""dynamic_conv, dynamic_conv_transpose: float32 results, or results that went through bytes."""

from typing import Literal

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats
from qfuzz.ir.protocols import Array
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_range import QMAX, QMIN
from qfuzz.ops.semantics import Operand

OPERATORS = ("dynamic_conv", "dynamic_conv_transpose")


class DynamicConvolution(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `OPERATORS`.

    Attributes
    ----------
    result
        ``in_input_scale`` (a fault): stored as uint8 with the scale and the zero point of the quantized data, ties to
        even, and dequantized; ``in_input_scale_zero_point_first``: with ties after the zero point is added;
        ``in_input_scale_integer_bias``: with a bias that is rounded to accumulator units first.
    """

    result: Literal[
        "own", "in_input_scale", "in_input_scale_zero_point_first", "in_input_scale_integer_bias"
    ] = "own"  # fmt: skip


FAULTS = {**rounded.FAULTS, "result": frozenset(
    {"in_input_scale", "in_input_scale_zero_point_first", "in_input_scale_integer_bias"})}  # fmt: skip


class DynamicConvolutionEvaluation(RoundedEvaluation):
    """A convolution of float32 data on known inputs."""

    def compute(self, model: DynamicConvolution) -> Array:
        """float32 results."""
        return self.exact() if model.result == "own" else self._through_bytes(model.result)

    def _through_bytes(self, result: str) -> Floats:
        op = self.op
        assert isinstance(op, DynamicConv | DynamicConvTranspose)
        arrays = list(self.arrays)
        operands = [Operand.point(t, a) for t, a in zip(self.types, arrays, strict=True)]
        quantization = op.quantization(operands[0])
        _, zero_point = quantization.correct
        scale = float(quantization.scale.lo) or 1.0
        if result.endswith("integer_bias") and len(operands) > 2:
            unit = scale * np.array(self._weight_scales())
            arrays[2] = (np.rint(arrays[2].astype(np.float64) / unit) * unit).astype(arrays[2].dtype)
            operands[2] = Operand.point(self.types[2], arrays[2])
        real = op.image(operands, self.element).lower.approx / scale
        first = zero_point if result.endswith("zero_point_first") else 0
        stored = np.rint(real + first) + (zero_point - first)
        centered = (np.clip(stored, QMIN, QMAX) - zero_point).astype(np.float32)
        return (centered * np.float32(scale)).astype(np.float64)

    def _weight_scales(self) -> tuple[float, ...]:
        weight = self.types[1]
        if isinstance(self.op, DynamicConvTranspose):
            return self.op.plain.channel_scales(weight)
        return weight.qtype.scale
