"""Another Python as a backend: it computes and says what this one does, or why it cannot, in one line."""

import ast
import itertools
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cases import add_case

from qfuzz.backends import foreign, foreign_host
from qfuzz.backends.discovery import canonical, is_installed, load_backend
from qfuzz.backends.foreign import Foreign
from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import corpus_files, read_case
from qfuzz.ir.errors import BackendMissing, Crashed, Rejected, Unsupported
from qfuzz.ir.expectation import Expectation
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend, NotSupported, Scriptable
from qfuzz.ops import CODEC
from qfuzz.oracle import memory
from qfuzz.strategies import cases_of

HERE = Path(__file__).parent
HOLDS = HERE.parents[1] / "corpus" / "holds"
ROOM = Path(foreign.__file__).parent
EXECUTORS = sorted(ROOM.glob("*_executor.py"))
SPECS = [
    "onnxruntime",
    "onnxruntime?format=qdq&opt=disable",
    "onnxruntime?format=qdq&opt=all&threads=2",
    "onnx-reference",
    "torch-fbgemm",
    "torch-qnnpack",
    "torch-onednn?layout=channels_last",
    "torch-export",
]


def elsewhere(spec: str, python: str = sys.executable) -> str:
    return f"{spec}{'&' if '?' in spec else '?'}python={python}"


def hosts() -> list[int]:
    """Live hosts, and their children, that this process started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if b"foreign_host.py" in command and state != "Z" and int(parent) == os.getpid():
            found.append(int(folder.name))
    return found


def outcome(backend: Backend, case: Case) -> object:
    """What a backend makes of a case: every value's bytes, or its refusal."""
    inner = tuple(n.name for n in case.network.nodes if n.name not in case.network.outputs)
    support = backend.supports(case.network)
    if isinstance(support, NotSupported):
        return support
    try:
        program = backend.compile(case.network, inner)
        values = program.run({name: np.array(t.array) for name, t in case.feeds.items()}, inner)
    except (Rejected, Unsupported) as e:
        return type(e), str(e)
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in values.items()}


@pytest.mark.parametrize("spec", SPECS)
def test_another_python_computes_the_same_bits(spec: str) -> None:
    if not is_installed(spec):
        pytest.skip("its framework is not installed")
    here, there = load_backend(spec), load_backend(elsewhere(spec))
    ran = 0
    held = (read_case(path).case for path in corpus_files([HOLDS]))
    for case in itertools.chain(held, itertools.islice(cases_of(11, 0, max_nodes=2), 120)):
        try:
            answer = outcome(there, case)
        except Crashed:
            continue  # a known bug, which would end this process
        assert answer == outcome(here, case)
        ran += isinstance(answer, dict)
    assert ran > 24


@pytest.mark.parametrize("spec", SPECS)
def test_another_python_describes_itself_as_this_one_does(spec: str) -> None:
    if not is_installed(spec):
        pytest.skip("its framework is not installed")
    described = load_backend(elsewhere(spec)).describe()
    assert described.pop("python") == sys.executable
    assert described.pop("python_version") == ".".join(map(str, sys.version_info[:3]))
    assert described == load_backend(spec).describe()


