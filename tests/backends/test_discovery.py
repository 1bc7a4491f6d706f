"""How names become backends."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qfuzz.backends import discovery
from qfuzz.backends.discovery import (
    BUILT_IN,
    DEFAULT_RIDES,
    canonical,
    default_rides,
    default_specs,
    is_installed,
    load_backend,
    parse_spec,
)
from qfuzz.backends.reference import ReferenceBackend
from qfuzz.ir.errors import BackendMissing
from qfuzz.ir.protocols import Backend


class ThirdParty(ReferenceBackend):
    """A backend of somebody else's."""

    def __init__(self, speed: str = "fast") -> None:
        self.name = f"third?speed={speed}"


class NoBackend:
    """Something that is none."""


HERE = f"{__name__}:ThirdParty"


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_backend_loads_or_says_what_to_install(name: str) -> None:
    if is_installed(name):
        backend = load_backend(name)
        assert isinstance(backend, Backend)
        assert parse_spec(backend.name)[0] == name
        assert backend.describe()["version"]
    else:
        with pytest.raises(BackendMissing, match=r"is not installed; pip install"):
            load_backend(name)


def test_the_default_set_is_built_in_and_canonical() -> None:
    assert all(parse_spec(spec)[0] in BUILT_IN for spec, _ in DEFAULT_RIDES)
    for spec in default_specs():
        assert canonical(spec) == spec
    assert {every for _, every in DEFAULT_RIDES} == {1, 4}


def test_canonical_names() -> None:
    if not is_installed("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    assert canonical("onnxruntime?format=qoperator&opt=all") == "onnxruntime"
    assert canonical("onnxruntime?opt=disable&format=qdq") == "onnxruntime?format=qdq&opt=disable"
    assert canonical("onnxruntime?format=qdq") == "onnxruntime?format=qdq&opt=all"


def test_a_missing_framework_is_named_and_leaves_the_default_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    assert not is_installed("torch-fbgemm")
    assert not any(spec.startswith("torch") for spec in default_specs())
    assert len(default_rides()) <= 5
    with pytest.raises(
        BackendMissing, match=r"^backend 'torch-fbgemm': torch is not installed; pip install 'qfuzz\[torch\]'$"
    ):
        load_backend("torch-fbgemm")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("onnxruntim", "there are torch-fbgemm, torch-x86"),
        ("", "there are torch-fbgemm"),
        ("reference?speed=fast", "does not take these options"),
        ("reference?speed", "options are key=value"),
        ("no_such_module:Class", "cannot be imported"),
        ("qfuzz.backends.reference:NoSuchClass", "has no NoSuchClass"),
        (f"{__name__}:NoBackend", "is no qfuzz.Backend"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(spec: str, said: str) -> None:
    with pytest.raises(BackendMissing) as error:
        load_backend(spec)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["format=qop", "opt=most", "threads=0", "speed=fast"])
def test_bad_options_of_a_built_in_are_said(option: str) -> None:
    if not is_installed("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    with pytest.raises(BackendMissing, match=option.partition("=")[0]):
        load_backend(f"onnxruntime?{option}")


def test_module_and_class_with_options() -> None:
    assert load_backend(HERE).name == "third?speed=fast"
    assert load_backend(f"{HERE}?speed=slow").name == "third?speed=slow"


def test_entry_points_are_full_citizens(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("third", HERE, discovery.GROUP)]
    monkeypatch.setattr(discovery, "entry_points", lambda group: points if group == discovery.GROUP else [])
    assert load_backend("third?speed=slow").name == "third?speed=slow"
    with pytest.raises(BackendMissing, match="third, and module:Class"):
        load_backend("fourth")


def test_built_in_names_come_before_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(**_: Any) -> Sequence[Any]:
        raise AssertionError("a built-in name needs no look at what else is installed")

    monkeypatch.setattr(discovery, "entry_points", unexpected)
    assert load_backend("reference").name == "reference"


def test_discovery_imports_no_framework() -> None:
    code = (
        "import sys, qfuzz.backends.discovery as d; d.default_specs(); d.load_backend('reference');"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'hypothesis') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_specs_are_parsed() -> None:
    expected: Mapping[str, tuple[str, dict[str, str]]] = {
        "a": ("a", {}),
        "a?b=c": ("a", {"b": "c"}),
        "a?b=c&d=": ("a", {"b": "c", "d": ""}),
        "m.n:K?b=1": ("m.n:K", {"b": "1"}),
    }
    for spec, parsed in expected.items():
        assert parse_spec(spec) == parsed


def test_a_factory_may_be_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(make=lambda **options: ThirdParty(**options))
    monkeypatch.setitem(sys.modules, "somebody_elses", module)
    assert load_backend("somebody_elses:make?speed=9").name == "third?speed=9"


BROKEN = {
    "raise OSError('libx.so: cannot open shared object file')": "onnxruntime cannot be loaded: OSError: libx.so",
    "raise ImportError('numpy.core failed')": "onnxruntime cannot be loaded: ImportError: numpy.core failed",
    "import sys; sys.exit(3)": "onnxruntime cannot be loaded: SystemExit: 3",
    "import os; os.write(2, b'bad static init'); os.abort()": "a worker is gone: bad static init",
}
"""What a framework does when it is imported, and what is said of it."""


@pytest.mark.parametrize("does", BROKEN)
def test_a_framework_that_cannot_be_imported_is_one_line(does: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="ONNX models are written with onnx")
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(does)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])}
    command = [
        sys.executable,
        "-c",
        "from qfuzz.cli import main; main()",
        "run",
        "-b",
        "onnxruntime",
        "--max-examples",
        "9",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("qfuzz: error: " + BROKEN[does])
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["onnxruntime"]
