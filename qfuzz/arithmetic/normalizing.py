"""layer_norm, instance_norm, group_norm: normalized values, with statistics that are exact or those of a kernel."""

from typing import Literal

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.float32 import fma
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats
from qfuzz.ir.protocols import Array
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.semantics import Operand

OPERATORS = ("layer_norm", "instance_norm", "group_norm")


class Normalizing(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `OPERATORS`.

    Attributes
    ----------
    statistics
        ``difference`` (a fault): the variance is the float32 difference of the mean square and the mean's square, or 0
        where that is negative, of integers as they are stored; ``difference_fused``: of that square not rounded.
    """

    statistics: Literal["exact", "difference", "difference_fused"] = "exact"


FAULTS = {**rounded.FAULTS, "statistics": frozenset({"difference", "difference_fused"})}


class NormalizingEvaluation(RoundedEvaluation):
    """A normalization on known inputs."""

    def compute(self, model: Normalizing) -> Array:
        """Values in output units."""
        return self.exact() if model.statistics == "exact" else self._by_difference(model)

    def _by_difference(self, model: Normalizing) -> Floats:
        """As PyTorch's quantized_normalize_kernel, but that what follows the statistics is float64."""
        op = self.op
        assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
        shape = self.types[0].shape
        n = np.float32(op.size(shape))
        rows = self.arrays[0].astype(np.int64).reshape(-1, int(n))
        mean = (rows.sum(axis=1, keepdims=True).astype(np.float32) / n).astype(np.float32)
        squares = ((rows * rows).sum(axis=1, keepdims=True).astype(np.float32) / n).astype(np.float32)
        if model.statistics == "difference_fused":
            variance = fma(-mean, mean, squares)
        else:
            variance = squares - (mean * mean).astype(np.float32)
        scale = self.scale(0)
        scaled = (np.maximum(variance, np.float32(0)) * scale * scale).astype(np.float64)
        factor = (float(scale) / np.sqrt(scaled + op.epsilon)).astype(np.float32).astype(np.float64)
        centered = mean - np.float32(self.types[0].qtype.zero_point[0])
        normalized = (self.centered(0).reshape(rows.shape) - centered.astype(np.float64)) * factor
        operands = [Operand.point(t, a) for t, a in zip(self.types, self.arrays, strict=True)]
        weight, bias = op.parameters(operands)
        return np.asarray((normalized.reshape(shape) * weight + bias) / float(self.scale_y))