def test_the_option_is_last_in_the_name_and_starts_nothing() -> None:
    if not is_installed("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    before = hosts()
    assert canonical("onnxruntime?python=/no where&opt=all&format=qdq") == (
        "onnxruntime?format=qdq&opt=all&python=/no%20where"
    )
    assert canonical("onnx-reference?python=python3") == "onnx-reference?python=python3"
    assert canonical("torch-x86?python=/a%2Bb/python&layout=channels_last") == (
        "torch-x86?layout=channels_last&python=/a%2Bb/python"
    )
    for spec in ("onnxruntime?python=/a%26b", "torch-export?python=~/x"):
        assert canonical(canonical(spec)) == spec
    assert hosts() == before


def test_a_backend_elsewhere_needs_no_framework_here() -> None:
    """Lowering, printing the calls and loading the backend import neither torch nor onnxruntime."""
    script = (
        "import itertools, sys\n"
        "from qfuzz.backends.discovery import load_backend\n"
        "from qfuzz.ir.protocols import Supported\n"
        "from qfuzz.strategies import cases_of\n"
        "cases = list(itertools.islice(cases_of(1, 0, max_nodes=1), 60))\n"
        "for spec in sys.argv[1:]:\n"
        "    backend = load_backend(spec)\n"
        "    taken = [case for case in cases if backend.supports(case.network) == Supported()]\n"
        "    assert taken, spec\n"
        "    for case in taken: backend.script(case.network, case.arrays)\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules)\n"
        "assert 'qfuzz.backends.foreign' in sys.modules\n"
    )
    specs = [f"{s}?python=/nowhere" for s in ("torch-fbgemm", "torch-export", "onnxruntime") if is_installed(s)]
    paths = os.pathsep.join([str(HERE.parent), *(p for p in sys.path if p)])
    subprocess.run([sys.executable, "-c", script, *specs], env=os.environ | {"PYTHONPATH": paths}, check=True)


def test_a_torch_backend_elsewhere_is_there_without_torch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    assert is_installed("torch-x86?python=/x") and not is_installed("torch-x86")
    assert load_backend("torch-x86?python=/x").name == "torch-x86?python=/x"


def test_expectations_on_a_framework_hold_in_any_python_and_on_any_cpu() -> None:
    def means(pattern: str, spec: str) -> bool:
        return names_backend(Expectation(pattern, "holds"), spec)

    assert means("onnxruntime", "onnxruntime?python=/x/bin/python")
    assert means("onnxruntime?format=qdq*", "onnxruntime?format=qdq&opt=all&python=/x")
    assert means("torch-*", "torch-fbgemm?python=/x")
    assert not means("onnxruntime", "onnxruntime?opt=disable&python=/x")
    assert means("onnxruntime?python=/x/*", "onnxruntime?python=/x/bin/python")
    assert not means("onnxruntime?python=/x/*", "onnxruntime?python=/y/bin/python")
    assert not means("onnxruntime?python=/x/*", "onnxruntime")
    assert means("torch-fbgemm", "torch-fbgemm?isa=avx2&python=/x") and means("onnxruntime", "onnxruntime?threads=2")
    assert means("torch-export?format=qdq", "torch-export?layout=channels_last&format=qdq&isa=avx2")
    assert not means("torch-export", "torch-export?format=qdq&isa=avx2")
    assert not means("onnxruntime?threads=*", "onnxruntime")


@pytest.mark.parametrize("file", [*EXECUTORS, Path(foreign_host.__file__), Path(memory.__file__)], ids=lambda f: f.stem)
def test_what_runs_elsewhere_is_one_file_for_old_pythons(file: Path) -> None:
    """Nothing of qfuzz is imported, and what is imported is the standard library, NumPy and the framework."""
    tree = ast.parse(file.read_text(), feature_version=foreign.OLDEST)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    frameworks = {"onnx_executor": "onnxruntime", "onnx_reference_executor": "onnx", "torch_executor": "torch"}
    assert imported - set(sys.stdlib_module_names) <= {"numpy", frameworks.get(file.stem, "numpy")}


# Pythons that will not do: one line that says which and why.


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A virtual environment with nothing in it: its Python, and its folder of packages."""
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    (site,) = env.glob("lib/python*/site-packages")
    return env / "bin" / "python", site


def borrow_numpy(site: Path) -> None:
    package = Path(np.__file__).parent
    for path in (package, package.with_name("numpy.libs")):
        if path.exists():
            (site / path.name).symlink_to(path)


def why_missing(python: Path | str, spec: str = "onnxruntime") -> str:
    if not is_installed(f"{spec}?python=x"):
        pytest.skip("onnx is not installed")
    before = hosts()
    with pytest.raises(BackendMissing) as raised:
        load_backend(elsewhere(spec, str(python))).describe()
    assert hosts() == before
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(python))
    return str(raised.value)


def test_no_such_program(tmp_path: Path) -> None:
    assert why_missing("/nowhere/python").endswith(": no such program")
    assert why_missing(tmp_path).endswith(": no such program")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    assert "cannot be started" in why_missing(broken)


def test_not_a_python() -> None:
    assert "is no Python of at least 3.9: exited with status" in why_missing("/bin/cat")


def test_an_environment_without_packages(bare: tuple[Path, Path]) -> None:
    python, site = bare
    assert why_missing(python).endswith(" has no numpy")
    borrow_numpy(site)
    assert why_missing(python).endswith(" has no onnxruntime")
    assert why_missing(python, "torch-x86").endswith(" has no torch")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libfoo.so: cannot open shared object file')", "ImportError: libfoo.so: cannot open"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os.write(2, b'terminate called\\n'); os.abort()", "died of SIGABRT: terminate called"),
        ("import flatbuffers_that_is_missing", "has no flatbuffers_that_is_missing"),
        ("print('hello'); import os; os.write(1, b'hello')", "has no onnxruntime.capi"),
    ],
)
def test_a_framework_that_cannot_be_imported(code: str, said: str, bare: tuple[Path, Path]) -> None:
    python, site = bare
    borrow_numpy(site)
    (site / "onnxruntime").mkdir()
    (site / "onnxruntime" / "__init__.py").write_text(code)
    assert said in why_missing(python)


def speaking(folder: Path, *statements: str) -> Path:
    """A program that is started as a Python is, and answers otherwise: it has the host's codec as ``host``."""
    program = folder / "python"
    lines = [
        f"#!{sys.executable}",
        "import importlib.util, socket, sys, time",
        f"spec = importlib.util.spec_from_file_location('host', {foreign_host.__file__!r})",
        "host = importlib.util.module_from_spec(spec); spec.loader.exec_module(host)",
        "control = socket.socket(fileno=int(sys.argv[-1]))",
        *statements,
    ]
    program.write_text("\n".join(lines))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = speaking(tmp_path, "host.send(control, {'type': 'Hello', 'protocol': 1, 'python': [3, 8, 20]})")
    assert why_missing(old).endswith("is Python 3.8.20; at least 3.9 is needed")


def test_another_version_of_the_protocol(tmp_path: Path) -> None:
    other = speaking(tmp_path, "host.send(control, {'type': 'Hello', 'protocol': 9, 'python': [3, 12, 1]})")
    assert why_missing(other).endswith("speaks version 9 of the protocol, not 2")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("control.sendall(b'HTTP/1.1 400 Bad Request')", "a message of"),
        ("control.sendall(b'\\x01\\0\\0\\0\\xc1')", "the protocol does not have"),
        ("host.send(control, {'type': 'Died', 'reason': 'x'})", "began with Died"),
    ],
)
def test_a_program_that_speaks_otherwise(statement: str, said: str, tmp_path: Path) -> None:
    assert said in why_missing(speaking(tmp_path, statement))


