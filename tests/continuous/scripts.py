"""The scripts of continuous use as tests run them: as programs, and loaded for their functions."""

import importlib.util
import os
import shlex
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
QFUZZ = shlex.join([sys.executable, "-c", "from qfuzz.cli import main; main()"])
FAKES = Path(__file__).resolve().parent / "bin"
"""A `gh` that keeps issues in the folder that FAKE_GH names."""


def loaded(name: str) -> Any:
    """The script as a module."""
    loader = SourceFileLoader(name.replace("-", "_"), str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = write
    return module


def environment(**more: str) -> dict[str, str]:
    """That of this process, with this qfuzz for Pythons that are started."""
    paths = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if p)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"} | more


def run(name: str, *args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The script as a user starts it, to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *args],
        cwd=cwd,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
