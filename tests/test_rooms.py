"""The rooms: what may import what, seen to be kept and seen to notice; and the names that users import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qfuzz

ROOT = Path(__file__).resolve().parent.parent
LINT = shutil.which("lint-imports", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

PUBLIC = [
    "Audit",
    "Backend",
    "BackendMissing",
    "BackendVerdict",
    "Case",
    "Constant",
    "Contract",
    "Input",
    "InvalidCase",
    "Mismatched",
    "Network",
    "Node",
    "NotSupported",
    "Outcome",
    "Program",
    "QType",
    "QfuzzError",
    "Rejected",
    "Supported",
    "Tensor",
    "TensorType",
    "Unsupported",
    "Verdicts",
    "WorkerFailed",
    "audit",
    "backend",
    "cases",
    "check",
    "load",
    "networks",
    "qtypes",
    "reduce",
    "save",
    "scales",
    "zero_points",
]


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    assert LINT is not None
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(
        [LINT, "--no-cache"], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    if LINT is None:
        pytest.skip("import-linter is not installed")
    shutil.copytree(ROOT / "qfuzz", tmp_path / "qfuzz", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_planted_violation_is_noticed(copy: Path) -> None:
    assert lint(copy).returncode == 0
    for room, forbidden in (
        ("ir", "import qfuzz.oracle.check"),
        ("oracle", "import hypothesis"),
        ("findings", "import torch"),
    ):
        path = copy / "qfuzz" / room / "planted.py"
        path.write_text(f'"""Planted."""\n\n{forbidden}\n')
        done = lint(copy)
        assert done.returncode == 1, forbidden
        assert f"qfuzz.{room}.planted" in done.stdout
        path.unlink()
    (copy / "qfuzz" / "attic").mkdir()
    (copy / "qfuzz" / "attic" / "__init__.py").write_text("")
    assert lint(copy).returncode == 1, "a new room takes its place in the list"


def test_the_public_names() -> None:
    assert qfuzz.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(qfuzz, name).__name__
    assert {*PUBLIC, "__version__"} == set(dir(qfuzz))
    with pytest.raises(AttributeError, match="no attribute 'color'"):
        qfuzz.color  # noqa: B018


def test_importing_qfuzz_is_light() -> None:
    script = (
        "import sys, qfuzz; heavy = {'numpy', 'msgspec', 'hypothesis', 'torch', 'onnxruntime'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.parametrize("name", ["qfuzz.strategies", "qfuzz.campaign.run", "qfuzz.cli.run_command", "qfuzz.api"])
def test_no_framework_is_loaded_before_it_runs(name: str) -> None:
    script = f"import sys, {name}; assert not {{'torch', 'onnx', 'onnxruntime'}} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
