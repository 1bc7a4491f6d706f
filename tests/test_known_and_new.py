"""An issue that is known of one backend hides nothing of another, and stops nothing."""

import pytest
from msgspec.structs import replace
from campaigns import a_plan, fuzz

from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.conclude import Lab
from qfuzz.findings.corpus import KnownIssue
from qfuzz.ir.expectation import Expectation

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
    """It ends with a finding that is new, or at its end."""
    plan = a_plan("misbehaving:Truncates", n=120, fail_fast=True, ops=("linear",), max_nodes=2)
    unreduced = {f.signature.text for f in fuzz(replace(plan, fail_fast=False, reduce=False)).findings.values()}
    reduced = {f.signature.text for f in fuzz(replace(plan, fail_fast=False)).findings.values()} - unreduced
    assert reduced, "here reduction must tell the issue"
    issues = [KnownIssue("known.json", Expectation("*", "violation", signature=s)) for s in unreduced | reduced]
    assert fuzz(replace(plan), issues=issues).tally.examples == 120
