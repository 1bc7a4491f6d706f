"""compare, compare_scalar: which of two real numbers is the larger, or whether they are equal; bool results.

Semantics: `torch.eq`, `ne`, `lt`, `le`, `gt` and `ge` of the numbers that quantized elements stand for. They are
compared exactly: a product of a stored integer and a float32 scale is a float64, and of int32 it is two (`_exactly`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import PlainOutput
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import check_float32
from qfuzz.ops.elementwise import broadcast_shape
from qfuzz.ops.quantization import check_dequantized
from qfuzz.ops.semantics import ExactOperator, Image, Operand, float32_exact, per_tensor
from qfuzz.ops.table import known_reals

Booleans: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]
"""float64, or complex128 that stand for the sum of their parts, the real one being the nearest float64: NumPy compares
them by the real parts first."""
Relation: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@dataclass(frozen=True)
class TruthImage(Image):
    """0 or 1, and either where a float32 kernel may find numbers equal that are not, or apart that are equal.

    Attributes
    ----------
    apart
        How far the two numbers are from each other; infinite where float32 numbers hold both.
    affine
        |s q| + |s zero_point| of both operands.
    """

    lower: Reals
    upper: Reals
    apart: Floats
    affine: Floats

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros_like(self.apart)
        return np.where(self.apart <= gamma(contract.k) * self.affine, 1.0, 0.0)

    def ends(self, contract: Contract) -> tuple[Floats, Floats]:
        error = self.error(contract)
        return np.maximum(self.lower.approx - error, 0.0), np.minimum(self.upper.approx + error, 1.0)


class _Comparison(ExactOperator, frozen=True, kw_only=True):
    relation: Relation = "eq"

    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ("bool",)

    def check(self, inputs: Sequence[TensorType], element: Element) -> None:
        """Raise `InvalidCase` unless the inputs are quantized, and the output is bool."""
        for name, t in zip("ab", inputs, strict=False):
            check_dequantized(per_tensor(t, name), "float32")
        if element != "bool":
            raise InvalidCase(f"output: needs bool, got {element}")

    def truth(self, a: Operand, b: tuple[Numbers, Numbers], affine: Floats, known: Booleans) -> TruthImage:
        """The image, for bounds of the second number."""
        (a_lo, a_hi), (b_lo, b_hi) = ((lo, hi) for lo, hi in (_real(a), b))
        a_lo, a_hi, b_lo, b_hi = np.broadcast_arrays(a_lo, a_hi, b_lo, b_hi)
        below, not_above = (a_hi < b_lo, a_lo < b_hi), (a_hi <= b_lo, a_lo <= b_hi)
        equal = (a_lo == a_hi) & (b_lo == b_hi) & (a_lo == b_lo), (a_lo <= b_hi) & (b_lo <= a_hi)
        surely, maybe = {"lt": below, "le": not_above, "eq": equal}[_POSITIVE[self.relation]]
        if self.relation in ("ne", "ge", "gt"):
            surely, maybe = ~maybe, ~surely
        low = known_reals(surely.astype(np.float64))
        high = low if a.is_point and b[0] is b[1] else known_reals(maybe.astype(np.float64))
        apart = np.maximum(np.maximum((a_lo - b_hi).real, (b_lo - a_hi).real), 0.0) * (1 - 2.0**-40)
        return TruthImage(low, high, np.where(known, np.inf, apart), np.broadcast_to(affine, apart.shape))


_POSITIVE: dict[str, str] = {"lt": "lt", "ge": "lt", "le": "le", "gt": "le", "eq": "eq", "ne": "eq"}
"""Relation to the one that it is, or is not."""


def _real(x: Operand) -> tuple[Numbers, Numbers]:
    lo, hi = x.centered()
    scaled = _exactly(lo, x)
    return (scaled, scaled) if x.is_point else (scaled, _exactly(hi, x))


def _exactly(n: Floats, x: Operand) -> Numbers:
    """``n * scale``, which has 57 bits where `n` has 33: the nearest float64, and the rest of it."""
    product = n * x.float_scale
    if x.type.dtype != "int32":
        return product
    high = np.floor(n / 2.0**16) * 2.0**16  # its product, and that of what is left, are float64
    return np.asarray(product + 1j * ((high * x.float_scale - product) + (n - high) * x.float_scale))


def _affine(x: Operand) -> Floats:
    return x.affine_magnitude() * x.float_scale


def _known(x: Operand) -> Booleans:
    """Where a float32 kernel dequantizes exactly."""
    lo, hi = x.centered()
    terms = [Term(n, Multiplier.of(x.scale), are_integers=x.are_integers) for n in (lo, hi)]
    return np.asarray(float32_exact(terms, lambda: _affine(x), "float32"))


class Compare(_Comparison, frozen=True, kw_only=True, tag="compare"):
    """Whether `a` stands in a relation to `b`, with NumPy broadcasting."""

    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        self.check(inputs, element)
        return broadcast_shape(inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        a, b = operands
        # Equal types at equal places are dequantized alike, so that equal integers stay equal.
        alike = a.type == b.type
        known = _known(a) & _known(b)
        if alike and a.is_point and b.is_point:
            known = known | (a.lo == b.lo)
        return self.truth(a, _real(b), _affine(a) + _affine(b), known)


class CompareScalar(_Comparison, frozen=True, kw_only=True, tag="compare_scalar"):
    """Whether x stands in a relation to `other`, a float32."""

    other: float = 0.0

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        self.check(inputs, element)
        check_float32("other", self.other)
        return inputs[0].shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        number = np.asarray(self.other, dtype=np.float64)
        return self.truth(x, (number, number), _affine(x), _known(x))
