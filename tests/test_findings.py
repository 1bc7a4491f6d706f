"""Findings: folders whole or not at all, signatures that tell bugs apart, reproducers that prove themselves."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import misbehaving
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from slow_evaluator import evaluate
from small_cases import add_case, conv_case, linear_case

import qfuzz
from qfuzz.backends.discovery import default_specs, is_installed, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.findings.by_hand import element_by_hand
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import read_case
from qfuzz.findings.files import write_file, write_folder
from qfuzz.findings.finding import Finding, write_finding
from qfuzz.findings.signature import Symptom, signature_of, symptom_of
from qfuzz.ir.network import Case
from qfuzz.ir.qtype import QType, integer_range
from qfuzz.ir.tensor import laid_out
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.oracle.verdicts import BackendVerdict, Counts, Kind, Mismatch, Outcome

SAME = settings(
    max_examples=80, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "a.bin"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"three")
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "folder", {"x": b"x"})
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "sub", {"x": b"x"})
    assert path.read_bytes() == b"two"
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["sub", "a.bin"]


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "f", {"a": b"1", "b/c": b"2"})
    write_folder(tmp_path / "f", {"a": b"3"})
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["f", "a"]


def finding_of(case: Case, verdict: BackendVerdict, spec: str) -> Finding:
    return Finding(
        signature=signature_of(case, symptom_of(verdict)),
        case=case,
        backend=spec,
        backends=(spec,),
        verdict=verdict,
        environment={spec: {"version": "1"}},
    )


def test_signatures_tell_bugs_apart() -> None:
    verdicts = [
        check_one(case, backend, Reference(case))
        for case in (add_case(), linear_case())
        for backend in (misbehaving.Garbage(), misbehaving.Missing(), misbehaving.Refuses())
    ]
    cases = [add_case()] * 3 + [linear_case()] * 3
    signatures = [signature_of(c, symptom_of(v)) for c, v in zip(cases, verdicts, strict=True)]
    assert len({s.text for s in signatures}) == len({s.slug for s in signatures}) == 6
    assert signatures[0].text == "add/violation/garbage/uint8*uint8->uint8"
    assert signatures[3].text.startswith("reshape/violation/garbage/")
    for s in signatures:
        assert s.text.count("/") == 3
        assert s.slug == s.slug.lower()


def test_signatures_do_not_depend_on_names_and_numbers() -> None:
    def refused(text: str) -> str:
        return symptom_of(BackendVerdict("b", Outcome.REJECTED, text)).kind

    assert refused("node 'x17': kernel of size 3 failed\n0xdeadbeef") == refused("node 'x4': kernel of size 9 failed")
    assert refused("no kernel at 0x7fabc0de") == refused("no kernel at 0x55d0aebc")
    assert len(refused("x" * 10**6)) < 100


def test_symptoms_lead_to_smaller_ones_of_their_kind() -> None:
    whole, one = Symptom("", "crash", kind="died"), Symptom("conv", "crash", kind="died")
    assert whole.leads_to(one)
    assert not one.leads_to(Symptom("add", "crash", kind="died"))
    assert not one.leads_to(Symptom("conv", "crash", kind="other words"))
    assert not Symptom("conv", "violation", "truncation").leads_to(Symptom("conv", "violation", "half-away"))


def test_a_reproducer_by_qfuzz_itself_proves_itself(tmp_path: Path) -> None:
    """Of a backend that cannot print its calls."""
    spec = "planted?fault=truncation"
    backend = load_backend(spec)
    case = linear_case()
    verdict = check_one(case, backend, Reference(case))
    path = write_finding(tmp_path, finding_of(case, verdict, spec), backend)
    assert run(path) == 1
    text = (path / "repro.py").read_text()
    assert str(tmp_path) not in text
    (path / "repro.py").write_text(text.replace("truncation", "none"))
    assert run(path) == 0, "with the fault gone"


def run(folder: Path) -> int:
    """Exit code of a reproducer."""
    environment = {"PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, folder / "repro.py"], env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


@pytest.mark.parametrize(("spec", "module"), [("torch-qnnpack", "torch"), ("onnxruntime", "onnxruntime")])
def test_a_reproducer_of_a_framework(spec: str, module: str, tmp_path: Path) -> None:
    """It runs the framework alone, and says whether the element is as accused: a lie is exposed, a bug confirmed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    case = add_case()
    right = exact_outputs(case)["y"]

    def accusing(got: int) -> BackendVerdict:
        element = Mismatch("y", "add", True, (0,), got, int(right[0]), int(right[0]), int(right[0]))
        counts = Counts(3, 0, 1)
        return BackendVerdict(spec, Outcome.JUDGED, "", "add", None, Kind.OFF_BY_ONE, counts, (element,))

    path = write_finding(tmp_path, finding_of(case, accusing(5), spec), load_backend(spec))
    text = (path / "repro.py").read_text()
    assert "import qfuzz" not in text
    assert module in text
    assert (path / "model.onnx").exists() == (importlib.util.find_spec("onnx") is not None)
    assert run(path) == 0, "the kernel is right: the bug is gone"


LOST = Mismatch("h", "linear", True, (), problem="the backend returned no such value")


