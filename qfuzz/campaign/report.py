"""A campaign as documents: what ``run --json`` promises, and the record that the HTML page shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qfuzz
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import FoundCase
from qfuzz.campaign.record import Record
from qfuzz.campaign.state import Snapshot, read_snapshot
from qfuzz.campaign.tally import BackendTally, Tally
from qfuzz.ops import CODEC

Described = Mapping[str, Mapping[str, str]]
MACHINE = ("machine", "cpu", "cpu_flags", "ftz")
"""Facts of the environment that are the same for all backends."""


def as_document(
    plan: Plan,
    tally: Tally,
    described: Described,
    findings: Mapping[str, FoundCase],
    paths: Mapping[str, str],
    *,
    seconds: float,
    stopped: str,
    lost: Mapping[int, str],
    errors: int,
) -> dict[str, Any]:
    """The JSON document, schema 1. `findings` and `paths` (of their folders) are by signature."""
    staged = {name: round(spent, 6) for name, spent in tally.seconds.items()}
    # Stages add up over jobs; what is left of the wall time (start-up, pipes, waiting) is other.
    staged["other"] = round(max(0.0, seconds - sum(staged.values())), 6)
    machine = next(iter(described.values()), {})
    by_name = {facts["name"]: facts for facts in described.values()}
    ordered = sorted(findings.values(), key=lambda f: (f.first_example or 0, f.signature.text))
    return {
        "schema": 1,
        "qfuzz": qfuzz.__version__,
        "environment": {k: v for k, v in machine.items() if k in MACHINE},
        "seed": plan.seed,
        "examples": tally.examples,
        "elements": tally.elements,
        "seconds": round(seconds, 3),
        "stopped": stopped,
        "stage_seconds": staged,
        "reference": {"decided": tally.decided, "refined": tally.refined},
        "draws": {"drawn": tally.draws, "rejected": tally.draws_rejected},
        "worker_deaths": tally.deaths,
        "features": len(tally.features),
        "lost_shards": {str(shard): why for shard, why in sorted(lost.items())},
        "errors": errors,
        "backends": [
            _backend(name, by_name.get(name, {}), b)
            for name, b in ({n: BackendTally() for n in by_name} | tally.backends).items()
        ],
        "findings": [_finding(f, paths.get(f.signature.text, "")) for f in ordered],
    }


def _backend(name: str, facts: Mapping[str, str], b: BackendTally) -> dict[str, Any]:
    return {
        "name": name,
        "version": facts.get("version", ""),
        "examples": b.examples,
        "unsupported": b.unsupported,
        "elements": b.elements,
        "verdicts": b.verdicts | {"unsupported": b.unsupported},
        "compile_seconds": round(b.compile_seconds, 6),
        "run_seconds": round(b.run_seconds, 6),
    }


def _finding(f: FoundCase, path: str) -> dict[str, Any]:
    case = CODEC.decode(f.case).case
    return {
        "signature": f.signature.text,
        "backend": f.backend,
        "backends": list(f.backends),
        "op": f.signature.symptom.op,
        "verdict": f.signature.symptom.verdict,
        "cause": f.signature.symptom.cause or None,
        "known": bool(f.known),
        "path": path,
        "nodes": len(case.network.nodes),
        "elements": case.n_elements,
        "first_example": f.first_example,
        "reduction": f.reduction,
    }


def document_of(snapshot: Snapshot) -> dict[str, Any]:
    """The document of a campaign on disk, finished or not."""
    return as_document(
        snapshot.plan,
        snapshot.tally,
        snapshot.described,
        snapshot.findings,
        snapshot.paths,
        seconds=snapshot.seconds,
        stopped=snapshot.stopped,
        lost=snapshot.lost,
        errors=snapshot.errors,
    )


def read_record(folder: Path) -> Record:
    """The campaign in `folder` as a report shows it; raises `InvalidCase` as `read_snapshot` does."""
    snapshot = read_snapshot(folder)
    backends = snapshot.tally.backends
    return Record(
        document=document_of(snapshot),
        described=snapshot.described,
        by_op={name: b.by_op for name, b in backends.items()},
        steps={name: {0: b.verdicts["exact"]} | b.steps for name, b in backends.items()},
        coverage=snapshot.tally.features,
        timeline=snapshot.timeline,
    )
