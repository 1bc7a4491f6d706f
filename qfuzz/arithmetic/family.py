"""What the arithmetics of related kernels have in common: choices, which of them go together, which cannot differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints

import msgspec

from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QuantizedDType
from qfuzz.ir.tensor import TensorType


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """An arithmetic model: one alternative for each field. The first alternative of every field is the exact one."""


@cache
def alternatives(model: type[Choices], field_name: str) -> tuple[str, ...]:
    """All choices of one field, the exact one first."""
    return get_args(get_type_hints(model)[field_name])


def departures(model: Choices) -> dict[str, str]:
    """The choices that are not the exact ones."""
    fields = {f: getattr(model, f) for f in model.__struct_fields__}
    return {f: choice for f, choice in fields.items() if choice != alternatives(type(model), f)[0]}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The domain of a question: an operator, and what its kernel takes.

    Attributes
    ----------
    op
        An operator's name.
    dtype
        Of input and output.
    bias
        What kind of bias the kernel takes.
    per_channel
        Whether weights have a scale for each channel.
    symmetric
        Whether the zero points of weights are 0; else they are not.
    relu
        Whether a relu is fused.
    rescaled
        Whether scale and zero point of the output are others than the first input's.
    elements
        ``blocks``: as many as fill vector registers; ``few``: fewer than one; ``any``, where that makes no difference.
    """

    op: str
    dtype: QuantizedDType
    bias: Literal["none", "int32", "float32"] = "none"
    per_channel: bool = False
    symmetric: bool = True
    relu: bool = False
    rescaled: bool = True
    elements: Literal["any", "blocks", "few"] = "any"


class Equality(NamedTuple):
    """A choice that is the same as another one where `when` holds.

    Attributes
    ----------
    same_as
        The choice that stands for both; the first that fits the other choices of the model.
    when
        Of a model and a form.
    why
        The proof.
    also
        Choices of other fields that go with the new one.
    """

    field: str
    choice: str
    same_as: tuple[str, ...]
    when: Callable[[Any, Form], bool]
    why: str
    also: Mapping[str, str] = {}


def always(model: Any, form: Form) -> bool:
    """When an `Equality` holds on every domain."""
    return True


class Published(NamedTuple):
    """A kernel's name, its arithmetic, and the source."""

    name: str
    model: Choices
    source: str


class Evaluation(Protocol):
    """One node on known inputs, under as many models as are asked for."""

    def stored(self, model: Any) -> Array:
        """What the model computes, in the output's shape."""

    def result(self, model: Any) -> Array:
        """The number before rounding, in output units and the output's shape; a float32 output as it is."""

    def work(self, model: Any) -> int:
        """Operations that no matrix product does: what a large layer cannot afford."""

    def on_the_way(self, model: Any, index: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        """What leads to one element's number before rounding, by name: integers, floats of its precision, or words."""


@dataclass(frozen=True, eq=False)
class Family:
    """The arithmetics of related operators.

    Attributes
    ----------
    model
        Its choices.
    operators
        Names of the operators.
    why_not
        Why a model's choices do not go together, or None.
    evaluate
        A node, the types and the values of all its inputs (constants included), ready to be computed.
    equalities
        In the order in which they are applied, again and again until none applies.
    published
        In the order in which they are named.
    faults
        Choices that no kernel makes on purpose: they explain violations, and are no candidates of an identification.
    """

    model: type[Choices]
    operators: tuple[str, ...]
    why_not: Callable[[Any], str | None]
    evaluate: Callable[[Node, Sequence[TensorType], Sequence[Array]], Evaluation]
    equalities: tuple[Equality, ...] = ()
    published: tuple[Published, ...] = ()
    faults: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def made(self, field_name: str) -> tuple[str, ...]:
        """The choices of a field that are no faults, the exact one first."""
        return tuple(c for c in alternatives(self.model, field_name) if c not in self.faults.get(field_name, ()))

    @cached_property
    def candidates(self) -> tuple[Choices, ...]:
        """Combinations of choices that a kernel could make, in a fixed order: the exact arithmetic first.

        Of choices that are the same on every domain, only the one that stands for both.
        """
        same = {(e.field, e.choice) for e in self.equalities if e.when is always}
        usual = {f: [c for c in self.made(f) if (f, c) not in same] for f in self.model.__struct_fields__}
        models = (self.model(**dict(zip(usual, values, strict=True))) for values in product(*usual.values()))
        return tuple(m for m in models if self.why_not(m) is None)

    @cached_property
    def universal(self) -> tuple[str, ...]:
        """Which choices are the same on every domain, and why."""
        return tuple(f"{e.field} {e.choice} as {e.same_as[0]}: {e.why}" for e in self.equalities if e.when is always)

    @cached_property
    def told(self) -> tuple[str, ...]:
        """The fields that an identification tells: those with choices that kernels make, but for a fused relu's."""
        return tuple(f for f in self.model.__struct_fields__ if f != "relu" and len(self.made(f)) > 1)

    def departing(self, model: Choices, choices: Mapping[str, str]) -> Choices | None:
        """`model` but for `choices`; None where this family has no such choices, or they do not go together."""
        known = self.model.__struct_fields__
        if not all(f in known and c in alternatives(self.model, f) for f, c in choices.items()):
            return None
        departed = msgspec.structs.replace(model, **choices)
        return departed if self.why_not(departed) is None else None

    def canonical(self, model: Choices, form: Form) -> Choices:
        """The model that stands for all that cannot differ from `model` on `form`."""
        return self._settle(model, form)[0]

    def reasons(self, model: Choices, form: Form) -> tuple[str, ...]:
        """Why `model` is the same as its canonical one."""
        return self._settle(model, form)[1]

    def published_as(self, model: Choices, form: Form) -> tuple[Published, ...]:
        """The published kernels that cannot differ from `model` on `form`."""
        wanted = self.canonical(model, form)
        return tuple(p for p in self.published if self.canonical(p.model, form) == wanted)

    def _settle(self, model: Choices, form: Form) -> tuple[Choices, tuple[str, ...]]:
        why: list[str] = []
        changed = True
        while changed:
            changed = False
            for e in self.equalities:
                if getattr(model, e.field) != e.choice or not e.when(model, form):
                    continue
                for choice in e.same_as:
                    candidate = msgspec.structs.replace(model, **{e.field: choice, **e.also})
                    if choice != e.choice and self.why_not(candidate) is None:
                        model, changed = candidate, True
                        why.append(f"{e.field} {e.choice} as {choice}: {e.why}")
                        break
                    if choice == e.choice:
                        break
        return model, tuple(why)
