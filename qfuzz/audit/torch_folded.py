"""A chain of float32 operators between dequantizing and quantizing, as one operator on integers, or why it is none."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as replaced

from qfuzz.audit.layer import Captured, Layer, Uncovered
from qfuzz.audit.torch_decomposed import DECOMPOSED
from qfuzz.audit.torch_readings import Reading, Work
from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import Value, single_node
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType, float32
from qfuzz.oracle.reference import exact_outputs

SEVERAL = "several operators run on float32 before the result is quantized; qfuzz has no operator of all"
NEVER = "its result stays float32: nothing quantizes it"


@dataclass(frozen=True)
class Chain:
    """Float32 operators on dequantized values, in the order in which they ran.

    Attributes
    ----------
    name, kernels
        Where the first of them stands; what ran.
    call, reading
        The first operator and how it reads; without them, `problem` says why it is no operator of qfuzz's.
    shape
        Of its result.
    relu, low, high
        The relu or the clamp that follows it.
    """

    name: str
    kernels: tuple[str, ...]
    call: Call | None = None
    reading: Reading | None = None
    shape: tuple[int, ...] = ()
    relu: bool = False
    low: float | None = None
    high: float | None = None
    problem: str = ""

    @property
    def kernel(self) -> str:
        """What ran, and on what."""
        return f"{', '.join(self.kernels)} on dequantized float32"

    @property
    def is_open(self) -> bool:
        """Whether a relu or a clamp can still be part of it."""
        return not (self.relu or self.problem or self.low is not None or self.high is not None)

    def then(self, kernel: str) -> "Chain":
        """With one more operator, which changes no value."""
        return replace(self, kernels=(*self.kernels, kernel))

    def broken(self, kernel: str, problem: str) -> "Chain":
        """With one more operator, which makes it none of qfuzz's."""
        return replace(self.then(kernel), call=None, reading=None, problem=self.problem or problem)


def uncovered(name: str, kernel: str, reason: str) -> Iterator[Captured]:
    """One layer that is not judged."""
    yield Uncovered(name, kernel, reason)


def alone(
    name: str, kernel: str, op: Operator, x: Value, y: Value, limits: tuple[int, int] | None
) -> Iterator[Captured]:
    """One operator that is no chain, from `x` to `y`."""
    try:
        yield _layer(name, kernel, Work(op, (x,), y.type.element, y.array), limits, None, None)
    except InvalidCase as e:
        yield Uncovered(name, kernel, str(e))


def folded(chain: Chain, y: Value, limits: tuple[int, int]) -> Iterator[Captured]:
    """The layers of a chain whose result was quantized to `y`, within `limits` of its storage type."""
    if chain.call is None or chain.reading is None:
        yield Uncovered(chain.name, chain.kernel, chain.problem)
        return
    call = replace(chain.call, outputs=(replace(y, array=y.array.reshape(chain.shape)),))
    try:
        for work in chain.reading(call):
            low, op = chain.low, work.op
            if chain.relu and hasattr(op, "relu"):
                op = replaced(op, relu=True)
            elif chain.relu:
                low = 0.0
            yield _layer(chain.name, chain.kernel, replace(work, op=op), limits, low, chain.high)
    except InvalidCase as e:
        yield Uncovered(chain.name, chain.kernel, str(e))


def _layer(
    name: str, kernel: str, work: Work, limits: tuple[int, int] | None, low: float | None, high: float | None
) -> Layer:
    case, got = single_node(work.op, work.operands, work.element), work.got
    if isinstance(work.element, QType) and limits is not None:
        least, most = _bounds(work.element, limits, low, high)
        if (least, most) != (work.element.qmin, work.element.qmax):
            got = unclamped(got, exact_outputs(case)["y"], least, most)
    if work.operands[0].layout:
        kernel += f", {work.operands[0].layout}"
    return Layer(name, kernel, case, got, DECOMPOSED[work.op.name])


def _bounds(q: QType, limits: tuple[int, int], low: float | None, high: float | None) -> tuple[int, int]:
    """The least and greatest integers that the quantizing call can return, after a clamp to `low`..`high`."""

    def quantized(bound: float) -> int:
        inverse = np.float32(1.0 / q.scale[0])
        return int(np.clip(np.rint(np.float32(float32(bound)) * inverse) + q.zero_point[0], *limits))

    least, most = limits
    return (least if low is None else quantized(low)), (most if high is None else quantized(high))


def unclamped(got: Array, exact: Array, least: int, most: int) -> Array:
    """What a kernel that does not clamp to `least`..`most` returned, as far as a clamped result tells.

    A clamp is monotone and so is rounding, so that they commute. Where the result is a bound and the exact value lies
    beyond it, the result is right, and the exact value takes its place. A result outside of the bounds is wrong: where
    it may be what an unclamped kernel returns, the bound takes its place, which is not.
    """
    at_bound = ((got == most) & (exact > most)) | ((got == least) & (exact < least))
    escaped = ((got > most) & (exact > most)) | ((got < least) & (exact < least))
    return np.where(at_bound, exact, np.where(escaped, np.clip(got, least, most), got)).astype(got.dtype)
