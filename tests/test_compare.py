"""`compare`: two backends on the same cases; a change, its operator, and who is right."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from campaigns import a_plan, counts, fuzz
from cli_documents import RUN
from small_cases import add_case, linear_case

from qfuzz.campaign.client import WorkerClient
from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli
from qfuzz.findings.comparison import is_regression
from qfuzz.oracle.compare import ARROW

GOOD, BAD = "planted?fault=none", "planted?fault=truncation"
FEW = ["--ops", "linear", "--ops", "relu", "--max-nodes", "2", "--seed", "5", "--jobs", "1"]


def says(capsys: pytest.CaptureFixture[str], *args: str, code: int) -> str:
    capsys.readouterr()
    assert run_cli(cli, [*args]) == code
    return capsys.readouterr().out


def test_a_regression_is_named_and_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    document = json.loads(
        says(capsys, "compare", GOOD, BAD, *FEW, "--max-examples", "40", "--out", out, "--json", code=1)
    )
    jsonschema.Draft202012Validator(RUN).validate(document)
    assert [b["name"] for b in document["backends"]] == [GOOD, BAD, GOOD + ARROW + BAD]
    found = {f["op"]: f for f in document["findings"]}
    assert set(found) >= {"linear"}
    linear = found["linear"]
    assert (linear["verdict"], linear["cause"], linear["nodes"]) == ("changed", "right -> wrong", 1)
    assert linear["elements"] <= 4
    folder = Path(linear["path"])
    report = (folder / "report.md").read_text()
    assert f"`{GOOD}`" in report
    assert "| element | a | b | exact |" in report
    assert (folder / "case.json").is_file()
    checked = says(capsys, "check", str(folder), "-b", GOOD, "-b", BAD, code=1)
    assert "violation" in checked


def test_the_other_way_round_it_is_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["compare", BAD, GOOD, *FEW, "--max-examples", "20", "--out", str(tmp_path), "--json"]
    document = json.loads(says(capsys, *args, code=1))
    causes = {f["cause"] for f in document["findings"]}
    assert "wrong -> right" in causes <= {"wrong -> right", "right -> right"}
    assert says(capsys, *args, "--fail-on", "regressed", code=0)


def test_no_change_is_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["compare", GOOD, "reference", *FEW, "--max-examples", "30", "--out", str(tmp_path)]
    assert "0 changed" in says(capsys, *args, code=0)


def test_nothing_that_both_ran_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["compare", GOOD, "misbehaving:HasNoKernel", *FEW, "--max-examples", "20", "--out", str(tmp_path)]
    assert run_cli(cli, args) == 3
    assert "nothing was compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cause", "regressed"),
    [
        ("right -> wrong", True),
        ("right -> crash", True),
        ("right -> right", False),
        ("wrong -> right", False),
        ("wrong -> wrong", False),
        ("crash -> wrong", False),
    ],
)
def test_what_a_regression_is(cause: str, regressed: bool) -> None:
    assert is_regression(cause) is regressed


@pytest.mark.parametrize(
    ("b", "cause"),
    [
        ("misbehaving:OffByOne", "right -> wrong"),
        ("misbehaving:Segfault", "right -> crash"),
        ("misbehaving:Refuses", "right -> rejected"),
        ("misbehaving:Missing", "right -> wrong"),
        ("misbehaving:ChangesInputs", "right -> corrupted"),
    ],
)
def test_every_kind_of_change(b: str, cause: str) -> None:
    with WorkerClient(["misbehaving:Honest", b]) as client:
        *_, pair = client.check(add_case(), compare=True).backends
        assert (pair.verdict, pair.cause, pair.op) == ("changed", cause, "add")
        assert client.check(add_case(), ("misbehaving:Honest", b)).backends[-1].backend == b, (
            "only where it is asked for"
        )


def test_what_one_side_has_no_kernel_for_is_no_change() -> None:
    with WorkerClient(["misbehaving:Honest", "misbehaving:HasNoKernel"]) as client:
        *_, pair = client.check(linear_case(), compare=True).backends
    assert pair.verdict == "unsupported"
    assert "there is none" in pair.reason


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for args, named in (
        (["compare", GOOD], "B"),
        (["compare", GOOD, GOOD], "twice"),
        (["compare", GOOD, "nobody"], "nobody"),
        (["compare", GOOD, BAD, "--json", "--json-lines"], "--json-lines"),
    ):
        assert run_cli(cli, args) == 2
        said = capsys.readouterr()
        assert named in said.err
        assert said.out == ""
        assert list(tmp_path.iterdir()) == []


def test_a_comparison_resumed_is_whole(tmp_path: Path) -> None:
    plan = a_plan(GOOD, BAD, n=300, ops=("linear",), max_nodes=1, compare=True)
    whole = fuzz(plan, folder=tmp_path / "whole", jobs=2)
    first = fuzz(a_plan(GOOD, BAD, n=250, ops=("linear",), max_nodes=1, compare=True), folder=tmp_path / "parts")
    assert first.tally.examples == 250
    with_more = fuzz(plan, folder=tmp_path / "again")
    assert counts(whole) == counts(with_more)
    assert {t: f.case for t, f in whole.findings.items()} == {t: f.case for t, f in with_more.findings.items()}


def test_scripts_of_both_sides_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    a, b = "onnxruntime", "onnxruntime?format=qdq&opt=disable"
    args = ["compare", a, b, "--ops", "softmax", "--max-nodes", "1", "--seed", "1", "--max-examples", "150"]
    document = json.loads(says(capsys, *args, "--out", str(tmp_path), "--json", "--jobs", "1", code=1))
    (folder, *_) = [Path(f["path"]) for f in document["findings"]]
    said = []
    for side in ("a", "b"):
        run = subprocess.run(
            [sys.executable, str(folder / side / "run.py")], capture_output=True, text=True, check=True, timeout=100
        )
        said.append(run.stdout)
    assert said[0] != said[1]
    assert "softmax" in said[0]
