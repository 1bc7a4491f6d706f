"""The shipped corpus: small, complete, honest about where its issues live, and as its files say on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from slow_evaluator import evaluate

from qfuzz.backends.discovery import default_specs
from qfuzz.backends.environment import cpu_flags
from qfuzz.campaign.client import WorkerClient
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import Replayed, corpus_files, known_issues, read_case, replay_entry
from qfuzz.ops import OPERATOR_NAMES

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = tuple(corpus_files([CORPUS]))
FRAMEWORKS = ("torch-", "onnxruntime", "onnx-reference")


def test_it_is_small() -> None:
    assert 20 < len(FILES) <= 480
    assert max(p.stat().st_size for p in FILES) <= 16 * 1024
    assert sum(p.stat().st_size for p in FILES) < 800_000


def test_every_operator_has_a_case_that_must_hold() -> None:
    held = {n.op.name for p in FILES if p.parent.name == "holds" for n in read_case(p).case.network.nodes}
    assert held == set(OPERATOR_NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_expectations_are_complete(path: Path) -> None:
    expectations = read_case(path).expect
    assert expectations
    for e in expectations:
        assert e.note
        assert "\n" not in e.note
        if e.verdict == "holds":
            continue
        assert e.link == "not reported" or e.link.startswith("https://")
        assert e.when.versions.startswith("==")
        assert e.backend.startswith(FRAMEWORKS)
        op, verdict, what, form = e.signature.split("/")
        assert verdict == e.verdict
        assert op != "*" or what != "*" or form == "beyond int32", "would hide every bug of the backend"
        assert what != "*" or form not in ("", "-", "*"), "would hide every bug of the operator"
    assert any(e.verdict == "holds" for e in expectations) == (path.parent.name == "holds" or _depends_on_cpu(path))


def _depends_on_cpu(path: Path) -> bool:
    return path.stem.startswith("saturation_")


def test_known_issues_are_found_by_backend() -> None:
    issues = known_issues([CORPUS])
    for spec in ("torch-qnnpack", "torch-onednn", "onnxruntime", "onnxruntime?format=qdq&opt=all"):
        assert any(names_backend(i.expectation, spec) for i in issues), spec


def replayed(specs: tuple[str, ...]) -> list[Replayed]:
    found = []
    with WorkerClient(specs) as client:
        for path in FILES:
            found += replay_entry(
                path.name,
                read_case(path),
                client.described,
                lambda case, spec: client.check(case, (spec,)).backends[0],
            )
    return found


def test_it_replays_as_it_says() -> None:
    """No entry regressed. A known issue may be gone: other CPUs, other versions."""
    specs = default_specs()
    if not specs:
        pytest.skip("no framework is installed")
    entries = replayed(specs)
    assert not [e for e in entries if e.status == "regressed"]
    assert sum(e.status == "holds" for e in entries) > len(FILES)


def test_it_replays_as_it_says_on_older_cpus() -> None:
    """What must hold does without VNNI, too, or says where it does not."""
    specs = [s for s in default_specs() if s.startswith("torch-") and "?" not in s]
    if not specs:
        pytest.skip("torch is not installed")
    if "avx2" not in cpu_flags():
        pytest.skip("this CPU has no AVX2, of which FBGEMM asks for no less")
    entries = replayed(tuple(f"{s}?isa=avx2" for s in specs))
    assert not [e for e in entries if e.status == "regressed"]
    assert sum(e.status == "holds" for e in entries) > len(FILES)


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    if not default_specs():
        pytest.skip("no framework is installed")
    with WorkerClient(default_specs()) as client:
        yield client


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "known"], ids=lambda p: p.stem)
def test_known_violations_are_confirmed(path: Path, client: WorkerClient) -> None:
    """What a backend is accused of is wrong by the slow evaluator, too, which shares no arithmetic with qfuzz."""
    file = read_case(path)
    exact = evaluate(file.case)
    specs = tuple(s for s in default_specs() if any(names_backend(e, s) for e in file.expect if e.verdict != "holds"))
    if not specs:
        pytest.skip("no such backend is installed")
    for verdict in client.check(file.case, specs).backends:
        for m in verdict.mismatches:
            if not m.problem:
                flat = 0
                for i, d in zip(m.index, exact[m.value].shape, strict=True):
                    flat = flat * d + i
                assert exact[m.value].stored[flat] != m.got
