"""Near-legal cases: a valid network of one node, and a form that changes one argument of its call to an invalid one."""

from collections.abc import Callable, Sequence

import msgspec

from qfuzz.backends.torch_calls import CallList
from qfuzz.backends.torch_dialect import ENGINES, LOWERINGS, lower_eager
from qfuzz.backends.torch_export_dialect import LOWERINGS as EXPORTED
from qfuzz.backends.torch_export_dialect import lower_export
from qfuzz.backends.torch_invalid import kinds_of
from qfuzz.backends.torch_mutations import MUTATIONS
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import forms_from
from qfuzz.ir.network import Case, Network
from qfuzz.strategies.draw import Draw

OPS, TRIES = 8, 3
"""How many operators are drawn, and networks of each, until one has something to change; the last is taken as it is."""

TARGETS = 24
"""Kinds that fewer calls have are drawn more often where they can be."""


def draw_invalid(d: Draw, selected: Sequence[str], draw: Callable[[Draw, Sequence[str]], Case]) -> Case:
    """A case of one node whose form is invalid.

    Parameters
    ----------
    selected
        Operators; where no change is known for any of them, the case is valid.
    draw
        Draws a valid case of one node of these operators.
    """
    op = ""
    known = [name for name in selected if name in LOWERINGS or name in EXPORTED] or list(selected)
    for i in range(OPS * TRIES):
        op = d.pick(known) if i % TRIES == 0 else op
        case = draw(d, (op,))
        plain = msgspec.structs.replace(case.network, forms=())
        kinds = invalid_kinds(plain)
        if kinds:
            forms = forms_from([("invalid", d.pick([kind for kind in kinds for _ in range(_weight(kind))]))])
            return Case(msgspec.structs.replace(plain, forms=forms), case.inputs)
    return case


def invalid_kinds(network: Network) -> tuple[str, ...]:
    """What can be changed in the calls of a network, on any of torch's engines."""
    if len(network.nodes) > 1:
        return ()
    kinds: dict[str, None] = {}
    for lower in (*(_engine(e) for e in ENGINES), lower_export):
        try:
            kinds |= dict.fromkeys(kinds_of(lower(network), network))
        except Unsupported:
            continue
    return tuple(kinds)


def _weight(kind: str) -> int:
    """The fewer calls a kind is said of, the more often it is drawn for those."""
    return max(1, TARGETS // sum(len(m.targets) for m in MUTATIONS if m.kind == kind))


def _engine(engine: str) -> Callable[[Network], CallList]:
    return lambda network: lower_eager(network, engine)
