"""Campaigns: the same seed gives the same cases, findings and files, whatever the number of jobs."""

from pathlib import Path

import pytest
from campaigns import Heard, a_plan, counts, fuzz

from qfuzz.arithmetic.catalogue import FAULTS
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import Ride

SPECS = ("planted?fault=truncation", "planted?fault=pads-with-stored-zero", "planted?fault=none")


FEW = ("conv", "linear", "add", "relu", "avg_pool")


def the_plan(n: int = 400) -> Plan:
    return a_plan(*SPECS, n=n, ops=FEW)


def written(folder: Path) -> dict[str, bytes]:
    """Every case.json and repro.py of the findings, by path."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.name in ("case.json", "repro.py")
    }


def test_jobs_change_nothing(tmp_path: Path) -> None:
    one = fuzz(the_plan(), 1, tmp_path / "one")
    two = fuzz(the_plan(), 2, tmp_path / "two")
    assert counts(one) == counts(two)
    assert one.tally.examples == 400
    assert one.tally.backends["planted?fault=none"].verdicts["violation"] == 0

    def facts(campaign: object) -> object:
        return {text: (f.first_example, f.backends, f.reduction) for text, f in campaign.findings.items()}  # type: ignore[attr-defined]

    assert facts(one) == facts(two)
    first, second = written(tmp_path / "one"), written(tmp_path / "two")
    assert first == second
    assert len(first) >= 4
    assert any("truncation" in p for p in first)
    assert any("pads-with-stored-zero" in p for p in first)


def test_other_seeds_are_other_cases() -> None:
    a, b = (fuzz(a_plan(*SPECS, seed=seed, n=50, ops=FEW, reduce=False)) for seed in (1, 2))
    assert a.tally.elements != b.tally.elements


def test_rides_run_on_every_nth_example() -> None:
    tally = fuzz(a_plan(rides=(Ride("reference"), Ride("planted?fault=none", 4)), seed=1, n=30)).tally
    assert tally.examples == tally.backends["reference"].examples == 30
    ride = tally.backends["planted?fault=none"]
    assert ride.examples + ride.unsupported == 8


def test_fail_fast_stops_at_the_first_symptom() -> None:
    campaign = fuzz(a_plan("planted?fault=truncation", seed=1, seconds=60, fail_fast=True))
    assert campaign.stopped == "fail-fast"
    assert campaign.findings
    assert campaign.tally.examples < 200


def test_time_is_kept() -> None:
    campaign = fuzz(a_plan("reference", seed=1, seconds=1.0))
    assert campaign.stopped == ""
    assert campaign.tally.examples > 0
    assert campaign.state_seconds < 20


def test_one_finding_a_bug_lists_all_that_reproduce_it() -> None:
    """The same fault under two names is one finding."""
    specs = ("planted?fault=truncation", "misbehaving:Truncates")
    heard = Heard()
    campaign = fuzz(a_plan(*specs, n=60, ops=("linear",), max_nodes=1), heard=heard)
    (finding,) = [f for f in campaign.findings.values() if f.signature.symptom.cause == "truncation"]
    assert finding.backend == specs[0]
    assert set(finding.backends) == set(specs)
    assert finding.reduction == "done"
    assert [f.signature for f in heard.findings] == [f.signature for f in campaign.findings.values()]


def test_every_planted_fault_is_a_backend() -> None:
    specs = tuple(f"planted?fault={fault}" for fault in FAULTS)
    with WorkerClient(specs) as client:
        assert tuple(client.described) == specs
        assert [facts["name"] for facts in client.described.values()] == list(specs)


@pytest.mark.parametrize("pattern", ["conv", "*pool"])
def test_only_the_operators_asked_for(pattern: str) -> None:
    heard = Heard()
    plan = a_plan("planted?fault=truncation", seed=1, n=40, ops=(pattern,), max_nodes=1, reduce=False)
    campaign = fuzz(plan, heard=heard)
    assert campaign.tally.examples == 40
    assert heard.suspects
    for suspect in heard.suspects:
        assert suspect.symptom.op == pattern or suspect.symptom.op.endswith("pool")
