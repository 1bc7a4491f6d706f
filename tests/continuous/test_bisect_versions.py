"""`scripts/bisect-versions`: binary search as a law, a kernel of many versions, and real releases of ONNX Runtime."""

import itertools
import re
import sys
from pathlib import Path

import pytest
from small_cases import linear_case

from scripts import QFUZZ, ROOT, environment, loaded, run

sys.path.insert(0, str(ROOT / "tests" / "backends"))
from environments import folder as shared_folder
from environments import python_with

from qfuzz.backends.discovery import is_installed
from qfuzz.ops import CODEC

SEARCH = ["--ops", "linear", "--max-nodes", "1", "--max-examples", "30", "--seed", "5", "--jobs", "1"]
KNOWN = ROOT / "corpus" / "known"


@pytest.mark.parametrize("n", range(2, 8))
def test_the_search_finds_the_change_whatever_is_skipped(n: int) -> None:
    """For every place of the change and every set of skipped versions; no version is asked twice, nor an end."""
    bisect = loaded("bisect-versions").bisect
    versions = [f"v{i}" for i in range(n)]
    for change in range(1, n):
        for skipped in itertools.product([False, True], repeat=n - 2):
            silent = {i for i, s in enumerate(skipped, 1) if s}
            asked: list[int] = []

            def ask(
                version: str, change: int = change, silent: set[int] = silent, asked: list[int] = asked
            ) -> bool | None:
                asked.append(versions.index(version))
                return None if asked[-1] in silent else asked[-1] >= change

            place = bisect(versions, ask)
            old, new = versions.index(place.old), versions.index(place.new)
            assert old < change <= new
            assert [versions.index(v) for v in place.between] == list(range(old + 1, new))
            assert set(range(old + 1, new)) <= silent, "else more could be known"
            assert len(asked) == len(set(asked)) <= n - 2
            if not silent:
                assert len(asked) <= (n - 1).bit_length()


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    """Options that give an environment for each version of `versioned:Kernel`."""
    names = ["1.0", "2.0", "2.5", "2.7", "3.0", "4.0", "5.0", "6.0"]
    given = []
    for name in names:
        python = tmp_path / "envs" / name / "python"
        python.parent.mkdir(parents=True)
        python.touch()
        given += ["--python", f"{name}={python}"]
    return ["torch", "-b", "versioned:Kernel", "--versions", ",".join(names), *given, "--qfuzz", QFUZZ]


def bisected(folder: Path, *args: str, code: int) -> tuple[str, str]:
    paths = f"{Path(__file__).parent}:{environment()['PYTHONPATH']}"
    done = run("bisect-versions", *args, cwd=folder, env=environment(PYTHONPATH=paths))
    assert done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout, done.stderr


def test_what_comparing_finds_is_followed(tmp_path: Path, versions: list[str]) -> None:
    said, asked = bisected(tmp_path, *versions, "--good", "1.0", "--bad", "4.0", "--", *SEARCH, code=3)
    assert re.search("30 cases compared between 1.0 and 4.0, seed 5: 1 regressed, [01] other changes", said)
    assert "linear/changed/right -> wrong/" in said
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("    ")}
    assert rows["1.0"].split() == ["right", "exact"]
    assert rows["2.5"] == "skipped  unsupported: no operators yet"
    assert rows["2.7"] == "skipped  version 2.7 does not load: no such library"
    assert rows["4.0"] == "wrong    violation: truncation"
    assert "the first bad version is one of 2.5, 2.7, 3.0; only skipped ones are left" in said, "as git bisect has it"
    assert "asked 2.5: skipped" in asked


def test_a_version_is_named_where_none_is_skipped(tmp_path: Path, versions: list[str]) -> None:
    few = ["--versions", "1.0,2.0,3.0,4.0"]
    said, _ = bisected(tmp_path, *versions, *few, "--", *SEARCH, code=0)
    assert said.endswith("3.0 is the first bad version; 2.0 is the last before it\n")
    (case,) = (tmp_path / "qfuzz-bisect").glob("linear-changed-right-wrong-*/case.json")
    said, _ = bisected(tmp_path, *versions, *few, "--case", str(case), code=0)
    assert said.endswith("3.0 is the first bad version; 2.0 is the last before it\n")


def test_the_version_that_fixed_it(tmp_path: Path, versions: list[str]) -> None:
    fixed = ["--good", "3.0", "--bad", "5.0", "--changes", "fixed"]
    said, _ = bisected(tmp_path, *versions, *fixed, "--", *SEARCH, code=0)
    assert said.endswith("5.0 is the first fixed version; 4.0 is the last before it\n")


