"""What proves the k of torch's contracts: results within 2^-16 of rounding ties, and the worst error that they show."""

import itertools
from typing import Any

import pytest
from test_torch import KNOWN_CAUSES, is_known_bug

from qfuzz.arithmetic.cause import cause_of
from qfuzz.ir.protocols import Supported
from qfuzz.oracle.check import check_one
from qfuzz.oracle.measure import worst_errors
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies.near_ties import NEAR_TIE_OPS, near_tie_cases

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

from qfuzz.backends.torch_backends import TorchBackend
from qfuzz.backends.torch_export_contracts import QDQ_CONTRACTS

CASES = 24
BACKENDS = {e: TorchBackend(e) for e in ("fbgemm", "onednn", "qnnpack", "export")} | {
    "qdq": TorchBackend("export", format="qdq")
}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", NEAR_TIE_OPS)
def test_error_near_ties_stays_within_the_contract(op: str, name: str) -> None:
    backend: Any = BACKENDS[name]
    worst, n_elements = 0.0, 0
    for case in itertools.islice(near_tie_cases(op, seed=17), CASES):
        if is_known_bug(name, case) or not isinstance(backend.supports(case.network), Supported):
            continue
        verdict = check_one(case, backend, Reference(case), explain=cause_of)
        assert verdict.outcome in (Outcome.JUDGED, Outcome.UNSUPPORTED), verdict.reason
        if (verdict.cause or "").startswith(KNOWN_CAUSES):
            continue
        assert verdict.counts.violation == 0, (case.network.nodes, verdict.mismatches)
        worst = max(worst, worst_errors(case, backend).get(op, 0.0))
        n_elements += verdict.counts.total
    assert n_elements or name != "qdq" or op not in QDQ_CONTRACTS
    if n_elements:
        print(f"{backend.name} {op}: worst {worst:.2f} u of k = {backend.contracts[op].k}, {n_elements} elements")