def test_a_python_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "START_LIMIT", 0.5)
    start = time.monotonic()
    assert why_missing(speaking(tmp_path, "time.sleep(60)")).endswith("did not answer within 0.5 s")
    assert time.monotonic() - start < 20


def test_the_command_line_says_it_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not is_installed("onnxruntime?python=x"):
        pytest.skip("onnx is not installed")
    (tmp_path / "add.json").write_bytes(CODEC.encode(add_case()))
    code = run_cli(cli, ["check", str(tmp_path / "add.json"), "-b", "onnxruntime?python=/nowhere/python"])
    said = capsys.readouterr()
    assert (code, said.out) == (3, "")
    assert said.err == "qfuzz: error: /nowhere/python: no such program\n"


@pytest.mark.parametrize("spec", ["reference?python=/x", "planted?python=/x"])
def test_backends_without_a_framework_take_no_python(spec: str) -> None:
    with pytest.raises(BackendMissing, match="does not take these options"):
        load_backend(spec)


@pytest.fixture
def numbers() -> Iterator[Foreign]:
    there = Foreign(sys.executable, str(HERE / "echo_executor.py"))
    yield there
    there.close()


def test_all_dtypes_and_shapes_cross(numbers: Foreign) -> None:
    arrays: dict[str, Any] = {
        f"={dtype}": np.array([[0, 1], [100, 7]], dtype=dtype)[:, :n]
        for dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float64")
        for n in (0, 1, 2)
    } | {"=scalar": np.float32(np.inf).reshape(()), "x": np.zeros(1, dtype=np.uint8)}
    program = numbers.load("", ["relu"], "", {})
    values = program.run(arrays, [n[1:] for n in arrays if n != "x"])
    for name, value in values.items():
        sent = arrays["=" + name]
        assert (value.dtype, value.shape, value.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
        assert value.flags.writeable


def test_a_script_says_which_version_it_needs(tmp_path: Path) -> None:
    from qfuzz.findings.reproducers import reproducer_files
    from qfuzz.oracle.verdicts import BackendVerdict, Outcome

    spec = elsewhere("onnxruntime")
    if not is_installed(spec):
        pytest.skip("onnx is not installed")
    backend = load_backend(spec)
    assert isinstance(backend, Scriptable)
    described = {"name": spec, **backend.describe()}
    files = reproducer_files(
        add_case(),
        BackendVerdict(spec, Outcome.CRASH, "died of SIGSEGV", "add"),
        backend=backend,
        spec=spec,
        signature="add/crash",
        backends=(spec,),
        described=described,
    )
    repro = files["repro.py"].decode()
    assert f"Needs onnxruntime {described['version']}" in repro and "import qfuzz" not in repro
    assert f"- python: {sys.executable}" in files["report.md"].decode()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-I", tmp_path / "repro.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "no crash is to be seen in this framework"
