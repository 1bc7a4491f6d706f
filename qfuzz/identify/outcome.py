"""What an identification says: the arithmetic in words, its neighbours and the witnesses that refute them."""

from collections.abc import Iterator

import msgspec
import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Form
from qfuzz.identify.contraction_probes import with_rows
from qfuzz.identify.experiment import Observation, Outcome, Run, classes, evaluate, identify
from qfuzz.ir.network import Case
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
    returned: int
    neighbour: int
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
        For each refuted neighbour (one choice otherwise) the smallest case.
    refuted_by
        Where none is left: the smallest of the cases that refuted the last models.
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
    members = classes(form)[first]
    return Identification(
        backend=backend,
        form=form,
        verdict="several" if others else "identified",
        choices=_choices(first),
        others=tuple(_choices(m) for m in others),
        equals=tuple(dict.fromkeys(w for m in members for w in family_of(form.op).reasons(m, form))),
        published=tuple(f"{p.name} ({p.source})" for p in family_of(form.op).published_as(first, form)),
        cases=cases,
        witnesses=tuple(_witnesses(outcome, first, run)) if witnesses and not others else (),
    )


SHOWN = (
    "operands",
    "products",
    "accumulator",
    "padding",
    "bias",
    "scales",
    "multiplier",
    "rounding",
    "zero_point",
    "clamp",
)
"""The choices that an identification tells, in the order of the arithmetic."""


def _choices(model: Choices) -> dict[str, str]:
    return {f: getattr(model, f) for f in SHOWN}


def _text(case: Case) -> str:
    return CODEC.encode(case).decode()


def _witnesses(outcome: Outcome, found: Choices, run: Run) -> Iterator[Witness]:
    """The smallest cut of a case that was run, for each class that differs from the one found in a single choice."""
    for neighbour in classes(outcome.form):
        fields = [f for f in SHOWN if getattr(neighbour, f) != getattr(found, f)]
        if len(fields) != 1:
            continue
        cuts = [cut for o in outcome.observations if (cut := _cut(o, found, neighbour)) is not None]
        for case in sorted(cuts, key=lambda c: c.n_elements):
            got = run(case)
            evaluation = evaluate(case)
            expected, other = evaluation.stored(found), evaluation.stored(neighbour)
            if isinstance(got, str) or not np.array_equal(got, expected) or np.array_equal(expected, other):
                continue
            at = tuple(int(i) for i in np.argwhere(expected != other)[0])
            yield Witness(
                field=fields[0],
                choice=getattr(neighbour, fields[0]),
                index=at,
                returned=int(got[at]),
                neighbour=int(other[at]),
                case=_text(case),
            )
            break


def _cut(observation: Observation, found: Choices, neighbour: Choices) -> Case | None:
    """The one row of an observed batch on which both differ."""
    evaluation = evaluate(observation.case)
    different = np.argwhere(evaluation.stored(found) != evaluation.stored(neighbour))
    return with_rows(observation.case, different[:1, 0]) if len(different) else None


def _smallest_refuting(outcome: Outcome, run: Run) -> Case:
    """Of the rows of the last case, the first that refutes all the models that it refuted; or the whole case."""
    last = outcome.observations[-1]
    for row in range(last.got.shape[0]):
        case = with_rows(last.case, np.array([row]))
        got = run(case)
        if isinstance(got, str):
            continue
        evaluation = evaluate(case)
        if all(not np.array_equal(evaluation.stored(m), got) for m in last.refuted):
            return case
    return last.case
