"""``qfuzz audit MODEL``: a quantized model, layer by layer."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from qfuzz.audit.isolated import isolated
from qfuzz.audit.layer import LayerReport
from qfuzz.audit.outcome import Audit, audit
from qfuzz.cli.options import output_options, print_json
from qfuzz.cli.piped_console import table_console
from qfuzz.cli.rim import FOUND, OK
from qfuzz.ir.errors import InvalidCase

LEVELS = ("disable", "basic", "extended", "all")


@click.command("audit")
@click.argument("model", metavar="MODEL")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Arrays to run on, by the names of the model's inputs (.pt2: in order). Default: drawn, or the model's own.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of drawn inputs.")
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=N", help="Size of a symbolic dimension, else 1. Repeatable."
)
@click.option("--opt", type=click.Choice(LEVELS), help="ONNX Runtime's graph optimizations.  [default: all]")
@click.option("--engine", metavar="E", help="PyTorch's quantized engine: fbgemm, x86, onednn or qnnpack.")
@click.option(
    "--export", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write a finding folder per violation."
)
@output_options
def command(
    model: str,
    inputs: Path | None,
    seed: int,
    dims: tuple[str, ...],
    opt: str | None,
    engine: str | None,
    folder: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Judge a quantized MODEL: each kernel that ran, on what it received. Exit code 1 where one is wrong.

    MODEL is FILE.onnx (QOperator or QDQ), FILE.pt2 (an exported program), or FILE.py:FUNCTION, which returns a
    torch.nn.Module and its example inputs.

    A .py target is executed as any Python program is, and torch may execute what a .pt2 file holds. A .onnx file is
    data: nothing in it is executed but its operators, by ONNX Runtime.

    Columns: elements that are exact, admissible ("adm.") and wrong; "int16", the share of adjacent products whose sum
    leaves 16 bits, which is wrong on a CPU without VNNI, whatever this one has; "sat.", elements at an end of the
    storage range; and the arithmetic models that give all of a layer's elements (-v: all of them).
    """
    dimensions = _dimensions(dims)

    def job(on_layer: Any) -> Audit:
        arrays = None
        if inputs is not None:
            from qfuzz.audit.npz import read_arrays

            arrays = read_arrays(inputs)
        return audit(model, arrays, seed=seed, level=opt, dimensions=dimensions, engine=engine, on_layer=on_layer)

    result = isolated(job)
    exported: list[dict[str, Any]] = []
    if folder is not None and result.violations:
        from qfuzz.cli.audit_export import export

        exported = export(result.violations, folder)
    if as_json:
        print_json(_document(result, exported))
    else:
        _print(result, exported, quiet=quiet, verbose=verbose)
    return FOUND if result.violating else OK


def _dimensions(dims: tuple[str, ...]) -> dict[str, int]:
    sizes = {}
    for text in dims:
        name, _, size = text.partition("=")
        if not name or not size.isascii() or not size.isdigit():
            raise InvalidCase(f"--dim {text!r}: NAME=N, a symbolic dimension and its size")
        sizes[name] = int(size)
    return sizes


_MODELS_SHOWN = 2


def _document(result: Audit, exported: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": result.model,
        "verdict": result.verdict,
        "violating": len(result.violating),
        "layers": [msgspec.to_builtins(r) for r in result.layers],
        "uncovered": [msgspec.to_builtins(u) for u in result.uncovered],
        "notes": list(result.notes),
        "exported": exported,
    }


def _print(result: Audit, exported: list[dict[str, Any]], *, quiet: bool, verbose: bool) -> None:
    console = table_console()
    rows = [r for r in result.layers if r.violation] if quiet else list(result.layers)
    if rows:
        console.print(_table(rows, verbose=verbose))
    if not quiet:
        for u in result.uncovered:
            console.print(Text(f"not judged: {u.name} ({u.kernel}): {u.reason}"), soft_wrap=True)
        for note in result.notes:
            console.print(Text(f"note: {note}"), soft_wrap=True)
    for r in result.layers:
        if r.problem:
            console.print(Text(f"{r.name}: {r.problem}"), soft_wrap=True)
        elif r.violation and not quiet:
            indices = r.violating if verbose else r.violating[:1]
            where = ", ".join(f"[{', '.join(map(str, i))}]" for i in indices)
            more = "" if len(indices) == r.violation else " and others"
            console.print(Text(f"{r.name}: wrong at {where}{more}"), soft_wrap=True)
    for e in exported:
        console.print(Text(f"{e['layer']}: {e['made']}: {e['path']}"), soft_wrap=True)
    console.print(Text(result.verdict, style="bold red" if result.violating else "bold green"), soft_wrap=True)


def _table(reports: list[LayerReport], *, verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("layer", "operator", "kernel"):
        table.add_column(column, overflow="fold")
    for column in ("elements", "exact", "adm.", "wrong", "int16", "sat."):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("models", overflow="fold")
    for r in reports:
        table.add_row(
            Text(r.name),
            r.op,
            Text(r.kernel.removeprefix("com.microsoft.")),
            str(r.elements),
            str(r.exact),
            str(r.admissible),
            Text(str(r.violation), style="bold red" if r.violation else ""),
            _share(r.saturating_pairs, r.pairs),
            str(r.saturated),
            Text(_models(r, verbose=verbose)),
        )
    return table


def _models(report: LayerReport, *, verbose: bool) -> str:
    if report.violation:
        return report.cause or "unexplained"
    if not report.models:
        return "none alone"
    shown = report.models if verbose else report.models[:_MODELS_SHOWN]
    more = len(report.models) - len(shown)
    return "; ".join(shown) + (f"; {more} more" if more else "")


def _share(part: int, whole: int) -> str:
    if not whole:
        return "-"
    return "0" if not part else f"{100 * part / whole:.2g}%"
