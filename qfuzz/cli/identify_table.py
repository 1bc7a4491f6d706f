"""What ``qfuzz identify`` prints: a table of arithmetics for each backend, and the witnesses below it."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Form
from qfuzz.cli.piped_console import PipedConsole, table_console
from qfuzz.identify.forms import title
from qfuzz.identify.outcome import Identification, Witness
from qfuzz.identify.probes import CONTRACTIONS

_OTHERS_SHOWN = 3
_LAST = ("rounding", "zero_point", "clamp")


def print_rows(backend: str, rows: Sequence[Identification], *, quiet: bool, verbose: bool) -> None:
    """The tables of one backend."""
    console = table_console()
    console.print(Text(backend, style="bold"))
    contractions = [r for r in rows if r.form.op in CONTRACTIONS]
    others = [r for r in rows if r.form.op not in CONTRACTIONS]
    if contractions:
        console.print(_contractions(contractions))
    if others:
        console.print(_others(others))
    if not rows:
        console.print("  takes none of the forms that are asked about")
    if not quiet:
        for row in rows:
            _print_more(console, row, verbose=verbose)
    console.print()


def _contractions(rows: Sequence[Identification]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    columns = ("operator", "weights used as", "products", "accumulator", "bias", "multiplier", "rounding", "cases")
    for c in columns:
        table.add_column(c, overflow="fold", justify="right" if c == "cases" else "left")
    for r in rows:
        cells = _steps(r.choices) if r.choices else [_verdict(r)] + [""] * 5
        cells[-1] += _one_of(r)
        table.add_row(Text(_operator(r.form)), *(Text(t.replace("_", " ")) for t in cells), str(r.cases))
    return table


def _steps(choices: dict[str, str]) -> list[str]:
    used = "integers" if choices["operands"] == "integers" else "dequantized float32"
    scales = "" if choices["scales"] == "own" else f", scales {choices['scales']}"
    steps = [choices[f] for f in ("products", "accumulator", "bias", "multiplier")]
    return [used, *steps[:3], steps[3] + scales, _rounding(choices)]


def _others(rows: Sequence[Identification]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for c in ("operator", "arithmetic", "rounding", "cases"):
        table.add_column(c, overflow="fold", justify="right" if c == "cases" else "left")
    for r in rows:
        own = [v for f, v in r.choices.items() if f not in _LAST and v != "own"]
        what = ", ".join(own) if r.choices else _verdict(r)
        rounding = _rounding(r.choices) + _one_of(r) if r.choices else ""
        table.add_row(title(r.form), *(Text(t.replace("_", " ")) for t in (what, rounding)), str(r.cases))
    return table


def _one_of(row: Identification) -> str:
    return f" (one of {1 + len(row.others)})" if row.others else ""


def _verdict(row: Identification) -> str:
    if row.verdict == "none":
        return "none of the catalogue"
    return "two identical runs differ" if row.verdict == "unstable" else ""


def _operator(form: Form) -> str:
    weights = "per channel" if form.per_channel else "with zero point"
    bias = "no bias" if form.bias == "none" else f"{form.bias} bias"
    return f"{form.op}, {form.dtype} by int8 {weights}, {bias}"


def _rounding(choices: dict[str, str]) -> str:
    zero_point = "then zero point" if choices["zero_point"] == "after_rounding" else "after zero point"
    clamp = "" if choices["clamp"] == "after_zero_point" else f", clamp {choices['clamp']}"
    padding = ", pads with stored zero" if choices.get("padding") == "stored_zero" else ""
    return f"{choices['rounding']} {zero_point}{clamp}{padding}"


def _print_more(console: PipedConsole, row: Identification, *, verbose: bool) -> None:
    lines = [f"as published: {p if verbose else p.partition(' (')[0]}" for p in row.published]
    shown = row.others if verbose else row.others[:_OTHERS_SHOWN]
    for other in shown:
        lines.append("or: " + ", ".join(f"{f} {v}" for f, v in other.items() if v != row.choices[f]))
    if len(row.others) > len(shown):
        lines.append(f"or {len(row.others) - len(shown)} more (-v)")
    if row.others:
        lines.append("no case was found that tells these apart")
    lines += _witnesses(row, verbose=verbose)
    if row.refuted_by is not None:
        lines.append("the case that shows it:" if verbose else "-v and --json show the case")
    if row.verdict == "identified" and not row.witnesses:
        universal = family_of(row.form.op).universal
        reasons = dict.fromkeys(why.partition(": ")[2] for why in row.equals if why not in universal)
        lines.append("no two models can differ here: " + "; ".join(reasons))
    if verbose:
        lines += [f"cannot differ here: {why}" for why in row.equals]
    if lines:
        console.print(Text(f"  {title(row.form)}"))
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)
    if verbose and row.refuted_by is not None:
        console.print(Text(row.refuted_by), soft_wrap=True)


def _witnesses(row: Identification, *, verbose: bool) -> list[str]:
    """What was returned instead of what each choice that is not made would give: a line a field, or a witness."""
    by_field: dict[str, list[Witness]] = {}
    for w in row.witnesses:
        by_field.setdefault(w.field, []).append(w)
    lines = []
    for field, witnesses in by_field.items():
        texts = [f"{w.choice} ({w.returned:g}, not {w.neighbour:g}" for w in witnesses]
        if verbose:
            lines += [
                f"not {field} {t}; {w.elements} elements)".replace("_", " ")
                for t, w in zip(texts, witnesses, strict=True)
            ]
        else:
            lines.append(f"not {field} {', '.join(t + ')' for t in texts)}".replace("_", " "))
    return lines
