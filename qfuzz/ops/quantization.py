"""quantize, dequantize, requantize: between float32 and stored integers.

Semantics: ONNX QuantizeLinear and DequantizeLinear (onnx/docs/Operators.md); `torch.quantize_per_tensor`.
"""

from collections.abc import Sequence

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import (
    ExactOperator,
    Image,
    Operand,
    check_rescaling,
    identity_image,
    linear_image,
    output_scale,
    per_tensor,
    quantized_output,
)

MAX_DEQUANTIZED_SCALE = 2.0**119
"""Up to here s*(q - zp), and s*q and s*zp apart, are finite float32 numbers: |q| and |zp| are below 2^8."""


class Quantize(ExactOperator, frozen=True, kw_only=True, tag="quantize"):
    """float32 to stored integers."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        if inputs[0].element != "float32":
            raise InvalidCase(f"x: needs float32 elements, got {inputs[0].dtype}")
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        m = Multiplier.of(1 / output_scale(element))

        def magnitude() -> Floats:
            return x.magnitude() * m.approx

        return linear_image(
            [Term(x.lo, m)],
            None if x.is_point else [Term(x.hi, m)],
            x.type.shape,
            element,
            accumulator=magnitude,
            real=magnitude,
            affine=magnitude,
        )


class Dequantize(ExactOperator, frozen=True, kw_only=True, tag="dequantize"):
    """Stored integers to float32."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        q = per_tensor(inputs[0], "x")
        if isinstance(element, QType):
            raise InvalidCase(f"output: needs float32 elements, got {element.dtype}")
        if q.scale[0] > MAX_DEQUANTIZED_SCALE:
            raise InvalidCase(f"x: scale {q.scale[0]!r}; above {MAX_DEQUANTIZED_SCALE!r} real values overflow float32")
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        return identity_image(x, x.lo, x.hi, x.type.shape, element)


class Requantize(ExactOperator, frozen=True, kw_only=True, tag="requantize"):
    """Stored integers of one scale and zero point to those of another."""

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_rescaling(inputs[0], element)
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        return identity_image(x, x.lo, x.hi, x.type.shape, element)