@pytest.mark.parametrize(
    ("shown", "names"),
    [
        ({"outcome": Outcome.JUDGED, "counts": Counts(4, 0, 4), "mismatches": (LOST,)}, ["y", "h"]),
        ({"outcome": Outcome.REJECTED, "reason": "no", "by_op": (("network", Counts(4)),)}, ["y", "h"]),
        ({"outcome": Outcome.REJECTED, "reason": "no"}, ["y"]),
    ],
    ids=["lost where exposed", "refused where exposed", "refused"],
)
def test_a_reproducer_exposes_inner_values_where_the_bug_showed_so(
    shown: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    """On a backend that fuses: a value that nobody asks for is missing whether or not the bug is there."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    spec = "onnxruntime?format=qdq&opt=all"
    case = linear_case()
    path = write_finding(tmp_path, finding_of(case, BackendVerdict(spec, **shown), spec), load_backend(spec))
    assert f"names = {names!r}" in (path / "repro.py").read_text()
    assert run(path) == 0, "the kernels are right: the bug is gone"


@SAME
@given(qfuzz.cases(max_nodes=1))
def test_the_arithmetic_by_hand_is_right(case: Case) -> None:
    """Of the first and the last element of every drawn node, against the slow evaluator."""
    node = case.network.nodes[0]  # a few layers of reals have a dequantize before them
    bounds = integer_range(node.element)
    shape = case.network.types[node.name].shape
    if bounds is None or 0 in shape:
        return
    zero_points = np.zeros(shape)
    if isinstance(node.element, QType):
        zero_points = np.broadcast_to(laid_out(node.element, node.element.zero_point, shape), shape)
    known = {n: t.array for n, t in case.feeds.items()} | {n: t.array for n, t in case.network.constant_data.items()}
    exact = evaluate(case)[node.name]
    for flat in (0, int(np.prod(shape)) - 1):
        index = tuple(int(i) for i in np.unravel_index(flat, shape))
        scope: dict[str, object] = {}
        imports = "from decimal import Decimal, getcontext\nfrom fractions import Fraction\n"
        exec(imports + "\n".join(element_by_hand(case.network, node, known, index)), scope)
        rounded = round(scope["real"]) + int(zero_points[index])  # type: ignore[call-overload]
        expected = min(max(rounded, bounds[0]), bounds[1])
        assert expected == exact.stored[flat]


def test_the_case_is_what_is_written(tmp_path: Path) -> None:
    for case in (add_case(), conv_case()):
        verdict = check_one(case, misbehaving.Missing(), Reference(case))
        path = write_finding(tmp_path, finding_of(case, verdict, "misbehaving:Missing"), None)
        assert qfuzz.load(path) == case
        assert {"case.json", "repro.py", "report.md"} <= {p.name for p in path.iterdir()}
        assert "misbehaving:Missing" in (path / "report.md").read_text()


def known_violations(framework: str) -> list[tuple[Path, str]]:
    """Corpus files of known violations, each with a spec of the framework that they name."""
    named = []
    for path in sorted((Path(__file__).resolve().parent.parent / "corpus" / "known").glob("*.json")):
        for e in read_case(path).expect:
            spec = next((s for s in default_specs() if s.startswith(framework) and names_backend(e, s)), None)
            if spec is not None and e.verdict == "violation":
                named.append((path, spec))
                break
    return named


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ort_scaled_mm_bias", "onnxruntime?format=qdq&opt=all"),
        ("ort_scaled_mm_e5m2", "onnxruntime?format=qdq&opt=all"),
        ("ort_float8_not_saturated", "onnxruntime?format=qdq&opt=all"),
        ("torch_scaled_mm_scale_of_e4m3fnuz", "torch-export"),
    ],
)
def test_reproducers_of_float8_results(name: str, spec: str, tmp_path: Path) -> None:
    """They have other types in the model than in the network, and infinities and NaN among what is admissible."""
    if not is_installed(spec.partition("?")[0]):
        pytest.skip(f"{spec} is not installed")
    case = read_case(Path(__file__).resolve().parent.parent / "corpus" / "known" / f"{name}.json").case
    backend = load_backend(spec)
    verdict = check_one(case, backend, Reference(case))
    path = write_finding(tmp_path, finding_of(case, verdict, spec), backend)
    assert run(path) == (1 if verdict.verdict == "violation" else 0)
    assert "import qfuzz" not in (path / "repro.py").read_text()


@pytest.mark.parametrize("framework", ["torch", "onnxruntime"])
def test_reproducers_of_known_bugs_exit_1_while_they_live(framework: str, tmp_path: Path) -> None:
    """On this machine; where a bug does not show, there is nothing to reproduce."""
    proven = 0
    for path, spec in known_violations(framework):
        case = read_case(path).case
        with WorkerClient([spec]) as client:
            (verdict,) = client.check(case).backends
        if verdict.verdict != "violation":
            continue
        folder = write_finding(tmp_path / path.stem, finding_of(case, verdict, spec), load_backend(spec))
        assert "import qfuzz" not in (folder / "repro.py").read_text()
        assert run(folder) == 1, path.name
        proven += 1
        if proven == 3:
            return
    if not proven:
        pytest.skip(f"no known violation of {framework} shows here")
