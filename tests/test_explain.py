"""``qfuzz explain``: the page of one element."""

import json
from pathlib import Path

import pytest
from small_cases import linear_case

from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli
from qfuzz.ops import CODEC


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linear.json").write_bytes(CODEC.encode(linear_case()))
    return "linear.json"


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run_cli(cli, ["explain", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_the_page_of_a_linear_layer(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = said(capsys, case, "-b", "reference", "-b", "planted?fault=truncation", "--node", "h", "--element", "0,1")
    for text in ("linear h[0, 1]", "3 * 4 -> 0", "9 * 5 -> 30", "255 * -128 -> -32256", "accumulator", "-32226"):
        assert text in page
    for text in ("distance from a tie", "stored, within 0..255", "returned", "admissible"):
        assert text in page


def test_the_document(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = json.loads(said(capsys, case, "-b", "planted?fault=unscaled-bias", "--node", "h", "--json"))
    assert (page["schema"], page["node"], page["op"]) == (1, "h", "linear")
    (column,) = page["backends"]
    assert column["verdict"] == "violation"
    assert column["models"][0] == "unscaled-bias"
    assert column["choices"] == {"bias": "unscaled"}
    steps = {s["name"]: s for s in column["steps"]}
    exact = {s["name"]: s for s in page["exact"]}
    assert steps["accumulator"] == exact["accumulator"]
    assert float(steps["stored, within 0..255"]["value"]) == column["returned"]
    assert float(exact["stored, within 0..255"]["value"]) == column["lo"] == column["hi"]


def test_the_first_wrong_element_is_shown(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = json.loads(said(capsys, case, "-b", "reference", "-b", "planted?fault=unscaled-bias", "--json"))
    wrong = page["backends"][1]
    assert (page["node"], wrong["verdict"]) == ("h", "violation")
    assert not wrong["lo"] <= wrong["returned"] <= wrong["hi"]
    assert page["backends"][0]["verdict"] == "exact"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--element", "9,9"), "not a position in the shape (4,) of y"),
        (("--element", "a"), "--element a: integers, one for each dimension of (4,)"),
        (("--node", "q"), "--node q: the case's nodes are h, y"),
        (("-b", "nonsense"), "nonsense"),
    ],
)
def test_bad_usage(case: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str) -> None:
    backend = () if "-b" in arguments else ("-b", "reference")
    text = said(capsys, case, *backend, *arguments, code=2)
    assert error in text
    assert len(text.splitlines()) == 1
