"""Which operators an installed ONNX Runtime has CPU kernels for, and for which types: asked in a process of its own.

A runtime that cannot be imported ends that process, not the command that asks. Nothing of ONNX is imported here.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from qfuzz.ir.errors import BackendMissing

Key = tuple[str, str]
"""An operator: domain and name."""

ONNX, MICROSOFT = "", "com.microsoft"
"""The domains of the matrix: ai.onnx, whose name in models is empty, and the runtime's own operators."""

NARROW = (
    *("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"),
    *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
)
"""Types that quantized values are stored in, as ONNX names them: 2 to 16-bit integers, and the kinds of float8."""

START_LIMIT = 120.0
"""Seconds that a runtime may take to tell."""


class OperatorKernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the runtime tells of one operator: see `kernels` in `onnx_executor`."""

    domain: str
    name: str
    has_kernel: bool
    kernel_types: tuple[str, ...]
    schema_types: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Domain and name."""
        return self.domain, self.name

    @property
    def stored(self) -> tuple[str, ...]:
        """The types of `NARROW` that its kernels take."""
        return _narrow(self.kernel_types)

    @property
    def admits_narrow(self) -> bool:
        """Whether a kernel or a version of the schema takes a type of `NARROW`, in a sequence or an optional, too."""
        return bool(_narrow((*self.kernel_types, *self.schema_types)))


class Runtime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of the runtime, as it tells of itself."""

    version: str
    operators: tuple[OperatorKernels, ...]

    def by_key(self) -> Mapping[Key, OperatorKernels]:
        """Operators of the two domains."""
        return {o.key: o for o in self.operators if o.domain in (ONNX, MICROSOFT)}


def ask_runtime(python: str = "") -> Runtime:
    """What the onnxruntime of this Python tells, or that of another one.

    Raises
    ------
    BackendMissing
        In one line: why there is none.
    """
    executor = Path(__file__).with_name("onnx_executor.py")
    # The same modules are found here and there; another Python has its own.
    path = {} if python else {"PYTHONPATH": os.pathsep.join(p or os.curdir for p in sys.path)}
    command = [python or sys.executable, *(["-I"] if python else []), "-B", "-c", _TELL, str(executor)]
    try:
        done = subprocess.run(
            command, env=os.environ | path, capture_output=True, text=True, timeout=START_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise BackendMissing(f"onnxruntime tells nothing of its kernels: {e}") from None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise BackendMissing(f"onnxruntime tells nothing of its kernels: {said}")
    return msgspec.json.decode(lines[-1], type=Runtime)


_TELL = """
import json, runpy, sys
print("\\n" + json.dumps(runpy.run_path(sys.argv[1])["kernels"]()))
"""

_STORED = re.compile(r"tensor\((\w+)\)")


def _narrow(types: Iterable[str]) -> tuple[str, ...]:
    """Those of `NARROW` that are in `types`, in its order; also inside of sequences and optionals."""
    inside = {m.group(1) for t in types for m in _STORED.finditer(t)}
    return tuple(t for t in NARROW if t in inside)
