"""What holds of reduction for every operator: no pass fails on a network, and candidates are cases or say why not."""

from itertools import chain, islice

import numpy as np
import pytest

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.reduce.driver import reduce_case
from qfuzz.reduce.links import linked_dimensions
from qfuzz.reduce.order import size_key
from qfuzz.strategies.generate import cases_of

every_operator = pytest.mark.parametrize("op", OPERATOR_NAMES)


@every_operator
def test_every_network_has_linked_dimensions(op: str) -> None:
    for case in islice(chain(cases_of(31, 1, ops=(op,), max_nodes=1), cases_of(31, 2, ops=(op,), max_nodes=4)), 300):
        leaves = {v.name: len(v.type.shape) for v in case.network.leaves}
        linked = [d for dimensions in linked_dimensions(case.network) for d in dimensions]
        assert sorted(linked) == sorted((name, i) for name, rank in leaves.items() for i in range(rank))


@every_operator
def test_every_pass_ends(op: str) -> None:
    """Where nothing else is interesting, all candidates are tried once, and none fails."""
    for case in islice(cases_of(32, 1, ops=(op,), max_nodes=3), 5):
        result = reduce_case(case, lambda _: False, max_attempts=300)
        assert result.case == case


def test_infinities_and_nan_are_larger_than_numbers() -> None:
    keys = [size_key(_scaled([value, 1.0])) for value in (0.0, 1.0, 57344.0, float("inf"), float("nan"))]
    assert keys == sorted(keys)
    assert keys[-1] == size_key(_scaled([float("nan"), 1.0])), "a case is as large as itself"
    assert keys[-1] > keys[2]


def _scaled(row: list[float]) -> Case:
    q = QType.per_tensor("float8_e5m2", 1.0, 0)
    types = TensorType((1, 2), q), TensorType((1, 2), q)
    x, w = (Tensor(np.array([v], dtype=np.float32).astype(DTYPES[q.dtype])) for v in (row, [1.0, 1.0]))
    node = Node("y", ScaledMm(), ("x", "w"), "float32")
    return Case(Network((Input("x", types[0]),), (Constant("w", types[1], w),), (node,), ("y",)), (x,))
