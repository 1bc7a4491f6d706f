"""An issue that is known of one backend hides nothing of another, and stops nothing."""

import pytest
from campaigns import Heard, a_plan, fuzz
from msgspec.structs import replace

from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.conclude import Lab
from qfuzz.findings.corpus import KnownIssue, known_as
from qfuzz.findings.signature import signature_of
from qfuzz.ir.expectation import Expectation
from qfuzz.ops import CODEC

KNOWN, NEW = "misbehaving:Truncates", "planted?fault=truncation"
ISSUE = KnownIssue("known.json", Expectation(KNOWN, "violation", signature="linear/violation/*/*"))
HERE_ONLY = {"n": 40, "ops": ("linear",), "max_nodes": 1}


@pytest.mark.parametrize("reduce", [True, False])
def test_the_same_bug_on_another_backend_is_new(reduce: bool) -> None:
    campaign = fuzz(a_plan(KNOWN, NEW, reduce=reduce, **HERE_ONLY), issues=[ISSUE])
    new = [f for f in campaign.findings.values() if not f.known]
    assert {f.backend for f in new} == {NEW}
    alone = fuzz(a_plan(KNOWN, reduce=reduce, **HERE_ONLY), issues=[ISSUE])
    assert alone.findings and all(f.known for f in alone.findings.values())


def test_a_known_issue_lists_those_that_it_is_known_of() -> None:
    """Others that reproduce it are not covered by it, and are concluded by themselves."""
    (found, *_) = fuzz(a_plan(NEW, **HERE_ONLY)).findings.values()
    finding = found.finding()
    with WorkerClient((KNOWN, NEW)) as client:
        lab = Lab(client, [ISSUE])
        symptom = finding.signature.symptom
        of_known, of_new = (
            lab.finding(finding.case, spec, symptom, first_example=0, reduce=False) for spec in (KNOWN, NEW)
        )
    assert of_known is not None and of_new is not None
    assert of_known.known and of_known.backends == (KNOWN,)
    assert not of_new.known and set(of_new.backends) == {KNOWN, NEW}


def test_fail_fast_goes_on_after_what_turns_out_to_be_known() -> None:
    """It ends with a finding that is new, or at its end: an accusation may be told as known only once it is reduced."""
    plan = a_plan("misbehaving:Garbage", n=120, fail_fast=True, ops=("linear",), max_nodes=2)
    reduced = fuzz(replace(plan, fail_fast=False)).findings
    issues = [KnownIssue("known.json", Expectation("*", "violation", signature=text)) for text in reduced]
    heard = Heard()
    campaign = fuzz(plan, issues=issues, heard=heard)
    unreduced = {signature_of(CODEC.decode(s.case).case, s.symptom) for s in heard.suspects if s.case}
    assert any(known_as(issues, s, "misbehaving:Garbage", {}) is None for s in unreduced)
    assert campaign.tally.examples == 120
    assert campaign.stopped == ""
    assert all(f.known for f in campaign.findings.values())
