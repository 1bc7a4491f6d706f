"""Near-legal networks: refused, or a finding. A share of their own is drawn, and reduced as what it is."""

import json
from itertools import islice
from pathlib import Path

import lenient
import pytest
from campaigns import Heard, a_plan, counts, fuzz
from click.testing import CliRunner

from qfuzz.backends.reference import ReferenceBackend
from qfuzz.cli import cli
from qfuzz.findings.corpus import replay_entry
from qfuzz.findings.signature import symptom_of
from qfuzz.ir.codec import CaseFile
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Expectation
from qfuzz.ir.forms import INVALID
from qfuzz.ir.network import Case, Network
from qfuzz.ops import CODEC
from qfuzz.oracle.check import check
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies import cases_of


def first(kind: str, op: str = "*") -> Case:
    """The first case drawn of this operator with this form."""
    drawn = (c for shard in range(40) for c in cases_of(4, shard, ops=(op,), max_nodes=1, invalid=1.0))
    return next(c for c in drawn if c.network.form("invalid") == kind)


SHAPES = first("shapes", "add")


def test_what_is_refused_is_right_and_what_is_taken_is_a_finding() -> None:
    strict, lax, valid, silent = check(
        SHAPES, [lenient.Strict(), lenient.Lenient(), lenient.Valid(), ReferenceBackend()]
    ).backends
    assert (strict.outcome, strict.reason, strict.is_finding) == (Outcome.REFUSED, "shapes: no such thing", False)
    assert (lax.verdict, lax.op, lax.is_finding) == ("accepted-invalid", "add", True)
    assert lenient.RULE in lax.reason
    assert symptom_of(lax).kind == "shapes"
    for v in (valid, silent):
        assert v.outcome is Outcome.UNSUPPORTED
    assert "valid after all" in valid.reason


def test_no_element_is_judged() -> None:
    for v in check(SHAPES, [lenient.Strict(), lenient.Lenient()]).backends:
        assert v.counts.total == 0


def test_the_form_is_said_of_one_node() -> None:
    two = next(c for c in cases_of(4, 1, ops=("add",)) if len(c.network.nodes) == 2).network
    with pytest.raises(InvalidCase, match="one node alone"):
        Network(two.inputs, two.constants, two.nodes, two.outputs, ("invalid=shapes",))


def test_a_case_file_keeps_the_form() -> None:
    assert CODEC.decode(CODEC.encode(SHAPES)).case == SHAPES


def test_replay_tells_a_known_one_from_one_that_is_gone() -> None:
    known = Expectation(backend="*", verdict="accepted-invalid", signature="add/accepted-invalid/shapes/*")
    file = CaseFile(SHAPES, (known,))
    for backend, status in ((lenient.Lenient(), "holds"), (lenient.Strict(), "fixed"), (lenient.Valid(), "skipped")):
        (entry,) = replay_entry("p", file, {"b": {}}, lambda case, _, b=backend: check(case, [b]).backends[0])
        assert entry.status == status, entry


@pytest.mark.parametrize(("name", "verdict"), [("Lenient", "accepted-invalid"), ("Dies", "crash")])
def test_a_campaign_finds_it_and_reduces_it_as_what_it_is(name: str, verdict: str, tmp_path: Path) -> None:
    plan = a_plan(f"lenient:{name}", "lenient:Strict", n=120, ops=("add", "mul", "softmax"), max_nodes=1, invalid=1.0)
    campaign = fuzz(plan, folder=tmp_path / "a")
    found = {f.signature.symptom.op: f for f in campaign.findings.values()}
    assert set(found) == {"add", "mul"}
    for f in found.values():
        assert f.signature.symptom.verdict == verdict
        assert "invalid=shapes" in f.signature.form
        assert f.finding().case.n_elements <= 4
        assert (tmp_path / "a" / f.signature.slug / "repro.py").is_file()
    strict = campaign.tally.backends["lenient:Strict"]
    assert strict.verdicts["refused"] == strict.examples > 100
    assert counts(fuzz(plan, jobs=2, folder=tmp_path / "b")) == counts(campaign)


def test_crashes_of_other_forms_are_other_bugs() -> None:
    heard = Heard()
    fuzz(a_plan("lenient:Dies", n=60, ops=("add",), max_nodes=1, invalid=1.0, reduce=False), heard=heard)
    assert heard.suspects
    assert {s.symptom.kind for s in heard.suspects} == {"shapes died of sigfpe"}


def test_resumed_is_as_if_never_interrupted(tmp_path: Path) -> None:
    plan = a_plan("lenient:Lenient", n=450, ops=("add", "relu", "softmax"), max_nodes=2, invalid=0.3)
    whole = fuzz(plan, folder=tmp_path / "whole")
    assert fuzz(a_plan("lenient:Lenient", n=200, **_same(plan)), folder=tmp_path / "parts").tally.examples == 200
    # The rest, as --max-examples of a resumed campaign asks for it.
    more = fuzz(plan, folder=tmp_path / "parts", resume=True)
    assert _without_draws(counts(more)) == _without_draws(counts(whole))
    assert set(more.findings) == set(whole.findings) != set()


def _same(plan: "object") -> dict[str, object]:
    return {"ops": ("add", "relu", "softmax"), "max_nodes": 2, "invalid": 0.3}


def _without_draws(counted: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in counted.items() if k != "draws"}


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    """2,000 invalid cases."""
    shards = [cases_of(3, shard, invalid=1.0) for shard in range(10)]
    assert all(s.counts.rejected < 0.01 * s.counts.draws for s in shards)
    return [case for shard in shards for case in shard]


def test_each_kind_is_drawn(drawn: list[Case]) -> None:
    assert set(INVALID[1:]) <= {c.network.form("invalid") for c in drawn}


def test_nearly_all_are_invalid_where_all_should_be(drawn: list[Case]) -> None:
    assert sum(c.network.is_invalid for c in drawn) > 0.95 * len(drawn)
    assert {len(c.network.nodes) for c in drawn} == {1}


def test_about_two_percent_are_where_two_percent_should_be() -> None:
    cases = [c for shard in range(20) for c in cases_of(9, shard, invalid=0.02)]
    n = sum(c.network.is_invalid for c in cases)
    print(f"{n} of {len(cases)} cases are invalid")
    assert 0.013 * len(cases) < n < 0.027 * len(cases)


def test_none_are_unless_asked_for() -> None:
    assert not any(c.network.is_invalid for c in cases_of(9, 0))


def test_the_same_again() -> None:
    assert list(islice(cases_of(9, 3, invalid=0.5), 60)) == list(islice(cases_of(9, 3, invalid=0.5), 60))


def test_the_command_line_sets_the_share_and_counts_by_verdict(tmp_path: Path) -> None:
    args = ["run", "-b", "reference", "--json", "--max-examples", "60", "--jobs", "1", "--ops", "add", "--seed", "3"]
    runner = CliRunner()
    result = runner.invoke(cli, [*args, "--invalid", "1", "--out", str(tmp_path / "a")])
    (backend,) = json.loads(result.stdout)["backends"]
    assert backend["unsupported"] == 60
    assert {"accepted-invalid", "refused"} <= set(backend["verdicts"])
    assert runner.invoke(cli, [*args, "--invalid", "1.5", "--out", str(tmp_path / "b")]).exit_code == 2
    result = runner.invoke(cli, ["run", "--resume", str(tmp_path / "a"), "--invalid", "0.5"])
    assert (result.exit_code, "--invalid" in result.output) == (2, True)
