"""Causes: the model of the catalogue that reproduces every element of a violating output."""

from collections.abc import Sequence

import numpy as np

from qfuzz.arithmetic.models import EXACT, KERNEL_MODELS, MODELS, Array, compute, differs_on, kernel_explains
from qfuzz.ir.network import Node
from qfuzz.ir.tensor import TensorType


def cause_of(node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array) -> str | None:
    """The first model, in catalogue order, whose output is `got` at every element and differs from the exact one."""
    exact = compute(EXACT, node, types, arrays)
    if exact.shape != got.shape or exact.dtype != got.dtype:
        return None
    for name, model in KERNEL_MODELS.items():
        if kernel_explains(model, node, types, arrays, got):
            return name
    for name, model in MODELS.items():
        if not differs_on(model, node):
            continue
        modelled = compute(model, node, types, arrays)
        if np.array_equal(modelled, got) and not np.array_equal(modelled, exact):
            return name
    return None
