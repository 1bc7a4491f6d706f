"""Rows of a case: positions whose results do not depend on each other, so that a case can be cut down to a few."""

from collections.abc import Sequence

import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Evaluation
from qfuzz.exact.rounding import Ints
from qfuzz.ir.network import Case, Input, Network
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.convolution import Conv

ROWS_KEPT = 40
"""Rows of a directed case; a batch this small is still found by eye."""
SAMPLE = 48
"""Models that a directed case is cut down with; those left are judged on what is kept."""


def evaluate(case: Case) -> Evaluation:
    """A case of one node, ready to be computed under models."""
    (node,) = case.network.nodes
    known = case.arrays
    arrays = [known[i] for i in node.inputs]
    return family_of(node.op.name).evaluate(node, case.network.input_types(node), arrays)


def narrowed(case: Case, left: Sequence[Choices], most: int = ROWS_KEPT) -> Case | None:
    """The rows of a case on which some of the models left disagree; None where they all agree."""
    evaluation = evaluate(case)
    sample = left[:: max(1, len(left) // SAMPLE)]
    axis = row_axis(case)
    outputs = np.stack([np.moveaxis(evaluation.stored(m), axis, 0) for m in sample])
    rows = outputs.shape[1]
    columns = outputs.reshape(len(sample), rows, -1).transpose(1, 2, 0).reshape(-1, len(sample))
    telling = np.flatnonzero((columns != columns[:, :1]).any(axis=1))
    if len(telling) == 0:
        return None
    # One row for each way in which the models part.
    patterns = columns[telling] == columns[telling, :1]
    _, first = np.unique(patterns, axis=0, return_index=True)
    keep = np.unique(telling[first] // (columns.shape[0] // rows))[:most]
    return with_rows(case, keep)


def row_axis(case: Case) -> int:
    """The dimension of inputs and output whose positions do not depend on each other."""
    (node,) = case.network.nodes
    if node.op.name in ("avg_pool", "global_avg_pool"):
        return 1
    if isinstance(node.op, Conv) and not any(node.op.padding):
        taps = case.network.constants[0].type.shape[2:]
        return 2 if set(taps) == {1} and case.inputs[0].array.shape[3] == 1 else 0
    return 0


def with_rows(case: Case, keep: Ints) -> Case:
    """The case with only these of its rows, in this order."""
    axis = row_axis(case)
    arrays = [np.ascontiguousarray(np.take(t.array, keep, axis=axis)) for t in case.inputs]
    inputs = tuple(
        Input(i.name, TensorType(a.shape, i.type.element)) for i, a in zip(case.network.inputs, arrays, strict=True)
    )
    network = Network(inputs, case.network.constants, case.network.nodes, case.network.outputs, case.network.forms)
    return Case(network, tuple(Tensor(a) for a in arrays))
