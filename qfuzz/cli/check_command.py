"""``qfuzz check CASE``: one case, once."""

from pathlib import Path
from typing import Any

import click

from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.options import backend_option, case_argument, chosen_specs, output_options, print_json
from qfuzz.cli.rim import FOUND, OK
from qfuzz.findings.corpus import read_case
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, told


@click.command("check")
@case_argument
@backend_option
@output_options
def command(case: Path, specs: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool) -> int:
    """Judge CASE once on each backend. Exit code 1 where a backend is accused."""
    file = read_case(case)
    chosen = chosen_specs(specs)
    with WorkerClient(chosen) as client:
        verdicts = client.check(file.case, chosen)
    if as_json:
        print_json(
            {
                "schema": 1,
                "case": str(case),
                "backends": [_as_document(v) for v in verdicts.backends],
            }
        )
    else:
        for v in verdicts.backends:
            _print(v, quiet=quiet, verbose=verbose)
    return FOUND if verdicts.findings else OK


def _as_document(v: BackendVerdict) -> dict[str, Any]:
    return {
        "backend": v.backend,
        "verdict": v.verdict,
        "reason": v.reason,
        "op": v.op,
        "cause": v.cause,
        "exact": v.counts.exact,
        "admissible": v.counts.admissible,
        "violation": v.counts.violation,
        "mismatches": list(v.mismatches),
    }


def _print(v: BackendVerdict, *, quiet: bool, verbose: bool) -> None:
    if quiet and not v.is_finding:
        return
    style = {"fg": "red", "bold": True} if v.is_finding else {"fg": "yellow" if v.reason else "green"}
    c = v.counts
    line = f"{v.backend:38} {click.style(v.verdict, **style)}"
    if v.outcome is Outcome.JUDGED:
        line += f"  {c.exact} exact, {c.admissible} admissible, {c.violation} violating"
    click.echo(line + (f"  {v.reason}" if v.reason else ""))
    for m in v.mismatches if verbose else v.mismatches[:1]:
        click.echo(f"    {m}" + (f", exact {told(m.exact)}" if m.exact is not None else ""))
    if v.cause:
        click.echo(f"    every element is explained by: {v.cause}")
    elif v.counts.violation:
        click.echo("    unexplained: no fault of the catalogue gives every element, here and on fresh inputs")
