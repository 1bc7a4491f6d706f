"""quantize, dequantize, requantize: between reals and stored numbers.

Semantics: ONNX QuantizeLinear and DequantizeLinear (onnx/docs/Operators.md), in all their granularities: one scale, one
for each index of an axis, one for each block along an axis; `torch.quantize_per_tensor`. A real is float32, float16 or
bfloat16; what is stored are integers of 2 to 32 bits or a float8 kind, to which is rounded to nearest, ties to even.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.floating import FORMATS, nearest_exactly
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import REALS, Element, QType, integer_range
from qfuzz.ir.tensor import TensorType, laid_out
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_rescaling,
    identity_image,
    linear_image,
    zero_point_magnitude,
)


def _granular(element: Element, shape: tuple[int, ...], where: str) -> QType:
    """The type, checked to fit the shape."""
    if not isinstance(element, QType):
        raise InvalidCase(f"{where}: needs quantized elements, got {element}")
    TensorType(shape, element)
    return element


FAR = 2.0**500
"""Stands for infinity: over any scale it is beyond every stored number, and a float64 still."""


class Quantize(ExactOperator, frozen=True, kw_only=True, tag="quantize"):
    """Reals to stored numbers: ``saturate(round(x / scale) + zero_point)``.

    An infinity becomes an end of the range. What NaN becomes is said for float8, which stores it, and not for integers:
    every one of them is admissible.

    Attributes
    ----------
    saturate
        Of float8: beyond the largest number is that number; else it is infinite, or NaN where the kind has no infinity.
        Integers always saturate.
    """

    saturate: bool = True

    takes_non_finite: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        q = _granular(element, x.shape, "output")
        if x.element not in REALS:
            raise InvalidCase(f"x: needs {', '.join(REALS)} elements, got {x.dtype}")
        if not self.saturate and not q.is_float:
            raise InvalidCase(f"saturate: False of {q.dtype}; integers saturate")
        return x.shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        assert isinstance(element, QType)
        m = Multiplier.reciprocal(laid_out(element, element.scale, x.type.shape))
        nan = None
        lo, hi = x.lo, x.hi
        if x.is_point and not np.isfinite(lo).all():
            nan = np.isnan(lo)
            lo = hi = np.clip(np.where(nan, 0.0, lo), -FAR, FAR)

        def magnitude() -> Floats:
            return np.maximum(np.abs(lo), np.abs(hi)) * m.approx

        image = linear_image(
            [Term(lo, m)],
            None if x.is_point else [Term(hi, m)],
            x.type.shape,
            element,
            accumulator=magnitude,
            real=magnitude,
            affine=magnitude,
            saturates=self.saturate,
            real_unit=_unit(scale_type(element, x.type.element)),
        )
        # An integer of more than 24 bits is rounded when it is converted to float32.
        return replace(image, nan=nan, extra_roundings=1 if element.dtype == "int32" else 0)


class Dequantize(ExactOperator, frozen=True, kw_only=True, tag="dequantize"):
    """Stored numbers to reals."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        q = _granular(x.element, x.shape, "x")
        if element not in REALS:
            raise InvalidCase(f"output: needs {', '.join(REALS)} elements, got {element}")
        check_dequantized(q, element)
        return x.shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        q = x.type.qtype
        if q.is_per_tensor and not q.is_float and q.dtype != "int32" and element == "float32":
            return identity_image(x, x.lo, x.hi, x.type.shape, element)
        m = Multiplier.exactly(laid_out(q, q.scale, x.type.shape))
        lo, hi = x.centered()
        # More than 24 bits are rounded when they are converted to float32: once more than other integers.
        conversions = 2.0 if q.dtype == "int32" else 1.0

        def real() -> Floats:
            return conversions * x.magnitude() * m.approx

        return linear_image(
            [Term(lo, m, are_integers=x.are_integers)],
            None if x.is_point else [Term(hi, m, are_integers=x.are_integers)],
            x.type.shape,
            element,
            accumulator=real,
            real=real,
            affine=lambda: conversions * x.affine_magnitude() * m.approx,
            real_unit=_unit(element),
        )


class Requantize(ExactOperator, frozen=True, kw_only=True, tag="requantize"):
    """Stored integers of one scale and zero point to those of another."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_rescaling(inputs[0], element)
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        return identity_image(x, x.lo, x.hi, x.type.shape, element)


def _unit(real: Element) -> float:
    """Unit roundoff of a type of reals over that of float32."""
    return 2.0 ** (FORMATS["float32"].precision - FORMATS[str(real)].precision)


def scale_type(q: QType, real: Element) -> Element:
    """The type that scales are told in: that of the reals where it has them all, else float32 (opset 23)."""
    fits = all(nearest_exactly(s, FORMATS[str(real)]) == s for s in q.exact_scale)
    return real if fits else "float32"


def check_dequantized(q: QType, real: Element) -> None:
    """Raise `InvalidCase` if real values, or the products of q and its zero point apart, overflow the type `real`."""
    largest = largest_stored(q) * max(q.scale)
    if largest > FORMATS[str(real)].largest:
        raise InvalidCase(f"x: scale {max(q.scale)!r}; real values of {largest!r} overflow {real}")


def largest_stored(q: QType) -> float:
    """The largest magnitude of q, and of q and its zero point taken apart."""
    bounds = integer_range(q)
    if bounds is None:
        return FORMATS[q.dtype].largest
    return float(max(abs(b) for b in bounds)) + zero_point_magnitude(q)
