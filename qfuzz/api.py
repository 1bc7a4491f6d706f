"""The Python API: names are resolved here, cases run isolated where they can be."""

import atexit
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.discovery import canonical, default_specs, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.conclude import Lab
from qfuzz.findings.corpus import KnownIssue, known_as, known_issues, read_case
from qfuzz.findings.files import write_file
from qfuzz.findings.finding import Finding
from qfuzz.findings.seen import KNOWN_SEEN
from qfuzz.findings.signature import signature_of, symptom_of
from qfuzz.ir.errors import BackendMissing, InvalidCase, WorkerFailed
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend
from qfuzz.ops import CODEC
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import BackendVerdict, Verdicts
from qfuzz.reduce.driver import MAX_ATTEMPTS


def check(case: Case, backends: Sequence[str | Backend] = (), *, tap: bool = True) -> Verdicts:
    """Judge `case` on each backend.

    Parameters
    ----------
    case
        What to run.
    backends
        Specs (``"torch-fbgemm"``, ``"onnxruntime?format=qdq"``, ``"module:Class"``) run in a worker process, so that a
        crash or a hang is a verdict; `Backend` objects run in this process. Empty: all installed of the default set.
    tap
        Whether intermediate values are exposed and judged, too.

    Raises
    ------
    BackendMissing
        For a backend that cannot be had here.
    """
    chosen: Sequence[str | Backend] = backends or default_specs()
    if not chosen:
        raise BackendMissing("no backend is installed; pip install 'qfuzz[torch]' or 'qfuzz[onnxruntime]'")
    names = tuple(canonical(b) for b in chosen if isinstance(b, str))
    isolated = iter(_isolated(case, names, tap).backends) if names else iter(())
    reference = Reference(case)
    verdicts = tuple(
        next(isolated) if isinstance(b, str) else check_one(case, b, reference, tap=tap, explain=cause_of)
        for b in chosen
    )
    return Verdicts(verdicts, reference.seconds, case=case, known=_known(case, verdicts, names))


CORPUS_VARIABLE = "QFUZZ_CORPUS"
"""Environment variable: folders whose case files list known issues, separated as in PATH."""


def _known(case: Case, verdicts: Sequence[BackendVerdict], specs: Sequence[str]) -> tuple[str, ...]:
    """Backends that are accused of a known issue."""
    accused = [v for v in verdicts if v.is_finding and v.backend in specs]
    if not accused:
        return ()
    issues = _issues(os.environ.get(CORPUS_VARIABLE, ""))
    described = _worker(os.getpid(), tuple(specs)).described if issues else {}
    known = []
    for v in accused:
        signature = signature_of(case, symptom_of(v))
        issue = known_as(issues, signature, v.backend, described[v.backend]) if issues else None
        if issue is not None:
            known.append(v.backend)
            seen = KNOWN_SEEN.get()
            if seen is not None:
                seen.append(f"{v.backend}: {issue.expectation.signature} ({issue.expectation.link or 'not reported'})")
    return tuple(known)


@cache
def _issues(folders: str) -> tuple[KnownIssue, ...]:
    return known_issues([p for p in map(Path, folders.split(os.pathsep)) if folders and p.is_dir()])


def _isolated(case: Case, specs: tuple[str, ...], tap: bool) -> Verdicts:
    try:
        return _worker(os.getpid(), specs).check(case, specs, tap=tap)
    except WorkerFailed:
        _worker.cache_clear()  # a lost worker is replaced once; a second loss is the caller's to see
        return _worker(os.getpid(), specs).check(case, specs, tap=tap)


@cache
def _worker(pid: int, specs: tuple[str, ...]) -> WorkerClient:
    """The worker of this process for these backends, kept for the next case."""
    client = WorkerClient(specs)
    atexit.register(client.close)
    return client


def reduce(case: Case, backend: str, *, max_attempts: int = MAX_ATTEMPTS) -> Finding:
    """The smallest case that `backend` still fails on as it fails on `case`, with its signature.

    Raises
    ------
    InvalidCase
        Where the backend is not accused of anything on `case`.
    """
    spec = canonical(backend)
    with WorkerClient((spec,)) as client:
        lab = Lab(client, (), max_attempts)
        verdict = lab.judge(case, spec)
        if not verdict.is_finding:
            raise InvalidCase(
                f"{spec} is not accused of anything on this case: {verdict.verdict} {verdict.reason}".strip()
            )
        finding = lab.finding(case, spec, symptom_of(verdict), first_example=None, reduce=True)
    if finding is None:
        raise WorkerFailed(f"{spec}: the {verdict.verdict} did not show again")
    return finding


def backend(spec: str) -> Backend:
    """The backend that `spec` names, in this process."""
    return load_backend(spec)


def load(path: str | Path) -> Case:
    """The case in a file, or in a finding's folder."""
    return read_case(Path(path)).case


def save(case: Case, path: str | Path) -> None:
    """Write `case` to a file, whole or not at all."""
    write_file(Path(path), CODEC.encode(case))
