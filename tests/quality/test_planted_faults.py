"""Power and reduction: each planted fault is found within 300 examples, explained, and reduced to one small node."""

import statistics
from functools import cache
from itertools import islice

import pytest

from qfuzz.arithmetic.catalogue import FAULTS
from qfuzz.arithmetic.cause import cause_of
from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.ir.network import Case
from qfuzz.oracle.check import check, check_one
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import BackendVerdict
from qfuzz.reduce.driver import reduce_case
from qfuzz.strategies import cases_of

SEEDS = (0, 1, 2)
WITHIN = 300


@cache
def examples(seed: int) -> tuple[Case, ...]:
    """The first examples of a campaign on contractions."""
    shards = (case for shard in range(2) for case in cases_of(seed, shard, ops=("conv", "linear")))
    return tuple(islice(shards, WITHIN))


@cache
def first_found(fault: str, seed: int) -> Case | None:
    backend = PlantedBackend(fault)
    return next((c for c in examples(seed) if check(c, [backend]).findings), None)


def verdict_on(case: Case, fault: str) -> BackendVerdict:
    return check_one(case, PlantedBackend(fault), Reference(case), explain=cause_of)


@pytest.mark.parametrize("fault", FAULTS)
def test_found_within_300_examples(fault: str) -> None:
    for seed in SEEDS:
        assert first_found(fault, seed) is not None, f"seed {seed}"


def test_no_fault_is_not_accused() -> None:
    backend = PlantedBackend()
    for seed in SEEDS:
        for case in examples(seed):
            assert not check(case, [backend]).findings


def reduced_size(fault: str, seed: int) -> int:
    """Elements that are left, once the case is seen to be one node that fails as before."""
    case = first_found(fault, seed)
    assert case is not None
    first = verdict_on(case, fault)

    def interesting(candidate: Case) -> bool:
        v = verdict_on(candidate, fault)
        # On a small case two faults may explain the same, and the first of the catalogue is named.
        return (v.verdict, v.op, v.cause is None) == (first.verdict, first.op, first.cause is None)

    result = reduce_case(case, interesting)
    assert interesting(result.case)
    assert len(result.case.network.nodes) == 1
    assert result.case.n_elements <= case.n_elements
    if seed == 1:
        assert reduce_case(case, interesting) == result, "a pure function of the case"
    return result.case.n_elements


def test_reduced_to_one_small_node() -> None:
    """At most 12 elements in the median of all. Single ones stay larger: their ties are sums of several products."""
    sizes = {fault: [reduced_size(fault, seed) for seed in SEEDS] for fault in FAULTS}
    assert statistics.median(n for row in sizes.values() for n in row) <= 12, sizes
    assert sum(statistics.median(row) <= 12 for row in sizes.values()) >= len(FAULTS) - 2, sizes
