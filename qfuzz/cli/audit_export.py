"""Violations of an audit as finding folders: reduced where the kernel alone shows them, else cut to one element."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qfuzz import api
from qfuzz.audit.cut import cut, is_cut
from qfuzz.audit.outcome import Violation
from qfuzz.backends.discovery import load_backend
from qfuzz.findings.finding import Finding, write_finding
from qfuzz.findings.signature import signature_of, symptom_of
from qfuzz.ir.errors import BackendMissing, InvalidCase, WorkerFailed
from qfuzz.ir.network import Case
from qfuzz.oracle.check import classify
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import BackendVerdict, Counts, Kind, Mismatch, Outcome


def export(violations: Sequence[Violation], folder: Path) -> list[dict[str, Any]]:
    """Write a folder for each violation; where it is, and how it was made.

    Returns
    -------
    list
        Documents of ``layer``, ``path`` and ``made``: ``reduced``, ``cut to one element`` or ``whole layer``.
    """
    return [_exported(v, folder) for v in violations]


def _exported(violation: Violation, folder: Path) -> dict[str, Any]:
    case = violation.decoded()
    finding = _reduced(case, violation.spec)
    made = "reduced"
    if finding is None:
        finding = _as_it_ran(case, violation)
        made = "cut to one element" if is_cut(finding.case) else "whole layer"
    backend = load_backend(finding.backend) if violation.spec else None
    path = write_finding(folder, finding, backend)
    return {"layer": violation.layer, "path": str(path), "made": made}


def _reduced(case: Case, spec: str) -> Finding | None:
    """The smallest case that the backend fails on alone, if it does."""
    if not spec:
        return None
    try:
        return api.reduce(case, spec)
    except (InvalidCase, BackendMissing, WorkerFailed):
        return None


def _as_it_ran(case: Case, violation: Violation) -> Finding:
    """What the model's own kernel returned, which its backend alone does not show."""
    index = violation.index
    small = case if violation.got is None else cut(case, index)
    index = (0,) * len(index) if is_cut(small) else index
    verdict = _verdict(small, index, violation)
    spec = violation.spec or violation.kernel
    signature = signature_of(small, symptom_of(verdict))
    return Finding(
        signature=signature,
        case=small,
        backend=spec,
        backends=(spec,),
        verdict=verdict,
        environment={},
        reduction="none",
    )


def _verdict(case: Case, index: tuple[int, ...], violation: Violation) -> BackendVerdict:
    (node,) = case.network.nodes
    type_ = case.network.types[node.name]
    backend = violation.spec or violation.kernel
    if violation.got is None:
        mismatch = Mismatch(node.name, node.op.name, True, (), problem="it cannot be compared")
        kind = Kind.MALFORMED
    else:
        feeds = case.feeds
        arrays = [feeds[i].array if i in feeds else None for i in node.inputs]
        allowed = Reference(case).node(node, arrays, violation.contract)
        exact = None if allowed.exact is None else float(allowed.exact[index])
        low, high = float(allowed.lo[index]), float(allowed.hi[index])
        mismatch = Mismatch(node.name, node.op.name, True, index, violation.got, low, high, exact)
        got = np.array(allowed.lo if allowed.exact is None else allowed.exact, dtype=np.float64)
        got[index] = violation.got
        kind = classify(got, allowed, np.array([index]).reshape(1, -1), type_)
    return BackendVerdict(
        backend,
        Outcome.JUDGED,
        op=node.op.name,
        cause=violation.cause,
        kind=kind,
        counts=Counts(violation=1),
        mismatches=(mismatch,),
    )
