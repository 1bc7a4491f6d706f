"""The README's samples run as they stand."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import qfuzz
from qfuzz.backends.onnx_coverage import summary
from qfuzz.backends.onnx_kernels import ask_runtime
from qfuzz.backends.torch_matrix import summary as torch_summary
from qfuzz.backends.torch_operators import ask_torch

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def _block(containing: str) -> str:
    return next(b for b in BLOCKS if containing in b)


def test_the_fuzz_test_of_the_readme(pytester: pytest.Pytester) -> None:
    for framework in ("torch", "onnxruntime"):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
    pytester.makepyfile(test_kernels=_block("def test_kernels"))
    result = pytester.runpytest_subprocess("--hypothesis-profile=ci", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_the_backend_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mykernels.py").write_text(_block("class Doubler"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mykernels", raising=False)
    q = qfuzz.QType.per_tensor("uint8", 0.5, 3)
    import numpy as np

    from qfuzz.ops import Add

    kind = qfuzz.TensorType((4,), q)
    node = qfuzz.Node("y", Add(), ("a", "b"), q)
    network = qfuzz.Network((qfuzz.Input("a", kind), qfuzz.Input("b", kind)), (), (node,), ("y",))
    data = (np.array([0, 3, 100, 255], dtype=np.uint8), np.array([9, 3, 200, 255], dtype=np.uint8))
    case = qfuzz.Case(network, tuple(qfuzz.Tensor(a) for a in data))
    (verdict,) = qfuzz.check(case, backends=[qfuzz.backend("mykernels:Doubler")]).backends
    assert verdict.verdict == "exact"


def test_the_counts_of_the_readme_are_those_of_the_runtime() -> None:
    for framework in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
    runtime = ask_runtime()
    said = " ".join(README.read_text(encoding="utf-8").split())
    if f"ONNX Runtime {runtime.version}" not in said:
        pytest.skip(f"the README tells of another release than the installed {runtime.version}")
    assert summary(runtime) in said, f"README.md is to say: {summary(runtime)}"


def test_the_counts_of_the_readme_are_those_of_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    torch = ask_torch()
    release = torch.version.partition("+")[0]
    said = " ".join(README.read_text(encoding="utf-8").split())
    if f"PyTorch {release} that" not in said:
        pytest.skip(f"the README tells of another release than the installed {release}")
    assert torch_summary(torch) in said, f"README.md is to say: {torch_summary(torch)}"
