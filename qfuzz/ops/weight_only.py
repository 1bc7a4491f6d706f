"""weight_only_linear, embedding: reals computed with stored weights, which are dequantized on the way.

Semantics: com.microsoft MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md): a weight is
``(quantized_weight - zero_point) * scale``, and the rest is a matrix product of reals, or ONNX Gather. The same is said
by DequantizeLinear before MatMul or Gather, and by `torch._weight_int8pack_mm` and `torch._weight_int4pack_mm_for_cpu`.
Results are defined where sums of magnitudes stay within float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term, array_lsb
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, REALS, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType, check_shape, laid_out
from qfuzz.ops.quantization import largest_stored
from qfuzz.ops.rounded_activations import rounded_product
from qfuzz.ops.semantics import ExactOperator, Image, Operand, linear_image

WEIGHT_DTYPES = ("uint2", "int2", "uint4", "int4", "uint8", "int8")

_SLACK = 1 + 2.0**-40
"""More than what float64 sums of bounds round away, relatively."""


@dataclass(frozen=True)
class WeightOnlyImage(Image):
    """A product of reals with dequantized weights. Everything is summed in floating point, whatever the contract says.

    Attributes
    ----------
    real, affine
        Sums of the magnitudes of all products, and of the bias; `affine`: of those with the stored weight, and of those
        with its zero point, both counted from the smallest that is stored, as kernels on unsigned integers have it, or,
        given true, from the middle of the range.
    n_summed
        How many numbers are summed for one element.
    float32_exact
        Where every float32 operation is exact, in whatever order products are summed; given true, also where products
        with stored weights and zero points are taken apart, and whether these count from the middle.
    rounded
        For activations that are rounded to int8, in blocks of a length along the summed axis where the weight has none
        of its own: by how much that moves the result at most, and the magnitudes of all that is summed then.
    """

    lower: Reals
    upper: Reals
    real: Callable[[], Floats]
    affine: Callable[[bool], Floats]
    n_summed: int
    float32_exact: Callable[[bool, bool], npt.NDArray[np.bool_]]
    rounded: Callable[[int], tuple[Floats, Floats]]

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        roundings = gamma(contract.k + self.n_summed) * _SLACK
        underflow = (contract.k + self.n_summed) * 2.0**-149
        if contract.activation_block:
            moved, magnitude = self.rounded(contract.activation_block)
            return moved * _SLACK + roundings * magnitude + underflow
        is_affine, centered = contract.terms == "affine", contract.from_middle
        magnitude = self.affine(centered) if is_affine else self.real()
        return np.where(self.float32_exact(is_affine, centered), 0.0, roundings * magnitude + underflow)


class WeightOnlyLinear(ExactOperator, frozen=True, kw_only=True, tag="weight_only_linear"):
    """`x` [..., K] of reals times `weight` [N, K] transposed, plus a float32 `bias` [N]; the result is of x's type.

    It is rounded once, at the end, where that is float16 or bfloat16. The weight holds integers of 2, 4 or 8 bits,
    quantized per tensor, per output channel, or in blocks along K.
    """

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        if x.element not in REALS or element != x.element:
            raise InvalidCase(f"x, output: {x.dtype}, {element}; weight_only_linear takes reals and gives the same")
        if len(x.shape) < 2:
            raise InvalidCase(f"x: shape {x.shape}; weight_only_linear takes [..., K] of rank 2 or more")
        if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1] or 0 in weight.shape:
            raise InvalidCase(f"weight: shape {weight.shape}; needs [N, {x.shape[-1]}] with no empty dimension")
        _check_weight(weight)
        n_channels = weight.shape[0]
        if len(inputs) == 3 and (inputs[2].element != "float32" or inputs[2].shape != (n_channels,)):
            raise InvalidCase(f"bias: {inputs[2].dtype} of shape {inputs[2].shape}; needs float32 of ({n_channels},)")
        return (*x.shape[:-1], n_channels)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0], operands[1]
        q = weight.type.qtype
        scales = laid_out(q, q.scale, weight.type.shape)
        weights = scales * weight.centered()[0]  # a float32 times a number of 9 bits is exact in float64
        bias = operands[2].lo if len(operands) == 3 else np.zeros(weight.type.shape[0])

        def real() -> Floats:
            return np.asarray(largest_magnitude(x) @ np.abs(weights).T + np.abs(bias))

        def apart(centered: bool) -> Floats:
            start = (q.qmin + q.qmax + 1) // 2 if centered else q.qmin
            return np.asarray(scales * (np.abs(weight.lo - start) + np.abs(weight.zero_points - start)))

        def affine(centered: bool) -> Floats:
            return np.asarray(largest_magnitude(x) @ apart(centered).T + np.abs(bias))

        def float32_exact(is_affine: bool, centered: bool) -> npt.NDArray[np.bool_]:
            factors = apart(centered) if is_affine else np.abs(weights)
            units = np.broadcast_to(scales, weights.shape) if is_affine else weights
            place = smallest_place(x, units, bias)
            short = float(factors.max(initial=0.0)) < 2.0**24 * array_lsb(units)
            magnitude = affine(centered) if is_affine else real()
            return np.asarray(magnitude < 2.0**24 * place) & (short and place >= 2.0**-149)

        def rounded(block: int) -> tuple[Floats, Floats]:
            moved, magnitude = rounded_product(largest_magnitude(x), weight, block, summed=1)
            return moved, magnitude + np.abs(bias)

        lower = real_product(x, weights, bias, real(), upper=False)
        upper = lower if x.is_point else real_product(x, weights, bias, real(), upper=True)
        n_summed = weights.shape[1] + (len(operands) == 3)
        return WeightOnlyImage(lower, upper, real, affine, n_summed, float32_exact, rounded)


class Embedding(ExactOperator, frozen=True, kw_only=True, tag="embedding"):
    """The slices of a stored `table` that constant `indices` name, as float32.

    Attributes
    ----------
    axis
        Of the table, which the indices count along, from either end. Its place is taken by their shape, as in ONNX
        Gather.
    """

    axis: int = 0

    arity: ClassVar[tuple[int, int]] = (2, 2)
    constant_inputs: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        table, indices = inputs
        if element != "float32":
            raise InvalidCase(f"output: {element}; embedding gives float32")
        q = table.element
        if not isinstance(q, QType) or q.dtype == "int32":
            raise InvalidCase(f"table: {table.dtype}; needs quantized elements of 2 to 16 bits, or float8")
        if not 0 <= self.axis < len(table.shape):
            raise InvalidCase(f"axis: {self.axis}; needs 0..{len(table.shape) - 1} for shape {table.shape}")
        if indices.element not in ("int32", "int64"):
            raise InvalidCase(f"indices: {indices.dtype}; needs plain int32 or int64 elements")
        _check_range(q, "table")
        shape = (*table.shape[: self.axis], *indices.shape, *table.shape[self.axis + 1 :])
        check_shape(shape)
        return shape

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        size, indices = inputs[0].shape[self.axis], constants[1].array
        if ((indices < -size) | (indices >= size)).any():
            raise InvalidCase(f"indices: {indices.min()}..{indices.max()}; needs {-size}..{size - 1}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        table, indices = operands
        q = table.type.qtype
        at = indices.lo.astype(np.int64)
        scales = np.broadcast_to(laid_out(q, q.scale, table.type.shape), table.type.shape)
        stored = np.take(table.centered()[0], at, axis=self.axis)
        m = Multiplier.exactly(np.take(scales, at, axis=self.axis))

        def real() -> Floats:
            return np.asarray(np.abs(stored) * m.approx)

        def affine() -> Floats:
            return np.asarray(np.take(table.affine_magnitude(), at, axis=self.axis) * m.approx)

        term = Term(stored, m, are_integers=table.are_integers)
        return linear_image([term], None, stored.shape, element, accumulator=real, real=real, affine=affine)


def _check_weight(weight: TensorType) -> None:
    q = weight.element
    if not isinstance(q, QType) or q.dtype not in WEIGHT_DTYPES:
        raise InvalidCase(f"weight: {weight.dtype}; needs quantized elements of {', '.join(WEIGHT_DTYPES)}")
    if (q.axis, bool(q.block)) not in ((None, False), (0, False), (1, True)):
        raise InvalidCase(
            f"weight: scales on axis {q.axis}{' in blocks' * bool(q.block)}; they are per tensor, per output channel "
            "(axis 0), or in blocks along axis 1"
        )
    _check_range(q, "weight")


def _check_range(q: QType, where: str) -> None:
    largest = largest_stored(q) * max(q.scale)
    if largest > FLOAT32_MAX:
        raise InvalidCase(f"{where}: scale {max(q.scale)!r}; real values of {largest!r} overflow float32")


def largest_magnitude(x: Operand) -> Floats:
    """Of each element, known or uncertain."""
    return np.asarray(np.abs(x.lo) if x.is_point else np.maximum(np.abs(x.lo), np.abs(x.hi)))


def smallest_place(x: Operand, weights: Floats, bias: Floats) -> float:
    """A power of two that divides every product and the bias."""
    lsb = min(array_lsb(x.lo), array_lsb(x.hi)) * array_lsb(weights)
    return min(lsb, array_lsb(bias)) if bias.any() else lsb


def real_product(x: Operand, weights: Floats, bias: Floats, magnitude: Floats, *, upper: bool) -> Reals:
    """The lower or upper bound of the product.

    In float64 a sum of n products and a bias is off by gamma_(n+1) of the magnitudes (Higham, section 3.1), in whatever
    order it is summed; by nothing where every partial sum is a multiple of one power of two, of 53 bits.
    """
    if x.is_point:
        approx = x.lo @ weights.T + bias
    else:
        positive, negative = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
        ends = (x.hi, x.lo) if upper else (x.lo, x.hi)
        approx = ends[0] @ positive.T + ends[1] @ negative.T + bias
    n = weights.shape[1]
    exact = float(magnitude.max(initial=0.0)) < 2.0**53 * smallest_place(x, weights, bias)
    error = np.zeros(approx.shape) if exact else magnitude * (2.0 * (2 * n + 2) * 2.0**-53)

    def refine(i: int, bits: int) -> Bounds:
        *row, channel = (int(j) for j in np.unravel_index(i, approx.shape))
        low, high = x.lo[tuple(row)], x.hi[tuple(row)]
        total = Fraction(float(bias[channel]))
        for a, b, w in zip(low.tolist(), high.tolist(), weights[channel].tolist(), strict=True):
            total += Fraction(b if (w > 0) == upper else a) * Fraction(w)
        return total, total

    return Reals(np.asarray(approx), error, refine)
