"""Under which of its names a layer is called: a form that is about layers alone."""

from qfuzz.ir.forms import CHOICES
from qfuzz.strategies.builder import Builder

FORMS = ("entry",)
ENTRIES = tuple(c for c in CHOICES if c[0] in FORMS)


def draw_entry(b: Builder, one_in: int = 3) -> None:
    """Now and then another name than the usual one."""
    if b.d.rarely(one_in):
        b.forms.append(b.d.pick(ENTRIES))
