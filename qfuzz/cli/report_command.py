"""``qfuzz report DIR``: a campaign as one HTML page."""

from pathlib import Path

import click

from qfuzz.campaign.record import Record
from qfuzz.campaign.report import read_record
from qfuzz.cli.options import output_options, print_json
from qfuzz.cli.rim import OK
from qfuzz.findings.corpus import read_case
from qfuzz.findings.files import write_file
from qfuzz.ir.errors import ExtraMissing, InvalidCase


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in DIR.")
@output_options
def command(folder: Path, out: Path | None, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Write the campaign in DIR as one HTML page that fetches nothing.

    It needs matplotlib and Jinja2: pip install 'qfuzz[report]'.
    """
    out = out or folder / "report.html"
    record = read_record(folder)
    if out.is_dir():
        raise InvalidCase(f"{out}: is a folder; the report is one file")
    try:
        from qfuzz.report.page import render
    except ModuleNotFoundError as e:
        package = (e.name or "").split(".")[0]
        if package not in ("matplotlib", "jinja2", "markupsafe"):
            raise
        raise ExtraMissing(f"the report needs {package}; pip install 'qfuzz[report]'") from None
    folders = finding_folders(record, folder)
    # Not in another encoding than the page says it has, whatever the locale.
    page = render(record, folders).encode("utf-8")
    write_file(out, page)
    if as_json:
        print_json({"schema": 1, "report": str(out)})
    elif not quiet:
        click.echo(f"{out}")
        if verbose:
            click.echo(f"    {len(page):,} bytes, {len(folders)} findings with files")
    return OK


def finding_folders(record: Record, folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of the findings, by the path that the record names.

    A page is sent to others, and a record may come from others: whatever paths it names, the page gets only what
    lies in the campaign's own folder, and case files of a corpus. Links are not followed.
    """
    found: dict[str, dict[str, bytes]] = {}
    for finding in record.document.get("findings", ()):
        path = finding.get("path") if isinstance(finding, dict) else None
        if isinstance(path, str) and path:
            files = _corpus_file(Path(path)) if finding.get("known") else _files_below(folder, Path(path).name)
            if files:
                found[path] = files
    return found


def _files_below(folder: Path, name: str) -> dict[str, bytes]:
    root = folder / name
    if name in ("", "..") or root.is_symlink() or not root.is_dir():
        return {}
    paths = sorted(p for p in root.rglob("*") if not p.is_symlink() and p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def _corpus_file(path: Path) -> dict[str, bytes]:
    try:
        if path.suffix != ".json" or path.is_symlink() or not path.is_file():
            return {}
        read_case(path)
        return {path.name: path.read_bytes()}
    except (InvalidCase, ValueError, OSError):
        return {}
