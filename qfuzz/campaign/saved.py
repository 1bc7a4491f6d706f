"""Cases that campaigns leave each other: checked first, kept while they fail, replaced by smaller ones.

What a shard gives does not depend on them. Their findings come on top of those of the shards.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from qfuzz.campaign.conclude import Lab, conclude
from qfuzz.campaign.protocol import FoundCase, Revisit, Revisited, Suspect
from qfuzz.findings.finding import Finding
from qfuzz.findings.signature import symptom_of
from qfuzz.ir.errors import CampaignFailed, InvalidCase
from qfuzz.ops import CODEC
from qfuzz.oracle.verdicts import BackendVerdict, Outcome

TRIES = 3
"""How often a saved case is judged before it is said to fail no longer."""


class CaseDatabase(Protocol):
    """Case files by the spec of the backend that they accuse: a `qfuzz.strategies.database.Database`.

    Each method raises `CampaignFailed` where the database cannot be reached.
    """

    def fetch(self, spec: str) -> list[bytes]:
        """The cases that accuse a backend."""
        ...

    def save(self, spec: str, case: bytes) -> None:
        """Keep a case."""
        ...

    def delete(self, spec: str, case: bytes) -> None:
        """Forget a case, if it is there."""
        ...


class SavedCases:
    """What a campaign finds in a database and leaves there.

    A database that cannot be reached for a while stops no campaign: what is to be done there is done later.
    """

    def __init__(self, database: CaseDatabase, specs: Sequence[str]) -> None:
        self._database, self._specs = database, tuple(specs)
        self._unreadable: list[str] = []
        self._saved = self._read()
        self._to_do: list[tuple[str, str, bytes]] = []

    def _read(self) -> dict[bytes, tuple[str, ...]]:
        saved: dict[bytes, tuple[str, ...]] = {}
        for spec in self._specs:
            for case in self._database.fetch(spec):
                try:
                    CODEC.decode(case)
                except InvalidCase as e:
                    self._unreadable.append(f"a saved case of {spec} is left alone: {e}")
                else:
                    saved[case] = (*saved.get(case, ()), spec)
        return saved

    @property
    def cases(self) -> tuple[bytes, ...]:
        """The cases that were there, each once."""
        return tuple(self._saved)

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What is said of those that cannot be read: of a newer qfuzz, or not its own."""
        return tuple(self._unreadable)

    def keep(self, kept: FoundCase, before: FoundCase | None = None) -> None:
        """Save a finding's case, in place of a larger one; known issues have their place in a corpus."""
        if kept.known:
            return
        self._to_do += [("save", spec, kept.case) for spec in kept.backends]
        if before is not None and before.case != kept.case:
            self._to_do += [("delete", spec, before.case) for spec in before.backends]

    def revisited(self, report: Revisited, kept: Sequence[FoundCase]) -> None:
        """Forget a saved case where it fails no longer, or where a smaller one shows the same."""
        for spec in self._saved[report.case]:
            shown_by = [f for f in kept if spec in f.backends and not f.known]
            if spec in report.passed or (shown_by and all(f.case != report.case for f in shown_by)):
                self._to_do.append(("delete", spec, report.case))

    def flush(self) -> str:
        """Do what is to be done; why not, or nothing."""
        try:
            while self._to_do:
                what, spec, case = self._to_do[0]
                (self._database.save if what == "save" else self._database.delete)(spec, case)
                del self._to_do[0]
        except CampaignFailed as e:
            return str(e)
        return ""


def revisit(lab: Lab, request: Revisit) -> Revisited:
    """Judge a saved case on all backends of a campaign; make findings of what it shows."""
    started = time.monotonic()
    deadline = None if request.seconds is None else started + request.seconds
    case = CODEC.decode(request.case).case
    findings: list[Finding] = []
    passed = []
    for spec in request.profile.specs:
        if any(spec in f.backends for f in findings):
            continue
        verdicts = [lab.judge(case, spec)]
        while verdicts[-1].outcome is Outcome.JUDGED and not verdicts[-1].is_finding and len(verdicts) < TRIES:
            verdicts.append(lab.judge(case, spec))
        verdict: BackendVerdict = verdicts[-1]
        if verdict.is_finding:
            suspect = Suspect(spec=spec, example=0, symptom=symptom_of(verdict), verdict=verdict, case=request.case)
            finding = conclude(lab, suspect, reduce=request.reduce, deadline=deadline)
            if finding is not None:
                findings.append(msgspec.structs.replace(finding, first_example=None))
        elif verdict.outcome is Outcome.JUDGED:
            passed.append(spec)
    found = tuple(FoundCase.of(f) for f in findings)
    return Revisited(request.case, found, tuple(passed), time.monotonic() - started)
