"""What an operator means: the real numbers it computes, and what a kernel's rounding errors are relative to.

Every operator is a real function of dequantized inputs; the result is divided by the output scale here, and rounded,
shifted by the zero point and saturated by the oracle, never by an operator. Operators are evaluated on *operands*:
intervals of values, so that whole networks can be judged soundly; a concrete input is an interval of one point.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import Multiplier, Term, combine, value_lsb
from qfuzz.exact.intervals import Interval
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import FLOAT32_MAX, FLOAT32_MIN_NORMAL, Element, QType, integer_range
from qfuzz.ir.tensor import MAX_ELEMENTS, TensorType, check_shape, laid_out


@dataclass(frozen=True)
class Operand:
    """A value that an operator reads: per element any number in `lo`..`hi`.

    Attributes
    ----------
    type
        Shape and element type. Quantized elements are stored integers, zero point included.
    lo, hi
        float64, exact; the same object where the value is known (`is_point`).
    """

    type: TensorType
    lo: Floats
    hi: Floats

    @classmethod
    def point(cls, type_: TensorType, array: npt.NDArray[Any]) -> "Operand":
        """A known value."""
        values = array.astype(np.float64)
        return cls(type_, values, values)

    @property
    def is_point(self) -> bool:
        """Whether every element is known."""
        return self.lo is self.hi

    @cached_property
    def zero_points(self) -> Floats:
        """Zero points laid out to broadcast against the value; 0 for unquantized elements."""
        q = self.type.element
        return laid_out(q, q.zero_point, self.type.shape) if isinstance(q, QType) else np.zeros(())

    @property
    def are_integers(self) -> bool:
        """Whether elements are integers, of 32 bits at most."""
        return integer_range(self.type.element) is not None

    @property
    def scales(self) -> tuple[Fraction, ...]:
        """Scales as rationals; 1 for unquantized elements."""
        q = self.type.element
        return q.exact_scale if isinstance(q, QType) else (Fraction(1),)

    @property
    def scale(self) -> Fraction:
        """The scale of a per-tensor or unquantized operand."""
        (s,) = self.scales
        return s

    @property
    def float_scale(self) -> float:
        """`scale` as a float64, which holds it exactly."""
        return float_scale(self.type.element)

    def centered(self) -> tuple[Floats, Floats]:
        """`lo - zero_point` and `hi - zero_point`; one object for a point."""
        return self._centered

    @cached_property
    def _centered(self) -> tuple[Floats, Floats]:
        q = self.type.element
        if not isinstance(q, QType) or not any(q.zero_point):
            return self.lo, self.hi
        lo = self.lo - self.zero_points
        return (lo, lo) if self.is_point else (lo, self.hi - self.zero_points)

    def magnitude(self) -> Floats:
        """Largest |q - zero_point|."""
        lo, hi = self._centered
        return np.abs(lo) if self.is_point else np.maximum(np.abs(lo), np.abs(hi))

    def affine_magnitude(self) -> Floats:
        """Largest |q| + |zero_point|."""
        largest = np.abs(self.lo) if self.is_point else np.maximum(np.abs(self.lo), np.abs(self.hi))
        return largest + np.abs(self.zero_points)


class Image(ABC):
    """What an operator makes of its operands, in output units (divided by the output scale, before the zero point).

    Attributes
    ----------
    lower, upper
        Real bounds of each element; one object where all operands are points.
    """

    lower: Reals
    upper: Reals
    saturates: bool = True
    """Whether what is beyond the largest stored floating-point number is stored as that."""
    nan: npt.NDArray[np.bool_] | None = None
    """Where the real result is NaN: a float8 stores it, and of an integer the text promises nothing."""

    @property
    def is_point(self) -> bool:
        """Whether the real result is known."""
        return self.lower is self.upper

    @abstractmethod
    def error(self, contract: Contract) -> Floats:
        """How far, in output units, a kernel under `contract` may be from the real result before its final rounding.

        Zero where every float32 operation of the formula is exact for these operands.
        """

    def ends(self, contract: Contract) -> tuple[Floats, Floats]:
        """What a kernel under `contract` may compute before its final rounding: `error` to either side of the bounds.

        An image whose error is not the same to both sides says so here.
        """
        error = self.error(contract)
        return self.lower.approx - self.lower.error - error, self.upper.approx + self.upper.error + error


class EnclosedImage(Image):
    """What becomes of operands in several stages, through which a kernel's roundings are followed on intervals."""

    @abstractmethod
    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """What a kernel that rounds may compute, and what an exact one does."""

    def ends(self, contract: Contract) -> Interval:
        exact = self.lower.approx - self.lower.error, self.upper.approx + self.upper.error
        return exact if contract.terms == "exact" else self.reached(contract, exact)

    def error(self, contract: Contract) -> Floats:
        lo, hi = self.ends(contract)
        return np.asarray(np.maximum(np.maximum(hi - self.upper.approx, self.lower.approx - lo), 0.0))


