"""Bad input: exit 2, one line on stderr that says what and where, nothing on stdout, nothing written."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_cases import linear_case

from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli
from qfuzz.ir.codec import MAX_BYTES
from qfuzz.ops import CODEC

Document = dict[str, Any]
Change = Callable[[Document], object]


def _qtype(d: Document) -> Document:
    q: Document = d["network"]["inputs"][0]["type"]["element"]
    return q


def _node(d: Document, n: int = 0) -> Document:
    node: Document = d["network"]["nodes"][n]
    return node


def _data(d: Document) -> list[Any]:
    data: list[Any] = d["inputs"][0]["data"]
    return data


DOCUMENTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "newer schema": (lambda d: d.update(schema=2), ("schema version 2 is newer", "upgrade")),
    "schema 0": (lambda d: d.update(schema=0), ("schema version 0",)),
    "other format": (lambda d: d.update(format="onnx"), ("not a qfuzz case", "onnx")),
    "no format": (lambda d: d.pop("format"), ("not a qfuzz case",)),
    "negative scale": (lambda d: _qtype(d).update(scale=[-0.5]), ("scale", "-0.5")),
    "zero scale": (lambda d: _qtype(d).update(scale=[0.0]), ("scale", "0.0")),
    "tiny scale": (lambda d: _qtype(d).update(scale=[1e-40]), ("scale", "1e-40")),
    "scale of two float32": (lambda d: _qtype(d).update(scale=[0.1]), ("scale", "no float32")),
    "zero point too large": (lambda d: _qtype(d).update(zero_point=[256]), ("zero_point", "256", "0..255")),
    "zero point negative": (lambda d: _qtype(d).update(zero_point=[-1]), ("zero_point", "-1")),
    "zero point no integer": (lambda d: _qtype(d).update(zero_point=[1.5]), ("zero_point",)),
    "scales without axis": (lambda d: _qtype(d).update(scale=[1.0, 1.0], zero_point=[0, 0]), ("axis",)),
    "unequal lists": (lambda d: _qtype(d).update(zero_point=[0, 0]), ("1 scales and 2 zero points",)),
    "data of another shape": (lambda d: d["inputs"][0].update(shape=[3, 2]), ("input 'x'", "(3, 2)", "(2, 3)")),
    "too little data": (lambda d: _data(d).pop(), ("data", "5", "6")),
    "data out of range": (lambda d: _data(d).__setitem__(0, 300), ("300", "uint8")),
    "data no integer": (lambda d: _data(d).__setitem__(0, 1.5), ("1.5", "uint8")),
    "no input data": (lambda d: d["inputs"].clear(), ("0 input tensors", "1 inputs")),
    "shapes that do not fit": (lambda d: _node(d, 1)["op"].update(shape=[5]), ("reshape 'y'",)),
    "unknown operator": (lambda d: _node(d)["op"].update(op="fold"), ("fold",)),
    "unknown attribute": (lambda d: _node(d)["op"].update(color=1), ("color",)),
    "wrong attribute": (lambda d: _node(d)["op"].update(relu=3), ("relu",)),
    "unknown value": (lambda d: _node(d).update(inputs=["x", "w", "nobody"]), ("linear 'h'", "nobody")),
    "too few inputs": (lambda d: _node(d).update(inputs=["x"]), ("linear 'h'",)),
    "name twice": (lambda d: _node(d, 1).update(name="h"), ("'h'", "twice")),
    "name no identifier": (lambda d: _node(d, 1).update(name="a b; import os"), ("identifier",)),
    "unknown output": (lambda d: d["network"].update(outputs=["z"]), ("'z'",)),
    "no nodes": (lambda d: d["network"].update(nodes=[]), ("no nodes",)),
    "terabytes": (lambda d: d["inputs"][0].update(shape=[2**20, 2**20]), ("1048576", "at most")),
    "terabytes in a type": (
        lambda d: d["network"]["inputs"][0]["type"].update(shape=[2**20, 2**20]),
        ("1048576", "at most"),
    ),
    "terabytes of an output": (
        lambda d: _node(d, 1).update(op={"op": "pad", "padding": [2**30, 0, 0, 2**30]}),
        ("pad 'y'", "at most"),
    ),
    "a size beyond int64": (lambda d: d["inputs"][0].update(shape=[10**30]), ("shape",)),
    "negative size": (lambda d: d["inputs"][0].update(shape=[-2, 3]), ("-2",)),
    "rank 100": (lambda d: d["inputs"][0].update(shape=[1] * 100), ("rank 100",)),
    "unknown expectation": (lambda d: d.update(expect=[{"backend": "x", "verdict": "fine"}]), ("fine",)),
}
"""What is done to a good document, and what the line must name."""

TEXTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("not a qfuzz case",)),
    "no JSON": (b"hello", ("not a qfuzz case",)),
    "half a file": (CODEC.encode(linear_case())[:200], ("not a qfuzz case",)),
    "no object": (b"[1, 2]", ("not a qfuzz case",)),
    "no UTF-8": (b'{"format": "\xff"}', ("not a qfuzz case",)),
    "no UTF-8 in a name": (CODEC.encode(linear_case()).replace(b'"h"', b'"\xff"'), ("no UTF-8",)),
    "nested deeply": (b'{"format": "qfuzz-case", "schema": 1, "network": ' + b"[" * 100_000, ("",)),
    "NaN scale": (CODEC.encode(linear_case()).replace(b"[0.5]", b"[NaN]"), ("not a qfuzz case",)),
    "infinite scale": (CODEC.encode(linear_case()).replace(b"[0.5]", b"[1e999]"), ("",)),
}


def refused(args: Sequence[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that it says, once it is seen to say only that and to write nothing."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    code = run_cli(cli, args)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.startswith("qfuzz: error: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 1000
    assert sorted(folder.rglob("*")) == before
    return captured.err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", DOCUMENTS)
def test_documents_that_break_a_rule(what: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, named = DOCUMENTS[what]
    document = json.loads(CODEC.encode(linear_case()))
    change(document)
    (folder / "bad.json").write_text(json.dumps(document))
    line = refused(["check", "bad.json", "-b", "reference"], folder, capsys)
    for part in ("bad.json", *named):
        assert part in line


@pytest.mark.parametrize("what", TEXTS)
def test_files_that_are_no_case(what: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, named = TEXTS[what]
    (folder / "bad.json").write_bytes(data)
    line = refused(["check", "bad.json", "-b", "reference"], folder, capsys)
    for part in ("bad.json", *named):
        assert part in line


@pytest.mark.parametrize("command", ["check", "reduce", "export", "replay"])
def test_every_command_that_reads_a_case(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.json").write_text("{}")
    out = ["--out", "made"] if command in ("reduce", "export") else []
    assert "bad.json" in refused([command, "bad.json", "-b", "reference", *out], folder, capsys)
    assert "none.json" in refused([command, "none.json", "-b", "reference", *out], folder, capsys)


def test_a_file_too_large_is_refused_unread(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "bad.json"
    with path.open("wb") as f:
        f.truncate(MAX_BYTES + 1)  # sparse
    assert "at most" in refused(["check", "bad.json", "-b", "reference"], folder, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "bad.json"
    path.write_bytes(CODEC.encode(linear_case()))
    path.chmod(0)
    assert "Permission denied" in refused(["check", "bad.json", "-b", "reference"], folder, capsys)


def test_a_folder_without_a_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sub").mkdir()
    assert "sub" in refused(["check", "sub", "-b", "reference"], folder, capsys)
    assert "sub" in refused(["replay", "sub", "-b", "reference"], folder, capsys)


@pytest.mark.parametrize(
    "args",
    [
        ["run", "-b", "nobody"],
        ["run", "-b", "reference?color=1"],
        ["run", "-b", "planted?fault=everything"],
        ["run", "-b", "reference?color"],
        ["check", "good.json", "-b", "nobody"],
        ["replay", "good.json", "-b", "nobody"],
        ["reduce", "good.json", "-b", "nobody"],
        ["export", "good.json", "-b", "nobody", "--out", "made"],
        ["ops", "-b", "nobody"],
    ],
    ids=" ".join,
)
def test_unknown_backends(args: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.json").write_bytes(CODEC.encode(linear_case()))
    line = refused(args, folder, capsys)
    assert args[args.index("-b") + 1] in line


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["run", "-b", "reference", "--ops", "fold"], "fold"),
        (["ops", "--ops", "fold*"], "fold*"),
        (["run", "--time", "soon"], "soon"),
        (["run", "--time", "0s"], "0s"),
        (["run", "--time", "nans"], "nans"),
        (["run", "--time", "-5"], "-5"),
        (["run", "--max-examples", "0"], "0"),
        (["run", "--max-examples", "many"], "many"),
        (["run", "--seed", "-1"], "-1"),
        (["run", "--seed", str(10**30)], "0"),
        (["run", "--max-examples", str(10**30)], "0"),
        (["run", "--jobs", "0"], "0"),
        (["run", "--max-nodes", "0"], "0"),
        (["run", "--corpus", "nowhere", "-b", "reference"], "nowhere"),
        (["run", "--colour"], "--colour"),
        (["fly"], "fly"),
        (["check"], "CASE"),
        (["replay", "nowhere"], "nowhere"),
        (["replay"], "corpus"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else "",
)
def test_bad_usage(args: list[str], named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in refused(args, folder, capsys)


def test_places_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.json").write_bytes(CODEC.encode(linear_case()))
    run = ["run", "-b", "reference", "--max-examples", "5", "--out"]
    assert "good.json" in refused([*run, "good.json"], folder, capsys)
    assert "good.json" in refused([*run, "good.json/inside"], folder, capsys)
    assert "proc" in refused([*run, "/proc/qfuzz"], folder, capsys)
    export = ["export", "good.json", "-b", "reference", "--out"]
    assert "good.json" in refused([*export, "good.json"], folder, capsys)
    assert "good.json" in refused([*export, "good.json/inside"], folder, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shut").mkdir(mode=0o500)
    line = refused(["run", "-b", "reference", "--max-examples", "5", "--out", "shut/out"], folder, capsys)
    assert "shut" in line


def test_export_never_replaces(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.json").write_bytes(CODEC.encode(linear_case()))
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    line = refused(["export", "good.json", "-b", "reference", "--out", "mine"], folder, capsys)
    assert "exists already" in line


def test_reducing_what_does_not_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.json").write_bytes(CODEC.encode(linear_case()))
    line = refused(["reduce", "good.json", "-b", "reference", "--out", "made"], folder, capsys)
    assert "not accused" in line
