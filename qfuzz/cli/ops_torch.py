"""The PyTorch side of ``qfuzz ops``: each operator that quantizes, covered or not, and why."""

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from qfuzz.backends.discovery import BUILT_IN, parse_spec
from qfuzz.backends.statuses import STATUSES, counts
from qfuzz.backends.torch_coverage import Covered
from qfuzz.backends.torch_matrix import Row, rows, summary
from qfuzz.backends.torch_operators import Torch, ask_torch
from qfuzz.cli.piped_console import PipedConsole
from qfuzz.ir.protocols import Backend

NAME_WIDTH = 40
"""Columns of an operator's name; longer ones have a line of their own."""

MIN_WIDTH = 20
"""Columns of a text behind a margin, in the narrowest of terminals."""

EVERY = "every value of the eager dialect is made or read with it"


def asked(backends: Sequence[Backend]) -> Torch | None:
    """What the first torch among the backends tells; nothing, where there is none."""
    for b in backends:
        name, options = parse_spec(b.name)
        if name in BUILT_IN and BUILT_IN[name].framework == "torch":
            return ask_torch(options.get("python", ""))
    return None


def selected_rows(torch: Torch, ops: Collection[str]) -> tuple[Row, ...]:
    """Rows that one of `ops` covers; all, where there are none."""
    return tuple(r for r in rows(torch) if not ops or set(ops) & set(r.covered.operators))


def as_document(torch: Torch, found: Sequence[Row]) -> dict[str, Any]:
    """The matrix as plain data; the counts are those of the rows."""
    return {
        "version": torch.version,
        "counts": {status.replace(" ", "_"): n for status, n in counts(found).items()},
        "operators": [
            {
                "op": r.name,
                "status": r.status,
                "eager": list(r.covered.eager),
                "export": list(r.covered.export),
                "every": r.covered.every,
                "reason": r.reason,
                "kernels": list(r.kernels),
                "schema": r.schema,
            }
            for r in found
        ],
    }


def print_summary(console: PipedConsole, torch: Torch, *, listed: bool) -> None:
    """The counts in one line, and how to see more."""
    console.print(summary(torch) + ("" if listed else " --torch lists them."), markup=False)


def print_matrix(console: PipedConsole, found: Sequence[Row]) -> None:
    """Rows: those that are covered with what covers them, the others by reason."""
    for status in STATUSES:
        of = [r for r in found if r.status == status]
        if not of:
            continue
        console.print(f"[bold]{status}: {len(of)}[/bold]")
        if status == "covered":
            _print_covered(console, of)
        else:
            for reason in sorted({r.reason for r in of}):
                console.print(f"  {reason}:", markup=False)
                names = ", ".join(r.name for r in of if r.reason == reason)
                console.print(_indented(console, " " * 6, names), markup=False, style="dim")
        console.print()


def _print_covered(console: PipedConsole, found: Sequence[Row]) -> None:
    width = min(max(len(r.name) for r in found), NAME_WIDTH)
    margin = " " * (width + 4)
    for r in found:
        by = _indented(console, margin, _by(r.covered))
        if len(r.name) <= width or not console.is_terminal:
            line = f"  {r.name:{width}}  {by.lstrip()}"
        else:
            line = f"  {r.name}\n{by}"
        console.print(line, markup=False)


def _indented(console: PipedConsole, margin: str, text: str) -> str:
    """In a terminal as many lines as it takes, behind the margin; else one, to be searched."""
    if not console.is_terminal:
        return margin + text
    width = max(console.width, len(margin) + MIN_WIDTH)
    return textwrap.fill(text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)


def _by(covered: Covered) -> str:
    forms = {"eager": covered.eager, "export": covered.export}
    return EVERY if covered.every else ", ".join(f"{form}: {' '.join(ops)}" for form, ops in forms.items() if ops)
