"""matmul, matmul_integer, linear_integer: matrix products of two activations, and products as plain int32.

Semantics: ONNX MatMul and QLinearMatMul, "Matrix product that behaves like numpy.matmul", and MatMulInteger, the same
on stored integers: "The production MUST never overflow. The accumulation may overflow if and only if in 32 bits", for
which reason what could overflow is no valid network here (onnx/docs/Operators.md).
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import BYTES, INTEGER_RANGE, Element
from qfuzz.ir.tensor import Tensor, TensorType, check_shape
from qfuzz.ops.contraction import (
    MAX_EXACT,
    accumulator_image,
    accumulators,
    check_accumulators,
    check_integers,
    largest_distance,
    relu_bounds,
    require_int32,
    rows_times,
)
from qfuzz.ops.semantics import (
    MAX_WINDOWED,
    ExactOperator,
    Image,
    Operand,
    check_multipliers,
    check_narrow,
    float_scale,
    linear_image,
    per_tensor,
    quantized_output,
)


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of ``numpy.matmul`` of arrays of these shapes.

    Raises
    ------
    InvalidCase
        Where they cannot be multiplied, or the product is beyond any sane case.
    """
    if not a or not b:
        raise InvalidCase(f"inputs: shapes {a} and {b}; a matrix product takes vectors, matrices and stacks of them")
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise InvalidCase(f"inputs: shapes {a} and {b}; the last dimension of a, {a[-1]}, is not b's {inner}")
    if inner < 1:
        raise InvalidCase(f"inputs: shapes {a} and {b}; nothing is summed")
    try:
        stack = tuple(int(d) for d in np.broadcast_shapes(a[:-2], b[:-2]))
    except ValueError:
        raise InvalidCase(f"inputs: stacks {a[:-2]} and {b[:-2]} of {a} and {b} do not broadcast") from None
    shape = (*stack, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    check_shape(shape)
    if math.prod(shape) * inner > MAX_WINDOWED:
        raise InvalidCase(
            f"inputs: shapes {a} and {b} have {math.prod(shape) * inner} products; {MAX_WINDOWED} at most"
        )
    return shape


def _inferred(inputs: Sequence[TensorType], *, gives_sums: bool = False) -> tuple[int, ...]:
    """Shape and type rule of two activations, whose accumulators fit int32 whatever they hold.

    Of two that are not both bytes they are exact in float64, unless they are given as they are.
    """
    check_narrow(inputs, "float32")
    q_a, q_b = (per_tensor(t, name) for name, t in zip("ab", inputs, strict=True))
    shape = product_shape(inputs[0].shape, inputs[1].shape)
    worst = inputs[0].shape[-1] * largest_distance(q_a) * largest_distance(q_b)
    in_int32 = gives_sums or (q_a.dtype in BYTES and q_b.dtype in BYTES)
    if worst > (INTEGER_RANGE["int32"][1] if in_int32 else MAX_EXACT):
        what = "int32" if in_int32 else "an exact float64"
        raise InvalidCase(
            f"inputs: {inputs[0].shape[-1]} products can reach an accumulator of {worst}; {what} does not"
        )
    return shape


def _sums(a: Operand, b: Operand) -> tuple[Floats, Floats]:
    """Bounds of the sums of products, one object where both operands are known.

    The least (and the greatest) that a term can be is at one of the four corners of its two intervals. The sum is no
    less than the sum of these, even where terms share numbers, as in the square of a matrix.
    """
    (a_lo, a_hi), (b_lo, b_hi) = a.centered(), b.centered()
    if a.is_point and b.is_point:
        acc = np.asarray(np.matmul(a_lo, b_lo))
        return acc, acc
    rows = [v if v.ndim > 1 else v[None, :] for v in (a_lo, a_hi)]
    columns = [v if v.ndim > 1 else v[:, None] for v in (b_lo, b_hi)]
    lower = upper = np.zeros(())
    for k in range(a.type.shape[-1]):
        corners = [r[..., k, None] * c[..., k, None, :] for r in rows for c in columns]
        lower = lower + np.minimum.reduce(corners)
        upper = upper + np.maximum.reduce(corners)
    shape = product_shape(a.type.shape, b.type.shape)
    return lower.reshape(shape), upper.reshape(shape)


class MatMul(ExactOperator, frozen=True, kw_only=True, tag="matmul"):
    """`a` times `b`, both activations: vectors, matrices, or stacks of matrices, which broadcast.

    Attributes
    ----------
    relu
        Negative results become 0 before quantization.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        quantized_output(element)
        check_narrow([], element)
        shape = _inferred(inputs)
        check_multipliers([inputs[0].qtype.scale[0] * inputs[1].qtype.scale[0]], element, "inputs")
        return shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        m = Multiplier.quotient(a.float_scale * b.float_scale, float_scale(element))
        lower, upper = _sums(a, b)

        def real() -> Floats:
            return np.asarray(np.matmul(a.magnitude(), b.magnitude()) * m.approx)

        return linear_image(
            [Term(lower, m)],
            None if lower is upper else [Term(upper, m)],
            product_shape(a.type.shape, b.type.shape),
            element,
            accumulator=lambda: np.asarray(np.maximum(np.abs(lower), np.abs(upper)) * m.approx),
            real=real,
            affine=lambda: np.asarray(np.matmul(a.affine_magnitude(), b.affine_magnitude()) * m.approx),
            n_summed=a.type.shape[-1],
            bounds=relu_bounds(self.relu),
        )


class MatMulInteger(ExactOperator, frozen=True, kw_only=True, tag="matmul_integer"):
    """The sums of products ``(a - zero_point_a) * (b - zero_point_b)`` of two activations, as plain int32.

    Scales of `a` and `b` have no part in it.

    Attributes
    ----------
    omits_zeros
        Zero points that are 0 are left out where the network is said, as ONNX allows.
    """

    omits_zeros: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)
    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("int32",)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        check_accumulators(element, inputs)
        return _inferred(inputs, gives_sums=True)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        lower, upper = _sums(a, b)
        return accumulator_image(lower, upper, a, b, lambda p, q: np.asarray(np.matmul(p, q)))


class LinearInteger(ExactOperator, frozen=True, kw_only=True, tag="linear_integer"):
    """The sums of products ``(x - zero_point_x) * (weight - zero_point_w)`` as plain int32.

    `x` is [..., K], the constant `weight` [M, K] is transposed, and has one zero point or one for each of M. Scales of
    both have no part in it.

    Attributes
    ----------
    omits_zeros
        Zero points that are 0 are left out where the network is said, as ONNX allows.
    """

    omits_zeros: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 2)
    constant_inputs: ClassVar[tuple[int, ...]] = (1,)
    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("int32",)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs
        check_accumulators(element, inputs)
        check_integers(x, weight)
        if len(weight.shape) != 2 or 0 in weight.shape:
            raise InvalidCase(f"weight: shape {weight.shape}; needs [M, K] with no empty dimension")
        return product_shape(x.shape, weight.shape[::-1])

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs, gives_sums=True)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands
        lower, upper = accumulators(x, weight, rows_times)
        return accumulator_image(lower, upper, x, weight, rows_times)
