"""What holds of reduction for every operator: no pass fails on a network, and candidates are cases or say why not."""

from itertools import chain, islice

import pytest

from qfuzz.ops import OPERATOR_NAMES
from qfuzz.reduce.driver import reduce_case
from qfuzz.reduce.links import linked_dimensions
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
