"""Near-legal calls of torch: each change that the table says is made, and the float twin tells what is invalid."""

import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qfuzz.backends.torch_dialect import ENGINES, lower_eager
from qfuzz.backends.torch_float import FLOAT, PACKERS
from qfuzz.backends.torch_invalid import changed, kinds_of
from qfuzz.backends.torch_mutations import DOCUMENTED, MUTATIONS
from qfuzz.campaign.client import WorkerClient
from qfuzz.findings.reproducers import reproducer_files
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import INVALID
from qfuzz.ir.network import Case
from qfuzz.oracle.verdicts import Outcome
from qfuzz.strategies import cases_of

pytest.importorskip("torch")

SPECS = (*(f"torch-{e}" for e in ENGINES), "torch-export")


def _cases() -> dict[tuple[str, str], Case]:
    """Operator and kind to the first case drawn of them."""
    found: dict[tuple[str, str], Case] = {}
    for shard in range(6):
        for c in cases_of(12, shard, invalid=1.0):
            if c.network.is_invalid:
                found.setdefault((c.network.nodes[0].op.name, c.network.form("invalid")), c)
    return found


CASES = _cases()


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerClient]:
    with WorkerClient(SPECS) as client:
        yield client


def test_the_table_and_the_forms_name_the_same_kinds() -> None:
    assert {m.kind for m in MUTATIONS} == set(INVALID[1:])
    assert all(kind in {m.kind for m in MUTATIONS} for kind in DOCUMENTED)


def test_each_change_is_one_of_an_argument_or_of_a_shape() -> None:
    for m in MUTATIONS:
        assert (m.change is None) != (m.reshape is None), m


def test_every_changed_call_has_a_float_twin_or_a_text() -> None:
    for m in MUTATIONS:
        for target in m.targets:
            names = [*FLOAT, *PACKERS] if "quantized" in target or "onednn" in target else [target]
            assert fnmatch.filter(names, target) or m.kind in DOCUMENTED or m.text, f"{m.kind}: {target}"


def test_each_change_leaves_the_valid_calls_alone() -> None:
    for case in CASES.values():
        try:
            calls = lower_eager(case.network, "fbgemm")
        except Unsupported:
            continue
        for kind in kinds_of(calls, case.network):
            assert changed(calls, case.network, kind) != calls
        assert lower_eager(case.network, "fbgemm") == calls


@pytest.mark.parametrize("key", list(CASES), ids="-".join)
def test_it_is_refused_or_a_finding(key: tuple[str, str], worker: WorkerClient) -> None:
    right = {Outcome.REFUSED, Outcome.UNSUPPORTED}
    wrong = {Outcome.ACCEPTED_INVALID, Outcome.CRASH, Outcome.HANG, Outcome.CORRUPTED}
    verdicts = worker.check(CASES[key], SPECS).backends
    for v in verdicts:
        print(v.backend, v.verdict, v.reason)
        assert v.outcome in right | wrong, v.reason
        assert v.counts.total == 0


def test_float32_takes_nearly_all_as_they_are(worker: WorkerClient) -> None:
    """Not all: it refuses an instance norm of one value, say, and has no pruned embeddings."""
    said = [v for c in CASES.values() for v in worker.check(c, SPECS[:1]).backends]
    refused = [v.reason for v in said if "refuses the network as it is" in v.reason]
    print(*refused, sep="\n")
    assert len(refused) < 0.05 * len(said)


def test_the_float_twin_of_a_valid_case_is_taken(worker: WorkerClient) -> None:
    """Where nothing is changed that matters, it is said so: a kernel of one element has no dilation."""
    drawn = (c for shard in range(1, 9) for c in cases_of(5, shard, ops=("conv",), max_nodes=1, invalid=1.0))
    case = next(c for c in drawn if c.network.form("invalid") == "large_window" and _kernel(c) == {1})
    (v,) = worker.check(case, SPECS[:1]).backends
    assert (v.outcome, "valid after all" in v.reason) == (Outcome.UNSUPPORTED, True)


def _kernel(case: Case) -> set[int]:
    network = case.network
    return set(network.types[network.nodes[0].inputs[1]].shape[2:])


def test_a_reproducer_shows_that_float32_is_refused(worker: WorkerClient, tmp_path: Path) -> None:
    from qfuzz import backend

    shown = 0
    for (op, kind), case in CASES.items():
        (v,) = worker.check(case, SPECS[:1]).backends
        if kind in DOCUMENTED or v.outcome not in (Outcome.ACCEPTED_INVALID, Outcome.CRASH) or shown >= 3:
            continue
        shown += 1
        files = reproducer_files(
            case, v, backend=backend(SPECS[0]), spec=SPECS[0], signature="s", backends=SPECS[:1], described={}
        )
        assert "model.onnx" not in files
        path = tmp_path / f"{op}-{kind}.py"
        path.write_bytes(files["repro.py"])
        run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=100)
        assert run.returncode == 1, run.stderr
        assert run.stdout.startswith("on float32: ")
        assert ("it died" if v.outcome is Outcome.CRASH else "accepted, though it is invalid") in run.stdout
    assert shown == 3
