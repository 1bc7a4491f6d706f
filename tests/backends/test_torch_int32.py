"""Torch's eager kernels on quantized int32: they keep what they promise but for known issues; others have none."""

from functools import cache
from pathlib import Path

import pytest

from qfuzz.api import backend
from qfuzz.findings.corpus import known_as, known_issues
from qfuzz.findings.signature import signature_of, symptom_of
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import NotSupported
from qfuzz.oracle.check import check
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies.generate import cases_of
from qfuzz.strategies.networks import OF_INT32

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

from qfuzz.backends.torch_int32 import OF_QINT32

BETWEEN = ("quantize", "dequantize")
"""Operators between reals and int32, of which other backends have kernels."""
KNOWN = known_issues([Path(__file__).parents[2] / "corpus" / "known"])
of_activations = pytest.mark.parametrize("op", [op for op in OF_INT32 if op not in BETWEEN])


@cache
def wide_cases(op: str) -> tuple[Case, ...]:
    """One-node cases of an operator that reads int32."""
    drawn = (case for shard in range(4) for case in cases_of(31, shard, ops=(op,), max_nodes=1))
    return tuple(c for c in drawn if c.network.inputs[0].type.dtype == "int32")


def test_what_is_drawn_has_kernels() -> None:
    assert OF_INT32 == OF_QINT32


@of_activations
@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_kernels_keep_their_promises_but_for_known_issues(op: str, engine: str) -> None:
    spec = f"torch-{engine}"
    executor = backend(spec)
    judged = 0
    for case in wide_cases(op):
        (verdict,) = check(case, [executor]).backends
        judged += verdict.outcome is Outcome.JUDGED
        if verdict.is_finding:
            signature = signature_of(case, symptom_of(verdict))
            assert known_as(KNOWN, signature, spec, executor.describe()), f"{signature.text}: {verdict.mismatches[:1]}"
    assert judged


@of_activations
@pytest.mark.parametrize("spec", ["torch-export", "onnxruntime", "onnxruntime?format=qdq"])
def test_no_other_backend_takes_them(op: str, spec: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its backends cannot run")
    other = backend(spec)
    assert wide_cases(op)
    for case in wide_cases(op):
        assert isinstance(other.supports(case.network), NotSupported), case.network
