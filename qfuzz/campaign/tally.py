"""What a campaign counts: examples, elements, verdicts by backend and operator, seconds by stage, coverage.

Counts of shards add up in any order. They go over pipes and to disk as they are.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

import msgspec

from qfuzz.oracle.compare import ARROW
from qfuzz.oracle.verdicts import BackendVerdict, Outcome

ELEMENT_VERDICTS = ("exact", "admissible", "violation")
CASE_VERDICTS = tuple(str(o) for o in Outcome if o not in (Outcome.JUDGED, Outcome.UNSUPPORTED))
REASONS_KEPT = 100
"""Distinct reasons for `unsupported` that are kept of each backend; the others are counted together."""
OTHER_REASONS = "other reasons"

K = TypeVar("K", str, int)
N = TypeVar("N", int, float)


def add_counts(into: dict[K, N], more: Mapping[K, N]) -> None:
    """Add `more` to the counts `into`."""
    for key, n in more.items():
        into[key] = into[key] + n if key in into else n


def _no_verdicts() -> dict[str, int]:
    return dict.fromkeys((*ELEMENT_VERDICTS, *CASE_VERDICTS), 0)


def _no_stages() -> dict[str, float]:
    return dict.fromkeys(("generate", "reference", "backends", "oracle", "reduce"), 0.0)


class BackendTally(msgspec.Struct, kw_only=True):
    """Counts of one backend.

    Attributes
    ----------
    verdicts
        ``exact``, ``admissible``, ``violation`` count elements; all others count cases.
    reasons
        Why cases were unsupported.
    by_op, steps
        As in `qfuzz.campaign.record.Record`.
    """

    examples: int = 0
    unsupported: int = 0
    elements: int = 0
    verdicts: dict[str, int] = msgspec.field(default_factory=_no_verdicts)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    by_op: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    steps: dict[int, int] = msgspec.field(default_factory=dict)
    compile_seconds: float = 0.0
    run_seconds: float = 0.0

    def add(self, verdict: BackendVerdict, ops: Collection[str]) -> None:
        """Count one verdict on a case that holds the operators `ops`."""
        self.compile_seconds += verdict.compile_seconds
        self.run_seconds += verdict.run_seconds
        counts = verdict.counts
        self.elements += counts.total
        for name, n in zip(ELEMENT_VERDICTS, (counts.exact, counts.admissible, counts.violation), strict=True):
            self.verdicts[name] += n
        for op, c in verdict.by_op:
            of_op = self.by_op.setdefault(op, {})
            for name, n in zip(ELEMENT_VERDICTS, (c.exact, c.admissible, c.violation), strict=True):
                if n:
                    add_counts(of_op, {name: n})
        add_counts(self.steps, dict(verdict.steps))
        outcome = str(verdict.outcome)
        match verdict.outcome:
            case Outcome.UNSUPPORTED:
                self.unsupported += 1
                self._add_reason(verdict.reason, 1)
                for op in ops:
                    add_counts(self.by_op.setdefault(op, {}), {outcome: 1})
                return
            case Outcome.JUDGED:
                pass
            case (
                Outcome.CRASH
                | Outcome.HANG
                | Outcome.REJECTED
                | Outcome.UNSTABLE
                | Outcome.CORRUPTED
                | Outcome.CHANGED
                | Outcome.ACCEPTED_INVALID
                | Outcome.REFUSED
            ):
                self.verdicts[outcome] += 1
                add_counts(self.by_op.setdefault(verdict.op or "network", {}), {outcome: 1})
        self.examples += 1
        for op in ops:
            add_counts(self.by_op.setdefault(op, {}), {"cases": 1})

    def _add_reason(self, reason: str, n: int) -> None:
        kept = reason in self.reasons or len(self.reasons) < REASONS_KEPT
        add_counts(self.reasons, {reason if kept else OTHER_REASONS: n})

    def merge(self, other: "BackendTally") -> None:
        """Add another's counts."""
        self.examples += other.examples
        self.unsupported += other.unsupported
        self.elements += other.elements
        self.compile_seconds += other.compile_seconds
        self.run_seconds += other.run_seconds
        add_counts(self.verdicts, other.verdicts)
        for reason, n in other.reasons.items():
            self._add_reason(reason, n)
        for op, counts in other.by_op.items():
            add_counts(self.by_op.setdefault(op, {}), counts)
        add_counts(self.steps, other.steps)


class Tally(msgspec.Struct, kw_only=True):
    """Counts of a part of a campaign, or of all of it.

    Attributes
    ----------
    backends
        By name, in the order of the specs.
    examples
        Cases, however many backends ran them.
    deaths
        Runner processes that died.
    decided, refined
        Elements that the reference judged, and those of them that took exact arithmetic.
    features
        Coverage: feature to examples that had it.
    seconds
        By stage; they add up over jobs.
    """

    backends: dict[str, BackendTally] = msgspec.field(default_factory=dict)
    examples: int = 0
    elements: int = 0
    draws: int = 0
    draws_rejected: int = 0
    deaths: int = 0
    refined: int = 0
    decided: int = 0
    features: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: dict[str, float] = msgspec.field(default_factory=_no_stages)

    def merge(self, other: "Tally") -> None:
        """Add another's counts."""
        for name, backend in other.backends.items():
            self.backends.setdefault(name, BackendTally()).merge(backend)
        self.examples += other.examples
        self.elements += other.elements
        self.draws += other.draws
        self.draws_rejected += other.draws_rejected
        self.deaths += other.deaths
        self.refined += other.refined
        self.decided += other.decided
        add_counts(self.features, other.features)
        add_counts(self.seconds, other.seconds)

    @property
    def has_compared(self) -> bool:
        """Whether any backend ran anything; of two that are compared, whether both ran the same case."""
        pairs = [b for name, b in self.backends.items() if ARROW in name]
        return any(b.examples for b in pairs or self.backends.values())
