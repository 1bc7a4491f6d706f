"""The adaptive experiment: of the models left, a case on which they must differ; run it; drop what is refuted.

It is a pure function of a form and of what `run` returns. It ends with one class of models that cannot differ, with
several that no case was found for, or with none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Form
from qfuzz.identify.probes import PROBES
from qfuzz.identify.rows import evaluate
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array

Run = Callable[[Case], Array | str]
"""What a kernel returns for a case of one node, or why it returns nothing."""

MAX_CASES = 60
OPENING = 4
"""Probes that are run first, one of each, before anything is chosen."""
PATIENCE = 25
"""Rounds in which no case splits the models left, after which they are called not separated."""


@dataclass(frozen=True)
class Observation:
    """One case that was run.

    Attributes
    ----------
    got
        What the kernel returned.
    refuted
        The classes that it refuted, by their canonical models.
    """

    case: Case
    got: Array
    refuted: tuple[Choices, ...]


@dataclass(frozen=True)
class Outcome:
    """What is known after an experiment.

    Attributes
    ----------
    left
        Canonical models of the classes that agree with everything observed, in catalogue order.
    observations
        The cases that were run, in order.
    refusals
        What the kernel said of cases that it did not run.
    unstable
        A case on which two runs differed, or None.
    """

    form: Form
    left: tuple[Choices, ...]
    observations: tuple[Observation, ...]
    refusals: tuple[str, ...] = ()
    unstable: Case | None = None


@cache
def classes(form: Form) -> dict[Choices, tuple[Choices, ...]]:
    """Canonical models of the catalogue on `form`, each with all that cannot differ from it there."""
    members: dict[Choices, list[Choices]] = {}
    family = family_of(form.op)
    for model in family.candidates:
        members.setdefault(family.canonical(model, form), []).append(model)
    return {m: tuple(all_) for m, all_ in members.items()}


def identify(form: Form, run: Run, *, seed: int = 1) -> Outcome:
    """Find the models that `run` may be."""
    return _Experiment(form, run, seed).outcome()


@dataclass
class _Experiment:
    form: Form
    run: Run
    seed: int
    left: list[Choices] = field(init=False)
    observations: list[Observation] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    unstable: Case | None = None
    tried: int = 0

    def outcome(self) -> Outcome:
        refusal = self.refusal()
        if refusal is not None:
            return Outcome(self.form, (), (), (refusal,))
        self.left = list(classes(self.form))
        for probe in PROBES[self.form.op][:OPENING]:
            if not self.left:
                break
            case = probe.draw(self.form, self._key(), self.left)
            if case is not None and len(self.left) > 1:
                self.observe(case)
        fruitless = 0
        while len(self.left) > 1 and fruitless < PATIENCE and len(self.observations) < MAX_CASES and not self.unstable:
            best = self.best_case()
            if best is not None and self.observe(best):
                fruitless = 0
            else:
                fruitless += 1
        if self.left and self.unstable is None:
            self.confirm()
        return Outcome(self.form, tuple(self.left), tuple(self.observations), tuple(self.refusals), self.unstable)

    def refusal(self) -> str | None:
        """What the kernel says of a plain case of the form, where it does not run it."""
        said = "no case was drawn"
        for _ in range(3):
            case = PROBES[self.form.op][0].draw(self.form, self._key(), ())
            if case is not None:
                got = self.run(case)
                if not isinstance(got, str):
                    return None
                said = got
        return said

    def confirm(self) -> None:
        """Run fresh cases of every kind against what is left: it may be the last of many wrong ones."""
        others = list(classes(self.form))[::97]
        for probe in (p for p in PROBES[self.form.op] for _ in range(p.confirmations)):
            if not self.left or self.unstable is not None:
                break
            case = probe.draw(self.form, self._key(), others + self.left)
            if case is not None:
                self.observe(case)

    def best_case(self) -> Case | None:
        """Of one case from each probe that could tell, the one after which the fewest models are left on average."""
        varying = {f for f in self.left[0].__struct_fields__ if len({getattr(m, f) for m in self.left}) > 1}
        sample = self.left[:: max(1, len(self.left) // 150)]
        best, best_score = None, float(len(sample))
        for probe in PROBES[self.form.op]:
            if not probe.tells & varying:
                continue
            case = probe.draw(self.form, self._key(), self.left)
            if case is None:
                continue
            sizes = [len(group) for group in partition(case, sample).values()]
            score = sum(n * n for n in sizes) / len(sample)
            if score < best_score:
                best, best_score = case, score
        return best

    def observe(self, case: Case) -> bool:
        """Run a case, twice, and drop the models that it refutes; whether the kernel took it."""
        got = self.run(case)
        if isinstance(got, str):
            self.refusals.append(got)
            return False
        again = self.run(case)
        if isinstance(again, str) or not np.array_equal(got, again):
            self.unstable = case
            return False
        groups = partition(case, self.left)
        agreeing = set(groups.get(_bytes(got), []))
        refuted = tuple(m for m in self.left if m not in agreeing)
        self.observations.append(Observation(case, got, refuted))
        self.left = [m for m in self.left if m in agreeing]
        return True

    def _key(self) -> int:
        self.tried += 1
        return self.seed * 1_000_003 + self.tried


def partition(case: Case, models: Sequence[Choices]) -> dict[bytes, list[Choices]]:
    """The models by what they compute."""
    evaluation = evaluate(case)
    groups: dict[bytes, list[Choices]] = {}
    for model in models:
        groups.setdefault(_bytes(evaluation.stored(model)), []).append(model)
    return groups


def _bytes(array: Array) -> bytes:
    return array.dtype.name.encode() + array.tobytes()
