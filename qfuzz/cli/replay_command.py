"""``qfuzz replay [PATH…]``: the regression corpus, or finding folders."""

from pathlib import Path

import click

from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.options import backend_option, chosen_specs, output_options, print_json
from qfuzz.cli.rim import FOUND, INCOMPLETE, OK
from qfuzz.findings.corpus import Replayed, corpus_files, read_case, replay_entry
from qfuzz.ir.errors import InvalidCase

_STYLES = {"holds": "green", "regressed": "red", "fixed": "cyan", "skipped": "yellow"}


@click.command("replay")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@backend_option
@output_options
def command(paths: tuple[Path, ...], specs: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool) -> int:
    """Replay case files, finding folders, or folders of them (default: corpus/).

    Each entry holds, regressed, is fixed (a known issue is gone), or is skipped with the reason. Exit code 1 where an
    entry regressed, 3 where none could run.
    """
    for path in paths or (Path("corpus"),):
        if not path.exists():
            raise InvalidCase(f"{path}: no such file or folder")
    files = [(str(p), read_case(p)) for p in corpus_files(paths or (Path("corpus"),))]
    if not files:
        raise InvalidCase(f"{', '.join(map(str, paths)) or 'corpus'}: no case files there")
    chosen = chosen_specs(specs)
    results: list[Replayed] = []
    with WorkerClient(chosen) as client:
        for name, file in files:
            entry = replay_entry(
                name, file, client.described, lambda case, spec: client.check(case, (spec,)).backends[0]
            )
            results += entry
            if not as_json:
                _print(entry, quiet=quiet, verbose=verbose)
    counts = {s: sum(r.status == s for r in results) for s in _STYLES}
    if as_json:
        print_json({"schema": 1, "entries": results})
    else:
        click.echo(f"{len(files)} cases: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    if counts["regressed"]:
        return FOUND
    if counts["skipped"] == len(results):
        click.echo("qfuzz: error: nothing could run: every entry was skipped", err=True)
        return INCOMPLETE
    return OK


def _print(entry: list[Replayed], *, quiet: bool, verbose: bool) -> None:
    for r in entry:
        if verbose or r.status in ("regressed", "fixed") or (r.status == "skipped" and not quiet and verbose):
            click.echo(f"{click.style(r.status, fg=_STYLES[r.status]):18} {r.path}  {r.backend}: {r.why}")