class SteppedImage(Image):
    """What becomes of operands where the definition itself rounds on its way, so that no one error bound says it all.

    Such an operator says itself which values are admissible.

    Attributes
    ----------
    lower, upper
        Here the correctly computed values, and for uncertain operands their bounds.
    """

    @abstractmethod
    def bounds(self, contract: Contract) -> tuple[Floats, Floats]:
        """Least and greatest value that a kernel under `contract` may return: integers, or reals before float32.

        Both infinite where the definition gives no value: there, a float32 may be anything, NaN included.
        """

    def error(self, contract: Contract) -> Floats:
        raise TypeError("an operator that rounds on its way has no one error bound; `bounds` says what is admissible")


@dataclass(frozen=True)
class LinearImage(Image):
    """A sum of products, as most quantized operators are.

    Attributes
    ----------
    accumulator, real, affine, fixed_point
        Upper bounds of the magnitudes that a contract's error is relative to (`ir.contract.Terms`), when asked.
    n_summed
        How many products a float32 accumulation would sum for one element.
    float32_exact
        Says where (or whether) every float32 operation is exact, in whatever order it is done.
    bias_unit
        scale_x * scale_w / scale_y, where a float32 bias is added that a kernel may round to that unit; else 0.
    zero_point
        |zero_point| of the output.
    real_unit
        Unit roundoff of the type of the reals over that of float32.
    extra_roundings
        How many more float32 roundings the node's own attributes ask for than a contract counts.
    rounded
        For activations that are rounded to int8, in blocks of a length along the summed axis: by how much that moves
        the result at most, and the magnitudes of all that is summed then (`ops.rounded_activations`).
    """

    lower: Reals
    upper: Reals
    accumulator: Callable[[], Floats]
    real: Callable[[], Floats]
    affine: Callable[[], Floats]
    n_summed: int
    float32_exact: Callable[[], npt.NDArray[np.bool_]]
    fixed_point: Callable[[], Floats] | None = None
    zero_point_y: float = 0.0
    bias_unit: Floats = field(default_factory=lambda: np.zeros(()))
    zero_point: float = 0.0
    saturates: bool = True
    real_unit: float = 1.0
    nan: npt.NDArray[np.bool_] | None = None
    extra_roundings: int = 0
    rounded: Callable[[int], tuple[Floats, Floats]] | None = None

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        if contract.terms == "fixed_point":
            return gamma(contract.k) * (1 + 2.0**-40) * (self.fixed_point or self.affine)()
        magnitude = {"accumulator": self.accumulator, "real": self.real, "affine": self.affine}[contract.terms]()
        if contract.terms != "affine" and contract.tie in ("half_even_after_zero_point", "either_even"):
            magnitude = magnitude + self.zero_point  # it is added, and the sum rounded, before the final rounding
        if contract.adds_zero_point and contract.terms != "affine":
            magnitude = magnitude + self.zero_point_y
        k = float(contract.k + self.extra_roundings + (self.n_summed if contract.accumulates_float else 0))
        if contract.in_real_type:
            k *= self.real_unit
        exact = self.float32_exact() if self.real_unit == 1.0 or not contract.in_real_type else _NOWHERE
        bound = np.where(exact, 0.0, gamma(k) * (1 + 2.0**-40) * magnitude)
        if contract.activation_block and self.rounded is not None:
            moved, summed = self.rounded(contract.activation_block)
            bound = gamma(k) * (1 + 2.0**-40) * (magnitude + summed) + moved * (1 + 2.0**-40)
        if contract.bias_steps and self.bias_unit.any():
            bound = bound + contract.bias_steps * self.bias_unit * (1 + gamma(contract.k))
        return bound