def test_no_difference(tmp_path: Path, versions: list[str]) -> None:
    said, _ = bisected(tmp_path, *versions, "--good", "1.0", "--bad", "2.0", "--", *SEARCH, code=1)
    assert "0 regressed, 0 other changes" in said
    case = tmp_path / "case.json"
    case.write_bytes(CODEC.encode(linear_case()))
    said, _ = bisected(tmp_path, *versions, "--good", "1.0", "--bad", "5.0", "--case", str(case), code=1)
    assert "no difference to follow: right in 1.0 and right in 5.0" in said


def test_an_end_that_says_nothing(tmp_path: Path, versions: list[str]) -> None:
    case = tmp_path / "case.json"
    case.write_bytes(CODEC.encode(linear_case()))
    _, error = bisected(tmp_path, *versions, "--good", "1.0", "--bad", "6.0", "--case", str(case), code=3)
    assert "6.0 cannot be judged, so nothing is known at that end: skipped: unsupported: no operators yet" in error
    _, error = bisected(tmp_path, *versions, "--good", "1.0", "--bad", "6.0", "--", *SEARCH, code=3)
    assert re.search("of 30 cases, 1.0 has kernels for [1-9][0-9]*, 6.0 has kernels for 0; none can be compared", error)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--versions", "1.0,2.0", "--good", "3.0"], "3.0 is none of the versions 1.0, 2.0"),
        (["--good", "2.0", "--bad", "1.0"], "--good 2.0 must be older than --bad 1.0"),
        (["--python", "1.0"], "VERSION=PATH"),
        (["--case", "nowhere.json"], "nowhere.json: no such file"),
        (["-b", "versioned:Kernel?python=x"], "python="),
        (["--", "--ops", "no_such_operator"], "no_such_operator"),
        (["--case", "x", "--", "--seed", "3"], "--case is judged as it is"),
    ],
)
def test_bad_usage(tmp_path: Path, versions: list[str], args: list[str], named: str) -> None:
    _, error = bisected(tmp_path, *versions, *args, code=2)
    assert named in error
    assert not (tmp_path / "qfuzz-bisect").exists()


@pytest.mark.skipif(not is_installed("onnxruntime?python=x"), reason="onnx is not installed")
def test_a_real_regression_in_onnx_runtime(tmp_path: Path) -> None:
    """MatMulAddFusion's Reshape, since 1.27. The script's own pip makes the environments, and cannot make one."""
    old = python_with("onnxruntime==1.22.1", "numpy")
    options = ["--versions", "1.22.1,1.25.9999,1.26.0,1.27.0", "--python", f"1.22.1={old}", "--qfuzz", QFUZZ]
    said, error = bisected(
        tmp_path,
        *("onnxruntime", "-b", "onnxruntime?format=qdq&opt=all", *options),
        *("--cache", str(shared_folder() / "bisect"), "--case", str(KNOWN / "ort_linear_bias_int8_rank_3.json")),
        code=0,
    )
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if line.startswith("    ")}
    assert rows == {"1.22.1": "right", "1.25.9999": "skipped", "1.26.0": "right", "1.27.0": "wrong"}
    assert "1.25.9999: skipped: cannot be installed" in error
    assert said.endswith("1.27.0 is the first bad version; 1.26.0 is the last before it\n")


@pytest.mark.skipif(not is_installed("onnxruntime?python=x"), reason="onnx is not installed")
def test_a_real_fix_in_onnx_runtime(tmp_path: Path) -> None:
    """AveragePool with padding after the data, as comparing finds it: wrong in 1.22.1, right in 1.26.0."""
    pythons = [f"{v}={python_with(f'onnxruntime=={v}', 'numpy')}" for v in ("1.22.1", "1.26.0")]
    said, _ = bisected(
        tmp_path,
        *("onnxruntime", "-b", "onnxruntime?format=qdq&opt=disable", "--changes", "fixed", "--qfuzz", QFUZZ),
        *("--versions", "1.22.1,1.26.0", *(x for p in pythons for x in ("--python", p))),
        *("--", "--ops", "avg_pool", "--max-nodes", "1", "--max-examples", "100", "--seed", "77", "--jobs", "1"),
        code=0,
    )
    assert "avg_pool/changed/wrong -> right/" in said
    assert said.endswith("1.26.0 is the first fixed version; 1.22.1 is the last before it\n")
