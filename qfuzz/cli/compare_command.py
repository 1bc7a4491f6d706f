"""``qfuzz compare A B``: fuzz two backends for changes, the reference judging both."""

from pathlib import Path

import click

from qfuzz.backends.discovery import canonical
from qfuzz.campaign.protocol import Ride
from qfuzz.campaign.state import State
from qfuzz.cli.fuzzing import FuzzOptions, campaign_options, require_writable, run_campaign
from qfuzz.cli.writing import writing
from qfuzz.strategies.families import selected_ops


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@campaign_options
@click.option("--out", type=click.Path(path_type=Path), default=Path("qfuzz-out"), show_default=True, metavar="DIR")
@click.option(
    "--fail-on",
    type=click.Choice(["any", "regressed"]),
    default="any",
    show_default=True,
    help="Which changes make the exit code 1: any, or those from right to wrong, or to a crash, a refusal, …",
)
def command(a: str, b: str, out: Path, fail_on: str, options: FuzzOptions) -> int:
    """Fuzz two backends for inputs on which they return different bits, and say which side is right.

    A and B are specs: two versions are onnxruntime?python=PATH with the Pythons of two environments. Without --time
    and --max-examples it takes 60 s. qfuzz run --resume goes on with an interrupted comparison.
    """
    specs = tuple(canonical(s) for s in (a, b))
    if specs[0] == specs[1]:
        raise click.UsageError(f"compare needs two backends, not {specs[0]} twice")
    selected_ops(options.ops)
    require_writable(out)
    plan = options.plan(tuple(Ride(s) for s in specs), compare=True, fail_on=fail_on)
    with writing(plan, out) as write:
        return run_campaign(plan, lambda: State.create(out, plan), options, (), write)
