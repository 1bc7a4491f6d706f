"""What INTERFACE.md promises of the documents that ``--json`` prints, as JSON Schemas written by hand."""

from typing import Any

VERDICTS = (
    *("exact", "admissible", "violation", "crash", "hang", "rejected", "unsupported", "unstable", "corrupted"),
    *("accepted-invalid", "refused"),
)
SECONDS = {"type": "number", "minimum": 0}
COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}


def record(**properties: Any) -> dict[str, Any]:
    """An object that has all of these; more may come with later versions."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def listed(items: Any) -> dict[str, Any]:
    """An array of these."""
    return {"type": "array", "items": items}


RUN = record(
    schema={"const": 1},
    qfuzz={"type": "string", "pattern": r"^\d+\.\d+"},
    environment={"type": "object"},
    seed=COUNT,
    examples=COUNT,
    elements=COUNT,
    seconds=SECONDS,
    stage_seconds=record(
        generate=SECONDS, reference=SECONDS, backends=SECONDS, oracle=SECONDS, reduce=SECONDS, other=SECONDS
    ),
    backends=listed(
        record(
            name=TEXT,
            version=TEXT,
            examples=COUNT,
            unsupported=COUNT,
            elements=COUNT,
            verdicts=record(**dict.fromkeys(VERDICTS, COUNT)),
            compile_seconds=SECONDS,
            run_seconds=SECONDS,
        )
    ),
    findings=listed(
        record(
            signature={"type": "string", "pattern": "^[^/]+/[^/]+/[^/]+/"},
            backend=TEXT,
            backends={"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
            op=TEXT,
            verdict={"enum": [*VERDICTS[2:6], "unstable", "corrupted", "changed", "accepted-invalid"]},
            cause={"type": ["string", "null"]},
            known={"type": "boolean"},
            path=TEXT,
            nodes={"type": "integer", "minimum": 1},
            elements=COUNT,
            first_example=COUNT,
        )
    ),
)

REPLAY = {
    "type": "object",
    "properties": {
        "schema": {"const": 1},
        "entries": listed(
            {
                **record(
                    path=TEXT, backend=TEXT, status={"enum": ["holds", "regressed", "fixed", "skipped"]}, why=TEXT
                ),
                "additionalProperties": False,
            }
        ),
    },
    "required": ["schema", "entries"],
    "additionalProperties": False,
}

CHECK = record(
    schema={"const": 1},
    backends=listed(record(backend=TEXT, verdict={"enum": list(VERDICTS)}, mismatches={"type": "array"})),
)
