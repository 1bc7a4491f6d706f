"""Functions that kernels compute in float32, or look up: sigmoid and its like, and softmax."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.dequantized import Output
from qfuzz.arithmetic.family import Equality, Form, Published
from qfuzz.arithmetic.float32 import sequential_sum
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats
from qfuzz.ir.protocols import Array
from qfuzz.ops.activation import Elu, Hardsigmoid, Hardswish, Sigmoid
from qfuzz.ops.softmax import Softmax

OPERATORS = ("sigmoid", "tanh", "elu", "hardsigmoid", "hardswish")


class Function(Rounded, frozen=True, kw_only=True):
    """An arithmetic of a function of one variable.

    Attributes
    ----------
    values
        ``float32``: of fl(s * (q - z)), rounded once to float32, in a table or not.
    """

    values: Literal["exact", "float32"] = "exact"
    output: Output = "own"


def why_not_function(m: Function) -> str | None:
    """Why these choices do not go together, or None."""
    if (m.output != "own") != (m.values == "float32"):
        return "only float32 values come into output units"
    return rounded.why_not(m) if m.values == "exact" else rounded.why_not_of_floats(m)


class FunctionEvaluation(RoundedEvaluation):
    """An operator of `OPERATORS` on known inputs."""

    def compute(self, model: Function) -> Array:
        """Values in output units."""
        if model.values == "exact":
            return self.exact()
        x = (self.centered(0).astype(np.float32) * self.scale(0)).astype(np.float64)
        return self.over_scale(self._function(x).astype(np.float32), model.output)

    def _function(self, x: Floats) -> Floats:
        match self.op:
            case Sigmoid():
                return 1 / (1 + np.exp(-x))
            case Elu(alpha=alpha, scale=scale, input_scale=input_scale):
                return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) * input_scale))
            case Hardsigmoid():
                return np.clip(x / 6 + 0.5, 0, 1)
            case Hardswish():
                return x * np.clip(x + 3, 0, 6) / 6
            case _:
                return np.asarray(np.tanh(x))


_TABLES = (
    "microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/qlinear_lookup_table.cc; the float function is "
    "MLAS's own, and rounds most values as the function rounded once"
)

FUNCTIONS: tuple[Published, ...] = (
    Published("ONNX Runtime's tables", Function(values="float32", output="divided", clamp="before_rounding"), _TABLES),
    Published(
        "PyTorch functions, vectors",
        Function(values="float32", output="reciprocal"),
        "pytorch QuantizedOpKernels.cpp: dequantize, Sleef, quantize with the inverse scale",
    ),
    Published(
        "QNNPACK tables; PyTorch functions, scalars",
        Function(values="float32", output="reciprocal", zero_point="before_rounding"),
        "pytorch aten/src/ATen/native/quantized/cpu/qnnpack/src/sigmoid.c, hardswish.c, as measured",
    ),
)


class Normalization(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `softmax`.

    Attributes
    ----------
    exponentials
        ``table``: float32, of (q - 255 + shift) * s_x in float64, summed one after the other (MLAS);
        ``integers``: the same times a constant, rounded to integers (QNNPACK, to scale 1/256); ``float32``: of
        fl(s_x * (q - max)).
    reciprocal
        ``floored``: 1 / s_y is cut to an integer, right only where it is one.
    """

    exponentials: Literal["exact", "table", "integers", "float32"] = "exact"
    reciprocal: Literal["own", "floored"] = "own"


def why_not_normalization(m: Normalization) -> str | None:
    """Why these choices do not go together, or None."""
    if m.exponentials == "integers" and m.reciprocal == "floored":
        return "integers are stored in scale 1/256"
    if m.exponentials == "integers":
        return rounded.why_not_of_integers(m)
    return rounded.why_not(m) if m.exponentials == "exact" else None


class NormalizationEvaluation(RoundedEvaluation):
    """A `softmax` on known inputs."""

    def compute(self, model: Normalization) -> Array:
        """Shares in output units."""
        floored = model.reciprocal == "floored"
        if model.exponentials == "exact":
            scale = float(self.scale_y)
            return self.exact() * (math.floor(1 / scale) * scale) if floored else self.exact()
        assert isinstance(self.op, Softmax)
        q = np.moveaxis(self.arrays[0].astype(np.int64), self.op.axis, -1)
        if not q.size:
            return np.zeros(self.arrays[0].shape)
        below = q - q.max(axis=-1, keepdims=True)
        shares = self._integers(below) if model.exponentials == "integers" else self._float32(below, model, floored)
        return np.ascontiguousarray(np.moveaxis(shares, -1, self.op.axis))

    def on_the_way(self, model: Normalization, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """The stored integer, and the largest along the axis."""
        assert isinstance(self.op, Softmax)
        yield "a", self.arrays[0][index]
        yield (
            "largest",
            self.arrays[0].max(axis=self.op.axis, keepdims=True)[
                tuple(0 if d == self.op.axis else i for d, i in enumerate(index))
            ],
        )

    def _float32(self, below: Array, model: Normalization, floored: bool) -> Array:
        scale_x, n = float(self.scale(0)), below.shape[-1]
        shift = 0.0
        if model.exponentials == "table":
            shift = max(0.0, math.log(float(np.finfo(np.float32).max) / n) - 5) / scale_x
        e = np.exp((below + shift) * scale_x).astype(np.float32)
        total = sequential_sum(e)[..., None]
        inverse = np.float32(1) / self.scale_y
        return np.asarray((e * (np.floor(inverse) if floored else inverse)) / total)

    def _integers(self, below: Array) -> Array:
        largest = min((2**32 - 1) // below.shape[-1], 8388607)
        e = np.rint(largest * np.exp(below * float(self.scale(0)))).astype(np.int64)
        total = e.sum(axis=-1, keepdims=True)
        return np.asarray((((e << 8) + (total >> 1)) // total).astype(np.float64))


NORMALIZATIONS: tuple[Published, ...] = (
    Published(
        "QNNPACK softargmax",
        Normalization(exponentials="integers"),
        "pytorch aten/src/ATen/native/quantized/cpu/qnnpack/src/u8lut32norm/scalar.c, softargmax.c",
    ),
    Published(
        "ONNX Runtime QLinearSoftmax",
        Normalization(exponentials="table"),
        "microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc",
    ),
    Published(
        "dequantize, float32 softmax, quantize",
        Normalization(exponentials="float32", zero_point="before_rounding"),
        "pytorch aten/src/ATen/native/quantized/cpu: dequantize, softmax, quantize_per_tensor",
    ),
)


def _transcendental(m: Function, form: Form) -> bool:
    return form.op == "tanh" and m.values == "exact"


_NO_TIES = "tanh of a rational number is irrational, but for tanh(0) = 0: there are no ties (Lindemann-Weierstrass)"

FUNCTION_EQUALITIES: tuple[Equality, ...] = (
    *(Equality("rounding", c, ("half_even",), _transcendental, _NO_TIES) for c in ("half_away", "half_up")),
    Equality(
        "zero_point",
        "before_rounding",
        ("after_rounding",),
        lambda m, f: _transcendental(m, f) and m.rounding != "truncation",
        _NO_TIES,
    ),
    *rounded.EQUALITIES,
)
NORMALIZATION_EQUALITIES: tuple[Equality, ...] = (
    *(
        Equality(
            "rounding",
            choice,
            ("half_even",),
            lambda m, f: m.exponentials == "integers",
            "the quotient of integers is rounded already",
        )
        for choice in ("half_away", "half_up", "truncation")
    ),
    *rounded.EQUALITIES,
)
