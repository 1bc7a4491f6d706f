"""Values that are stored in another scale, moved or clipped: quantize, dequantize, requantize, relu, concat, pads."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.dequantized import Output, dequantized
from qfuzz.arithmetic.family import Equality, Form, Published
from qfuzz.arithmetic.finish import Rounding, surrogates
from qfuzz.arithmetic.fixed_point import halves_of_shift, multiplied_once, multiplied_q31
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats, Ints
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ops.activation import Clamp, LeakyRelu
from qfuzz.ops.movement import Concat
from qfuzz.ops.quantization import Dequantize, Requantize
from qfuzz.ops.semantics import ExactOperator, Operand

_DEQUANTIZED = ("dequantized", "dequantized_fma")
_INTEGERS = ("fixed8", "q31", "q31_single")


class Conversion(Rounded, frozen=True, kw_only=True):
    """An arithmetic of what changes a scale.

    Attributes
    ----------
    multiplier
        ``ratio``: integers times fl(s_x / s_y); ``fixed8``: the same with 8 fractional bits (XNNPACK); ``q31`` and
        ``q31_single``. ``dequantized`` and ``dequantized_fma``: none, but real numbers in float32.
    limits
        ``dropped`` (a fault): a clamp's limits are ignored.
    """

    multiplier: Literal["exact", "dequantized", "dequantized_fma", "ratio", "fixed8", "q31", "q31_single"] = "exact"
    output: Output = "own"
    limits: Literal["own", "dropped"] = "own"


FAULTS = {**rounded.FAULTS, "limits": frozenset({"dropped"})}

OPERATORS = (
    *("dequantize", "requantize", "relu", "clamp", "leaky_relu", "concat"),
    *("max_pool", "reshape", "transpose", "slice", "pad", "flatten"),
    *("split", "squeeze", "unsqueeze", "expand", "gather", "depth_to_space", "space_to_depth"),
)


_IN_PLACE = ("dequantize", "requantize", "relu", "clamp", "leaky_relu")


def why_not(m: Conversion) -> str | None:
    """Why these choices do not go together, or None."""
    if (m.output != "own") != (m.multiplier in _DEQUANTIZED):
        return "only dequantized operands come into output units last"
    if m.multiplier == "exact":
        return rounded.why_not(m)
    if m.multiplier in _INTEGERS:
        return rounded.why_not_of_integers(m)
    return rounded.why_not_of_floats(m)


class ConversionEvaluation(RoundedEvaluation):
    """An operator of `OPERATORS` on known inputs."""

    def compute(self, model: Conversion) -> Array:
        """Values in output units."""
        if model.multiplier == "exact":
            return self._exactly(model)
        if isinstance(self.op, Concat):
            parts = [self._converted(model, i, self.centered(i)) for i in range(len(self.types))]
            return np.concatenate(parts, axis=self.op.axis)
        return self._converted(model, 0, self._moved())

    def on_the_way(self, model: Conversion, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """The operand, where it is at the same position."""
        if self.op.name in _IN_PLACE:
            yield from super().on_the_way(model, index)

    def _exactly(self, model: Conversion) -> Array:
        if model.limits == "own" or not isinstance(self.op, Clamp):
            return self.exact()
        unlimited = Requantize().image([Operand.point(self.types[0], self.arrays[0])], self.element)
        return surrogates(unlimited.lower)

    def _moved(self) -> Ints:
        """The input less its zero point, where it goes: the exact operator in its own scale."""
        if isinstance(self.op, Clamp | LeakyRelu | Dequantize):
            return self.centered(0)
        assert isinstance(self.op, ExactOperator)
        return self.op.image([Operand.point(self.types[0], self.arrays[0])], self.types[0].qtype).lower.approx.astype(
            np.int64
        )

    def _converted(self, model: Conversion, i: int, n: Ints) -> Array:
        scale = self.scale(i)
        if not isinstance(self.element, QType):
            return dequantized(n, self._zero(i), scale, model.multiplier)
        scales = np.array(float(scale))
        if isinstance(self.op, LeakyRelu):
            scales = np.where(n < 0, scales * self.op.negative_slope, scales)
        if model.multiplier in _DEQUANTIZED:
            real = dequantized(n, self._zero(i), scale, model.multiplier)
            if isinstance(self.op, LeakyRelu):
                real = np.where(real < 0, real * np.float32(self.op.negative_slope), real)
            return self.over_scale(self._limited(model, real, np.float32(1)), model.output)
        return self._limited(model, self._multiplied(model, n, scales / float(self.scale_y)), self.scale_y)

    def _multiplied(self, model: Conversion, n: Ints, ratio: Floats) -> Array:
        match model.multiplier:
            case "fixed8":
                return halves_of_shift(n * np.rint(ratio * 256).astype(np.int64), np.asarray(8))
            case "q31":
                return np.sign(ratio) * halves_of_shift(*multiplied_q31(n, np.abs(ratio)))
            case "q31_single":
                return np.sign(ratio) * halves_of_shift(*multiplied_once(n, np.abs(ratio), 31))
            case _:
                return np.asarray(n.astype(np.float32) * ratio.astype(np.float32))

    def _zero(self, i: int) -> int:
        return self.types[i].qtype.zero_point[0]

    def _limited(self, model: Conversion, values: Array, unit: np.float32) -> Array:
        if isinstance(self.op, Clamp) and model.limits == "own":
            return np.clip(values, np.float32(self.op.min) / unit, np.float32(self.op.max) / unit)
        return values


_SCALARS = "pytorch aten/src/ATen/native/quantized: dequantize, quantize_val with fbgemm::Quantize"
_MLAS = "microsoft/onnxruntime onnxruntime/core/mlas/lib/quantize.cpp MlasQuantizeLinear"

PUBLISHED: tuple[Published, ...] = (
    Published(
        "PyTorch dequantize and quantize, scalars",
        Conversion(multiplier="dequantized", output="reciprocal", zero_point="before_rounding"),
        _SCALARS,
    ),
    Published(
        "PyTorch cat",
        Conversion(multiplier="dequantized", output="reciprocal_fused", zero_point="before_rounding"),
        "pytorch aten/src/ATen/native/quantized/cpu/TensorShape.cpp: dequantize, cat, quantize_per_tensor, whose sum "
        "the compiler contracts, as measured",
    ),
    Published(
        "PyTorch dequantize and quantize, vectors",
        Conversion(multiplier="dequantized_fma", output="reciprocal", clamp="int32_limit"),
        "pytorch aten/src/ATen/cpu/vec/vec512/vec512_qint.h: fma(s, q, s * -z), QuantizeAvx512",
    ),
    Published(
        "dequantize and quantize of ONNX Runtime, and its tables",
        Conversion(multiplier="dequantized", output="divided", clamp="before_rounding"),
        _MLAS + "; contrib_ops/cpu/quantization/qlinear_lookup_table.cc, qlinear_concat.cc",
    ),
    Published(
        "XNNPACK convert and leaky relu",
        Conversion(multiplier="fixed8", rounding="half_up"),
        "google/XNNPACK src/qs8-vcvt/scalar.c.in, src/qs8-vlrelu/scalar-andxor.c.in",
    ),
    Published(
        "TFLite and CMSIS-NN requantize",
        Conversion(multiplier="q31", rounding="half_away"),
        "tensorflow/lite/kernels/internal/reference/requantize.h",
    ),
)


def _to_float(m: Conversion, form: Form) -> bool:
    return form.op == "dequantize"


def _moves(m: Conversion, form: Form) -> bool:
    return not form.rescaled and form.op not in ("dequantize", "leaky_relu", "clamp")


def _unrounded(when: Callable[[Any, Form], bool], why: str) -> Iterator[Equality]:
    """Choices of the rounding, where there is nothing to round."""
    for choice in get_args(Rounding)[1:]:
        yield Equality("rounding", choice, ("half_even",), when, why)
    for choice in ("before_rounding", "int32_conversion", "int32_conversion_wrapping", "int32_limit"):
        yield Equality("clamp", choice, ("after_zero_point",), when, why)
    yield Equality("output", "reciprocal_fused", ("divided",), when, why)
    yield Equality("output", "reciprocal", ("divided",), when, why)
    yield Equality("zero_point", "before_rounding", ("after_rounding",), when, why)
    for choice in ("ratio", *_INTEGERS):
        yield Equality("multiplier", choice, ("exact",), when, why)


EQUALITIES: tuple[Equality, ...] = (
    *_unrounded(_to_float, "the output is float32: it has no scale, and nothing is rounded to an integer"),
    *_unrounded(_moves, "in the input's own scale every formula is within 1/8 of the stored integer that moves"),
    Equality(
        "multiplier",
        "dequantized",
        ("exact",),
        _to_float,
        "the product of a 9-bit integer and a float32 scale, rounded once, is the correctly rounded value",
        {"output": "own"},
    ),
    *(
        Equality(
            "multiplier",
            choice,
            ("exact",),
            _moves,
            "in the input's own scale every formula is within 1/8 of the stored integer that moves",
            {"output": "own"},
        )
        for choice in _DEQUANTIZED
    ),
    *rounded.EQUALITIES,
)
