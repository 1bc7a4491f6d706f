"""One layer of a user's model: the kernel that ran, what it received and returned, and the verdict on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import msgspec
import numpy as np

from qfuzz.arithmetic.cause import cause_of
from qfuzz.arithmetic.headroom import pairs_beyond_int16
from qfuzz.audit.models import Fitting, fitting
from qfuzz.backends.discovery import load_backend
from qfuzz.ir.contract import Contract
from qfuzz.ir.network import Case, Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.oracle.again import fresh_inputs
from qfuzz.oracle.check import judge as judge_elements
from qfuzz.oracle.check import problem
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import Counts


@dataclass(frozen=True)
class Layer:
    """One kernel's work on one input.

    Attributes
    ----------
    name
        As the model names it.
    kernel
        What really ran, in the framework's words.
    case
        A network of one node, and the inputs that the layer received.
    got
        What the kernel returned: stored integers, or float32.
    contract
        What that kernel promises.
    spec
        The qfuzz backend that runs this case on the same kernel; None where there is none.
    """

    name: str
    kernel: str
    case: Case
    got: Array
    contract: Contract
    spec: str | None = None


@dataclass(frozen=True)
class Uncovered:
    """A layer that qfuzz does not judge, and why."""

    name: str
    kernel: str
    reason: str


Captured: TypeAlias = Layer | Uncovered


class LayerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a layer.

    Attributes
    ----------
    elements, exact, admissible, violation
        Of its output.
    pairs, saturating_pairs
        Adjacent products of its convolution or matrix product, and those whose sum leaves int16 in some kernel's order:
        these are wrong on a CPU without VNNI, whatever this one has. Zero for other operators.
    saturated
        Output elements at the end of the storage range.
    models
        Published arithmetics that give every element, and ``exact`` where all are correctly rounded; of large layers
        only those that could be computed (`qfuzz.audit.models.AFFORDABLE`).
    weights
        How these models use the weights of a convolution or matrix product: ``integers``, ``dequantized``, or both.
    cause
        The arithmetic model that reproduces every element, where there is a violation.
    problem
        Why the output cannot be compared at all, or nothing.
    violating
        Indices of the first violating elements.
    """

    name: str
    kernel: str
    op: str
    elements: int
    exact: int
    admissible: int
    violation: int
    pairs: int = 0
    saturating_pairs: int = 0
    saturated: int = 0
    models: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    cause: str | None = None
    problem: str = ""
    violating: tuple[tuple[int, ...], ...] = ()


VIOLATIONS_KEPT = 8


def judge(layer: Layer) -> LayerReport:
    """Judge every element that `layer` returned against what it received."""
    network = layer.case.network
    (node,) = network.nodes
    type_ = network.types[node.name]
    arrays = received(layer.case)
    why = problem(layer.got, type_)
    counts = Counts(violation=max(type_.n_elements, 1))
    violating: tuple[tuple[int, ...], ...] = ()
    cause: str | None = None
    if not why:
        feeds = layer.case.feeds
        activations = [feeds[i].array if i in feeds else None for i in node.inputs]
        allowed = Reference(layer.case).node(node, activations, layer.contract)
        counts, bad = judge_elements(layer.got, allowed)
        violating = tuple(tuple(int(i) for i in index) for index in bad[:VIOLATIONS_KEPT])
        if counts.violation:
            cause = cause_of(node, network.input_types(node), arrays, layer.got, partial(_observe, layer))
    pairs, saturating = pairs_beyond_int16(node, network.input_types(node), arrays)
    fits = Fitting((), ()) if why else fitting(node, network.input_types(node), arrays, layer.got, saturating)
    return LayerReport(
        name=layer.name,
        kernel=layer.kernel,
        op=node.op.name,
        elements=type_.n_elements,
        exact=counts.exact,
        admissible=counts.admissible,
        violation=counts.violation,
        pairs=pairs,
        saturating_pairs=saturating,
        saturated=0 if why else _saturated(node, layer.got),
        models=fits.names,
        weights=fits.weights,
        cause=cause,
        problem=why,
        violating=violating,
    )


def received(case: Case) -> Sequence[Array]:
    """Values of all inputs of a case's only node, constants included."""
    (node,) = case.network.nodes
    known = case.arrays
    return [known[i] for i in node.inputs]


def _observe(layer: Layer) -> Iterator[tuple[Sequence[Array], Array]]:
    """What the same kernel returns on fresh inputs; nothing where no backend runs it."""
    if layer.spec is None:
        return
    program = load_backend(layer.spec).compile(layer.case.network)
    (node,) = layer.case.network.nodes
    for case in fresh_inputs(layer.case):
        values = program.run({name: np.array(t.array) for name, t in case.feeds.items()})
        yield received(case), values[node.name]


def _saturated(node: Node, got: Array) -> int:
    q = node.element
    return int(np.count_nonzero((got == q.qmin) | (got == q.qmax))) if isinstance(q, QType) else 0
