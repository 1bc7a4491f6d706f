"""Every verdict: exact backends with one planted misbehaviour each."""

import misbehaving
import numpy as np
import pytest
from misbehaving import Honest
from small_cases import add_case, all_cases, conv_case, linear_case

from qfuzz.backends.reference import ReferenceBackend
from qfuzz.ir.network import Case
from qfuzz.ir.tensor import Tensor
from qfuzz.oracle.check import check
from qfuzz.oracle.verdicts import BackendVerdict, Counts, Kind, Mismatched, Outcome


def verdict_on(case: Case, backend: ReferenceBackend) -> BackendVerdict:
    (verdict,) = check(case, [backend]).backends
    return verdict


@pytest.mark.parametrize("name", sorted(all_cases()))
def test_right_outputs_are_exact(name: str) -> None:
    case = all_cases()[name]
    verdict = verdict_on(case, Honest())
    n = sum(t.n_elements for v, t in case.network.types.items() if v in {m.name for m in case.network.nodes})
    assert (verdict.outcome, verdict.verdict, verdict.counts) == (Outcome.JUDGED, "exact", Counts(n, 0, 0))
    assert not verdict.is_finding
    assert verdict.mismatches == ()


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        (misbehaving.Missing(), "no such value"),
        (misbehaving.WrongShape(), "shape (1, 4) returned, (4,) expected"),
        (misbehaving.WrongDtype(), "dtype int64 returned, uint8 expected"),
    ],
    ids=lambda b: getattr(b, "name", ""),
)
def test_malformed_outputs_are_violations(backend: Honest, problem: str) -> None:
    verdict = verdict_on(add_case(), backend)
    assert (verdict.verdict, verdict.kind, verdict.op) == ("violation", Kind.MALFORMED, "add")
    assert verdict.is_finding
    (mismatch,) = verdict.mismatches
    assert problem in mismatch.problem
    assert problem in str(mismatch)
    assert verdict.counts == Counts(violation=4)


@pytest.mark.parametrize(
    ("backend", "kind", "got"),
    [
        (misbehaving.OffByOne(), Kind.OFF_BY_ONE, 5),
        (misbehaving.Permuted(), Kind.PERMUTED, 255),
        (misbehaving.Saturated(), Kind.SATURATION, 255),
        (misbehaving.Garbage(), Kind.GARBAGE, 83),
    ],
    ids=lambda b: getattr(b, "name", ""),
)
def test_wrong_elements_are_violations_of_a_kind(backend: Honest, kind: Kind, got: int) -> None:
    verdict = verdict_on(add_case(), backend)
    assert (verdict.outcome, verdict.verdict, verdict.kind, verdict.op) == (Outcome.JUDGED, "violation", kind, "add")
    first = verdict.mismatches[0]
    assert (first.value, first.index, first.got, first.lo, first.hi, first.exact) == ("y", (0,), got, 6, 6, 6)
    assert str(first) == f"add y[0]: got {got}, admissible 6"
    assert verdict.counts.total == 4
    assert verdict.counts.violation >= 1


def test_a_wrong_last_node_does_not_accuse_the_first() -> None:
    verdict = verdict_on(linear_case(), misbehaving.Garbage())
    assert verdict.op == "reshape"
    assert verdict.counts == Counts(exact=7, violation=1)


def test_nan_is_never_admissible() -> None:
    verdict = verdict_on(conv_case(), misbehaving.NotANumber())
    assert (verdict.verdict, verdict.op) == ("violation", "dequantize")
    assert verdict.counts.violation == 1
    assert verdict.mismatches[0].got is not None
    assert np.isnan(verdict.mismatches[0].got)


def test_changed_inputs_are_corruption() -> None:
    verdict = verdict_on(add_case(), misbehaving.ChangesInputs())
    assert (verdict.outcome, verdict.op) == (Outcome.CORRUPTED, "add")
    assert "input 'a'" in verdict.reason
    assert verdict.is_finding


def test_the_case_is_out_of_reach_of_a_backend_that_writes() -> None:
    case = add_case()
    check(case, [misbehaving.ChangesInputs(), Honest()])
    assert case == add_case()
    assert check(case, [misbehaving.ChangesInputs(), Honest()]).backends[1].verdict == "exact"


def test_two_runs_that_differ_are_unstable() -> None:
    verdict = verdict_on(add_case(), misbehaving.Unstable())
    assert (verdict.outcome, verdict.op) == (Outcome.UNSTABLE, "add")
    assert "'y'" in verdict.reason
    assert verdict.is_finding


def test_refusals() -> None:
    refused = verdict_on(add_case(), misbehaving.Refuses())
    assert (refused.outcome, refused.op, refused.is_finding) == (Outcome.REJECTED, "add", True)
    assert refused.reason.startswith("no kernel was found")
    late = verdict_on(add_case(), misbehaving.SaysSoLate())
    assert (late.outcome, late.reason, late.is_finding) == (Outcome.UNSUPPORTED, "documented to be refused", False)
    never = verdict_on(add_case(), misbehaving.HasNoKernel())
    assert (never.outcome, never.reason, never.is_finding) == (Outcome.UNSUPPORTED, "there is none", False)


def test_a_part_that_is_wrong_is_accused_before_what_refuses_it() -> None:
    """The first node returns garbage, the network as a whole is refused: the first node is guilty."""

    class RefusesTwo(misbehaving.Garbage):
        def compile(self, network, taps=()):  # type: ignore[no-untyped-def]
            if len(network.nodes) > 1:
                return misbehaving.Refuses().compile(network, taps)
            return super().compile(network, taps)

    verdict = verdict_on(linear_case(), RefusesTwo())
    assert (verdict.outcome, verdict.op) == (Outcome.JUDGED, "linear")


def test_one_verdict_per_backend_in_their_order() -> None:
    backends = [misbehaving.Garbage(), Honest(), misbehaving.HasNoKernel()]
    verdicts = check(add_case(), backends)
    assert [v.backend for v in verdicts.backends] == [b.name for b in backends]
    assert [v.backend for v in verdicts.findings] == ["misbehaving:Garbage"]
    with pytest.raises(Mismatched, match=r"misbehaving:Garbage: violation: add y\[0\]: got 83") as raised:
        verdicts.raise_for_mismatch()
    assert isinstance(raised.value, AssertionError)
    assert raised.value.verdicts is verdicts
    check(add_case(), [Honest()]).raise_for_mismatch()


def test_empty_outputs_are_judged() -> None:
    case = add_case()
    kind = type(case.network.inputs[0].type)((0,), case.network.inputs[0].type.element)
    network = type(case.network)(
        tuple(type(i)(i.name, kind) for i in case.network.inputs), (), case.network.nodes, case.network.outputs
    )
    empty = Case(network, (Tensor(np.zeros(0, dtype=np.uint8)),) * 2)
    assert verdict_on(empty, Honest()).verdict == "exact"
    assert verdict_on(empty, misbehaving.WrongShape()).verdict == "violation"
    assert verdict_on(empty, misbehaving.Missing()).verdict == "violation"
