"""``qfuzz export CASE``: a case as files that others can run."""

from pathlib import Path

import click

from qfuzz.backends.discovery import canonical, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.options import case_argument, output_options, print_json
from qfuzz.cli.rim import OK
from qfuzz.findings.corpus import read_case
from qfuzz.findings.files import write_folder
from qfuzz.findings.reproducers import reproducer_files
from qfuzz.findings.signature import signature_of, symptom_of
from qfuzz.ir.errors import InvalidCase


@click.command("export")
@case_argument
@click.option("-b", "--backend", "spec", required=True, metavar="SPEC", help="Whose calls repro.py makes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@output_options
def command(case: Path, spec: str, out: Path, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Write case.json, repro.py, report.md, and model.onnx with data where the case has an ONNX form, to DIR."""
    file = read_case(case)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidCase(f"{out}: exists already; export makes a new folder")
    name = canonical(spec)
    with WorkerClient((name,)) as client:
        (verdict,) = client.check(file.case, (name,)).backends
        described = client.described[name]
    files = reproducer_files(
        file.case,
        verdict,
        backend=load_backend(name),
        spec=name,
        signature=signature_of(file.case, symptom_of(verdict)).text,
        backends=(name,),
        described=described,
    )
    write_folder(out, files)
    if as_json:
        print_json({"schema": 1, "path": str(out), "verdict": verdict.verdict, "files": sorted(files)})
    elif not quiet:
        click.echo(f"{out}: {verdict.verdict}" + (f" ({verdict.reason})" if verdict.reason else ""))
        for f in sorted(files) if verbose else ():
            click.echo(f"    {f}")
    return OK
