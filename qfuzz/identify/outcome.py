"""What an identification says: the arithmetic in words, its neighbours and the witnesses that refute them."""

import itertools
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Form
from qfuzz.identify.experiment import Observation, Outcome, Run, classes, identify
from qfuzz.identify.probes import PROBES
from qfuzz.identify.rows import evaluate, row_axis, with_rows
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array
from qfuzz.ops import CODEC


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """One element on which a neighbour of the identified arithmetic differs from it, as the kernel was seen to.

    Attributes
    ----------
    field, choice
        What the neighbour does otherwise.
    case
        The case file.
    """

    field: str
    choice: str
    index: tuple[int, ...]
    returned: int | float
    neighbour: int | float
    case: str

    @property
    def elements(self) -> int:
        """All elements of the case's inputs and constants."""
        return CODEC.decode(self.case.encode()).case.n_elements


class Identification(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a backend, a form, and what it computes with.

    Attributes
    ----------
    verdict
        ``identified``: one class is left; ``several``: no case was found that tells those left apart; ``none``: none of
        the catalogue; ``unstable``: two runs of one case differ.
    choices
        Of the class that is left, by field; of several, what they share.
    equals
        Choices that cannot differ from these here, and why.
    published
        Kernels that are published to work so.
    cases
        How many were run.
    witnesses
        For each choice that is not made, the smallest case that refutes the nearest model that makes it.
    refuted_by
        Where none is left: a case that refutes every model, the smallest that was found.
    """

    backend: str
    form: Form
    verdict: str
    choices: dict[str, str] = {}
    others: tuple[dict[str, str], ...] = ()
    equals: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    cases: int = 0
    witnesses: tuple[Witness, ...] = ()
    refuted_by: str | None = None


def identification(backend: str, form: Form, run: Run, *, witnesses: bool = True) -> Identification | str:
    """Run the experiment on one form; or the kernel's words, where it does not take the form."""
    outcome = identify(form, run)
    if outcome.unstable is not None:
        return Identification(
            backend=backend, form=form, verdict="unstable", cases=len(outcome.observations),
            refuted_by=_text(outcome.unstable),
        )  # fmt: skip
    if not outcome.observations:
        return outcome.refusals[0] if outcome.refusals else "no case was run"
    cases = len(outcome.observations)
    if not outcome.left:
        return Identification(
            backend=backend, form=form, verdict="none", cases=cases, refuted_by=_text(_smallest_refuting(outcome, run))
        )
    first, *others = outcome.left
    family = family_of(form.op)
    members = classes(form)[first]
    return Identification(
        backend=backend,
        form=form,
        verdict="several" if others else "identified",
        choices=_choices(first, form),
        others=tuple(_choices(m, form) for m in others),
        equals=tuple(dict.fromkeys((*family.universal, *(w for m in members for w in family.reasons(m, form))))),
        published=tuple(f"{p.name} ({p.source})" for p in family.published_as(first, form)),
        cases=cases,
        witnesses=tuple(_witnesses(outcome, first, run)) if witnesses and not others else (),
    )


def _choices(model: Choices, form: Form) -> dict[str, str]:
    return {f: getattr(model, f) for f in family_of(form.op).told}


def _text(case: Case) -> str:
    return CODEC.encode(case).decode()


def _witnesses(outcome: Outcome, found: Choices, run: Run) -> Iterator[Witness]:
    """The smallest case that was found, for each choice that is not made: against the class nearest to `found`."""
    for (field, _), neighbour in _neighbours(outcome.form, found).items():
        witness = _witness(outcome, found, neighbour, field, run)
        if witness is not None:
            yield witness


def _neighbours(form: Form, found: Choices) -> dict[tuple[str, str], Choices]:
    """For each choice that `found` does not make, the class that makes it and differs in the fewest others."""
    nearest: dict[tuple[str, str], tuple[int, Choices]] = {}
    fields = family_of(form.op).told
    for model in classes(form):
        different = [f for f in fields if getattr(model, f) != getattr(found, f)]
        for f in different:
            key = (f, getattr(model, f))
            if key not in nearest or len(different) < nearest[key][0]:
                nearest[key] = (len(different), model)
    return {key: nearest[key][1] for f in fields for key in nearest if key[0] == f}


def _witness(outcome: Outcome, found: Choices, neighbour: Choices, field: str, run: Run) -> Witness | None:
    """An element on which the kernel is seen to part from `neighbour`, in the first of few small cases that shows one.

    Else, in the smallest cut of those that were run.
    """
    small = (c for c in _small_cases(outcome.form, found, neighbour, field))
    rowwise = sorted(outcome.observations, key=lambda o: o.case.n_elements / o.got.shape[row_axis(o.case)])
    cuts = (c for o in rowwise for c in _cuts(o, found, neighbour))
    for case in itertools.chain(small, cuts):
        got = run(case)
        evaluation = evaluate(case)
        expected, other = evaluation.stored(found), evaluation.stored(neighbour)
        if isinstance(got, str) or not np.array_equal(got, expected) or np.array_equal(expected, other):
            continue
        at = tuple(int(i) for i in np.argwhere(expected != other)[0])
        return Witness(
            field=field,
            choice=getattr(neighbour, field),
            index=at,
            returned=got[at].item(),
            neighbour=other[at].item(),
            case=_text(case),
        )
    return None


SMALL_TRIES = 12


def _small_cases(form: Form, found: Choices, neighbour: Choices, field: str) -> Iterator[Case]:
    for key in range(SMALL_TRIES):
        for probe in PROBES[form.op]:
            if probe.small is None or field not in probe.tells:
                continue
            case = probe.small(form, key, [found, neighbour])
            if case is not None:
                yield from _rows_that_differ(case, found, neighbour, 1)


def _cuts(observation: Observation, found: Choices, neighbour: Choices) -> Iterator[Case]:
    """An observed case with one row on which both differ; with more of them, for one alone may run another kernel."""
    for n in (1, 2, 4, 64):
        yield from _rows_that_differ(observation.case, found, neighbour, n)


def _rows_that_differ(case: Case, found: Choices, neighbour: Choices, n: int) -> Iterator[Case]:
    evaluation = evaluate(case)
    different = np.argwhere(evaluation.stored(found) != evaluation.stored(neighbour))
    if len(different):
        yield with_rows(case, np.full(n, different[0, row_axis(case)]))


def _smallest_refuting(outcome: Outcome, run: Run) -> Case:
    """A case that refutes every class: one row of an observed case, or a whole one; else the last that was observed."""
    everything = list(classes(outcome.form))
    last = outcome.observations[-1]
    rows = (with_rows(last.case, np.array([row])) for row in range(last.got.shape[row_axis(last.case)]))
    wholes = (o.case for o in reversed(outcome.observations))
    for case in itertools.chain(rows, wholes):
        got = run(case)
        # First the classes that the last case refuted: most rows refute few of them.
        if not isinstance(got, str) and _refutes(case, got, last.refuted) and _refutes(case, got, everything):
            return case
    return last.case


def _refutes(case: Case, got: Array, models: Sequence[Choices]) -> bool:
    evaluation = evaluate(case)
    return all(not np.array_equal(evaluation.stored(m), got) for m in models)