class ExactOperator(Operator, frozen=True, kw_only=True):
    """An operator with exact semantics. Its subclasses are one file a family in `qfuzz.ops`."""

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        """The real result for `operands`, in units of `element`'s scale (1 for float32)."""
        raise NotImplementedError


def output_scale(element: Element) -> Fraction:
    """The scale that real results are divided by; 1 for float32."""
    return Fraction(float_scale(element))


def float_scale(element: Element) -> float:
    """The scale of a per-tensor or unquantized type as a float64, which holds it exactly; 1 for float32."""
    return element.scale[0] if isinstance(element, QType) else 1.0


def zero_point_magnitude(element: Element) -> float:
    """The largest |zero_point| of the output; 0 for reals."""
    return float(max(abs(z) for z in element.zero_point)) if isinstance(element, QType) else 0.0


def is_power_of_two(x: float) -> bool:
    """Whether `x` is 2^n for an integer n."""
    return math.frexp(x)[0] == 0.5


def float32_exact(terms: Sequence[Term], affine: Callable[[], Floats], element: Element) -> npt.NDArray[np.bool_]:
    """Where every float32 operation of a sum of `terms` is exact, in any order.

    With an output scale that is a power of two, dividing by it (or multiplying with its reciprocal) is exact. Every
    product and partial sum, in whatever order and grouping, is a multiple of the terms' common power of two `lsb`
    and at most `affine` in magnitude: below 2^24 multiples it is a float32.
    """
    scales = element.scale if isinstance(element, QType) else (1.0,)
    if not all(map(is_power_of_two, scales)) or any(t.multiplier.lsb == 0.0 for t in terms):
        return _NOWHERE
    lsb = min((value_lsb(t) * t.multiplier.lsb for t in terms), default=1.0)
    if lsb == 0.0:
        return _NOWHERE
    # The zero point, where it is added before rounding, is a multiple of 1.
    return np.asarray(affine() / min(lsb, 1.0) < 2.0**24)


_NOWHERE: npt.NDArray[np.bool_] = np.zeros((), dtype=bool)


def linear_image(
    lower: Sequence[Term],
    upper: Sequence[Term] | None,
    shape: tuple[int, ...],
    element: Element,
    *,
    accumulator: Callable[[], Floats],
    real: Callable[[], Floats],
    affine: Callable[[], Floats],
    fixed_point: Callable[[], Floats] | None = None,
    n_summed: int = 1,
    bounds: tuple[Fraction | None, Fraction | None] = (None, None),
    bias_unit: Floats | None = None,
    saturates: bool = True,
    real_unit: float = 1.0,
) -> LinearImage:
    """Build a `LinearImage` from terms.

    Parameters
    ----------
    lower, upper
        Terms of the lower and upper bound; `upper` is None where all operands are points.
    bounds
        Real bounds in output units that the result is clipped to (a fused relu is ``(0, None)``).
    affine
        Without the output zero point, which is added here.
    """
    low = combine(lower, shape).clip(*bounds)
    high = low if upper is None else combine(upper, shape).clip(*bounds)
    zero_point = zero_point_magnitude(element)
    limit = max((float(abs(b)) for b in bounds if b), default=0.0)

    def affine_with_zero_point() -> Floats:
        return affine() + (zero_point + limit)

    return LinearImage(
        low,
        high,
        lambda: accumulator() + limit,
        lambda: real() + limit,
        affine_with_zero_point,
        n_summed,
        # A kernel rounds the bounds too, as it rounds addends.
        lambda: float32_exact(
            [*lower, *(Term(np.ones(()), Multiplier.of(b)) for b in bounds if b)], affine_with_zero_point, element
        ),
        fixed_point,
        zero_point,
        np.zeros(()) if bias_unit is None else bias_unit,
        zero_point,
        saturates,
        real_unit,
    )


def quantized_output(element: Element) -> QType:
    """The output's qtype, required to be quantized to integers, per tensor."""
    if not isinstance(element, QType):
        raise InvalidCase(f"output: needs quantized elements, got {element}")
    if element.is_float:
        raise InvalidCase(f"output: {element.dtype}; activations are integers")
    if not element.is_per_tensor:
        raise InvalidCase("output: activations are quantized per tensor")
    return element


