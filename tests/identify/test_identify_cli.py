"""``qfuzz identify``: the table, the document, lock files, bad usage, and the switches of real libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qfuzz.backends.discovery import is_installed
from qfuzz.backends.environment import cpu_flags
from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli

EXACT = ("identify", "-b", "planted?fault=none", "--op", "requantize", "--op", "dequantize")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run_cli(cli, arguments) == code
    captured = capsys.readouterr()
    return captured.err if code == 2 else captured.out


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = said(capsys, *EXACT)
    assert page.startswith("planted?fault=none\n")
    for text in ("operator", "arithmetic", "rounding", "cases", "requantize, uint8", "half even then zero point"):
        assert text in page
    assert "not multiplier dequantized (" in page
    assert "not rounding half away (" in page


def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    read = json.loads(said(capsys, *EXACT, "--json"))
    assert read["schema"] == 1
    assert read["changed"] == []
    assert list(read["environment"]) == ["planted?fault=none"]
    assert {r["form"]["op"] for r in read["rows"]} == {"requantize", "dequantize"}
    for row in read["rows"]:
        assert row["verdict"] == "identified"
        assert row["choices"]["multiplier"] == "exact"
        assert row["cases"] > 0
        assert all(w["returned"] != w["neighbour"] for w in row["witnesses"])
        assert all(json.loads(w["case"])["format"] == "qfuzz-case" for w in row["witnesses"])


def test_a_lock_holds_and_a_change_is_named_with_its_witness(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "arithmetic.json"
    said(capsys, *EXACT, "--lock", str(lock), "-q")
    assert "nothing has changed" in said(capsys, *EXACT, "--check", str(lock))
    locked: dict[str, Any] = json.loads(lock.read_text())
    for row in locked["rows"]:
        if row["form"]["op"] == "requantize":
            row["choices"]["rounding"] = "half_away"
    lock.write_text(json.dumps(locked))
    assert "changed  planted?fault=none: requantize, uint8: rounding half_away -> half_even" in said(
        capsys, *EXACT, "--check", str(lock), code=1
    )
    changed = json.loads(said(capsys, *EXACT, "--check", str(lock), "--json", code=1))["changed"]
    assert all((c["witness"]["field"], c["witness"]["choice"]) == ("rounding", "half_away") for c in changed)


def test_a_form_that_is_refused_now_is_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "arithmetic.json"
    said(capsys, *EXACT, "--lock", str(lock), "-q")
    locked: dict[str, Any] = json.loads(lock.read_text())
    gone = locked["rows"][0]
    locked["rows"].append(gone | {"form": gone["form"] | {"op": "requantize", "relu": True}})
    del locked["rows"][1]
    lock.write_text(json.dumps(locked))
    changed = said(capsys, *EXACT, "--check", str(lock), code=1)
    assert "dequantize, int8: was not taken" in changed
    assert "requantize, uint8: is not taken any more" in changed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--op", "nonsense"), "--op nonsense: matches none of conv, linear"),
        (("--check", "nowhere.json"), "nowhere.json"),
        (("--check", "bad.json"), "bad.json: no lock file of qfuzz identify"),
        (("-b", "nonsense"), "nonsense"),
    ],
)
def test_bad_usage(
    arguments: tuple[str, ...], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"schema": 1}')
    text = said(capsys, "identify", *arguments, code=2)
    assert error in text
    assert len(text.splitlines()) == 1


def products(spec: str, op: str, switches: dict[str, str]) -> str:
    """How a backend multiplies uint8 by symmetric int8, in a process of its own."""
    start = "from qfuzz.cli import main; main()"
    command = [sys.executable, "-c", start, "identify", "-b", spec, "--op", op, "--json"]
    done = subprocess.run(command, env=os.environ | switches, capture_output=True, text=True, check=True)
    rows = [r for r in json.loads(done.stdout)["rows"] if r["form"]["dtype"] == "uint8" and r["form"]["symmetric"]]
    (row,) = rows
    return row["choices"]["products"]


AS_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.mark.parametrize(
    ("spec", "op", "saturating"),
    [
        ("torch-onednn", "linear", "int16_pairs"),
        ("torch-onednn", "conv", "int16_pairs_per_tap"),
        ("torch-x86", "conv", "int16_pairs_per_tap"),
        ("torch-qnnpack", "linear", "exact"),
    ],
)
def test_saturation_is_told_with_and_without_vnni(spec: str, op: str, saturating: str) -> None:
    if not is_installed(spec):
        pytest.skip("torch is not installed")
    if "avx2" not in cpu_flags():
        pytest.skip("this CPU has no AVX2: oneDNN has no such kernel here")
    if spec == "torch-x86" and "avx512_vnni" not in cpu_flags():
        saturating = "int16_pairs_channels_last"  # this engine asks the CPU itself, and calls FBGEMM
    assert products(spec, op, AS_AVX2) == saturating
    if "avx512_vnni" in cpu_flags():
        assert products(spec, op, {}) == "exact"
