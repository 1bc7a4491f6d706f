"""The rim of the command line: errors become one line on stderr and an exit code, and nothing else."""

import contextlib
import os
import sys
from collections.abc import Sequence

import click

OK, FOUND, BAD_INPUT, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130


def run_cli(cli: click.Command, args: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    from qfuzz.ir.errors import BackendMissing, CampaignFailed, ExtraMissing, InvalidCase, WorkerFailed

    try:
        result = cli.main(args=None if args is None else list(args), prog_name="qfuzz", standalone_mode=False)
        return result if isinstance(result, int) else OK
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message())
        return BAD_INPUT
    except click.ClickException as e:
        _say(e.format_message())
        return BAD_INPUT
    except click.exceptions.Exit as e:
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except InvalidCase as e:
        _say(str(e))
        return BAD_INPUT
    except (BackendMissing, CampaignFailed, ExtraMissing, WorkerFailed) as e:
        _say(str(e))
        return INCOMPLETE
    except BrokenPipeError:
        return _without_reader()
    except SystemExit as e:
        # Click swallows a broken pipe and ends so, with a status that means a new finding here; nothing else does.
        if e.code != 1:
            raise
        return _without_reader()
    except OSError as e:
        _say(f"{e.filename or 'output'}: {e.strerror or e}")
        return BAD_INPUT


def _without_reader() -> int:
    """The reader of our output has gone; Python would complain at exit when it flushes."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
    return INCOMPLETE


def _say(message: str) -> None:
    first, *rest = message.splitlines() or [""]
    click.echo(f"qfuzz: error: {first}", err=True)
    for line in rest:
        click.echo(line, err=True)
