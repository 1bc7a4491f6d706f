"""The command line as a user has it: processes, exit codes, one JSON document, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_documents import CHECK, REPLAY, RUN
from small_cases import add_case, linear_case

import qfuzz
from qfuzz.cli import COMMANDS
from qfuzz.findings.corpus import read_case
from qfuzz.ir.expectation import Expectation
from qfuzz.ops import CODEC, OPERATOR_NAMES

START = [sys.executable, "-c", "from qfuzz.cli import main; main()"]
FAULT = "planted?fault=truncation"
TESTS = str(Path(__file__).parent)


def environment() -> dict[str, str]:
    paths = [TESTS, *(p for p in sys.path if p)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200", "NO_COLOR": "1"}


def qfuzz_says(folder: Path, *args: str, code: int = 0) -> str:
    """What a command prints on stdout, once its exit code is right."""
    done = subprocess.run(
        [*START, *args], cwd=folder, env=environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    if code in (0, 1):
        assert done.stderr == ""
    else:
        assert done.stderr.startswith("qfuzz: error: ") or code == 130
    return done.stdout


def document(folder: Path, schema: dict[str, Any], *args: str, code: int = 0) -> dict[str, Any]:
    """The one JSON document on stdout, valid against `schema`."""
    read: dict[str, Any] = json.loads(qfuzz_says(folder, *args, "--json", code=code))
    jsonschema.Draft202012Validator(schema).validate(read)
    return read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "add.json").write_bytes(CODEC.encode(add_case()))
    (tmp_path / "linear.json").write_bytes(CODEC.encode(linear_case()))
    return tmp_path


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from qfuzz.cli import cli\n"
        "from qfuzz.cli.rim import run_cli\n"
        "code = run_cli(cli, ['--help'])\n"
        "heavy = {'numpy', 'hypothesis', 'torch', 'onnx', 'onnxruntime', 'rich', 'mpmath'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_version_and_usage(tmp_path: Path) -> None:
    assert qfuzz.__version__ in qfuzz_says(tmp_path, "--version")
    for command in COMMANDS:
        assert "Usage: qfuzz" in qfuzz_says(tmp_path, command, "--help")


def test_a_run_that_finds_nothing(folder: Path) -> None:
    read = document(folder, RUN, "run", "-b", "reference", "--max-examples", "30", "--seed", "7", "--invalid", "0")
    assert (read["seed"], read["examples"], read["findings"]) == (7, 30, [])
    (backend,) = read["backends"]
    assert (backend["name"], backend["examples"], backend["unsupported"]) == ("reference", 30, 0)
    assert backend["elements"] == backend["verdicts"]["exact"] == read["elements"] > 0
    assert sorted(p.name for p in folder.iterdir()) == ["add.json", "linear.json", "qfuzz-out"]
    assert sorted(p.name for p in (folder / "qfuzz-out").iterdir()) == ["campaign.db", "run.json"]


def test_a_run_that_finds_a_fault(folder: Path) -> None:
    args = ("run", "-b", "reference", "-b", FAULT, "--max-examples", "25", "--seed", "7", "--ops", "linear")
    read = document(folder, RUN, *args, "--out", "found", code=1)
    assert [b["name"] for b in read["backends"]] == ["reference", FAULT]
    finding = next(f for f in read["findings"] if f["cause"] == "truncation")
    assert (finding["op"], finding["verdict"], finding["nodes"], finding["known"]) == ("linear", "violation", 1, False)
    assert finding["backend"] == FAULT
    path = folder / finding["path"]
    assert {"case.json", "repro.py", "report.md"} <= {p.name for p in path.iterdir()}
    assert json.loads((folder / "found" / "run.json").read_text()) == read
    assert not list((folder / "found").rglob(".*"))
    # The finding, followed: check, replay, reduce, and its reproducer.
    checked = document(folder, CHECK, "check", str(path), "-b", FAULT, "-b", "reference", code=1)
    assert [b["verdict"] for b in checked["backends"]] == ["violation", "exact"]
    replayed = document(folder, REPLAY, "replay", str(path), "-b", FAULT, code=1)
    assert [e["status"] for e in replayed["entries"]] == ["regressed"]
    repro = subprocess.run([sys.executable, path / "repro.py"], env=environment(), capture_output=True, check=False)
    assert repro.returncode == 1


def test_the_same_seed_writes_the_same_files(folder: Path) -> None:
    args = ("run", "-b", FAULT, "--max-examples", "30", "--seed", "1", "-q", "--ops", "conv")

    def files(out: str, *more: str) -> dict[str, bytes]:
        qfuzz_says(folder, *args, "--out", out, *more, code=1)
        made = (folder / out).rglob("*.*")
        return {str(p.relative_to(folder / out)): p.read_bytes() for p in made if p.name in ("case.json", "repro.py")}

    assert files("a") == files("b", "--jobs", "2") != {}


def test_known_issues_are_no_news(folder: Path) -> None:
    args = ("run", "-b", FAULT, "--max-examples", "25", "--seed", "7", "--ops", "linear", "--max-nodes", "1")
    first = document(folder, RUN, *args, code=1)
    known = folder / "corpus"
    known.mkdir()
    for i, f in enumerate(first["findings"]):
        case = qfuzz.load(folder / f["path"])
        expect = Expectation(FAULT, f["verdict"], signature=f["signature"], link="not reported", note="planted")
        (known / f"{i}.json").write_bytes(CODEC.encode(case, [expect]))
    again = document(folder, RUN, *args)
    assert again["findings"]
    assert all(f["known"] for f in again["findings"])
    replayed = document(folder, REPLAY, "replay", "-b", FAULT)
    assert {e["status"] for e in replayed["entries"]} == {"holds"}
    assert document(folder, REPLAY, "replay", "-b", "reference", code=3)["entries"] == []


def test_fixed_and_skipped_entries(folder: Path) -> None:
    gone = Expectation("reference", "violation", signature="add/violation/-/-", link="not reported", note="gone")
    (folder / "gone.json").write_bytes(CODEC.encode(add_case(), [gone]))
    (entry,) = document(folder, REPLAY, "replay", "gone.json", "-b", "reference")["entries"]
    assert entry["status"] == "fixed"
    no_kernel = ("replay", "add.json", "-b", "misbehaving:HasNoKernel")
    (entry,) = document(folder, REPLAY, *no_kernel, code=3)["entries"]
    assert (entry["status"], "there is none" in entry["why"]) == ("skipped", True)


def test_check(folder: Path) -> None:
    read = document(folder, CHECK, "check", "add.json", "-b", "reference", "-b", "misbehaving:Garbage", code=1)
    assert [b["verdict"] for b in read["backends"]] == ["exact", "violation"]
    text = qfuzz_says(folder, "check", "add.json", "-b", "misbehaving:Garbage", code=1)
    assert "add y[0]: got 83, admissible 6" in text
    assert "crash" in qfuzz_says(folder, "check", "add.json", "-b", "misbehaving:Segfault", code=1)
    assert qfuzz_says(folder, "check", "add.json", "-b", "reference", "-q") == ""


def test_reduce(folder: Path) -> None:
    args = ("reduce", "add.json", "-b", "misbehaving:OffByOne", "--out", "found", "--json")
    read = json.loads(qfuzz_says(folder, *args, code=1))
    assert (read["nodes"], read["elements"], read["reduction"]) == (1, 2, "done")
    assert qfuzz.load(folder / read["path"]).n_elements == 2
    crash = ("reduce", "add.json", "-b", "misbehaving:Aborts", "--out", "found", "--json")
    read = json.loads(qfuzz_says(folder, *crash, code=1))
    assert read["signature"].startswith("add/crash/")
    assert (folder / read["path"] / "repro.py").exists()


def test_export(folder: Path) -> None:
    text = qfuzz_says(folder, "export", "linear.json", "-b", "reference", "--out", "made")
    assert text.strip() == "made: exact"
    assert (folder / "made" / "case.json").read_bytes() == (folder / "linear.json").read_bytes()
    assert (folder / "made" / "repro.py").exists()
    assert (folder / "made" / "report.md").exists()


def test_export_of_a_known_issue_says_what_is_known_of_it(folder: Path) -> None:
    path = Path(__file__).parents[1] / "corpus" / "known" / "onnx_reference_gather_elements_rows.json"
    expected = read_case(path).expect[0]
    text = qfuzz_says(folder, "export", str(path), "--out", "known")
    assert text.startswith(f"known: {expected.verdict}")
    report = (folder / "known" / "report.md").read_text()
    assert expected.note in report
    assert f"Upstream: {expected.link}." in report
    assert qfuzz_says(folder, "export", "add.json", "--out", "nobodys", code=2) == ""


def test_backends_and_ops(folder: Path) -> None:
    read = json.loads(qfuzz_says(folder, "backends", "--json"))
    rows = {b["name"]: b for b in read["backends"]}
    assert rows["reference"]["installed"]
    assert {"torch-fbgemm", "torch-qnnpack", "onnxruntime", "onnx-reference"} <= set(rows)
    matrix = json.loads(qfuzz_says(folder, "ops", "-b", "reference", "--ops", "[a-c]*", "--json"))
    assert {o["op"] for o in matrix["ops"]} == {n for n in OPERATOR_NAMES if n[0] in "abc"}
    assert "relu" in qfuzz_says(folder, "ops", "-b", "reference", "--ops", "relu")


@pytest.mark.parametrize("spec", ["nowhere:Backend", "misbehaving:Nobody"])
@pytest.mark.parametrize("args", [("run", "--max-examples", "5"), ("check", "add.json"), ("replay", "add.json")])
def test_a_backend_that_cannot_be_had_is_exit_3(spec: str, args: tuple[str, ...], folder: Path) -> None:
    assert qfuzz_says(folder, *args, "-b", spec, "--json", code=3) == ""


def test_an_own_error_of_a_backend_is_exit_3(folder: Path) -> None:
    assert qfuzz_says(folder, "check", "add.json", "-b", "misbehaving:Raises", code=3) == ""


def test_a_run_that_compares_nothing_is_exit_3(folder: Path) -> None:
    args = ("run", "-b", "misbehaving:HasNoKernel", "--max-examples", "10")
    read = document(folder, RUN, *args, code=3)
    assert (read["examples"], read["backends"][0]["unsupported"]) == (10, 10)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_what_was_found(as_json: bool, folder: Path) -> None:
    args = ["run", "-b", FAULT, "--time", "300s", "--seed", "7", "--max-nodes", "1", *(["--json"] if as_json else [])]
    process = subprocess.Popen(
        [*START, *args], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, (out[-1000:], err[-2000:])
    assert "Traceback" not in err
    found = list((folder / "qfuzz-out").glob("*/case.json"))
    assert found
    if as_json:
        read = json.loads(out)
        jsonschema.Draft202012Validator(RUN).validate(read)
        assert read["stopped"] == "interrupted"
        assert len(read["findings"]) == len(found)


@pytest.mark.parametrize(
    "args",
    [
        ("ops", "-b", "reference", "--ops", "relu"),
        ("ops", "-b", "reference", "--ops", "relu", "--json"),
        ("run", "-b", "reference", "--max-examples", "3", "--json-lines"),
        ("run", "-b", "reference", "--max-examples", "3", "--json"),
    ],
    ids=" ".join,
)
def test_output_may_be_closed_early(args: tuple[str, ...], folder: Path) -> None:
    process = subprocess.Popen(
        [*START, *args],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(60) == 3, "the job was not done whole"
    assert "Traceback" not in err
    process.stderr.close()
