"""The quantized operators of an installed PyTorch as rows: covered and by what, or not and why."""

from typing import NamedTuple

from qfuzz.backends.statuses import STATUSES, sentence
from qfuzz.backends.torch_coverage import COVERED, Covered
from qfuzz.backends.torch_operators import Operator, Torch
from qfuzz.backends.torch_scope import GENERATED, NOT_YET, OUT_OF_SCOPE

UNLISTED = "new in this release: neither covered nor listed in qfuzz/backends/torch_scope.py with a reason"


class Row(NamedTuple):
    """What is said of one operator.

    Attributes
    ----------
    name
        With namespace and overload: ``quantized::add.out``.
    status
        ``covered``, ``not yet``, ``out of scope`` or ``unlisted``.
    covered
        What covers it.
    reason
        Why it is not covered.
    kernels
        Dispatch keys of its kernels on the CPU.
    schema
        Its arguments and results, as torch writes them.
    """

    name: str
    status: str
    covered: Covered
    reason: str
    kernels: tuple[str, ...]
    schema: str


def rows(torch: Torch) -> tuple[Row, ...]:
    """One for each operator that is in question with this release, or covered; by status, then by name."""
    asked = (o for o in torch.operators if o.quantizes or o.name in COVERED)
    return tuple(sorted(map(_row, asked), key=lambda row: (STATUSES.index(row.status), row.name)))


def _row(o: Operator) -> Row:
    status, covered, reason = "unlisted", Covered(), UNLISTED
    if o.name in COVERED:
        status, covered, reason = "covered", COVERED[o.name], ""
    elif o.name in NOT_YET:
        status, reason = "not yet", NOT_YET[o.name]
    elif o.name in OUT_OF_SCOPE or o.generated:
        status, reason = "out of scope", OUT_OF_SCOPE.get(o.name, GENERATED)
    return Row(o.name, status, covered, reason, o.kernels, o.schema)


def summary(torch: Torch) -> str:
    """The counts as a sentence, as `qfuzz ops` and the README say it."""
    return sentence(
        rows(torch), f"PyTorch {torch.version.partition('+')[0]} that quantize or take quantized tensors on the CPU"
    )
