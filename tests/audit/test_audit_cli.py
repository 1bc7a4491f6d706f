"""``qfuzz audit``: exit codes, the JSON document, the table, and violations that are written out."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its models cannot be audited")
pytest.importorskip("onnx", reason="onnx is not installed: its models cannot be audited")

from onnx_models import model_of, node, of, qdq, qoperator, qparams

from qfuzz.audit.isolated import isolated
from qfuzz.audit.outcome import CODEC, Audit, Violation, audit
from qfuzz.cli import cli
from qfuzz.cli.audit_export import export
from qfuzz.cli.rim import run_cli
from qfuzz.ir.errors import InvalidCase, WorkerFailed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(qoperator().SerializeToString())
    return tmp_path


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run_cli(cli, ["audit", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_right_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["model.onnx"], capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("no violation: ")
    assert "QLinearConv" in out and "int16" in out
    code, out, _ = run(["model.onnx", "-q"], capsys)
    assert code == 0 and len(out.splitlines()) == 1


def test_json_is_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["model.onnx", "--json", "--opt", "extended", "--dim", "N=2"], capsys)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["schema"] == 1 and document["violating"] == 0 and document["uncovered"] == []
    conv = next(layer for layer in document["layers"] if layer["op"] == "conv")
    assert conv["elements"] == conv["exact"] + conv["admissible"] == 2 * 8 * 36
    assert conv["pairs"] > 0
    assert run(["model.onnx", "--json", "--opt", "extended", "--dim", "N=2"], capsys)[1] == out


def test_inputs_from_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("x.npz", x=np.zeros((1, 4, 6, 6), np.float32))
    code, out, _ = run(["model.onnx", "--inputs", "x.npz", "--json"], capsys)
    assert code == 0
    assert json.loads(out)["layers"][0]["exact"] == 144
    np.savez("y.npz", y=np.zeros(3))
    for args in (["--inputs", "y.npz"], ["--inputs", "none.npz"], ["--dim", "N"], ["--dim", "M=2"], ["--engine", "e"]):
        code, out, err = run(["model.onnx", *args], capsys)
        assert (code, out) == (2, "")
        assert err.startswith("qfuzz: error: ") and err.count("\n") == 1


def test_bad_models_exit_2_and_write_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.onnx").write_bytes(b"nonsense")
    before = sorted(folder.rglob("*"))
    for model in ("bad.onnx", "none.onnx", "model.txt", "none.pt2", "none.py:build"):
        code, out, err = run([model, "--export", "out"], capsys)
        assert (code, out) == (2, ""), err
        assert err.startswith("qfuzz: error: ") and err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_what_is_not_judged_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("MaxPool", ["xq"], "m", kernel_shape=[2, 2]),
        node("DequantizeLinear", ["m", *of("x")], "r"),
        node("Erf", ["r"], "y"),
    ]
    Path("erf.onnx").write_bytes(model_of(nodes, qparams()).SerializeToString())
    code, out, _ = run(["erf.onnx"], capsys)
    assert code == 0
    assert "not judged: Erf_y (Erf): it computes" in out and "1 layer not judged" in out


def test_help_says_what_is_executed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["--help"], capsys)
    assert code == 0
    text = " ".join(out.split())
    assert "A .py target is executed" in text and "A .onnx file is data: nothing in it is executed" in text


def planted(model: Any, folder: Path, op: str) -> Violation:
    """The violation that a layer would be, had one of its elements been wrong."""
    from dataclasses import replace

    from qfuzz.audit.layer import Layer, judge
    from qfuzz.audit.onnx_layers import layers_of_onnx
    from qfuzz.audit.outcome import violation_of

    path = folder / "planted.onnx"
    path.write_bytes(model.SerializeToString())
    for layer in layers_of_onnx(path, level="disable").layers:
        if isinstance(layer, Layer) and layer.case.network.nodes[0].op.name == op:
            got = np.array(layer.got)
            at = (0,) * got.ndim
            got[at] = got[at] - 2 if got[at] > 100 else got[at] + 2
            wrong = replace(layer, got=got)
            return violation_of(wrong, judge(wrong))
    raise AssertionError(op)


@pytest.mark.parametrize(("make", "op"), [(qoperator, "conv"), (qoperator, "max_pool"), (qdq, "linear")])
def test_a_violation_that_the_kernel_alone_does_not_show(make: Any, op: str, tmp_path: Path) -> None:
    (done,) = export([planted(make(), tmp_path, op)], tmp_path / "out")
    assert done["made"] == ("whole layer" if op == "max_pool" else "cut to one element")
    written = Path(done["path"])
    case = CODEC.decode((written / "case.json").read_bytes()).case
    (n,) = case.network.nodes
    assert n.op.name == op
    assert {"repro.py", "report.md", "model.onnx"} <= {p.name for p in written.iterdir()}


def test_a_violation_of_the_kernel_is_reduced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """QLinearSoftmax of this release floors a reciprocal; where it is mended there is nothing to export."""
    q = {"s_scale": np.float32(0.0039), "s_zero": np.uint8(0), "a_scale": np.float32(0.1), "a_zero": np.uint8(128)}
    nodes = [
        node("QuantizeLinear", ["x", *of("a")], "xq"),
        node("QLinearSoftmax", ["xq", *of("a"), *of("s")], "sm", "com.microsoft", axis=1, opset=13),
        node("DequantizeLinear", ["sm", *of("s")], "y"),
    ]
    Path("softmax.onnx").write_bytes(model_of(nodes, q, x=(1, 8)).SerializeToString())
    code, out, _ = run(["softmax.onnx", "--json", "--export", "out"], capsys)
    document = json.loads(out)
    assert code == (1 if document["violating"] else 0)
    assert [e["made"] for e in document["exported"]] == ["reduced"] * document["violating"]
    for e in document["exported"]:
        assert (Path(e["path"]) / "repro.py").is_file()


def test_the_outcome_is_plain_data(folder: Path) -> None:
    result = audit("model.onnx")
    assert isinstance(result, Audit)
    assert result == audit(Path("model.onnx"))


def test_a_framework_that_dies_leaves_one_clear_line() -> None:
    def dies(on_layer: Any) -> Audit:
        on_layer(3)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")

    with pytest.raises(WorkerFailed, match="died of SIGKILL after 3 layers"):
        isolated(dies)


def test_a_model_that_eats_all_memory_is_bad_input() -> None:
    def eats(on_layer: Any) -> Audit:
        np.empty(2**45, np.uint8)
        raise AssertionError("it was given")

    with pytest.raises(InvalidCase, match="memory"):
        isolated(eats)
