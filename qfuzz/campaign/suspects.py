"""The suspects of a campaign: of each symptom the first example, in order, and only so many of a kind."""

from collections.abc import Iterable, Sequence

from qfuzz.campaign.protocol import Suspect
from qfuzz.campaign.state import symptom_key
from qfuzz.findings.signature import Symptom

ALIKE_KEPT = 32
"""Symptoms of one backend, operator and verdict that are looked at: those with the first examples. A backend that says
something new every time would fill the disk otherwise."""

Key = tuple[str, Symptom]
Group = tuple[str, str, str]


class Suspects:
    """Which there are, which of them are open, and what has changed since that was last asked.

    What is kept does not depend on the order in which suspects come.

    Parameters
    ----------
    specs
        The backends: of one example, suspects are in their order.
    suspects, concluded
        Those of before, and which of them (by `symptom_key`) need no more looking at.
    """

    def __init__(
        self, specs: Sequence[str], suspects: Iterable[Suspect], concluded: Iterable[tuple[str, bytes]]
    ) -> None:
        self._order = {spec: i for i, spec in enumerate(specs)}
        self._all: dict[Key, Suspect] = {(s.spec, s.symptom): s for s in suspects}
        self._groups: dict[Group, set[Key]] = {}
        for key in self._all:
            self._groups.setdefault(_group(key), set()).add(key)
        self._concluded = set(concluded)
        self._sorted: list[Suspect] | None = None
        self.crowded: set[Group] = set()
        self.changed: dict[Key, Suspect] = {}
        self.dropped: dict[Key, Suspect] = {}

    def has(self, suspect: Suspect) -> bool:
        """Whether its symptom was seen before."""
        return (suspect.spec, suspect.symptom) in self._all

    def add(self, suspect: Suspect) -> None:
        """Take a suspect, unless its symptom was seen in an earlier example, or enough alike were."""
        key = (suspect.spec, suspect.symptom)
        known = self._all.get(key)
        if known is not None:
            if suspect.example < known.example:
                self._put(key, suspect)
                self._concluded.discard(symptom_key(suspect))  # one before it was concluded: on disk, too
            return
        group = self._groups.setdefault(_group(key), set())
        if len(group) >= ALIKE_KEPT:
            self.crowded.add(_group(key))
            last = max((self._all[k] for k in group if self._is_open(self._all[k])), key=_example, default=None)
            if last is None or last.example <= suspect.example:
                return
            gone = (last.spec, last.symptom)
            group.remove(gone)
            self.dropped[gone] = self._all.pop(gone)
            self.changed.pop(gone, None)
        group.add(key)
        self.dropped.pop(key, None)
        self._put(key, suspect)

    def _put(self, key: Key, suspect: Suspect) -> None:
        self._all[key] = self.changed[key] = suspect
        self._sorted = None

    def conclude(self, suspect: Suspect) -> None:
        """It needs no more looking at."""
        self._concluded.add(symptom_key(suspect))
        self._sorted = None

    def open(self) -> list[Suspect]:
        """Those that are to be concluded, in order."""
        if self._sorted is None:
            waiting = [s for s in self._all.values() if self._is_open(s)]
            self._sorted = sorted(waiting, key=lambda s: (s.example, self._order.get(s.spec, -1), s.symptom))
        return list(self._sorted)

    def _is_open(self, suspect: Suspect) -> bool:
        return symptom_key(suspect) not in self._concluded


def _group(key: Key) -> Group:
    spec, symptom = key
    return spec, symptom.op, symptom.verdict


def _example(suspect: Suspect) -> int:
    return suspect.example
