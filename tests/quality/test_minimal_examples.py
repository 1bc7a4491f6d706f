"""What every strategy shrinks to: one node, size 1, scale 1, zero point 0, or the simplest of its kind."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.strategies import SearchStrategy

import qfuzz
from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.ir.network import Case
from qfuzz.ir.qtype import QType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.convolution import Conv
from qfuzz.oracle.check import check
from qfuzz.reduce.driver import reduce_case

FINDING = settings(
    max_examples=2000,
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def minimal(strategy: SearchStrategy[Any], wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """The simplest value that is wanted."""
    return find(strategy, wanted, settings=FINDING)


def test_scales_shrink_to_one() -> None:
    assert minimal(qfuzz.scales()) == 1.0
    assert minimal(qfuzz.scales(), lambda s: s > 3) == 4.0
    assert minimal(qfuzz.scales(min_value=0.3, max_value=0.4)) in (0.3, pytest.approx(0.3))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_zero_points_shrink_to_zero(dtype: Any) -> None:
    assert minimal(qfuzz.zero_points(dtype)) == 0
    assert minimal(qfuzz.zero_points(dtype, min_value=5)) == 5


def test_qtypes_shrink_to_the_unit() -> None:
    assert minimal(qfuzz.qtypes()) == QType.per_tensor("uint8", 1.0, 0)
    assert minimal(qfuzz.qtypes(), lambda q: q.dtype == "int8") == QType.per_tensor("int8", 1.0, 0)


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_cases_of_one_operator_shrink_to_one_small_node(op: str) -> None:
    case: Case = minimal(qfuzz.cases(ops=[op]))
    assert [n.op.name for n in case.network.nodes] == [op]
    for t in case.inputs:
        assert t.array.size == 1
    for value in case.network.inputs:
        if isinstance(value.type.element, QType):
            dtype = "float8_e4m3fn" if value.type.element.is_float else "uint8"
            assert value.type.element == QType.per_tensor(dtype, 1.0, 0)
    assert not any(t.array.any() for t in case.inputs), "key 0 fills with the zero point"


def test_a_conv_shrinks_to_defaults() -> None:
    case: Case = minimal(qfuzz.cases(ops=["conv"]))
    (node,) = case.network.nodes
    assert node.op == Conv(strides=(1, 1), padding=(0, 0, 0, 0), dilations=(1, 1))
    assert len(node.inputs) == 2


def test_a_property_of_the_data_keeps_little_else() -> None:
    def has_saturated_input(case: Case) -> bool:
        return any((t.array == 255).any() for t in case.inputs)

    shrunk: Case = minimal(qfuzz.cases(), has_saturated_input)
    assert len(shrunk.network.nodes) == 1
    # Hypothesis draws arrays by a key: of another shape, the same key may hold no such element. The reducer edits.
    case = reduce_case(shrunk, has_saturated_input).case
    assert len(case.network.nodes) == 1
    assert case.n_elements <= 2


def test_two_nodes_shrink_to_two() -> None:
    case: Case = minimal(qfuzz.cases(), lambda c: len(c.network.nodes) >= 2)
    assert len(case.network.nodes) == 2
    assert case.inputs[0].array.size == 1


@pytest.mark.parametrize(
    ("fault", "n_elements"), [("truncation", 2), ("half-away", 4), ("pads-with-stored-zero", 4), ("unscaled-bias", 6)]
)
def test_planted_faults_shrink_to_one_small_node(fault: str, n_elements: int) -> None:
    """Hypothesis may keep a node before the guilty one, for a type that it gives, and one more that reads that.

    The plugin's reducer feeds what they give.
    """
    backend = PlantedBackend(fault)

    def is_accused(c: Case) -> bool:
        return bool(check(c, [backend]).findings)

    shrunk: Case = minimal(qfuzz.cases(), is_accused)
    assert len(shrunk.network.nodes) <= 3
    case = reduce_case(shrunk, is_accused).case
    assert len(case.network.nodes) == 1
    assert case.n_elements <= n_elements
    scales = [s for t in case.network.types.values() if isinstance(t.element, QType) for s in t.element.scale]
    assert all(2.0**-8 <= s <= 2.0**8 for s in scales)
    assert 1.0 in scales
