"""A terminal that says plainly when nobody reads it any more."""

from typing import NoReturn

from rich.console import Console

PIPED_WIDTH = 160
"""Columns of a table where no terminal says how many it has."""


class PipedConsole(Console):
    """Raises `BrokenPipeError` where Rich would exit with status 1, which means a new finding here."""

    def on_broken_pipe(self) -> NoReturn:
        """The reader has gone; `qfuzz.cli.rim` says what that means."""
        raise BrokenPipeError


def table_console() -> PipedConsole:
    """For tables: as wide as the terminal, or `PIPED_WIDTH`."""
    console = PipedConsole(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
