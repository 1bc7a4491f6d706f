"""``qfuzz compare A B``: fuzz two backends for changes, the reference judging both."""

import random
from pathlib import Path

import click

from qfuzz.backends.discovery import canonical
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import FoundCase, Profile, Ride
from qfuzz.campaign.state import State
from qfuzz.cli.fuzzing import Chosen, budget, campaign_options, require_writable, run_campaign
from qfuzz.cli.options import output_options
from qfuzz.cli.writing import writing
from qfuzz.findings.comparison import is_regression
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
@output_options
def command(
    a: str,
    b: str,
    ops: tuple[str, ...],
    max_examples: int | None,
    seconds: float | None,
    seed: int | None,
    max_nodes: int,
    jobs: int | None,
    scheduler: str,
    fail_fast: bool,
    no_reduce: bool,
    as_lines: bool,
    metrics: Path | None,
    out: Path,
    fail_on: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Fuzz two backends for inputs on which they return different bits, and say which side is right.

    A and B are specs: two versions are onnxruntime?python=PATH with the Pythons of two environments. Without --time
    and --max-examples it takes 60 s. qfuzz run --resume goes on with an interrupted comparison.
    """
    specs = tuple(canonical(s) for s in (a, b))
    if specs[0] == specs[1]:
        raise click.UsageError(f"compare needs two backends, not {specs[0]} twice")
    selected_ops(ops)
    require_writable(out)
    plan = Plan(
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        profile=Profile(rides=tuple(Ride(s) for s in specs), ops=ops, max_nodes=max_nodes, compare=True),
        max_examples=max_examples,
        seconds=budget(seconds, max_examples),
        fail_fast=fail_fast,
        reduce=not no_reduce,
    )
    chosen = Chosen(
        jobs=jobs,
        scheduler=scheduler,
        metrics=metrics,
        as_json=as_json,
        as_lines=as_lines,
        quiet=quiet,
        verbose=verbose,
    )

    def counts(found: FoundCase) -> bool:
        return fail_on == "any" or is_regression(found.signature.symptom.cause)

    with writing(plan, out) as write:
        return run_campaign(plan, lambda: State.create(out, plan), chosen, (), write, counts)
