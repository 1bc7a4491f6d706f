"""A real result, rounded and saturated by choice: what all operators but contractions share."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from qfuzz.arithmetic.family import Choices, Equality, always
from qfuzz.arithmetic.finish import Clamp, Relu, Rounding, ZeroPoint, stored, surrogates
from qfuzz.arithmetic.float32 import fma
from qfuzz.exact.rounding import Floats
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import DTYPES, TensorType
from qfuzz.ops.semantics import ExactOperator, Operand


class Rounded(Choices, frozen=True, kw_only=True):
    """How a result becomes a stored integer. See `qfuzz.arithmetic.finish`."""

    rounding: Rounding = "half_even"
    zero_point: ZeroPoint = "after_rounding"
    clamp: Clamp = "after_zero_point"
    relu: Relu = "after_rounding"


FAULTS = {
    "clamp": frozenset({"before_zero_point"}),
    "relu": frozenset({"at_stored_zero"}),
}


def why_not(model: Any) -> str | None:
    """Why the choices of `Rounded` do not go together, of an exact result; or None."""
    if model.rounding == "magic" or model.clamp.startswith("int32"):
        return "magic numbers and conversions are of floating point"
    return None


def why_not_of_floats(model: Any) -> str | None:
    """The same of a float32 result."""
    if getattr(model, "output", "own") == "reciprocal_fused" and model.zero_point != "before_rounding":
        return "the fused multiply-add adds the zero point"
    if model.rounding == "magic" and model.clamp.startswith("int32"):
        return "a magic number is added instead of a conversion"
    return None


def why_not_of_integers(model: Any) -> str | None:
    """The same of a result in fixed point."""
    if model.clamp == "before_rounding":
        return "fixed point shifts an integer"
    if model.zero_point != "after_rounding":
        return "fixed point adds the zero point to the shifted integer"
    return why_not(model)


_NOT_NEGATIVE = ("relu", "sigmoid", "hardsigmoid", "softmax")
"""Operators without negative results."""


def _is_exact(model: Any) -> bool:
    """Whether the model computes the exact result before it is rounded."""
    own = (f for f in model.__struct_fields__ if f not in Rounded.__struct_fields__)
    return all(getattr(model, f) in ("exact", "own") for f in own)


EQUALITIES: tuple[Equality, ...] = (
    Equality(
        "clamp",
        "int32_conversion_wrapping",
        ("int32_conversion",),
        lambda m, f: m.zero_point == "before_rounding" or f.dtype == "uint8",
        "nothing, or nothing negative, is added to the least int32",
    ),
    Equality(
        "clamp",
        "int32_limit",
        ("after_zero_point",),
        lambda m, f: m.zero_point == "before_rounding",
        "the zero point is in the float that is limited: nothing is added that could wrap",
    ),
    Equality(
        "clamp",
        "int32_limit",
        ("after_zero_point",),
        lambda m, f: f.dtype == "int8" and f.op in _NOT_NEGATIVE,
        "results are not negative, and 2^31 - 128 with a zero point of at most 127 stays within int32",
    ),
    *(
        Equality(
            "clamp",
            choice,
            ("after_zero_point",),
            lambda m, f: not f.rescaled and f.op in ("clamp", "avg_pool", "global_avg_pool"),
            "in the input's own scale results stay within int32",
        )
        for choice in ("int32_conversion", "int32_conversion_wrapping", "int32_limit")
    ),
    Equality(
        "rounding",
        "magic",
        ("half_even",),
        always,
        "adding 1.5 * 2^23 rounds to nearest even below 2^22; above, both saturate to the same end",
    ),
    Equality(
        "clamp",
        "before_rounding",
        ("after_zero_point",),
        always,
        "the ends of the range are integers, and rounding is monotone and keeps integers",
    ),
    Equality(
        "relu",
        "before_rounding",
        ("after_rounding",),
        always,
        "rounding is monotone and keeps 0 and the zero point; without a relu there is nothing to clip",
    ),
    Equality(
        "rounding",
        "half_away",
        ("half_up",),
        lambda m, f: m.zero_point == "before_rounding" and f.dtype == "uint8",
        "with the zero point added what is rounded is not negative, or saturates at 0 in any case",
    ),
    Equality(
        "rounding",
        "half_away",
        ("half_up",),
        lambda m, f: m.zero_point == "after_rounding" and f.op in _NOT_NEGATIVE,
        "results are not negative, where away from zero is up",
    ),
    Equality(
        "zero_point",
        "before_rounding",
        ("after_rounding",),
        lambda m, f: m.rounding == "half_up" and _is_exact(m),
        "rounding ties up commutes with adding an integer, and nothing is rounded in that sum",
    ),
    Equality(
        "zero_point",
        "before_rounding",
        ("after_rounding",),
        lambda m, f: m.rounding == "truncation" and _is_exact(m) and f.dtype == "uint8" and f.op in _NOT_NEGATIVE,
        "neither the result nor the zero point is negative: both are rounded down",
    ),
)
"""Of all families, contractions too."""


class RoundedEvaluation:
    """One node on known inputs, under as many models as are asked for.

    A family of its own overrides `compute`; results that models share are computed once.
    """

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> None:
        assert isinstance(node.op, ExactOperator)
        self.node, self.op, self.element = node, node.op, node.element
        self.types, self.arrays = types, arrays
        self.relu = bool(getattr(node.op, "relu", False))
        self._known: dict[tuple[str, ...], Array] = {}

    def stored(self, model: Any) -> Array:
        """What the model computes, in the output's shape."""
        result = self.result(model)
        if not isinstance(self.element, QType):  # such a result is what is stored
            return result.astype(DTYPES[self.element])
        return stored(
            result,
            self.element,
            rounding=model.rounding,
            zero_point=model.zero_point,
            clamp=model.clamp,
            relu=model.relu if self.relu else None,
            added=self.zero_point_added(model),
        )

    def work(self, model: Any) -> int:
        """None: everything is elementwise."""
        return 0

    def on_the_way(self, model: Any, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """The operands at one element, where the operator is an elementwise one."""
        shape = self.result(model).shape
        for name, array, type_ in zip("ab", self.arrays, self.types, strict=False):
            if array.ndim > len(shape) or any(
                n not in (1, m) for n, m in zip(array.shape[::-1], shape[::-1], strict=False)
            ):
                continue
            stored = np.broadcast_to(array, shape)[index]
            yield name, stored
            if isinstance(type_.element, QType):
                zero_point = type_.element.zero_point[0]
                yield f"{name}, real", Fraction(int(stored) - zero_point) * Fraction(type_.element.scale[0])

    def result(self, model: Any) -> Array:
        """In output units, before it is rounded; a float32 output as it is."""
        own = [f for f in model.__struct_fields__ if f not in Rounded.__struct_fields__]
        key = tuple(getattr(model, f) for f in own)
        if key not in self._known:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
                self._known[key] = self.compute(model)
        return self._known[key]

    def compute(self, model: Any) -> Array:
        """The result under the choices that are the family's own."""
        return self.exact()

    def zero_point_added(self, model: Any) -> bool:
        """Whether the result has come with the zero point."""
        return getattr(model, "output", "own") == "reciprocal_fused"

    def exact(self) -> Floats:
        """The exact result in output units, as `surrogates`."""
        operands = [Operand.point(t, a) for t, a in zip(self.types, self.arrays, strict=True)]
        real = self.op.image(operands, self.element).lower
        if isinstance(self.element, QType):
            return surrogates(real)
        return real.nearest_float32() if self.element == "float32" else real.approx

    def scale(self, i: int) -> np.float32:
        """Of an input."""
        return np.float32(self.types[i].qtype.scale[0])

    @property
    def scale_y(self) -> np.float32:
        """Of the output."""
        assert isinstance(self.element, QType)
        return np.float32(self.element.scale[0])

    def centered(self, i: int) -> Array:
        """An input less its zero point: int64."""
        return np.asarray(self.arrays[i].astype(np.int64) - self.types[i].qtype.zero_point[0])

    def over_scale(self, values: Array, output: str) -> Array:
        """float32 real values in output units, as `qfuzz.arithmetic.dequantized.Output` says."""
        if output == "divided":
            return np.asarray(values / self.scale_y)
        inverse = np.float32(1) / self.scale_y
        if output == "reciprocal_fused":
            assert isinstance(self.element, QType)
            return fma(values, np.asarray(inverse), np.asarray(np.float32(self.element.zero_point[0])))
        return np.asarray(values * inverse)
