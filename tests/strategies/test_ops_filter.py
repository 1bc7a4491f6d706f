"""Every operator can be asked for by name, and then every case holds it."""

from itertools import islice

import pytest

from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies.generate import cases_of


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_cases_of_one_operator_hold_it(op: str) -> None:
    for case in islice(cases_of(11, 1, ops=(op,), max_nodes=4), 40):
        assert op in {n.op.name for n in case.network.nodes}
