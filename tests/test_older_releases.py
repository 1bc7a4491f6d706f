"""Positive controls: bugs of older releases of ONNX Runtime, which the generator finds without being told of them.

A control is a release, a family of operators, and what is wrong there. A campaign runs the same cases on that release
and on the installed one. It must find every bug of the control there and none of them here, and what it finds must
convince without qfuzz's reference: the reproducer fails with the old release and passes with this one, and the slow
evaluator says the same of both.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from cli_documents import RUN
from packaging.version import Version
from test_cli import qfuzz_says
from test_compare_versions import is_right

sys.path.insert(0, str(Path(__file__).parent / "backends"))
from environments import python_with

from qfuzz.backends.discovery import is_installed, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.findings.corpus import read_case
from qfuzz.ir.network import Case
from qfuzz.oracle.verdicts import BackendVerdict

pytestmark = pytest.mark.skipif(not is_installed("onnxruntime"), reason="ONNX Runtime is not installed")

SEED = 3
UPSTREAM = "https://github.com/microsoft/onnxruntime"


class Fixed(NamedTuple):
    """A bug of a release, and what became of it.

    Attributes
    ----------
    name
        In a word.
    signature
        Shell glob over signatures of findings, as ``qfuzz run`` prints them.
    right_since
        The first release that is right, by running it.
    source
        The upstream thread of the fix; else the file whose change it is, where no thread could be found.
    what
        What was wrong.
    machines
        Where it shows; empty for everywhere.
    """

    name: str
    signature: str
    right_since: str
    source: str
    what: str
    machines: tuple[str, ...] = ()


class Control(NamedTuple):
    """An older release, what a campaign is told, and what it must find.

    Attributes
    ----------
    ops
        A family of operators; empty for all.
    forms
        Options of the backend.
    examples
        In so many the rarest of the bugs shows some four times, whatever the seed.
    """

    release: str
    ops: tuple[str, ...]
    forms: tuple[str, ...]
    examples: int
    bugs: tuple[Fixed, ...]


POOLING = ("*pool*",)
FUNCTIONS = ("sigmoid", "tanh", "elu", "hard*", "leaky_relu", "softmax")
ALL: tuple[str, ...] = ()

CONTROLS = (
    Control(
        "1.22.1",
        POOLING,
        ("format=qdq&opt=disable",),
        1500,
        (
            Fixed(
                "avg-pool-end-padding",
                "avg_pool/violation/*padding*",
                "1.25.0",
                f"{UPSTREAM}/pull/27375",
                "AveragePool with count_include_pad takes the padding at the end from the wrong dimension",
            ),
        ),
    ),
    Control(
        "1.22.1",
        ALL,
        ("format=qdq&opt=all",),
        600,
        (
            Fixed(
                "lost-output",
                "*/violation/malformed/*with relu*",
                "1.31.0",
                "QDQFinalCleanupTransformer, without which it is right; no thread found",
                "a value that is also an output is not returned where the operator after it is optimized away",
            ),
        ),
    ),
    Control(
        "1.28.0",
        FUNCTIONS,
        ("", "format=qdq&opt=all"),
        1500,
        (
            Fixed(
                "int8-softmax",
                "softmax/violation/clamp-before-zero-point/int8->int8*",
                "1.29.0",
                f"{UPSTREAM}/pull/29728",
                "QLinearSoftmax of int8 is clamped at 255 and wraps: 127 becomes -128",
            ),
            Fixed(
                "softmax-of-one",
                "softmax/violation/int32-overflow/uint8->uint8*",
                "1.32.0",
                "contrib_ops/cpu/quantization/qlinear_softmax.cc: exp(83.7) / y_scale leaves float32; no thread found",
                "QLinearSoftmax over an axis of one element gives 0, not 255",
                ("x86_64", "AMD64"),  # what a float32 infinity is as an integer is each processor's own choice
            ),
            Fixed(
                "lost-output",
                "network/rejected/load runtimeerror failed to find node/*",
                "1.31.0",
                "QDQFinalCleanupTransformer, without which it is right; no thread found",
                "what 1.22 loses, which a session notices since 1.23 and does not load",
            ),
        ),
    ),
)


class Campaign(NamedTuple):
    """What was run: its other Python, the document of ``qfuzz run``, the folder that its paths are in."""

    python: str
    document: dict[str, Any]
    folder: Path


def spec(form: str, python: str = "") -> str:
    """The backend in that form; in another Python, where one is named."""
    options = "&".join(o for o in (form, f"python={python}" if python else "") if o)
    return f"onnxruntime?{options}" if options else "onnxruntime"


def installed() -> str:
    return load_backend("onnxruntime").describe()["version"]


@pytest.fixture(scope="module")
def campaign_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Control], Campaign | str]:
    """The campaign of a control, or why there can be none; it is run once."""

    @cache
    def once(control: Control) -> Campaign | str:
        try:
            python = python_with(f"onnxruntime=={control.release}", "numpy")
        except pytest.skip.Exception as e:
            return str(e)
        return run_campaign(control, python, tmp_path_factory.mktemp(f"control-{control.release}"))

    return once


def run_campaign(control: Control, python: str, folder: Path) -> Campaign:
    """Each backend there is followed by the same one here."""
    backends = [option for form in control.forms for p in (python, "") for option in ("-b", spec(form, p))]
    ops = [option for pattern in control.ops for option in ("--ops", pattern)]
    bounds = ["--seed", str(SEED), "--max-examples", str(control.examples), "--invalid", "0"]
    document = json.loads(qfuzz_says(folder, "run", *backends, *ops, *bounds, "--json", code=1))
    jsonschema.Draft202012Validator(RUN).validate(document)
    assert [b["version"] for b in document["backends"]] == [control.release, installed()] * len(control.forms)
    for backend in document["backends"]:
        assert backend["verdicts"]["exact"] > 10_000, "most of it is right"
    return Campaign(python, document, folder)


@pytest.mark.parametrize(
    ("control", "bug"), [pytest.param(c, bug, id=f"{c.release}-{bug.name}") for c in CONTROLS for bug in c.bugs]
)
def test_a_bug_that_is_fixed_here_is_found_there(
    control: Control, bug: Fixed, campaign_of: Callable[[Control], Campaign | str]
) -> None:
    if Version(installed()) < Version(bug.right_since):
        pytest.skip(f"ONNX Runtime {installed()} is installed; {bug.right_since} is the first to be right")
    if bug.machines and platform.machine() not in bug.machines:
        pytest.skip(f"this is a {platform.machine()}; it shows on {', '.join(bug.machines)}")
    campaign = campaign_of(control)
    if isinstance(campaign, str):
        pytest.skip(campaign)
    signatures = [f["signature"] for f in campaign.document["findings"]]
    findings = [f for f in campaign.document["findings"] if fnmatchcase(f["signature"], bug.signature)]
    assert findings, (bug, signatures)
    for finding in findings:
        assert all(f"python={campaign.python}" in backend for backend in finding["backends"]), finding
        case = read_case(campaign.folder / finding["path"]).case
        here = finding["backend"].partition(f"python={campaign.python}")[0].rstrip("?&")
        with WorkerClient((finding["backend"], here)) as client:
            there, ours = client.check(case).backends
            assert there.verdict == finding["verdict"], finding
            assert ours.verdict in ("exact", "admissible"), (finding, ours)
            assert not slowly_right(client, case, finding["backend"])
            assert slowly_right(client, case, here)
        repro = campaign.folder / finding["path"] / "repro.py"
        assert [exit_code(p, repro) for p in (campaign.python, sys.executable)] == [1, 0], repro.read_text()


def slowly_right(client: WorkerClient, case: Case, backend: str) -> bool:
    """Whether the slow evaluator finds all values right: of the outputs alone, and with inner values exposed."""
    inner = tuple(n.name for n in case.network.nodes if n.name not in case.network.outputs)
    got = {taps: client.values(case, backend, taps) for taps in {(), inner}}
    return all(not isinstance(v, BackendVerdict) and is_right(case, taps, v) for taps, v in got.items())


def exit_code(python: str, script: Path) -> int:
    done = subprocess.run([python, "-I", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode
