"""``qfuzz reduce CASE``: the smallest case that still fails."""

from pathlib import Path

import click

from qfuzz import api
from qfuzz.backends.discovery import load_backend
from qfuzz.cli.options import case_argument, output_options, print_json
from qfuzz.cli.rim import FOUND
from qfuzz.findings.corpus import read_case
from qfuzz.findings.finding import write_finding
from qfuzz.reduce.driver import MAX_ATTEMPTS


@click.command("reduce")
@case_argument
@click.option("-b", "--backend", "spec", required=True, metavar="SPEC", help="The backend that fails.")
@click.option("--max-attempts", type=click.IntRange(min=1), default=MAX_ATTEMPTS, show_default=True, metavar="N")
@click.option("--out", type=click.Path(path_type=Path), default=Path("qfuzz-out"), show_default=True, metavar="DIR")
@output_options
def command(case: Path, spec: str, max_attempts: int, out: Path, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Reduce CASE for a backend, and write a finding folder under DIR. Exit code 1: it fails."""
    finding = api.reduce(read_case(case).case, spec, max_attempts=max_attempts)
    path = write_finding(out, finding, load_backend(finding.backend))
    if as_json:
        print_json(
            {
                "schema": 1,
                "signature": finding.signature.text,
                "backend": finding.backend,
                "path": str(path),
                "nodes": len(finding.case.network.nodes),
                "elements": finding.n_elements,
                "reduction": finding.reduction,
            }
        )
    else:
        click.echo(f"{finding.signature.text}: {len(finding.case.network.nodes)} nodes, {finding.n_elements} elements")
        if not quiet:
            for m in finding.verdict.mismatches if verbose else finding.verdict.mismatches[:1]:
                click.echo(f"    {m}")
        click.echo(str(path))
    return FOUND
