"""The suspects of a campaign: what is kept does not depend on the order in which they come."""

import random

import pytest
from campaigns import Heard, a_plan, fuzz
from hypothesis import given
from hypothesis import strategies as st

from qfuzz.campaign import crew as crew_module
from qfuzz.campaign.crew import LocalCrew
from qfuzz.campaign.protocol import Suspect
from qfuzz.campaign.suspects import ALIKE_KEPT, Suspects
from qfuzz.findings.signature import Symptom
from qfuzz.oracle.verdicts import BackendVerdict, Outcome


def suspect(example: int, kind: str, spec: str = "a", op: str = "add") -> Suspect:
    verdict = BackendVerdict(spec, Outcome.CRASH, kind)
    return Suspect(spec=spec, example=example, symptom=Symptom(op, "crash", "", kind), verdict=verdict, case=b"x")


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60), st.sampled_from("ab")), max_size=200), st.randoms())
def test_order_does_not_matter(drawn: list[tuple[int, int, str]], shuffler: random.Random) -> None:
    coming = [suspect(example, f"kind {kind}", spec) for example, kind, spec in drawn]
    kept = []
    for _ in range(2):
        suspects = Suspects(("a", "b"), (), ())
        for each in coming:
            suspects.add(each)
        kept.append([(s.spec, s.symptom.kind, s.example) for s in suspects.open()])
        assert {(s.spec, s.symptom) for s in suspects.changed.values()} == {
            (s.spec, s.symptom) for s in suspects.open()
        }
        shuffler.shuffle(coming)
    if len({(k, s) for _, k, s in drawn}) <= ALIKE_KEPT:
        assert kept[0] == kept[1]
    for spec in "ab":
        assert sum(s == spec for s, _, _ in kept[0]) <= ALIKE_KEPT
    first = {}
    for example, kind, spec in drawn:
        first[spec, f"kind {kind}"] = min(example, first.get((spec, f"kind {kind}"), example))
    assert all(first[spec, kind] <= example for spec, kind, example in kept[0])


def test_those_with_the_first_examples_are_kept() -> None:
    examples = list(range(3 * ALIKE_KEPT))
    random.Random(1).shuffle(examples)
    suspects = Suspects(("a",), (), ())
    for example in examples:
        suspects.add(suspect(example, f"kind {example}"))
    assert [s.example for s in suspects.open()] == list(range(ALIKE_KEPT))
    assert suspects.crowded == {("a", "add", "crash")}
    assert not {s.example for s in suspects.dropped.values()} & set(range(ALIKE_KEPT))
    for each in suspects.open():
        suspects.conclude(each)
    assert suspects.open() == []
    suspects.add(suspect(0, "one more"))
    assert suspects.open() == [], "those concluded keep their places"


def test_a_backend_that_says_something_new_every_time_is_bounded() -> None:
    heard = Heard()
    plan = a_plan("misbehaving:SaysSomethingNew", seed=3, n=400, ops=("add",), max_nodes=1, reduce=False)
    campaign = fuzz(plan, heard=heard)
    assert campaign.tally.backends["misbehaving:SaysSomethingNew"].verdicts["rejected"] == 400
    assert len(campaign.findings) <= ALIKE_KEPT
    assert sum(f"more than {ALIKE_KEPT} symptoms of add rejected" in what for what in heard.troubles) == 1


def test_a_worker_that_says_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "SILENCE_LIMIT", 2.0)
    heard = Heard()
    plan = a_plan("misbehaving:Hangs", seed=3, n=20, ops=("add",), max_nodes=1, limit=60.0, reduce=False)
    crew = LocalCrew(plan.profile.specs, 1)
    try:
        campaign = fuzz(plan, crew=crew, heard=heard)
    finally:
        crew.close()
    assert "said nothing for 2 s" in campaign.lost[0]
    assert campaign.tally.deaths >= 3
