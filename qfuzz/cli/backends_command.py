"""``qfuzz backends``: what is installed."""

from importlib.metadata import entry_points
from typing import Any

import click

from qfuzz.backends.discovery import BUILT_IN, DEFAULT_RIDES, GROUP, load_backend
from qfuzz.cli.options import output_options, print_json
from qfuzz.cli.rim import OK
from qfuzz.ir.errors import BackendMissing


@click.command("backends")
@output_options
def command(as_json: bool, quiet: bool, verbose: bool) -> int:
    """List backends: built-in ones, and those of other packages; with versions where they are installed."""
    rows: list[dict[str, Any]] = []
    names = [*dict.fromkeys([s for s, _ in DEFAULT_RIDES] + [n for n in BUILT_IN if n != "planted"])]
    names += [p.name for p in entry_points(group=GROUP)]
    defaults = {s for s, _ in DEFAULT_RIDES}
    for name in names:
        try:
            # Frameworks have string types of their own; a document holds plain ones.
            facts = {k: str(v) for k, v in load_backend(name).describe().items()}
            rows.append({"name": name, "installed": True, "default": name in defaults, "describe": facts, "why": ""})
        except BackendMissing as e:
            why = str(e)
            rows.append({"name": name, "installed": False, "default": name in defaults, "describe": {}, "why": why})
    if as_json:
        print_json({"schema": 1, "backends": rows})
        return OK
    for row in rows:
        facts = row["describe"]
        mark = click.style("installed", fg="green") if row["installed"] else click.style("missing", fg="yellow")
        default = "default" if row["default"] else ""
        click.echo(f"{row['name']!s:38} {mark:18} {facts.get('version', ''):14} {default:8} {row['why']}".rstrip())
        if verbose:
            for key, value in facts.items():
                click.echo(f"    {key}: {value}")
    return OK
