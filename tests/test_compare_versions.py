"""Two real versions of ONNX Runtime compared: what changed, and that a second evaluator says who was right."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from cli_documents import RUN
from slow_evaluator import evaluate, evaluate_node, indices, values_of
from test_cli import qfuzz_says

sys.path.insert(0, str(Path(__file__).parent / "backends"))
from environments import python_with

from qfuzz.backends.discovery import is_installed, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.findings.corpus import read_case
from qfuzz.ir.network import Case, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.oracle.verdicts import BackendVerdict

pytestmark = pytest.mark.skipif(not is_installed("onnxruntime"), reason="ONNX Runtime is not installed")

OLD = "1.22.1"
FORMATS = ("format=qdq&opt=all", "format=qdq&opt=disable")
FEW = ["--seed", "77", "--max-examples", "600", "--jobs", "1", "--json"]
NEAR = Fraction(1, 1024)
"""Of an output step: farther from the rounding of the real result no float32 kernel is on cases as small as these."""
NEAR_FLOAT = Fraction(1, 2**18)
"""Of the real result, where it is stored as a floating-point number: what float32 roundings can lose on the way."""


@pytest.fixture(scope="module", params=FORMATS)
def comparison(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Any, Path]:
    """Specs of the older version and of the installed one, the document, and the folder of its paths."""
    python = python_with(f"onnxruntime=={OLD}", "numpy")
    old, new = f"onnxruntime?{request.param}&python={python}", f"onnxruntime?{request.param}"
    folder = tmp_path_factory.mktemp("versions")
    document = json.loads(qfuzz_says(folder, "compare", old, new, *FEW, code=1))
    jsonschema.Draft202012Validator(RUN).validate(document)
    return old, new, document, folder


def test_it_finds_real_changes(comparison: tuple[str, str, Any, Path]) -> None:
    _, new, document, folder = comparison
    a, b, pair = document["backends"]
    assert (a["version"], b["version"]) == (OLD, load_backend(new).describe()["version"])
    assert a["version"] != b["version"]
    assert pair["verdicts"]["changed"] > 0
    assert pair["verdicts"]["exact"] > 100_000, "most bits are the same"
    assert document["findings"]
    for finding in document["findings"]:
        before, after = finding["cause"].split(" -> ")
        assert {before, after} <= {"right", "wrong", "rejected"}, finding
        report = (folder / finding["path"] / "report.md").read_text()
        assert f"version {OLD}" in report
        assert f"version {b['version']}" in report
    if "disable" in new:
        # Its average pooling divided by fewer than the whole kernel where padding after the data counts, for one.
        assert "wrong -> right" in {f["cause"] for f in document["findings"]}


def test_who_is_right_is_confirmed_by_the_slow_evaluator(comparison: tuple[str, str, Any, Path]) -> None:
    """On the reduced case: what is called right is right in every element, what is called wrong is not."""
    old, new, document, folder = comparison
    confirmed = 0
    with WorkerClient((old, new)) as client:
        for finding in document["findings"]:
            if finding["cause"] == "right -> right":
                continue  # other bits, both of which float32 roundings explain
            case = read_case(folder / finding["path"]).case
            for spec, word in zip((old, new), finding["cause"].split(" -> "), strict=True):
                # Alone, and with inner values exposed, which prevents fusion: check judges both.
                inner = [n.name for n in case.network.nodes if n.name not in case.network.outputs]
                got = {taps: client.values(case, spec, taps) for taps in {(), tuple(inner)}}
                if word == "rejected":
                    assert any(isinstance(values, BackendVerdict) for values in got.values()), (finding, spec)
                    continue
                right = all(is_right(case, taps, values) for taps, values in got.items())
                assert right is (word == "right"), (finding, spec, got)
                confirmed += 1
    assert confirmed


def is_right(case: Case, taps: tuple[str, ...], got: dict[str, np.ndarray[Any, Any]] | BackendVerdict) -> bool:
    """Whether all values asked for are there, and each element is next to the real result of what its node received.

    Where that is exactly a tie it must be the even one, as ONNX has it. What a node received that was not exposed is
    taken to be the exact integers.
    """
    assert not isinstance(got, BackendVerdict), got
    network = case.network
    exact = evaluate(case)
    known = exact | {n: values_of(array, network.types[n].element) for n, array in (case.arrays | got).items()}
    for node in network.nodes:
        if node.name not in got:
            if node.name in (*taps, *network.outputs):
                return False
            continue
        values = got[node.name]
        if values.shape != exact[node.name].shape or values.dtype != network.types[node.name].dtype:
            return False
        result = evaluate_node(node, [known[i] for i in node.inputs])
        for index in indices(values.shape):
            if result.is_float:
                if not result.is_nearly(index, float(values[index]), NEAR_FLOAT):
                    return False
                continue
            low, high = result.unrounded(index)
            is_tie = low == high and (low - Fraction(1, 2)).denominator == 1
            element = int(values[index])
            if (
                element != result.correct(index)
                if is_tie
                else result.excess(index, element) > NEAR + bias_rounding(network, node)
            ):
                return False
    return True


def bias_rounding(network: Network, node: Node) -> Fraction:
    """In output steps, what rounding a float32 bias to int32 does, as ONNX Runtime documents."""
    if len(node.inputs) < 3 or network.types[node.inputs[2]].element != "float32":
        return Fraction(0)
    x, w = (network.types[i].element for i in node.inputs[:2])
    assert isinstance(x, QType)
    assert isinstance(w, QType)
    assert isinstance(node.element, QType)
    return Fraction(x.scale[0]) * Fraction(max(w.scale)) / Fraction(node.element.scale[0]) / 2


@pytest.mark.parametrize("options", ["", *FORMATS])
def test_a_version_does_not_differ_from_itself(options: str, tmp_path: Path) -> None:
    """Here and in another process of the same Python: what differs between versions is the versions'."""
    here = f"onnxruntime?{options}" if options else "onnxruntime"
    there = f"{here}{'&' if options else '?'}python={sys.executable}"
    document = json.loads(qfuzz_says(tmp_path, "compare", here, there, *FEW))
    a, b, pair = document["backends"]
    assert a["version"] == b["version"]
    assert document["findings"] == []
    assert pair["verdicts"]["changed"] == 0
    assert pair["verdicts"]["exact"] > 50_000
    assert pair["examples"] >= 120
