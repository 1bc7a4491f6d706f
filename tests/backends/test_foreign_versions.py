"""Real older releases of ONNX Runtime, each in an environment of its own, as backends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_documents import RUN
from environments import python_with
from test_cli import START, environment, qfuzz_says

from qfuzz.backends.discovery import is_installed, load_backend
from qfuzz.campaign.client import WorkerClient

pytestmark = pytest.mark.skipif(not is_installed("onnxruntime?python=x"), reason="onnx is not installed")

OLD = "1.22.1"
TOO_OLD = "1.20.1"


@pytest.fixture(scope="module")
def old() -> str:
    return python_with(f"onnxruntime=={OLD}", "numpy")


def run(python: str, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_of_ours_is_there(old: str) -> None:
    script = "import importlib.util as u; print([m for m in ('qfuzz', 'msgspec', 'onnx', 'torch') if u.find_spec(m)])"
    assert run(old, script) == "[]"


def test_it_says_its_own_version(old: str) -> None:
    described = load_backend(f"onnxruntime?python={old}").describe()
    assert described["version"] == OLD == run(old, "import onnxruntime; print(onnxruntime.__version__)")
    assert described["python"] == old
    if is_installed("onnxruntime"):
        assert load_backend("onnxruntime").describe()["version"] != OLD


def test_a_campaign_over_it_gives_verdicts(old: str, tmp_path: Path) -> None:
    specs = [f"onnxruntime?python={old}", f"onnxruntime?format=qdq&opt=disable&python={old}"]
    command = [*START, "run", "-b", specs[0], "-b", specs[1], "--seed", "7", "--max-examples", "200", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    d = json.loads(done.stdout)
    jsonschema.Draft202012Validator(RUN).validate(d)
    assert done.returncode == (1 if d["findings"] else 0)
    assert [b["name"] for b in d["backends"]] == specs
    for backend in d["backends"]:
        assert backend["version"] == OLD
        assert backend["examples"] > 80
        assert backend["verdicts"]["exact"] > 10_000
        assert backend["verdicts"]["crash"] == backend["verdicts"]["hang"] == 0
    for finding in d["findings"]:
        check_finding(tmp_path / finding["path"], finding, old)


def check_finding(folder: Path, finding: dict[str, Any], old: str) -> None:
    """Its reproducer names the version, and shows the bug in that Python, which has no qfuzz."""
    repro = (folder / "repro.py").read_text()
    assert OLD in (folder / "report.md").read_text()
    if "import qfuzz" in repro:
        return
    assert f"Needs onnxruntime {OLD}" in repro
    done = subprocess.run([old, "-I", folder / "repro.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, (finding["signature"], done.stdout, done.stderr)


def test_a_release_that_does_not_know_the_opset_is_unsupported() -> None:
    python = python_with(f"onnxruntime=={TOO_OLD}", "numpy")
    spec = f"onnxruntime?python={python}"
    from small_cases import conv_case

    with WorkerClient([spec]) as client:
        assert client.described[spec]["version"] == TOO_OLD
        (verdict,) = client.check(conv_case()).backends
    assert verdict.verdict == "unsupported"
    assert "does not know opset 22" in verdict.reason


def test_the_backend_list_of_check_names_both(old: str, tmp_path: Path) -> None:
    from small_cases import linear_case

    from qfuzz.ops import CODEC

    (tmp_path / "linear.json").write_bytes(CODEC.encode(linear_case()))
    spec = f"onnxruntime?format=qdq&opt=all&python={old}"
    said = json.loads(qfuzz_says(tmp_path, "check", "linear.json", "-b", spec, "-b", "reference", "--json"))
    assert [v["backend"] for v in said["backends"]] == [spec, "reference"]
    assert sys.executable != old
