"""Models of torch's kernels that known issues are named by: they give every element that the kernels give."""

import numpy as np
import pytest
from test_torch import saturates_pairs

from qfuzz.arithmetic.catalogue import family_of_node
from qfuzz.arithmetic.cause import gives, is_modelled
from qfuzz.arithmetic.family import alternatives
from qfuzz.ir.protocols import Supported
from qfuzz.oracle.check import check
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies import cases_of

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

from qfuzz.backends.torch_backends import TorchBackend

FIELDS = {
    **dict.fromkeys(("layer_norm", "instance_norm", "group_norm"), "kernel"),
    **dict.fromkeys(("dynamic_conv", "dynamic_conv_transpose"), "result"),
}


@pytest.mark.parametrize("op", FIELDS)
def test_a_model_gives_every_element_of_the_kernel(op: str) -> None:
    backend, n_cases = TorchBackend("fbgemm"), 0
    for case in cases_of(9, 0, ops=(op,), max_nodes=1):
        (node, *others), types = case.network.nodes, case.network.input_types(case.network.nodes[0])
        plain = not others and case.network.form("memory") != "strided" and is_modelled(node, types)
        plain = plain and not saturates_pairs(case)
        if not plain or not isinstance(backend.supports(case.network), Supported) or not case.inputs[0].array.size:
            continue
        if check(case, [backend]).backends[0].outcome is not Outcome.JUDGED:
            continue  # batches that a kernel leaves unwritten
        fed = {name: np.array(t.array) for name, t in case.feeds.items()}
        got = backend.compile(case.network).run(fed)[node.name]
        family = family_of_node(node, types)
        evaluation = family.evaluate(node, types, [case.arrays[name] for name in node.inputs])
        faults = family.faults[FIELDS[op]]
        assert faults < set(alternatives(family.model, FIELDS[op]))
        models = [family.model(**{FIELDS[op]: choice}) for choice in sorted(faults)]
        assert any(gives(evaluation, m, got) for m in models), (case.network.forms, node)
        n_cases += 1
    assert n_cases > 20
