"""``qfuzz identify``: which arithmetic each backend uses, with witnesses."""

import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from qfuzz.arithmetic.family import Form
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.options import backend_option, chosen_specs, output_options, print_json
from qfuzz.cli.rim import FOUND, OK
from qfuzz.identify.experiment import Run
from qfuzz.identify.outcome import Identification, identification
from qfuzz.ir.errors import InvalidCase

OPERATORS = ("conv", "linear")


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found, to be compared with later."""

    schema: int
    environment: dict[str, dict[str, str]]
    rows: tuple[Identification, ...]


@click.command("identify")
@backend_option
@click.option("--op", "ops", multiple=True, metavar="PATTERN", help="Operators: conv, linear. Repeatable.")
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
    """Find out which arithmetic each backend computes convolutions and linear layers with.

    For each backend, operator and type, cases are constructed on which the models of the catalogue must differ, until
    one is left, or several that cannot differ.
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
            for row in _rows(client, spec, chosen_ops):
                rows.append(row)
                if not as_json and not quiet:
                    _print(row, verbose=verbose)
    changed = _changes(before, rows) if before else []
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
    def run(case: Any) -> Any:
        values = client.values(case, spec)
        return values["y"] if isinstance(values, dict) else f"{values.verdict}: {values.reason}"

    for op in ops:
        for form in forms(op):
            answer = _first_taken(spec, form, run)
            if answer is not None:
                yield answer


def forms(op: str) -> Iterator[Form]:
    """The forms that are asked about, each with whatever bias the kernel takes."""
    for dtype in ("uint8", "int8"):
        for symmetric in (True, False):
            yield Form(op=op, dtype=dtype, symmetric=symmetric, per_channel=symmetric)


def _first_taken(spec: str, form: Form, run: Run) -> Identification | None:
    for bias in ("float32", "int32", "none"):
        answer = identification(spec, msgspec.structs.replace(form, bias=bias), run)
        if isinstance(answer, Identification):
            return answer
    return None


def _read(path: Path) -> Lock:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except msgspec.MsgspecError as e:
        raise InvalidCase(f"{path}: no lock file of qfuzz identify: {e}") from None


def _changes(before: Lock, rows: list[Identification]) -> list[dict[str, Any]]:
    known = {(r.backend, r.form): r for r in before.rows}
    changes = []
    for row in rows:
        old = known.get((row.backend, row.form))
        if old is None or (old.verdict, old.choices) == (row.verdict, row.choices):
            continue
        parts = [f"{f} {old.choices.get(f)} -> {c}" for f, c in row.choices.items() if old.choices.get(f) != c]
        what = f"{row.backend}: {title(row.form)}: " + (", ".join(parts) or f"{old.verdict} -> {row.verdict}")
        fields = {f for f, c in row.choices.items() if old.choices.get(f) != c}
        witness = next((w for w in row.witnesses if w.field in fields and w.choice == old.choices.get(w.field)), None)
        changes.append({"what": what, "witness": witness or row.refuted_by})
    return changes


def title(form: Form) -> str:
    """The form in words."""
    weights = "symmetric weights" if form.symmetric else "weights with a zero point"
    return f"{form.op}, {form.dtype} by int8, {weights}, {form.bias} bias"


def _print(row: Identification, *, verbose: bool) -> None:
    click.echo(click.style(f"{row.backend}: {title(row.form)}", bold=True) + f"  ({row.cases} cases)")
    match row.verdict:
        case "none":
            click.echo("  none of the catalogue" + ("; refuted by:" if verbose else " (-v shows the case)"))
            if verbose:
                click.echo(row.refuted_by)
            return
        case "unstable":
            click.echo("  two identical runs differ: no model is deterministic so")
            return
        case "several":
            click.echo(f"  {1 + len(row.others)} models are left that no case was found to tell apart; the first:")
        case _:
            pass
    c = row.choices
    operands = "integers" if c["operands"] == "integers" else "float32, dequantized"
    click.echo(f"  weights used as {operands}; products {c['products']}; accumulator {c['accumulator']}")
    click.echo(f"  bias {c['bias']}; multiplier {c['multiplier']}")
    click.echo(f"  rounding {c['rounding']}; zero point {c['zero_point']}; clamp {c['clamp']}; padding {c['padding']}")
    for name in row.published:
        click.echo(f"  as published: {name if verbose else name.partition(' (')[0]}")
    for other in row.others:
        click.echo("  or: " + ", ".join(f"{f} {v}" for f, v in other.items() if v != c[f]))
    for w in sorted(row.witnesses, key=lambda w: w.field):
        click.echo(
            f"    not {w.field} {w.choice}: {w.elements} elements, returned {w.returned}, that gives {w.neighbour}"
        )
    if verbose:
        for why in row.equals:
            click.echo(f"    cannot differ here: {why}")
