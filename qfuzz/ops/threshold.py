"""threshold: x where it is above a number, else another number.

Semantics: `torch.nn.functional.threshold`: ``y = x if x > threshold else value``. Both are float32 numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import check_float32
from qfuzz.ops.semantics import (
    Image,
    LinearImage,
    Operand,
    check_multipliers,
    float32_exact,
    linear_image,
    output_scale,
)
from qfuzz.ops.table import UnaryOperator


class Threshold(UnaryOperator, frozen=True, kw_only=True, tag="threshold"):
    """x where it is above `threshold`, else `value`."""

    threshold: float
    value: float

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_float32("threshold", self.threshold)
        check_float32("value", self.value)
        if self.value:
            check_multipliers([abs(self.value)], element, "value")
        return super().infer(inputs, element)

    def table(self, x: Operand, element: Element) -> Image:
        n, _ = x.centered()
        x_real = n * x.float_scale
        most = float(math.floor(Fraction(self.threshold) / x.scale))  # n * scale is above where n is: integers
        above = (n > most).astype(np.float64)
        own = Multiplier.quotient(x.float_scale, float(output_scale(element)))
        other = Multiplier.quotient(self.value, float(output_scale(element)))

        def magnitude(largest: Floats) -> Floats:
            return np.where(above > 0, largest * own.approx, abs(float(other.approx)))

        chosen = linear_image(
            [Term(n * above, own, are_integers=True), Term(1.0 - above, other, are_integers=True)],
            None,
            x.type.shape,
            element,
            accumulator=lambda: magnitude(np.abs(n)),
            real=lambda: magnitude(np.abs(n)),
            affine=lambda: magnitude(x.affine_magnitude()),
        )
        affine = x.affine_magnitude() * x.float_scale
        known = float32_exact([Term(n, Multiplier.of(x.scale), are_integers=True)], lambda: affine, "float32")
        apart = np.abs(x_real - self.threshold)
        return ThresholdImage(
            chosen.lower,
            chosen.upper,
            chosen,
            np.where(known, np.inf, apart),
            affine,
            np.abs(x_real - self.value) / float(output_scale(element)),
        )


@dataclass(frozen=True)
class ThresholdImage(Image):
    """The chosen of two numbers, and where a float32 kernel may choose the other.

    Attributes
    ----------
    apart
        How far x is from the threshold; infinite where float32 numbers hold all that is computed of x.
    x_affine
        |s q| + |s zero_point|.
    jump
        How far the two numbers are from each other, in output units.
    """

    lower: Reals
    upper: Reals
    chosen: LinearImage
    apart: npt.NDArray[np.float64]
    x_affine: Floats
    jump: Floats

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros_like(self.apart)
        open_ = self.apart <= gamma(contract.k) * self.x_affine
        return np.asarray(self.chosen.error(contract) + np.where(open_, self.jump * (1 + 2.0**-40), 0.0))
