"""dynamic_quantize, dynamic_linear: quantization whose scale and zero point follow from the data itself.

Semantics: ONNX DynamicQuantizeLinear (opset 11), over the real numbers::

    scale      = (max(x, 0) - min(x, 0)) / 255
    zero_point = saturate(round(0 - min(x, 0) / scale))
    y          = saturate(round(x / scale) + zero_point)

with ties to even. What a kernel rounds on its way decides what it may return: a contract's k bounds the roundings from
the range to what is rounded to an integer (subtraction, division by 255, division by the scale), and all but the last
of them make the scale.

The specification gives no value, so that an implementation defines it,

- where all elements are 0, or there is none: it divides 0 by 0. Whatever positive scale is chosen there, y and the zero
  point are 0; the scale is any number that is not negative;
- where the range is beyond the largest float32, or so small that a float32 scale may be 0, for the function body that
  defines the operator is one on float32: anything is admissible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term, combine
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, INTEGER_RANGE, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import Multiply, channel_magnitudes, linear_shape, rows_times
from qfuzz.ops.dynamic_range import (
    QMAX,
    QMIN,
    SLACK,
    SMALL_SCALE_THRESHOLD,
    STORED,
    SUBNORMAL,
    Quantization,
    Steps,
)
from qfuzz.ops.semantics import ExactOperator, Image, Operand, SteppedImage, float32_exact
from qfuzz.ops.table import known_reals

AFTER_SCALE = 4
"""Float32 operations after the scale: accumulator to float32, product of scales, product with it, sum with the bias."""

Output: TypeAlias = Literal["y", "scale", "zero_point"]
Chooser: TypeAlias = Literal["onnx", "torch"]

_EXACT = Contract(terms="exact", k=0, tie="half_even", source="the definition")


class QuantizationImage(SteppedImage):
    """One of the three outputs of a dynamic quantization."""

    def __init__(self, quantization: Quantization, output: Output) -> None:
        self.quantization, self.output = quantization, output
        if quantization.x.is_point:
            self.lower = self.upper = self._correct()
        else:
            self.lower, self.upper = (known_reals(np.asarray(b)) for b in self.bounds(_EXACT))

    def _correct(self) -> Reals:
        q = self.quantization
        rounded, zero = q.correct
        match self.output:
            case "y":
                return known_reals(np.clip(rounded + zero, QMIN, QMAX))
            case "scale":
                return combine([Term(np.ones(()), Multiplier.of(q.scale.lo))], ())
            case "zero_point":
                return known_reals(np.array(float(zero)))

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        steps = self.quantization.under(contract, contract.k)
        match self.output:
            case "y":
                return steps.stored
            case "scale" if contract.terms != "exact" and self.quantization.range.lo == 0:
                return np.zeros(()), np.array(max(steps.scale_hi, FLOAT32_MAX))  # data may be all 0: any scale will do
            case "scale":
                return np.array(steps.scale_lo), np.array(steps.scale_hi)
            case "zero_point":
                return np.array(float(steps.zero_lo)), np.array(float(steps.zero_hi))


def quantization(x: Operand, chosen_as: Chooser, *, reduce_range: bool) -> Quantization:
    """How data are quantized as they come."""
    smallest = SMALL_SCALE_THRESHOLD if chosen_as == "torch" else Fraction(0)
    return Quantization(x, steps=QMAX // 2 if reduce_range else QMAX, smallest=smallest)


def _check_data(x: TensorType) -> None:
    if x.element != "float32":
        raise InvalidCase(f"x: needs float32 elements, got {x.dtype}")


class DynamicQuantize(ExactOperator, frozen=True, kw_only=True, tag="dynamic_quantize"):
    """Data quantized to uint8 by their own range: ONNX DynamicQuantizeLinear, of which a node gives one output.

    Attributes
    ----------
    output
        ``y`` are plain uint8 integers of x's shape; ``scale``, float32, and ``zero_point``, plain uint8, are scalars.
    chosen_as, reduce_range
        As of dynamic layers: `torch.quantize_per_tensor_dynamic`, whose formula QuantUtils.h has.
    """

    output: Output = "y"
    chosen_as: Chooser = "onnx"
    reduce_range: bool = False

    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = (STORED,)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        _check_data(inputs[0])
        wanted: Element = "float32" if self.output == "scale" else STORED
        if element != wanted:
            got = element.dtype if isinstance(element, QType) else element
            raise InvalidCase(f"output: {got} elements; {self.output!r} is plain {wanted}")
        if self.reduce_range and self.chosen_as == "onnx":
            raise InvalidCase("reduce_range: DynamicQuantizeLinear divides the range by 255")
        return inputs[0].shape if self.output == "y" else ()

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        q = quantization(operands[0], self.chosen_as, reduce_range=self.reduce_range)
        return QuantizationImage(q, self.output)


class ProductSteps(SteppedImage):
    """Products of dynamically quantized data with a known weight, and a float32 bias added.

    Parameters
    ----------
    operands
        Data, weight, and bias if there is one.
    multiply
        The product of two centered arrays.
    channel_shape
        What numbers of each output channel are laid out as, to broadcast against the output.
    n_summed
        How many products are summed for one element.
    scales
        The weight's scale for all output channels, or for each; as its type has them where not given.
    relu
        Negative results become 0.
    """

    def __init__(
        self,
        quantization: Quantization,
        operands: Sequence[Operand],
        multiply: Multiply,
        channel_shape: tuple[int, ...],
        n_summed: int,
        *,
        scales: tuple[float, ...] = (),
        relu: bool = False,
    ) -> None:
        self.quantization = quantization
        self.weight = operands[1]
        self.multiply = multiply
        self.relu = relu
        self.w = self.weight.centered()[0]
        self.bias = operands[2].lo.reshape(channel_shape) if len(operands) > 2 else None
        self.n_summed = n_summed + (self.bias is not None)
        self.exact_scales = tuple(map(Fraction, scales)) or self.weight.type.qtype.exact_scale
        self.scale_shape = channel_shape if len(self.exact_scales) > 1 else ()
        if quantization.x.is_point:
            rounded, zero = quantization.correct
            acc = multiply(np.clip(rounded, QMIN - zero, QMAX - zero), self.w)
            self.lower = self.upper = combine(self._terms(acc), acc.shape).clip(Fraction(0) if relu else None, None)
        else:
            self.lower, self.upper = (known_reals(b) for b in self.bounds(_EXACT))

    def _terms(self, acc: Floats) -> list[Term]:
        """What is summed for known accumulators and a known scale."""
        product = Multiplier.of(*(self.quantization.scale.lo * s for s in self.exact_scales))
        if self.scale_shape:
            product = replace(product, approx=product.approx.reshape(self.scale_shape))
        bias = [] if self.bias is None else [Term(self.bias, Multiplier.of(Fraction(1)))]
        return [Term(acc, product), *bias]

    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        """Each stored integer anything that is admissible for it; then all that float32 makes of scales and sums."""
        after = min(AFTER_SCALE, contract.k)
        steps = self.quantization.under(contract, contract.k - after + 1)
        n_lo, n_hi = steps.centered
        acc_lo, acc_hi = self._accumulators(n_lo, n_hi)
        scales = np.array([float(s) for s in self.exact_scales]).reshape(self.scale_shape)
        product_lo, product_hi = steps.scale_lo * scales, steps.scale_hi * scales
        if self.quantization.is_zero:
            product_hi = product_lo
        elif contract.terms != "exact" and _may_overflow(steps, product_hi):
            nowhere = np.full(acc_lo.shape, np.inf)
            return -nowhere, nowhere
        bias = np.zeros(()) if self.bias is None else self.bias
        largest = np.maximum(np.abs(acc_lo), np.abs(acc_hi))
        lo = np.where(acc_lo >= 0, acc_lo * product_lo, acc_lo * product_hi) + bias
        hi = np.where(acc_hi >= 0, acc_hi * product_hi, acc_hi * product_lo) + bias
        error = (largest * product_hi + np.abs(bias)) * SLACK
        if contract.terms != "exact":
            summed = self._summed(contract, n_lo, n_hi, largest) * product_hi + np.abs(bias)
            k = after + (self.n_summed if contract.accumulates_float else 0)
            rounding = gamma(k) * (1 + 2.0**-40) * summed
            if product_lo.max() > 0 and product_lo.min() < 2 * FLOAT32_MIN_NORMAL:
                rounding = rounding + (largest + 1) * float(SUBNORMAL)
            error = error + np.where(self._is_exact(contract, steps, acc_lo, acc_hi), 0.0, rounding)
        if self.relu:
            return np.maximum(lo - error, 0.0), np.maximum(hi + error, 0.0)
        return lo - error, hi + error

    def _accumulators(self, n_lo: Floats, n_hi: Floats) -> tuple[Floats, Floats]:
        """Bounds of the sums of products with centered data between `n_lo` and `n_hi`."""
        positive, negative = np.maximum(self.w, 0.0), np.minimum(self.w, 0.0)
        return (
            self.multiply(n_lo, positive) + self.multiply(n_hi, negative),
            self.multiply(n_hi, positive) + self.multiply(n_lo, negative),
        )

    def _summed(self, contract: Contract, n_lo: Floats, n_hi: Floats, largest: Floats) -> Floats:
        """Magnitude of all that a kernel adds but the bias, in units of the product of scales."""
        if contract.terms == "accumulator":
            return largest
        n = np.maximum(np.abs(n_lo), np.abs(n_hi))
        if contract.terms == "real":
            return self.multiply(n, np.abs(self.w))
        return self.multiply(n + 2.0 * QMAX, self.weight.affine_magnitude())

    def _is_exact(self, contract: Contract, steps: Steps, acc_lo: Floats, acc_hi: Floats) -> npt.NDArray[np.bool_]:
        """Where every float32 operation is exact: sums of 0 and the bias, and short numbers."""
        nothing = np.asarray((acc_lo == 0) & (acc_hi == 0) & (contract.terms == "accumulator"))
        if not steps.scale_is_exact or self.quantization.is_zero or not np.array_equal(acc_lo, acc_hi):
            return nothing
        terms = self._terms(acc_lo)
        magnitude = np.asarray(sum(np.abs(t.values) * t.multiplier.approx for t in terms))
        return np.asarray(nothing | float32_exact(terms, lambda: magnitude, "float32"))


def _may_overflow(steps: Steps, product_hi: Floats) -> bool:
    """Whether a float32 step may overflow before it meets a 0, or divide by 0: the result may then be NaN."""
    return not steps.is_defined or bool(product_hi.max() * (1 + 2.0**-20) > FLOAT32_MAX)


class DynamicLayer(ExactOperator, frozen=True, kw_only=True):
    """A layer that quantizes float32 data to uint8 as they come, and gives float32.

    Of a contract's k, the last four stand after the scale (`AFTER_SCALE`).

    Attributes
    ----------
    chosen_as
        Whose scale: ``onnx`` of DynamicQuantizeLinear, or ``torch``, whose smallest is `SMALL_SCALE_THRESHOLD`.
    reduce_range
        The range is divided by 127 steps in place of 255: as torch does where asked to.
    """

    chosen_as: Chooser = "onnx"
    reduce_range: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def check_data(self, x: TensorType) -> None:
        """Raise `InvalidCase` unless `x` is float32."""
        _check_data(x)

    def check_layer(self, inputs: Sequence[TensorType], element: Element, n_channels: int, *, axis: int = 0) -> None:
        """Raise `InvalidCase` unless types and attributes are those of such a layer."""
        x, weight = inputs[0], inputs[1]
        _check_data(x)
        if element != "float32":
            raise InvalidCase("output: needs float32 elements; its quantization is a node of its own")
        if self.reduce_range and self.chosen_as == "onnx":
            raise InvalidCase("reduce_range: DynamicQuantizeLinear divides the range by 255")
        if weight.qtype.axis not in (None, axis):
            raise InvalidCase(
                f"weight: scales on axis {weight.qtype.axis}; per-channel weights have them on axis {axis}"
            )
        if len(inputs) > 2 and (inputs[2].element != "float32" or inputs[2].shape != (n_channels,)):
            raise InvalidCase(f"bias: {inputs[2].dtype} of shape {inputs[2].shape}; needs float32 {(n_channels,)}")

    def quantization(self, x: Operand) -> Quantization:
        """How the data are quantized."""
        return quantization(x, self.chosen_as, reduce_range=self.reduce_range)


def check_sums(magnitudes: npt.NDArray[np.int64]) -> None:
    """Raise `InvalidCase` if an accumulator could leave int32; given sums of |weight - zero_point| of each channel."""
    worst = int(magnitudes.max(initial=0)) * (QMAX - QMIN)
    limit = INTEGER_RANGE["int32"][1]
    if worst > limit:
        raise InvalidCase(f"weight: a channel can reach an accumulator of {worst}; int32 holds {limit}")


class DynamicLinear(DynamicLayer, frozen=True, kw_only=True, tag="dynamic_linear"):
    """`x` [..., K], float32 and quantized dynamically, times `weight` [M, K] transposed, plus `bias` [M]; float32.

    What `quantize_dynamic` of ONNX Runtime writes: DynamicQuantizeLinear, MatMulInteger, and their scales; as one,
    com.microsoft DynamicQuantizeMatMul (onnxruntime/docs/ContribOperators.md). `torch.ao.nn.quantized.dynamic.Linear`:
    "a dynamic quantized linear module with floating point tensor as inputs and outputs".

    Attributes
    ----------
    relu
        Negative results become 0.
    """

    relu: bool = False

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        _check_data(x)
        shape = linear_shape(x, weight, self.name)
        self.check_layer(inputs, element, weight.shape[0])
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        check_sums(channel_magnitudes(constants, inputs))

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        n_channels, n_summed = operands[1].type.shape
        return ProductSteps(
            self.quantization(operands[0]),
            operands,
            rows_times,
            (n_channels,),
            n_summed,
            relu=self.relu,
        )
