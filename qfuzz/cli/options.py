"""Options that commands share, and what they mean."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])


def backend_option(f: F) -> F:
    """``-b/--backend SPEC``, repeatable."""
    return click.option(
        "-b",
        "--backend",
        "specs",
        multiple=True,
        metavar="SPEC",
        help="A backend: name, name?key=value&…, or module:Class. Repeatable. Default: all that are installed.",
    )(f)


def output_options(f: F) -> F:
    """``--json``, ``-q``, ``-v``."""
    f = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else there.")(f)
    f = click.option("-q", "--quiet", is_flag=True, help="Say only what was found.")(f)
    return click.option("-v", "--verbose", is_flag=True, help="Say more.")(f)


case_argument = click.argument("case", type=click.Path(path_type=Path), metavar="CASE")


def print_json(document: Any) -> None:
    """The one document that ``--json`` promises."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    sys.stdout.flush()


def chosen_specs(specs: tuple[str, ...]) -> tuple[str, ...]:
    """Canonical specs of the backends that were asked for, or of the default set.

    Raises
    ------
    BackendMissing
        For an unknown name, or where no backend is installed at all.
    """
    from qfuzz.backends.discovery import canonical, default_specs
    from qfuzz.ir.errors import BackendMissing

    chosen = tuple(dict.fromkeys(canonical(s) for s in specs)) if specs else default_specs()
    if not chosen:
        raise BackendMissing("no backend is installed; pip install 'qfuzz[torch]' or 'qfuzz[onnxruntime]'")
    return chosen
