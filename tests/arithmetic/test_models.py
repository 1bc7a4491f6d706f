"""Laws over all operators: the exact model is the reference, every model is computed, and every step is told."""

import msgspec
import numpy as np
import pytest

from qfuzz.arithmetic.catalogue import CAUSES, FAMILIES, FAULTS, ROUNDED, family_of, family_of_node
from qfuzz.arithmetic.cause import cause_of, explaining, is_modelled
from qfuzz.arithmetic.family import alternatives
from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.arithmetic.trace import exact_steps, model_steps, products
from qfuzz.ir.network import Case
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.oracle.again import fresh_inputs
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference
from qfuzz.strategies import cases_of


def examples(op: str, n: int) -> list[Case]:
    """Cases of one node, with elements, whose arithmetic has models."""
    drawn = (c for c in cases_of(4, 0, ops=(op,), max_nodes=1) if len(c.network.nodes) == 1)
    modelled = (c for c in drawn if is_modelled(c.network.nodes[0], c.network.input_types(c.network.nodes[0])))
    finite = (c for c in modelled if all(np.isfinite(t.array).all() for t in c.inputs))
    return [
        c for c in finite if all(t.array.size for t in c.inputs) and all(c.network.types[c.network.outputs[0]].shape)
    ][:n]


def parts(case: Case):
    """The node, the types and the values of its inputs."""
    (node,) = case.network.nodes
    known = {n: t.array for n, t in (*case.feeds.items(), *case.network.constant_data.items())}
    return node, case.network.input_types(node), [known[i] for i in node.inputs]


def test_no_operator_has_two_families() -> None:
    named = [o for f in FAMILIES for o in f.operators]
    assert len(named) == len(set(named))
    assert set(named) <= set(OPERATOR_NAMES)
    assert family_of("an operator of your own") is ROUNDED


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_the_exact_model_is_the_reference(op: str) -> None:
    for case in examples(op, 60):
        node, types, arrays = parts(case)
        family = family_of_node(node, types)
        stored = family.evaluate(node, types, arrays).stored(family.model())
        expected = Reference(case).exact()[node.name]
        assert stored.dtype == expected.dtype
        assert np.array_equal(stored, expected)


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_published_models_are_possible_and_told_step_by_step(op: str) -> None:
    for case in examples(op, 4):
        node, types, arrays = parts(case)
        family = family_of_node(node, types)
        evaluation = family.evaluate(node, types, arrays)
        for model in [family.model(), *(p.model for p in family.published)]:
            assert family.why_not(model) is None
            stored = evaluation.stored(model)
            assert stored.shape == case.network.types[node.name].shape
            index = tuple(n // 2 for n in stored.shape)
            steps = model_steps(node, types, arrays, index, model)
            assert float(steps[-1].value) == pytest.approx(float(stored[index]), rel=1e-6)
        if family is family_of("conv"):
            index = (0,) * len(case.network.types[node.name].shape)
            summed = sum(p.product for p in products(node, types, arrays, index))
            told = {s.name: s.value for s in exact_steps(node, types, arrays, index)}
            assert told["accumulator"] == str(summed)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.operators[0])
def test_equalities_name_choices_that_there_are(family) -> None:
    for e in family.equalities:
        assert {e.choice, *e.same_as} <= set(alternatives(family.model, e.field))
    for field, choices in family.faults.items():
        assert choices < set(alternatives(family.model, field))
    assert all(p.source for p in family.published)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_explained_by_a_model_that_gives_every_element(fault: str) -> None:
    explained = 0
    for op in ("conv", "linear"):
        for case in examples(op, 60):
            backend = PlantedBackend(fault)
            verdict = check_one(case, backend, Reference(case), explain=cause_of)
            if verdict.cause is None:
                continue
            explained += 1
            node, types, arrays = parts(case)
            for again in (case, *fresh_inputs(case)):
                node, types, arrays = parts(again)
                got = backend.compile(again.network).run({n: t.array for n, t in again.feeds.items()})[node.name]
                family = family_of_node(node, types)
                causes = [
                    family.departing(base, CAUSES[verdict.cause])
                    for base in [family.model(), *(p.model for p in family.published)]
                ]
                evaluation = family.evaluate(node, types, arrays)
                assert any(m is not None and np.array_equal(evaluation.stored(m), got) for m in causes)
    assert explained or fault in ("zero-point-before-rounding", "bfloat16-multiplier", "half-away", "ties-up"), fault


def test_a_coincidence_is_no_cause() -> None:
    """A kernel that saturates pairs on one input only: the fault explains that output, and not the fresh ones."""
    case = next(
        c for c in examples("linear", 60) if check_one(c, PlantedBackend("truncation"), Reference(c)).is_finding
    )
    node, types, arrays = parts(case)
    family = family_of("linear")
    evaluation = family.evaluate(node, types, arrays)
    wrong = evaluation.stored(msgspec.structs.replace(family.model(), rounding="truncation"))
    assert explaining(node, types, arrays, wrong)[0].name != "exact"

    def otherwise_right():
        for again in fresh_inputs(case):
            fresh = parts(again)[2]
            yield fresh, family.evaluate(node, types, fresh).stored(family.model())

    assert cause_of(node, types, arrays, wrong, otherwise_right) is None
