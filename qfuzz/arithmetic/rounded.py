"""An exact real result, rounded and saturated by choice: what is asked of operators without a family of their own."""

from collections.abc import Sequence

import numpy as np

from qfuzz.arithmetic.family import Choices
from qfuzz.arithmetic.finish import Clamp, Relu, Rounding, ZeroPoint, stored, surrogates
from qfuzz.exact.rounding import Floats
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import ExactOperator, Operand


class Rounded(Choices, frozen=True, kw_only=True):
    """How an exact result becomes a stored integer. See `qfuzz.arithmetic.finish`."""

    rounding: Rounding = "half_even"
    zero_point: ZeroPoint = "after_rounding"
    clamp: Clamp = "after_zero_point"
    relu: Relu = "after_rounding"


FAULTS = {
    "clamp": frozenset({"before_zero_point"}),
    "relu": frozenset({"at_stored_zero"}),
}


def why_not(model: Rounded) -> str | None:
    """Why these choices do not go together, or None."""
    if model.rounding == "magic" or model.clamp == "int32_conversion":
        return "magic numbers and conversions are of floating point"
    return None


def real_result(node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> Floats:
    """The exact result in output units, as `surrogates`; a float32 result as it is."""
    assert isinstance(node.op, ExactOperator)
    operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
    exact = node.op.image(operands, node.element).lower
    return surrogates(exact) if isinstance(node.element, QType) else exact.approx


class RoundedEvaluation:
    """One node on known inputs."""

    def __init__(self, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> None:
        self.element, self.real = node.element, real_result(node, types, arrays)
        self.relu = bool(getattr(node.op, "relu", False))

    def stored(self, model: Rounded) -> Array:
        """What the model computes, in the output's shape."""
        if not isinstance(self.element, QType):
            return self.real.astype(np.float32)
        return stored(
            self.real,
            self.element,
            rounding=model.rounding,
            zero_point=model.zero_point,
            clamp=model.clamp,
            relu=model.relu if self.relu else None,
        )

    def steps(self, model: Rounded) -> dict[str, Array]:
        """The real result and the stored one."""
        return {"real": self.real, "stored": self.stored(model)}
