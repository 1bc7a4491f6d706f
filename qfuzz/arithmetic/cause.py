"""Which models explain what a kernel returned: those that reproduce every element of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qfuzz.arithmetic.catalogue import CAUSES, family_of_node
from qfuzz.arithmetic.family import Choices, Evaluation, Family
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import BYTES, QType, dtype_of
from qfuzz.ir.tensor import TensorType
from qfuzz.oracle.check import Observe


class Explanation(NamedTuple):
    """A model that reproduces an output, what it is called, and where a published kernel's is said."""

    name: str
    model: Choices
    source: str = ""


def explaining(node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array) -> tuple[Explanation, ...]:
    """All named models that give `got` at every element: ``exact``, published kernels, then faults.

    Faults are named only where no kernel is.

    Parameters
    ----------
    types, arrays
        Of all inputs of `node`, constants included.
    """
    if not is_modelled(node, types):
        return ()
    family = family_of_node(node, types)
    evaluation = family.evaluate(node, types, arrays)
    giving = tuple(e for e in kernels(family) if gives(evaluation, e.model, got))
    return giving or tuple(_faults(family, evaluation, got))


def cause_of(
    node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array, observe: Observe
) -> str | None:
    """The fault that explains a violation: one that a published kernel has before others, else in catalogue order.

    Its model reproduces every element of `got`, which the same kernel without the fault does not, and of all that
    `observe` returns: a coincidence on one output is no cause.
    """
    if not is_modelled(node, types):
        return None
    family = family_of_node(node, types)
    evaluation = family.evaluate(node, types, arrays)
    likely = list(_faults(family, evaluation, got))
    if not likely:
        return None
    seen_again = False
    for fresh_arrays, fresh in observe():
        again = family.evaluate(node, types, fresh_arrays)
        likely = [e for e in likely if gives(again, e.model, fresh)]
        seen_again = True
    published = [p.model for p in family.published]
    likely.sort(key=lambda e: e.model not in published)
    return likely[0].name if likely and seen_again else None


def is_modelled(node: Node, types: Sequence[TensorType]) -> bool:
    """Whether models of the node's arithmetic exist: of bytes, whose activations have one scale."""
    weights = node.op.constant_inputs
    activations = [node.element, *(t.element for i, t in enumerate(types) if i not in weights)]
    if any(isinstance(e, QType) and not e.is_per_tensor for e in activations):
        return False
    if node.op.name not in ("quantize", "dequantize") and any(
        dtype_of(e) == "int32" for e in activations if isinstance(e, QType)
    ):
        return False
    return all(t.dtype in _MODELLED and not (isinstance(t.element, QType) and t.element.block) for t in types) and (
        dtype_of(node.element) in _MODELLED
    )


_MODELLED = (*BYTES, "int32", "float32")


def gives(evaluation: Evaluation, model: Choices, got: Array) -> bool:
    """Whether a model computes every element of `got`."""
    computed = evaluation.stored(model)
    return computed.dtype == got.dtype and np.array_equal(computed, got)


def kernels(family: Family) -> tuple[Explanation, ...]:
    """The exact arithmetic, and the published kernels."""
    published = (Explanation(p.name, p.model, p.source) for p in family.published)
    return (Explanation("exact", family.model()), *published)


def _faults(family: Family, evaluation: Evaluation, got: Array) -> Iterator[Explanation]:
    """Each fault that gives `got` in a kernel that does not give it without the fault."""
    innocent = [e.model for e in kernels(family) if not gives(evaluation, e.model, got)]
    for name, choices in CAUSES.items():
        for model in dict.fromkeys(family.departing(kernel, choices) for kernel in innocent):
            if model is not None and model not in innocent and gives(evaluation, model, got):
                yield Explanation(name, model)
