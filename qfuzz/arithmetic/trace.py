"""One element, step by step: what a model computes on its way, and the exact real number beside it."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np

from qfuzz.arithmetic.catalogue import family_of_node
from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.finish import rounded
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import ExactOperator, Operand

Index = tuple[int, ...]
REAL_BITS = 200
"""Bits to which an irrational result is known."""


class Step(msgspec.Struct, frozen=True):
    """A number on the way.

    Attributes
    ----------
    value
        In decimal, enough digits to be read back.
    hex
        Of a floating-point number, as ``float.hex`` writes it.
    """

    name: str
    value: str
    hex: str = ""


class Product(msgspec.Struct, frozen=True):
    """A stored input, a stored weight, and the product of both less their zero points."""

    x: int
    w: int
    product: int


def products(node: Node, types: Sequence[TensorType], arrays: Sequence[Array], index: Index) -> tuple[Product, ...]:
    """What a convolution or linear layer sums for one element, in the order of the weight's dimensions."""
    evaluation = family_of_node(node, types).evaluate(node, types, arrays)
    if not isinstance(evaluation, ContractionEvaluation):
        return ()
    x, w, zero_x, zero_w = evaluation.operands_of(index)
    return tuple(Product(int(a), int(b), int((a - zero_x) * (b - zero_w))) for a, b in zip(x, w, strict=True))


def exact_steps(node: Node, types: Sequence[TensorType], arrays: Sequence[Array], index: Index) -> tuple[Step, ...]:
    """The exact column: the accumulator where there is one, the real number, and its correctly rounded integer."""
    return model_steps(node, types, arrays, index, family_of_node(node, types).model())


def model_steps(
    node: Node, types: Sequence[TensorType], arrays: Sequence[Array], index: Index, model: Any
) -> tuple[Step, ...]:
    """The column of a model."""
    family = family_of_node(node, types)
    evaluation, is_exact = family.evaluate(node, types, arrays), model == family.model()
    stored = evaluation.stored(model)[index]
    steps = tuple(Step(name, *_written(value)) for name, value in evaluation.on_the_way(model, index))
    if not isinstance(node.element, QType):
        return (*steps, Step("returned", *_written(stored)))
    before = real_value(node, types, arrays, index) if is_exact else evaluation.result(model)[index]
    rounding = None if is_exact else model.rounding
    return (*steps, *_finish(before, node.element, int(stored), model.zero_point, rounding))


def real_value(node: Node, types: Sequence[TensorType], arrays: Sequence[Array], index: Index) -> Fraction:
    """The exact result in output units, without the zero point; of an irrational one `REAL_BITS` bits."""
    assert isinstance(node.op, ExactOperator)
    operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
    real = node.op.image(operands, node.element).lower
    low, high = real.refine(int(np.ravel_multi_index(index, real.approx.shape)), REAL_BITS)
    return (low + high) / 2


def _finish(scaled: Any, element: QType, stored: int, zero_point: str, rounding: Any) -> tuple[Step, ...]:
    """From the number before rounding to the stored integer; `rounding` is None for the exact one."""
    (z,) = element.zero_point
    first = Step("before rounding", *_written(scaled))
    last = Step(f"stored, within {element.qmin}..{element.qmax}", str(stored))
    if not isinstance(scaled, Fraction) and not np.isfinite(scaled):
        return first, last
    number = Fraction(scaled) if isinstance(scaled, Fraction) else Fraction(float(scaled))
    shift = 0
    if zero_point == "before_rounding":
        shift = z
        number = number + z if isinstance(scaled, Fraction) else Fraction(float(scaled + type(scaled)(z)))
    half = number - (number.numerator // number.denominator) - Fraction(1, 2)
    tie = "0, a tie" if half == 0 else f"{float(half):.6g}"
    integer = round(number) if rounding is None else int(rounded(np.array([float(number)]), rounding)[0])
    steps = [first]
    if shift:
        steps.append(Step("with zero point", *_written(number)))
    steps += [Step("distance from a tie", tie), Step("rounded", str(integer))]
    if not shift:
        steps.append(Step("with zero point", str(integer + z)))
    return (*steps, last)


def _written(value: Any) -> tuple[str, str]:
    """In decimal, and in hexadecimal where it is a floating-point number."""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, Fraction):
        return (str(value.numerator), "") if value.denominator == 1 else (f"{float(value):.17g}", "")
    if isinstance(value, np.floating | float):
        digits = 9 if isinstance(value, np.float32) else 17
        return f"{value:.{digits}g}", float(value).hex()
    return str(int(value)), ""
