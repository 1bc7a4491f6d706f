"""What proves the k of torch's contracts: results within 2^-16 of rounding ties, and the worst error that they show."""

import itertools
from typing import Any

import pytest

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.environment import cpu_flags
from qfuzz.ir.protocols import Supported
from qfuzz.oracle.check import check
from qfuzz.oracle.measure import worst_errors
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies.near_ties import NEAR_TIE_OPS, near_tie_cases

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

from qfuzz.backends.torch_backends import TorchBackend

CASES = 24
BACKENDS = {
    "fbgemm": TorchBackend("fbgemm"),
    "onednn": TorchBackend("onednn"),
    "qnnpack": TorchBackend("qnnpack"),
    "export": TorchBackend("export"),
    "qdq": TorchBackend("export", format="qdq"),
}
HAS_VNNI = "avx512_vnni" in cpu_flags()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", NEAR_TIE_OPS)
def test_error_near_ties_stays_within_the_contract(op: str, name: str) -> None:
    backend: Any = BACKENDS[name]
    worst, n_elements, n_known = 0.0, 0, 0
    for case in itertools.islice(near_tie_cases(op, seed=17), CASES):
        if not isinstance(backend.supports(case.network), Supported):
            continue
        (verdict,) = check(case, [backend], explain=cause_of).backends
        assert verdict.outcome in (Outcome.JUDGED, Outcome.UNSUPPORTED), verdict.reason
        if verdict.counts.violation and (verdict.cause or "").startswith(KNOWN_CAUSES):
            n_known += 1
            continue
        assert verdict.counts.violation == 0, (case.network.nodes, verdict.cause, verdict.mismatches[:2])
        worst = max(worst, worst_errors(case, backend).get(op, 0.0))
        n_elements += verdict.counts.total
    if op in backend.contracts:
        print(f"{backend.name} {op}: worst {worst:.2f} u of k = {backend.contracts[op].k}, {n_elements} elements, "
              f"{n_known} cases with a known cause")  # fmt: skip
    else:
        print(f"{backend.name} {op}: no kernel")


KNOWN_CAUSES = ("cancelled-variance", "int32-", "int16-pair-saturation")
"""Of true bugs, which the corpus has."""
