"""Other Pythons for tests: virtual environments, made once, kept in a cache folder, shared by test processes."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

LIMIT = 300.0


def folder() -> Path:
    """``$QFUZZ_TEST_ENVS``, or one of this user's."""
    chosen = os.environ.get("QFUZZ_TEST_ENVS") or str(Path(tempfile.gettempdir()) / f"qfuzz-test-envs-{os.getuid()}")
    path = Path(chosen)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        pytest.skip(f"{path} is another user's")
    return path


def python_with(*requirements: str) -> str:
    """A Python that has these packages; skips the test where pip cannot get them."""
    version = ".".join(map(str, sys.version_info[:2]))
    env = folder() / "-".join([*(r.replace("==", "-") for r in requirements), version])
    python, done = env / "bin" / "python", env / "complete"
    with open(f"{env}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            try:
                _run(sys.executable, "-m", "venv", "--clear", str(env))
                _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
            except (OSError, subprocess.SubprocessError) as e:
                said = getattr(e, "stderr", None) or str(e)
                pytest.skip(f"pip cannot get {' '.join(requirements)}: {said.strip().splitlines()[-1]}")
            done.touch()
    return str(python)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
