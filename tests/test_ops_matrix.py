"""`qfuzz ops` shows the operators of ONNX Runtime: counts first, each with its types or its reason where asked for."""

import importlib.util
import json
from pathlib import Path

import pytest
from test_cli import qfuzz_says

from qfuzz.backends.onnx_coverage import COVERED, rows, summary
from qfuzz.backends.onnx_kernels import NARROW, ask_runtime
from qfuzz.backends.statuses import STATUSES, counts

RUNTIME = ("-b", "onnxruntime?format=qdq")


@pytest.fixture(autouse=True)
def _installed() -> None:
    for framework in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")


def test_counts_come_with_the_operators_by_backends(tmp_path: Path) -> None:
    said = qfuzz_says(tmp_path, "ops", *RUNTIME)
    assert said.splitlines()[0].split() == ["operator", "1"]
    assert said.splitlines()[-1] == f"{summary(ask_runtime())} --onnx lists them."
    for args in (("-b", "reference", "--ops", "relu"), (*RUNTIME, "--ops", "relu")):
        assert "ONNX Runtime" not in qfuzz_says(tmp_path, "ops", *args)


@pytest.mark.parametrize("flag", ["--onnx", "-v"])
def test_every_row_is_listed_with_its_reason(flag: str, tmp_path: Path) -> None:
    said = qfuzz_says(tmp_path, "ops", *RUNTIME, flag)
    lines = said.splitlines()
    assert lines[-1] == summary(ask_runtime())
    found = rows(ask_runtime())
    for status, n in counts(found).items():
        assert n == 0 or any(line.startswith(f"{status}: {n}") for line in lines)
    for row in found:
        name = ".".join(filter(None, row.key))
        assert any(name in line.replace(",", "").split() for line in lines), name
        assert row.reason in said
    assert ("k = " in said) == (flag == "-v")


def test_the_document_has_types_taken_and_drawn(tmp_path: Path) -> None:
    told = json.loads(qfuzz_says(tmp_path, "ops", *RUNTIME, "--ops", "conv", "--ops", "relu", "--json"))
    assert [o["op"] for o in told["ops"]] == ["conv", "relu"]
    by_key = {(o["domain"], o["op"]): o for o in told["onnx"]["operators"]}
    of = {key for key, c in COVERED.items() if {"conv", "relu"} & set(c.operators)}
    assert set(by_key) == of
    assert sum(told["onnx"]["counts"].values()) == len(of)
    assert set(told["onnx"]["counts"]) == {s.replace(" ", "_") for s in STATUSES}
    for o in by_key.values():
        assert o["status"] == "covered"
        assert {*o["kernel_types"], *o["drawn_types"]} <= set(NARROW)
        if o["status"] == "covered":
            assert {"int8", "uint8"} <= set(o["drawn_types"])
    assert by_key["", "QLinearConv"]["qoperator"] == ["conv"]
    assert {"int8", "uint8"} <= set(by_key["", "QLinearConv"]["kernel_types"])
    assert "onnx" not in json.loads(qfuzz_says(tmp_path, "ops", "-b", "reference", "--ops", "relu", "--json"))


def test_the_matrix_needs_the_runtime(tmp_path: Path) -> None:
    qfuzz_says(tmp_path, "ops", "-b", "reference", "--onnx", code=3)


def test_a_runtime_that_tells_nothing_costs_the_matrix_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise OSError('libx.so: no such file')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    why = "onnxruntime tells nothing of its kernels: OSError: libx.so: no such file"
    args = ("ops", "-b", "onnxruntime", "--ops", "relu")
    said = qfuzz_says(tmp_path, *args).splitlines()
    assert said[1].split()[0] == "relu"
    assert said[-1] == why
    assert json.loads(qfuzz_says(tmp_path, *args, "--json"))["onnx"] == {"why": why}
    qfuzz_says(tmp_path, *args, "--onnx", code=3)
