"""The document of ``run --json``, as far as the page shows it, with a type for every field."""

from typing import Any

import msgspec

from qfuzz.ir.errors import InvalidCase


class BackendCounts(msgspec.Struct, frozen=True):
    """What one backend did in the campaign."""

    name: str
    version: str = ""
    examples: int = 0
    unsupported: int = 0
    elements: int = 0
    verdicts: dict[str, int] = {}
    compile_seconds: float = 0.0
    run_seconds: float = 0.0


class FoundBug(msgspec.Struct, frozen=True):
    """A finding, as the document lists it."""

    signature: str
    verdict: str
    op: str = ""
    backend: str = ""
    backends: tuple[str, ...] = ()
    cause: str | None = None
    known: bool = False
    path: str = ""
    nodes: int = 0
    elements: int = 0
    first_example: int | None = None
    reduction: str = ""


class Document(msgspec.Struct, frozen=True):
    """The whole campaign."""

    qfuzz: str = ""
    environment: dict[str, Any] = {}
    seed: int | None = None
    examples: int = 0
    elements: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    stage_seconds: dict[str, float] = {}
    backends: tuple[BackendCounts, ...] = ()
    findings: tuple[FoundBug, ...] = ()

    @property
    def new(self) -> int:
        """Findings that no known issue covers."""
        return sum(not f.known for f in self.findings)

    @property
    def compared(self) -> bool:
        """Whether any backend ran any case."""
        return any(b.examples for b in self.backends)


def read_document(document: dict[str, Any]) -> Document:
    """The document with its types; fields that it lacks get the defaults.

    Raises
    ------
    InvalidCase
        Where a field has another type.
    """
    try:
        return msgspec.convert(document, Document)
    except msgspec.ValidationError as e:
        raise InvalidCase(f"the campaign's document: {e}") from None
