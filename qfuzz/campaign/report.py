"""The result of a campaign as the document that ``run --json`` promises."""

from typing import Any

import qfuzz
from qfuzz.campaign.run import Fuzzing, Plan
from qfuzz.findings.finding import Finding


def as_document(
    plan: Plan,
    fuzzing: Fuzzing,
    findings: tuple[Finding, ...],
    paths: dict[str, str],
    *,
    seconds: float,
    reduce_seconds: float,
) -> dict[str, Any]:
    """The JSON document, schema 1. `paths` are folders by signature text."""
    tally = fuzzing.tally
    staged: dict[str, float] = {
        name: round(tally.seconds[name], 6) for name in ("generate", "reference", "backends", "oracle")
    }
    staged["reduce"] = round(reduce_seconds, 6)
    # Stages add up over jobs; what is left of the wall time (start-up, pipes, waiting) is other.
    staged["other"] = round(max(0.0, seconds - sum(staged.values())), 6)
    machine = next(iter(fuzzing.described.values()), {})
    by_name = {facts["name"]: facts for facts in fuzzing.described.values()}
    names = tuple(by_name)
    return {
        "schema": 1,
        "qfuzz": qfuzz.__version__,
        "environment": {k: v for k, v in machine.items() if k in ("machine", "cpu", "cpu_flags", "ftz")},
        "seed": plan.seed,
        "examples": tally.examples,
        "elements": tally.elements,
        "seconds": round(seconds, 3),
        "stopped": fuzzing.stopped,
        "stage_seconds": staged,
        "reference": {"decided": tally.decided, "refined": tally.refined},
        "draws": {"drawn": tally.draws, "rejected": tally.draws_rejected},
        "backends": [
            {
                "name": name,
                "version": by_name[name].get("version", ""),
                "examples": b.examples,
                "unsupported": b.unsupported,
                "elements": b.elements,
                "verdicts": {
                    v: b.verdicts[v]
                    for v in (
                        "exact",
                        "admissible",
                        "violation",
                        "crash",
                        "hang",
                        "rejected",
                        "unstable",
                        "corrupted",
                    )
                }
                | {"unsupported": b.unsupported},
                "compile_seconds": round(b.compile_seconds, 6),
                "run_seconds": round(b.run_seconds, 6),
            }
            for name, b in ((n, tally.backends[n]) for n in names)
        ],
        "findings": [
            {
                "signature": f.signature.text,
                "backend": f.backend,
                "backends": list(f.backends),
                "op": f.signature.symptom.op,
                "verdict": f.signature.symptom.verdict,
                "cause": f.signature.symptom.cause or None,
                "known": bool(f.known),
                "path": paths.get(f.signature.text, ""),
                "nodes": len(f.case.network.nodes),
                "elements": f.n_elements,
                "first_example": f.first_example,
                "reduction": f.reduction,
            }
            for f in findings
        ],
    }
