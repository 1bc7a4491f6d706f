"""What a framework tells of itself, asked in a process of its own.

A framework that cannot be imported, or dies of it, ends that process, not the command that asks. What answers is a
function without arguments of an executor (`executors`), which returns plain data.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from qfuzz.backends.executors import FRAMEWORKS
from qfuzz.ir.errors import BackendMissing

T = TypeVar("T")

START_LIMIT = 120.0
"""Seconds that a framework may take to tell."""


def ask(executor: str, function: str, answer: type[T], python: str = "") -> T:
    """What `function` of the executor returns in this Python, or in the one that `python` names, as an `answer`.

    Raises
    ------
    BackendMissing
        In one line: why there is none.
    """
    file = Path(__file__).with_name(f"{executor}.py")
    # The same modules are found here and there; another Python has its own.
    path = {} if python else {"PYTHONPATH": os.pathsep.join(p or os.curdir for p in sys.path)}
    command = [python or sys.executable, *(["-I"] if python else []), "-B", "-c", _TELL, str(file), function]
    nothing = f"{FRAMEWORKS[executor]} tells nothing of its {function}"
    try:
        done = subprocess.run(
            command, env=os.environ | path, capture_output=True, text=True, timeout=START_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise BackendMissing(f"{nothing}: {e}") from None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise BackendMissing(f"{nothing}: {said}")
    return msgspec.json.decode(lines[-1], type=answer)


_TELL = """
import json, runpy, sys
print("\\n" + json.dumps(runpy.run_path(sys.argv[1])[sys.argv[2]]()))
"""