def per_tensor(t: TensorType, where: str) -> QType:
    """The type's qtype, required to be per tensor."""
    if not isinstance(t.element, QType):
        raise InvalidCase(f"{where}: needs quantized elements, got {t.element}")
    if not t.element.is_per_tensor:
        raise InvalidCase(f"{where}: scales on axis {t.element.axis}; an activation is quantized per tensor")
    if t.element.is_float:
        raise InvalidCase(f"{where}: {t.element.dtype}; activations are integers")
    return t.element


def check_narrow(inputs: Sequence[TensorType], element: Element) -> None:
    """Raise `InvalidCase` where activations are int32, for operators whose products or squares would leave float64."""
    for where, e in (("output", element), *((f"input {i}", t.element) for i, t in enumerate(inputs))):
        if isinstance(e, QType) and e.dtype == "int32":
            raise InvalidCase(f"{where}: int32; activations of this operator are integers of 2 to 16 bits")


def check_multipliers(numerators: Sequence[float], element: Element, where: str) -> None:
    """Raise `InvalidCase` unless each product of scales, and it over the output scale, is a normal float32.

    Outside that range float32 kernels underflow or overflow whatever they do; such networks are not defined.
    """
    scale_y = element.scale[0] if isinstance(element, QType) else 1.0
    for n in numerators:
        for what, value in (("scale product", n), ("multiplier", n / scale_y)):
            if not FLOAT32_MIN_NORMAL <= value <= FLOAT32_MAX:
                raise InvalidCase(f"{where}: {what} {value!r} is outside the normal range of float32")


MAX_WINDOWED = 2**26
"""No operator reads more elements through its windows, each counted as often as it is read: 512 MiB of float64."""


def check_per_dimension(attribute: str, value: tuple[int, ...], length: int, least: int) -> None:
    """Raise `InvalidCase` unless `value` has `length` integers that make sense for a window."""
    if len(value) != length or any(not least <= v <= MAX_ELEMENTS for v in value):
        raise InvalidCase(f"{attribute}: {value}; needs {length} values in {least}..{MAX_ELEMENTS}")


def check_windows(
    shape: tuple[int, ...], kernel: tuple[int, ...], padding: tuple[int, ...], out: tuple[int, ...]
) -> None:
    """Raise `InvalidCase` where sliding over `shape` [N, C, *spatial], to outputs `out`, is beyond any sane case.

    A few attributes in a small file could otherwise ask for terabytes.
    """
    n = len(kernel)
    check_shape((*shape[:2], *(shape[2 + i] + padding[i] + padding[n + i] for i in range(n))))
    read = math.prod(max(d, 1) for d in (*shape[:2], *out, *kernel))
    if read > MAX_WINDOWED:
        raise InvalidCase(
            f"kernel: {kernel} at {out} positions of {shape[:2]} reads {read} elements; at most {MAX_WINDOWED}"
        )


def check_rescaling(x: TensorType, element: Element) -> None:
    """Raise `InvalidCase` unless quantized `x` can be requantized to `element`."""
    quantized_output(element)
    check_multipliers(per_tensor(x, "x").scale, element, "x")


def identity_image(
    x: Operand,
    lo: Floats,
    hi: Floats,
    shape: tuple[int, ...],
    element: Element,
    *,
    bounds: tuple[Fraction | None, Fraction | None] = (None, None),
) -> LinearImage:
    """The real numbers that stored integers `lo`..`hi` of `x`'s per-tensor type stand for, requantized to `element`.

    Parameters
    ----------
    lo, hi
        Stored integers of `shape`, taken from `x` (moved, repeated, selected); one object where known.
    bounds
        Bounds in output units that the result is clipped to.
    """
    m = Multiplier.quotient(x.float_scale, float_scale(element))
    moved = Operand(TensorType(shape, x.type.element), lo, hi)
    c_lo, c_hi = moved.centered()

    def real() -> Floats:
        return moved.magnitude() * m.approx

    return linear_image(
        [Term(c_lo, m, are_integers=x.are_integers)],
        None if moved.is_point else [Term(c_hi, m, are_integers=x.are_integers)],
        shape,
        element,
        accumulator=real,
        real=real,
        affine=lambda: moved.affine_magnitude() * m.approx,
        bounds=bounds,
    )
