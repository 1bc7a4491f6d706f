"""One-node cases by hand, and small strategies over types, for the laws of operators."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from qfuzz.ir.network import Case, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.oracle.reference import exact_outputs

LAW = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
"""The same examples on every run."""

Array = np.ndarray[Any, Any]


def network_of(op: Operator, inputs: Sequence[tuple[tuple[int, ...], Element]], out: Element) -> Network:
    """One node over activations."""
    values = tuple(Input(f"x{i}", TensorType(shape, element)) for i, (shape, element) in enumerate(inputs))
    return Network(values, (), (Node("y", op, tuple(v.name for v in values), out),), ("y",))


def apply(op: Operator, inputs: Sequence[tuple[Array, Element]], out: Element) -> Array:
    """The correctly rounded output."""
    network = network_of(op, [(a.shape, e) for a, e in inputs], out)
    feeds = tuple(Tensor(a.astype(v.type.dtype)) for v, (a, _) in zip(network.inputs, inputs, strict=True))
    return exact_outputs(Case(network, feeds))["y"]


@st.composite
def qtypes(draw: st.DrawFn, *, dyadic: bool = False) -> QType:
    """A per-tensor type of any zero point, and of a scale between 2^-8 and 2^8."""
    dtype = draw(st.sampled_from(("uint8", "int8")))
    low, high = INTEGER_RANGE[dtype]
    scale = 2.0 ** draw(st.integers(-8, 8))
    if not dyadic:
        scale = float32(scale * draw(st.sampled_from((1.0, 1 + 2.0**-23, 1 - 2.0**-24, 1.1, 1.7))))
    return QType.per_tensor(dtype, scale, draw(st.one_of(st.sampled_from((low, high)), st.integers(low, high))))


@st.composite
def stored(draw: st.DrawFn, q: QType, shape: tuple[int, ...]) -> Array:
    """Stored integers of `q`."""
    n = int(np.prod(shape))
    values = draw(st.lists(st.integers(q.qmin, q.qmax), min_size=n, max_size=n))
    return np.array(values, dtype=q.dtype).reshape(shape)


shapes = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
"""Shapes, empty ones among them."""

image_shapes = st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))
"""[N, C, H, W] where only the batch may be empty."""
