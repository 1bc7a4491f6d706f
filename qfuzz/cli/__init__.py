"""The command line. Each command is a module that is imported only when it is asked for, so that help is quick."""

import importlib

import click

import qfuzz

COMMANDS: dict[str, str] = {
    "run": "Fuzz every installed backend; reduce and write findings.",
    "check": "Judge one case, once: verdicts and admissible intervals per backend.",
    "replay": "Replay corpus entries or finding folders.",
    "reduce": "Reduce a case for a backend; writes a finding folder.",
    "explain": "Show one element's arithmetic, step by step, for each backend.",
    "identify": "Find which arithmetic each backend uses, with witnesses.",
    "audit": "Judge a quantized model (.onnx, .pt2, module.py:build), layer by layer.",
    "compare": "Fuzz two backends for changes, the reference judging both.",
    "export": "Write repro.py, model.onnx with data, and report.md from a case.",
    "report": "Show a campaign as one self-contained HTML page.",
    "backends": "List what is installed.",
    "ops": "Show what is covered: operators by backends.",
}
"""Commands in the order of the help, with their one-line descriptions."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"qfuzz.cli.{cmd_name}_command")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(qfuzz.__version__, prog_name="qfuzz")
def cli() -> None:
    """Differential testing of quantized kernels against exact arithmetic, without tolerance.

    Exit codes: 0 nothing new; 1 a new finding, or a corpus entry that regressed; 2 bad usage or bad input;
    3 the job could not be done whole; 130 interrupted.
    """


def main() -> None:
    """The console script."""
    from qfuzz.cli.rim import run_cli

    raise SystemExit(run_cli(cli))
