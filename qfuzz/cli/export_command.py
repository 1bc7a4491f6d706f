"""``qfuzz export CASE``: a case as files that others can run."""

from collections.abc import Sequence
from pathlib import Path

import click

from qfuzz.backends.discovery import canonical, default_specs, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.options import case_argument, output_options, print_json
from qfuzz.cli.rim import OK
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import read_case
from qfuzz.findings.files import write_folder
from qfuzz.findings.reproducers import reproducer_files
from qfuzz.findings.signature import signature_of, symptom_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Expectation


@click.command("export")
@case_argument
@click.option(
    "-b", "--backend", "spec", metavar="SPEC", help="Whose calls repro.py makes; else the first one of a known issue."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@output_options
def command(case: Path, spec: str | None, out: Path, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Write case.json, repro.py, report.md, and model.onnx with data where the case has an ONNX form, to DIR."""
    file = read_case(case)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidCase(f"{out}: exists already; export makes a new folder")
    name = canonical(spec) if spec else _of_known(file.expect)
    with WorkerClient((name,)) as client:
        (verdict,) = client.check(file.case, (name,)).backends
        described = client.described[name]
    known = next((e for e in file.expect if e.verdict == verdict.verdict and names_backend(e, name)), None)
    files = reproducer_files(
        file.case,
        verdict,
        backend=load_backend(name),
        spec=name,
        signature=signature_of(file.case, symptom_of(verdict)).text,
        backends=(name,),
        described=described,
        known=known,
    )
    write_folder(out, files)
    if as_json:
        print_json({"schema": 1, "path": str(out), "verdict": verdict.verdict, "files": sorted(files)})
    elif not quiet:
        click.echo(f"{out}: {verdict.verdict}" + (f" ({verdict.reason})" if verdict.reason else ""))
        for f in sorted(files) if verbose else ():
            click.echo(f"    {f}")
    return OK


def _of_known(expectations: Sequence[Expectation]) -> str:
    """The first backend that a known issue of the case is about: a default one, else as the issue names it."""
    known = [e for e in expectations if e.verdict != "holds"]
    for spec in default_specs():
        if any(names_backend(e, spec) for e in known):
            return spec
    for name in (e.backend.rstrip("*") for e in known):
        if "*" not in name:
            return canonical(name)
    about = ", ".join(e.backend for e in known) or "no backend"
    raise click.UsageError(f"say which backend with -b: the case lists known issues of {about}")
