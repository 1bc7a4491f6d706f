"""A terminal that says plainly when nobody reads it any more."""

from typing import NoReturn

from rich.console import Console


class PipedConsole(Console):
    """Raises `BrokenPipeError` where Rich would exit with status 1, which means a new finding here."""

    def on_broken_pipe(self) -> NoReturn:
        """The reader has gone; `qfuzz.cli.rim` says what that means."""
        raise BrokenPipeError
