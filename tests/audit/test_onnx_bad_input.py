"""Model files and inputs that are no good: one clear line, and nothing outside the model's folder is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its models cannot be audited")
pytest.importorskip("onnx", reason="onnx is not installed: its models cannot be audited")

import onnx
from onnx import helper
from onnx_models import model_of, node, of, qoperator, qparams, weights

from qfuzz.audit.npz import read_arrays
from qfuzz.audit.outcome import audit
from qfuzz.ir.errors import InvalidCase


def refused(run: Callable[[], Any]) -> str:
    with pytest.raises(InvalidCase) as raised:
        run()
    message = str(raised.value)
    assert message and "\n" not in message and len(message) < 600
    return message


def with_external(folder: Path, location: str, **entries: int) -> Path:
    """A model whose weight says that it lies in `location`."""
    model = qoperator(per_channel=False)
    (w,) = [t for t in model.graph.initializer if t.name == "w"]
    (folder / "w.bin").write_bytes(w.raw_data)
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = w.external_data.add()
        entry.key, entry.value = key, str(value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "models"
    inner.mkdir()
    return inner


def test_external_data_in_the_model_s_folder(folder: Path) -> None:
    assert not audit(with_external(folder, "w.bin")).violating
    (folder / "deeper").mkdir()
    (folder / "w.bin").rename(folder / "deeper" / "w.bin")
    inner = with_external(folder, "deeper/w.bin", offset=0, length=8 * 4 * 9)
    assert not audit(inner).violating


def test_external_data_outside_of_it(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(8 * 4 * 9))
    link = folder / "link"
    link.symlink_to(secret)
    (folder / "linked").symlink_to(folder.parent)
    for location in ("../secret", str(secret), "link", "linked/secret", "a/../../secret", ""):
        assert "folder" in refused(lambda at=location: audit(with_external(folder, at)))


def test_external_data_that_does_not_fit(folder: Path) -> None:
    assert "no file" in refused(lambda: audit(with_external(folder, "nowhere.bin")))
    assert "shorter" in refused(lambda: audit(with_external(folder, "w.bin", offset=1)))
    assert "need" in refused(lambda: audit(with_external(folder, "w.bin", length=2**50)))
    assert "shorter" in refused(lambda: audit(with_external(folder, "w.bin", offset=-1)))


def write(folder: Path, model: Any) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def cyclic() -> Any:
    model = qoperator()
    conv = model.graph.node[1]
    conv.input[0] = "s"
    return model


def huge_constant() -> Any:
    model = qoperator()
    model.graph.initializer[-1].dims[:] = [2**40, 2**20]
    return model


def huge_value() -> Any:
    big = np.array([2**20, 2**20], np.int64)
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("ConstantOfShape", ["big"], "z"),
        node("DequantizeLinear", ["xq", *of("x")], "y"),
    ]
    return model_of(nodes, qparams() | {"big": big})


def no_quantized_layer() -> Any:
    return model_of([node("Relu", ["x"], "y")], {})


def unsupported_only() -> Any:
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("ConvInteger", ["xq", "w", "x_zero"], "i"),
        node("Cast", ["i"], "y", to=onnx.TensorProto.FLOAT),
    ]
    return model_of(nodes, qparams() | weights(per_channel=False))


def old_opset() -> Any:
    model = qoperator()
    model.opset_import[0].version = 9
    return model


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (lambda: b"", "no ONNX model"),
    "text": (lambda: b"hello, this is no model\n" * 40, "no ONNX model"),
    "truncated": (lambda: qoperator().SerializeToString()[:-700], "truncated"),
    "cyclic": (cyclic, "cyclic graph"),
    "huge constant": (huge_constant, "more elements than its data"),
    "huge value": (huge_value, "elements"),
    "huge input": (lambda: _of_shape((2**20, 2**20)), "at most"),
    "no quantized layer": (no_quantized_layer, "no quantized layer"),
    "unsupported only": (unsupported_only, "can be judged"),
    "opset 9": (old_opset, "opset 9"),
    "unknown operator": (lambda: _with_node(node("Nonsense", ["x"], "n")), "no valid ONNX model"),
    "operator of another domain": (lambda: _with_node(node("Run", ["x"], "n", "evil")), "evil"),
    "value from nowhere": (lambda: _with_node(node("Relu", ["nowhere"], "n")), "nowhere"),
}


def _of_shape(shape: tuple[int, ...]) -> Any:
    nodes = [node("QuantizeLinear", ["x", *of("x")], "xq"), node("DequantizeLinear", ["xq", *of("x")], "y")]
    return model_of(nodes, qparams(), x=shape)


def _with_node(extra: Any) -> Any:
    model = qoperator()
    model.graph.node.append(extra)
    model.opset_import.append(helper.make_opsetid("evil", 1))
    return model


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what: str, folder: Path) -> None:
    make, named = BAD[what]
    assert named in refused(lambda: audit(write(folder, make())))


def test_files_that_are_not_there(folder: Path) -> None:
    assert "no such file" in refused(lambda: audit(folder / "none.onnx"))
    assert "no such file" in refused(lambda: audit(str(folder) + ".onnx"))
    assert "FILE.onnx" in refused(lambda: audit("model.txt"))


BAD_INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "no array": ({}, "no array 'x'"),
    "another name": ({"x": np.zeros((1, 4, 6, 6), np.float32), "z": np.zeros(1)}, "'z' is no input"),
    "another dtype": ({"x": np.zeros((1, 4, 6, 6))}, "float64"),
    "another rank": ({"x": np.zeros((4, 6, 6), np.float32)}, "4 dimensions"),
    "another shape": ({"x": np.zeros((1, 5, 6, 6), np.float32)}, "dimension 1"),
}


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_inputs_that_do_not_fit(what: str, folder: Path) -> None:
    given, named = BAD_INPUTS[what]
    path = write(folder, qoperator())
    assert named in refused(lambda: audit(path, given))


def test_options_that_do_not_fit(folder: Path) -> None:
    path = write(folder, qoperator())
    assert "the model has N" in refused(lambda: audit(path, dimensions={"M": 2}))
    assert "at most" in refused(lambda: audit(path, dimensions={"N": 2**30}))
    assert "engine" in refused(lambda: audit(path, engine="fbgemm"))


def test_array_files(folder: Path) -> None:
    file = folder / "x.npz"
    assert "no such file" in refused(lambda: read_arrays(file))
    file.write_bytes(b"PK\3\4 nothing")
    assert "no .npz file" in refused(lambda: read_arrays(file))
    np.savez(file, x=np.array([{"an": "object"}], dtype=object))
    assert "no .npz file" in refused(lambda: read_arrays(file))
    with file.open("wb") as f:
        np.save(f, np.zeros(3))
    assert "one array" in refused(lambda: read_arrays(file))
