"""``qfuzz identify``: which arithmetic each backend uses, with witnesses."""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from qfuzz.arithmetic.family import Form
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.identify_table import print_rows
from qfuzz.cli.options import backend_option, chosen_specs, output_options, print_json
from qfuzz.cli.rim import FOUND, OK
from qfuzz.identify.forms import OPERATORS, forms, title
from qfuzz.identify.outcome import Identification, identification
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found, to be compared with later."""

    schema: int
    environment: dict[str, dict[str, str]]
    rows: tuple[Identification, ...]


@click.command("identify")
@backend_option
@click.option(
    "--op", "ops", multiple=True, metavar="PATTERN", help="Operators, by name or pattern. Repeatable.  [default: all]"
)
@click.option("--lock", type=click.Path(path_type=Path), metavar="FILE", help="Write what was found to FILE.")
@click.option(
    "--check",
    "locked",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with a lock file; exit code 1 where an arithmetic has changed.",
)
@output_options
def command(
    specs: tuple[str, ...],
    ops: tuple[str, ...],
    lock: Path | None,
    locked: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Find out which arithmetic each backend computes with: integers or dequantized floats, and each step after that.

    For each backend, operator and type, cases are constructed on which the models of the catalogue must differ, until
    one is left, or several that cannot differ. Operators that only move stored integers have nothing to tell.
    """
    chosen_ops = [o for o in OPERATORS if not ops or any(fnmatch.fnmatchcase(o, p) for p in ops)]
    if not chosen_ops:
        raise InvalidCase(f"--op {', '.join(ops)}: matches none of {', '.join(OPERATORS)}")
    before = _read(locked) if locked else None
    chosen = chosen_specs(specs) if specs or before is None else tuple(before.environment)
    rows: list[Identification] = []
    described: dict[str, dict[str, str]] = {}
    for spec in chosen:
        with WorkerClient((spec,)) as client:
            described |= client.described
            own = list(_rows(client, spec, chosen_ops))
            rows += own
            if not as_json and not (quiet and before):
                print_rows(spec, own, quiet=quiet, verbose=verbose)
    changed = _changes(before, rows, chosen_ops) if before else []
    if lock:
        lock.write_bytes(msgspec.json.format(msgspec.json.encode(Lock(1, described, tuple(rows))), indent=2))
    if as_json:
        print_json({"schema": 1, "environment": described, "rows": rows, "changed": changed})
    else:
        for change in changed:
            click.echo(click.style("changed  ", fg="red", bold=True) + change["what"])
        if before and not changed:
            click.echo("nothing has changed")
    return FOUND if changed else OK


def _rows(client: WorkerClient, spec: str, ops: list[str]) -> Iterator[Identification]:
    """What a backend computes with; rows that differ in the number of elements only become one."""
    for op in ops:
        found: dict[Form, Identification] = {}
        for variants in forms(op):
            row = first_taken(client, spec, variants)
            if row is None:
                continue
            anyway = msgspec.structs.replace(row.form, elements="any")
            known = found.get(anyway)
            if known is not None and (known.verdict, known.choices) == (row.verdict, row.choices):
                found[anyway] = msgspec.structs.replace(known, form=anyway, cases=known.cases + row.cases)
            else:
                found[row.form if known is not None else anyway] = row
        yield from found.values()


def first_taken(
    client: WorkerClient, spec: str, variants: Sequence[Form], *, witnesses: bool = True
) -> Identification | None:
    """What a backend computes the first of these forms with that it takes; None where it takes none."""

    def run(case: Case) -> Array | str:
        values = client.values(case, spec)
        return values["y"] if isinstance(values, dict) else f"{values.verdict}: {values.reason}"

    for form in variants:
        answer = identification(spec, form, run, witnesses=witnesses)
        if isinstance(answer, Identification):
            return answer
    return None


def _read(path: Path) -> Lock:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except msgspec.MsgspecError as e:
        raise InvalidCase(f"{path}: no lock file of qfuzz identify: {e}") from None


def _changes(before: Lock, rows: list[Identification], ops: Sequence[str]) -> list[dict[str, Any]]:
    """Where what is found now is not what was locked; forms that are refused now, or were before, count."""
    changes = []
    for row in rows:
        known = [old for old in before.rows if _same_question(old, row)]
        if not known and row.backend in before.environment:
            changes.append({"what": f"{row.backend}: {title(row.form)}: was not taken", "witness": None})
        changes += [_change(old, row) for old in known if (old.verdict, old.choices) != (row.verdict, row.choices)]
    asked = {row.backend for row in rows}
    for old in before.rows:
        if old.backend in asked and old.form.op in ops and not any(_same_question(old, row) for row in rows):
            changes.append({"what": f"{old.backend}: {title(old.form)}: is not taken any more", "witness": None})
    return changes


def _same_question(old: Identification, new: Identification) -> bool:
    """Whether two rows are about the same form; a row for any number of elements is about few and many."""
    alike = "any" in (old.form.elements, new.form.elements)
    elements = new.form.elements if alike else old.form.elements
    return old.backend == new.backend and msgspec.structs.replace(old.form, elements=elements) == new.form


def _change(old: Identification, row: Identification) -> dict[str, Any]:
    fields = [f for f, c in row.choices.items() if old.choices.get(f) != c]
    parts = [f"{f} {old.choices.get(f)} -> {row.choices[f]}" for f in fields]
    what = f"{row.backend}: {title(row.form)}: " + (", ".join(parts) or f"{old.verdict} -> {row.verdict}")
    witness = next((w for w in row.witnesses if w.field in fields and w.choice == old.choices.get(w.field)), None)
    return {"what": what, "witness": witness or row.refuted_by}
