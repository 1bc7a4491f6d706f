"""Random forms, and random models of them: what identification is tested on."""

from typing import Any

from hypothesis import strategies as st

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Form
from qfuzz.identify.forms import forms
from qfuzz.identify.rows import evaluate
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array


@st.composite
def forms_and_models(draw: Any, op: str) -> tuple[Form, Choices]:
    """A form that is asked about, and any combination of choices that go together, faults left out."""
    form = draw(st.sampled_from([f for variants in forms(op) for f in variants if f.rescaled]))
    family = family_of(op)
    fields = {f: st.sampled_from(family.made(f)) for f in family.model.__struct_fields__}
    models = st.fixed_dictionaries(fields).map(lambda choices: family.model(**choices))
    return form, draw(models.filter(lambda m: family.why_not(m) is None))


class Synthetic:
    """A kernel that computes as a model does."""

    def __init__(self, model: Choices) -> None:
        self.model = model

    def __call__(self, case: Case) -> Array:
        return evaluate(case).stored(self.model)
