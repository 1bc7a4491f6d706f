"""Campaigns: the same seed gives the same cases, findings and files, whatever the number of jobs."""

from pathlib import Path

import pytest

from qfuzz.arithmetic.catalogue import FAULTS
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.conclude import Lab, conclude
from qfuzz.campaign.protocol import Ride
from qfuzz.campaign.run import Campaign, Fuzzing, Plan
from qfuzz.findings.finding import Finding, write_finding

SPECS = ("planted?fault=truncation", "planted?fault=pads-with-stored-zero", "planted?fault=none")


def fuzz(plan: Plan) -> Fuzzing:
    return Campaign(plan, lambda *_: None, lambda _: None).fuzz()


def the_plan(jobs: int, seed: int = 5, n: int = 400) -> Plan:
    return Plan(seed=seed, rides=tuple(Ride(s) for s in SPECS), max_examples=n, jobs=jobs)


def written(fuzzing: Fuzzing, folder: Path) -> dict[str, bytes]:
    """Every case.json and repro.py of the findings, by path."""
    made: list[Finding] = []
    with WorkerClient(SPECS) as client:
        conclude(Lab(client, ()), fuzzing.suspects, reduce=True, on_finding=made.append)
    for finding in made:
        write_finding(folder, finding, None)
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.name in ("case.json", "repro.py")
    }


def test_jobs_change_nothing(tmp_path: Path) -> None:
    one, two = fuzz(the_plan(1)), fuzz(the_plan(2))

    def facts(f: Fuzzing) -> object:
        tally = {n: (b.examples, b.unsupported, b.elements, dict(b.verdicts)) for n, b in f.tally.backends.items()}
        return f.tally.examples, f.tally.elements, tally, [(s.spec, s.example, s.symptom, s.case) for s in f.suspects]

    assert facts(one) == facts(two)
    assert one.tally.examples == 400
    assert one.tally.backends["planted?fault=none"].verdicts["violation"] == 0
    first, second = written(one, tmp_path / "one"), written(two, tmp_path / "two")
    assert first == second
    assert len(first) >= 4
    assert any("truncation" in p for p in first)
    assert any("pads-with-stored-zero" in p for p in first)


def test_other_seeds_are_other_cases() -> None:
    a, b = fuzz(the_plan(1, seed=1, n=50)), fuzz(the_plan(1, seed=2, n=50))
    assert a.tally.elements != b.tally.elements


def test_rides_run_on_every_nth_example() -> None:
    plan = Plan(seed=1, rides=(Ride("reference"), Ride("planted?fault=none", 4)), max_examples=30)
    tally = fuzz(plan).tally
    assert tally.examples == tally.backends["reference"].examples == 30
    assert tally.backends["planted?fault=none"].examples == 8


def test_fail_fast_stops_at_the_first_symptom() -> None:
    plan = Plan(seed=1, rides=(Ride("planted?fault=truncation"),), fail_fast=True, seconds=60)
    fuzzing = fuzz(plan)
    assert fuzzing.stopped == "fail-fast"
    assert fuzzing.suspects
    assert fuzzing.tally.examples < 200


def test_time_is_kept() -> None:
    fuzzing = fuzz(Plan(seed=1, rides=(Ride("reference"),), seconds=1.0))
    assert fuzzing.stopped == ""
    assert fuzzing.tally.examples > 0
    assert fuzzing.seconds < 20


def test_one_finding_a_bug_lists_all_that_reproduce_it() -> None:
    """The same fault under two names is one finding."""
    specs = ("planted?fault=truncation", "misbehaving:Truncates")
    plan = Plan(seed=5, rides=tuple(Ride(s) for s in specs), max_examples=60, ops=("linear",), max_nodes=1)
    fuzzing = fuzz(plan)
    made: list[Finding] = []
    with WorkerClient(specs) as client:
        conclude(Lab(client, ()), fuzzing.suspects, reduce=True, on_finding=made.append)
    (finding,) = [f for f in made if f.signature.symptom.cause == "truncation"]
    assert finding.backend == specs[0]
    assert set(finding.backends) == set(specs)
    assert finding.reduction == "done"


def test_every_planted_fault_is_a_backend() -> None:
    specs = tuple(f"planted?fault={fault}" for fault in FAULTS)
    with WorkerClient(specs) as client:
        assert tuple(client.described) == specs
        assert [facts["name"] for facts in client.described.values()] == list(specs)


@pytest.mark.parametrize("pattern", ["conv", "*pool"])
def test_only_the_operators_asked_for(pattern: str) -> None:
    fuzzing = fuzz(
        Plan(seed=1, rides=(Ride("planted?fault=truncation"),), ops=(pattern,), max_nodes=1, max_examples=40)
    )
    assert fuzzing.tally.examples == 40
    for suspect in fuzzing.suspects:
        assert suspect.symptom.op == pattern or suspect.symptom.op.endswith("pool")
