"""The pytest plugin in suites of its own: findings written and named, known issues no failure, corpus files items."""

import os
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from small_cases import add_case

import qfuzz
from qfuzz.ir.expectation import Expectation
from qfuzz.ops import CODEC

PLUGIN = () if any(p.name == "qfuzz" for p in entry_points(group="pytest11")) else ("-p", "qfuzz.pytest_plugin")
FAULT = "planted?fault=truncation"
FUZZ = """
    import os
    import qfuzz
    from hypothesis import given, settings

    @settings(max_examples=40, deadline=None)
    @given(qfuzz.cases(ops=["linear"], max_nodes=1))
    def test_kernels(case):
        with open(os.environ["SEEN"] + os.environ.get("PYTEST_XDIST_WORKER", ""), "ab") as f:
            f.write(str(hash(qfuzz.ops.CODEC.encode(case))).encode() + b"\\n")
        qfuzz.check(case, backends=["BACKEND"]).raise_for_mismatch()
"""


class Suite:
    """A suite in a process of its own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.path = pytester, pytester.path
        self.seen = self.path / "seen"
        monkeypatch.setenv("SEEN", str(self.seen))
        monkeypatch.setenv("PYTHONHASHSEED", "0")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)]))
        monkeypatch.delenv("QFUZZ_CORPUS", raising=False)
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def fuzz(self, backend: str = FAULT) -> None:
        self.pytester.makepyfile(test_fuzz="import qfuzz.ops\n" + _dedent(FUZZ).replace("BACKEND", backend))

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*PLUGIN, *args, timeout=100)

    def examples(self) -> bytes:
        """What the fuzz test has seen since the last call."""
        data = b"".join(p.read_bytes() for p in sorted(self.path.glob("seen*")))
        for p in self.path.glob("seen*"):
            p.unlink()
        return data


def _dedent(text: str) -> str:
    return "\n".join(line[4:] for line in text.splitlines())


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_a_mismatch_writes_its_finding_and_says_where(suite: Suite) -> None:
    suite.fuzz()
    result = suite.run("--hypothesis-profile=ci")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "finding: linear/violation/truncation/" in text
    assert re.search(r"linear y?\w*\[.*\]: got -?\d+, admissible -?\d+", text)
    (folder,) = (suite.path / "qfuzz-out").glob("linear-violation-truncation-*")
    assert folder.name in text
    assert {"case.json", "repro.py", "report.md"} <= {p.name for p in folder.iterdir()}
    case = qfuzz.load(folder)
    assert len(case.network.nodes) == 1
    assert case.n_elements <= 12
    assert list((suite.path / "qfuzz-out" / "cases").glob("test_kernels-*.json")), "the case as it was is kept"
    # With what it wrote there, the next run is no other: findings are no corpus.
    suite.run("--hypothesis-profile=ci").assert_outcomes(failed=1)


def test_without_reduction(suite: Suite) -> None:
    suite.fuzz()
    suite.run("--hypothesis-profile=ci", "--qfuzz-no-reduce", "--qfuzz-out=other").assert_outcomes(failed=1)
    assert list((suite.path / "other").glob("linear-*/case.json"))
    assert not (suite.path / "qfuzz-out").exists()


def test_the_same_examples_on_every_run_under_ci(suite: Suite) -> None:
    suite.fuzz("reference")
    seen = []
    for args in ([], ["-p", "no:cacheprovider"], ["-x", "-k", "kernels"]):
        suite.run("--hypothesis-profile=ci", *args).assert_outcomes(passed=1)
        seen.append(suite.examples())
    assert seen[0]
    assert len(set(seen)) == 1
    # Where CI is set, Hypothesis takes its ci profile by itself, which knows no seeds.
    suite.run("--hypothesis-profile=default", "--hypothesis-seed=1").assert_outcomes(passed=1)
    assert suite.examples() not in seen


def test_other_options_of_pytest_work(suite: Suite) -> None:
    suite.fuzz()
    suite.pytester.makepyfile(test_other="def test_fine(): pass")
    result = suite.run("-n", "2", "--hypothesis-profile=ci", "--hypothesis-show-statistics")
    result.assert_outcomes(passed=1, failed=1)
    assert list((suite.path / "qfuzz-out").glob("linear-*/case.json"))
    suite.run("--lf", "-x", "--hypothesis-profile=ci").assert_outcomes(failed=1)
    suite.run("-k", "fine").assert_outcomes(passed=1, deselected=1)
    statistics = suite.run("--hypothesis-profile=ci", "--hypothesis-show-statistics", "-k", "kernels").stdout.str()
    assert "test_kernels" in statistics


def test_crashes_are_findings_too(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_fuzz=_dedent("""
    import qfuzz

    def test_death():
        qfuzz.check(qfuzz.load("add.json"), backends=["misbehaving:Aborts"]).raise_for_mismatch()
    """)
    )
    (suite.path / "add.json").write_bytes(CODEC.encode(add_case()))
    result = suite.run("test_fuzz.py")
    result.assert_outcomes(failed=1)
    assert "finding: add/crash/" in result.stdout.str()
    assert list((suite.path / "qfuzz-out").glob("add-crash-*/repro.py"))


def test_known_issues_fail_no_test(suite: Suite) -> None:
    suite.fuzz()
    suite.run("--hypothesis-profile=ci").assert_outcomes(failed=1)
    corpus = suite.path / "corpus"
    corpus.mkdir()
    known = Expectation(FAULT, "violation", signature="linear/violation/*/*", link="not reported", note="planted")
    (corpus / "known.json").write_bytes(CODEC.encode(add_case(), [known]))
    for args in ([], ["-n", "2"]):
        result = suite.run("--hypothesis-profile=ci", "test_fuzz.py", *args)
        result.assert_outcomes(passed=1)
        assert "qfuzz known issues" in result.stdout.str()
        assert "linear/violation" in result.stdout.str()


def test_corpus_files_are_items(suite: Suite) -> None:
    corpus = suite.path / "corpus"
    corpus.mkdir()
    (corpus / "holds.json").write_bytes(CODEC.encode(add_case()))
    (corpus / "other.json").write_text('{"name": "not ours"}')
    pair = ("--qfuzz-backend=reference", f"--qfuzz-backend={FAULT}")
    listed = suite.run("--collect-only", "-q", "corpus", *pair).stdout.str()
    assert "holds.json::reference" in listed
    assert f"holds.json::{FAULT}" in listed
    assert "other" not in listed
    suite.run("corpus", "--qfuzz-backend=reference").assert_outcomes(passed=1)
    suite.run("corpus/holds.json", "-n", "2", "--qfuzz-backend=reference").assert_outcomes(passed=1)
    result = suite.run("corpus", "--qfuzz-backend=misbehaving:Garbage")
    result.assert_outcomes(failed=1)
    assert "add y[0]: got 83, admissible 6" in result.stdout.str()
    assert "qfuzz replay" in result.stdout.str()
    known = Expectation("misbehaving:Garbage", "violation", signature="s", link="not reported", note="planted")
    (corpus / "holds.json").write_bytes(CODEC.encode(add_case(), [known]))
    result = suite.run("corpus", "--qfuzz-backend=misbehaving:Garbage")
    result.assert_outcomes(passed=1)
    assert "1 known issues" in result.stdout.str()
    suite.run("corpus", "--qfuzz-backend=misbehaving:HasNoKernel").assert_outcomes()


def test_a_broken_corpus_file_is_an_error_in_one_line(suite: Suite) -> None:
    corpus = suite.path / "corpus"
    corpus.mkdir()
    (corpus / "bad.json").write_bytes(CODEC.encode(add_case()).replace(b"[0.5]", b"[-0.5]"))
    result = suite.run("corpus", "--qfuzz-backend=reference")
    result.assert_outcomes(errors=1)
    assert "-0.5" in result.stdout.str()


def test_loading_the_plugin_loads_nothing_heavy(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_light=_dedent("""
    import sys

    def test_light():
        assert "qfuzz.pytest_plugin" in sys.modules
        assert not {"torch", "onnxruntime", "numpy", "qfuzz.strategies"} & set(sys.modules)
    """)
    )
    suite.run("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_profiles_are_left_alone(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_profiles=_dedent("""
    from hypothesis import settings

    def test_ci():
        ci = settings.get_profile("ci")
        assert ci.derandomize and ci.database is None and ci.deadline is None

    def test_nightly():
        assert settings.get_profile("nightly").max_examples >= 1000
    """)
    )
    suite.run("--hypothesis-profile=ci").assert_outcomes(passed=2)
    suite.run("--hypothesis-profile=nightly").assert_outcomes(passed=2)


def test_other_failures_are_left_alone(suite: Suite) -> None:
    suite.pytester.makepyfile("def test_fails(): assert 1 == 2")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "finding" not in result.stdout.str()
    assert not Path(suite.path / "qfuzz-out").exists()
