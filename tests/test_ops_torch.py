"""`qfuzz ops` shows the operators of PyTorch: counts first, each with what covers it or its reason where asked for."""

import importlib.util
import json
from pathlib import Path

import pytest
from test_cli import qfuzz_says

from qfuzz.backends.statuses import STATUSES, counts
from qfuzz.backends.torch_coverage import COVERED
from qfuzz.backends.torch_matrix import rows, summary
from qfuzz.backends.torch_operators import ask_torch

TORCH = ("-b", "torch-fbgemm")


@pytest.fixture(autouse=True)
def _installed() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")


def test_counts_come_with_the_operators_by_backends(tmp_path: Path) -> None:
    said = qfuzz_says(tmp_path, "ops", *TORCH)
    assert said.splitlines()[0].split() == ["operator", "1"]
    assert said.splitlines()[-1] == f"{summary(ask_torch())} --torch lists them."
    for args in (("-b", "reference", "--ops", "relu"), (*TORCH, "--ops", "relu")):
        assert "PyTorch" not in qfuzz_says(tmp_path, "ops", *args)


def test_every_row_is_listed_with_its_reason(tmp_path: Path) -> None:
    said = qfuzz_says(tmp_path, "ops", *TORCH, "--torch")
    lines = said.splitlines()
    found = rows(ask_torch())
    assert lines[-1] == summary(ask_torch())
    for status, n in counts(found).items():
        assert n == 0 or f"{status}: {n}" in lines
    names = set(said.replace(",", " ").split())
    for row in found:
        assert row.name in names
        assert row.reason in said


def test_contracts_come_with_what_torch_calls(tmp_path: Path) -> None:
    said = qfuzz_says(tmp_path, "ops", *TORCH, "-v", "--ops", "relu")
    assert "k = " in said
    assert "aten::relu_" in said


def test_the_document_has_every_row(tmp_path: Path) -> None:
    told = json.loads(qfuzz_says(tmp_path, "ops", *TORCH, "--torch", "--json"))
    found = rows(ask_torch())
    assert told["ops"] == []
    assert [o["op"] for o in told["torch"]["operators"]] == [r.name for r in found]
    assert told["torch"]["counts"] == {s.replace(" ", "_"): n for s, n in counts(found).items()}
    by_name = {o["op"]: o for o in told["torch"]["operators"]}
    assert "linear" in by_name["quantized::linear"]["eager"]
    assert by_name["quantized::linear"]["kernels"] == ["QuantizedCPU"]
    assert by_name["quantized::linear"]["schema"].startswith("quantized::linear(Tensor X, ")
    assert "linear" in by_name["onednn::qlinear_prepack"]["export"]
    assert set(told["torch"]["counts"]) == {s.replace(" ", "_") for s in STATUSES}


def test_selected_operators_have_the_rows_that_they_cover(tmp_path: Path) -> None:
    told = json.loads(qfuzz_says(tmp_path, "ops", *TORCH, "--ops", "conv", "--ops", "relu", "--json"))
    assert [o["op"] for o in told["ops"]] == ["conv", "relu"]
    of = {name for name, c in COVERED.items() if {"conv", "relu"} & set(c.operators)}
    assert {o["op"] for o in told["torch"]["operators"]} == of
    assert "torch" not in json.loads(qfuzz_says(tmp_path, "ops", "-b", "reference", "--ops", "relu", "--json"))


def test_the_matrix_needs_the_framework(tmp_path: Path) -> None:
    qfuzz_says(tmp_path, "ops", "-b", "reference", "--torch", code=3)


def test_a_torch_that_tells_nothing_costs_the_matrix_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libx.so: no such file')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    why = "torch tells nothing of its operators: OSError: libx.so: no such file"
    args = ("ops", "-b", "torch-fbgemm", "--ops", "relu")
    said = qfuzz_says(tmp_path, *args).splitlines()
    assert said[1].split()[0] == "relu"
    assert said[-1] == why
    assert json.loads(qfuzz_says(tmp_path, *args, "--json"))["torch"] == {"why": why}
    qfuzz_says(tmp_path, *args, "--torch", code=3)
