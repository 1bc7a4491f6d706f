"""What ``run`` and ``compare`` share: a campaign with its crew, state and listeners, from options to an exit code."""

import functools
import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from qfuzz.campaign.crew import Crew, LocalCrew
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import FoundCase, Profile, Ride, Suspect
from qfuzz.campaign.report import as_document
from qfuzz.campaign.run import Campaign, Listener, Write
from qfuzz.campaign.saved import SavedCases
from qfuzz.campaign.state import State
from qfuzz.cli.events import Events
from qfuzz.cli.interrupts import Interrupts
from qfuzz.cli.metrics import Metrics
from qfuzz.cli.options import output_options, print_json
from qfuzz.cli.progress import Progress
from qfuzz.cli.rim import FOUND, INCOMPLETE, INTERRUPTED, OK
from qfuzz.findings.comparison import is_regression
from qfuzz.findings.corpus import KnownIssue
from qfuzz.findings.files import write_file
from qfuzz.ir.errors import ExtraMissing, InvalidCase

DEFAULT_SECONDS = 60.0
FOREVER = "forever"
MOST_EXAMPLES = 10**11
"""Whose shards can all be told by number in a runner's mark."""


class Duration(click.ParamType[float]):
    """``90s``, ``5m``, ``2h``, or ``forever``: until Ctrl-C."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        if text == FOREVER:
            return float("inf")
        units = {"s": 1.0, "m": 60.0, "h": 3600.0}
        number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
        try:
            seconds = float(number) * unit
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{text!r} is no duration; say 90s, 5m, 2h or {FOREVER}", param, ctx)
        return seconds


class FuzzOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a command that fuzzes say, but for its backends and where it writes.

    Attributes
    ----------
    jobs
        Worker processes here; None is one a core.
    scheduler
        Address of a Dask scheduler; empty for workers on this machine.
    """

    ops: tuple[str, ...]
    max_examples: int | None
    seconds: float | None
    seed: int | None
    max_nodes: int
    jobs: int | None
    scheduler: str
    fail_fast: bool
    no_reduce: bool
    as_lines: bool
    metrics: Path | None
    as_json: bool
    quiet: bool
    verbose: bool

    def plan(self, rides: tuple[Ride, ...], **more: Any) -> Plan:
        """The plan of a new campaign on `rides`; `more` are fields of its profile and its own."""
        of_profile = {name: more.pop(name) for name in Profile.__struct_fields__ if name in more}
        return Plan(
            seed=random.SystemRandom().randrange(2**32) if self.seed is None else self.seed,
            profile=Profile(rides=rides, ops=self.ops, max_nodes=self.max_nodes, **of_profile),
            max_examples=self.max_examples,
            seconds=self._budget(),
            fail_fast=self.fail_fast,
            reduce=not self.no_reduce,
            **more,
        )

    def _budget(self) -> float | None:
        """Seconds that a campaign takes; None is unbounded."""
        if self.seconds == float("inf"):
            return None
        return DEFAULT_SECONDS if self.seconds is None and self.max_examples is None else self.seconds


def not_empty(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """An option that is given must not be empty: an unset variable in a script is no wish for the default."""
    if not value.strip() and ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE:
        raise click.BadParameter("it is empty", ctx, param)
    return value


def campaign_options(f: Callable[..., int]) -> Callable[..., int]:
    """The options of commands that fuzz, and those of output; the command gets them as `options`."""

    @functools.wraps(f)
    def command(*args: Any, **given: Any) -> int:
        options = FuzzOptions(**{name: given.pop(name) for name in FuzzOptions.__struct_fields__})
        return f(*args, options=options, **given)

    decorated = output_options(command)
    for option in reversed(
        (
            click.option("--ops", multiple=True, metavar="PATTERN", help="Shell glob over operator names. Repeatable."),
            click.option(
                "--max-examples",
                type=click.IntRange(1, MOST_EXAMPLES),
                metavar="N",
                help="How many cases to generate.",
            ),
            click.option(
                "--time", "seconds", type=Duration(), metavar="90s", help="How long to take; forever: until Ctrl-C."
            ),
            click.option(
                "--seed",
                type=click.IntRange(0, 2**64 - 1),
                metavar="N",
                help="Which cases. Default: a random one, printed.",
            ),
            click.option(
                "--max-nodes",
                type=click.IntRange(1, 32),
                default=4,
                show_default=True,
                metavar="N",
                help="Largest network.",
            ),
            click.option(
                "--jobs", type=click.IntRange(1, 1024), metavar="N", help="Worker processes. Default: one a core."
            ),
            click.option(
                "--scheduler",
                default="",
                callback=not_empty,
                metavar="ADDRESS",
                help="A Dask scheduler, whose workers do it: tcp://host:port.",
            ),
            click.option("--fail-fast", is_flag=True, help="Stop at the first finding that is not known."),
            click.option("--no-reduce", is_flag=True, help="Write findings as they were found."),
            click.option(
                "--json-lines", "as_lines", is_flag=True, help="One JSON event a line on stdout as they come."
            ),
            click.option(
                "--metrics",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Keep a Prometheus text file up to date.",
            ),
        )
    ):
        decorated = option(decorated)
    return decorated


def run_campaign(
    plan: Plan,
    open_state: Callable[[], State],
    options: FuzzOptions,
    issues: Sequence[KnownIssue],
    write: Write,
    saved: SavedCases | None = None,
) -> int:
    """Run it, show it, and say how it ended as an exit code.

    Parameters
    ----------
    open_state
        Called once workers are there: what cannot start writes nothing.
    saved
        Cases of other campaigns.
    """
    if options.as_json and options.as_lines:
        raise click.UsageError("--json and --json-lines exclude each other")
    if options.scheduler and options.jobs is not None:
        raise click.UsageError("--jobs and --scheduler exclude each other: a cluster's workers are its own affair")
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        events = Events() if options.as_lines else None
        metrics = Metrics(options.metrics) if options.metrics is not None else None
        silent = options.as_json or options.as_lines
        progress = stack.enter_context(Progress(quiet=options.quiet, silent=silent))
        crew = _crew(plan, options)
        stack.callback(crew.close)
        state = stack.enter_context(open_state())
        listeners: list[Listener] = [each for each in (progress, events, metrics) if each is not None]
        campaign = Campaign(plan, crew, state, issues, write, Everybody(listeners), interrupts, saved)
        before = campaign.tally.examples
        progress.beginning(plan.seed, plan.profile.specs, before)
        if events is not None:
            events.say("start", seed=plan.seed, specs=plan.profile.specs, workers=crew.size, resumed_after=before)
        campaign.run()
        if metrics is not None:
            metrics.final(campaign)
    tally = campaign.tally
    document = as_document(
        plan,
        tally,
        campaign.described,
        campaign.findings,
        campaign.paths,
        seconds=campaign.state_seconds,
        stopped=campaign.stopped,
        lost=campaign.lost,
        errors=campaign.errors,
    )
    try:
        write_file(state.folder / "run.json", msgspec.json.format(msgspec.json.encode(document), indent=2))
    except OSError as e:  # all is in the campaign's file; what was found is said all the same
        click.echo(f"qfuzz: {state.folder / 'run.json'}: not written: {e.strerror or e}", err=True)
    if options.as_json:
        print_json(document)
    elif events is not None:
        events.say("end", document=document)
    else:
        progress.summary(tally, document, verbose=options.verbose)
    return _exit_code(campaign)


def _exit_code(campaign: Campaign) -> int:
    if campaign.stopped == "interrupted":
        return INTERRUPTED
    only_regressions = campaign.plan.fail_on == "regressed"
    if any(
        is_regression(f.signature.symptom.cause) if only_regressions else not f.known
        for f in campaign.findings.values()
    ):
        return FOUND
    if campaign.lost or campaign.errors:
        parts = len(campaign.lost), campaign.errors
        click.echo(f"qfuzz: error: not all was done: {parts[0]} shards lost, {parts[1]} errors inside qfuzz", err=True)
        return INCOMPLETE
    if not campaign.tally.has_compared:
        click.echo("qfuzz: error: nothing was compared: no backend supported any case", err=True)
        return INCOMPLETE
    return OK


def _crew(plan: Plan, options: FuzzOptions) -> Crew:
    if options.scheduler:
        try:
            from qfuzz.campaign.cluster import ClusterCrew  # loads Dask
        except ModuleNotFoundError as e:
            raise ExtraMissing(f"--scheduler needs {e.name}; pip install 'qfuzz[cluster]'") from None
        return ClusterCrew(plan.profile.specs, options.scheduler)
    jobs = options.jobs or len(os.sched_getaffinity(0))
    # No more workers than there are shards: each loads the frameworks once.
    return LocalCrew(plan.profile.specs, jobs if plan.n_shards is None else max(1, min(jobs, plan.n_shards)))


class Everybody:
    """Listeners as one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def update(self, campaign: Campaign) -> None:
        """Counts have changed."""
        for each in self._listeners:
            each.update(campaign)

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        """An accusation."""
        for each in self._listeners:
            each.suspect(suspect, new=new)

    def finding(self, found: FoundCase, path: str) -> None:
        """A finding is written."""
        for each in self._listeners:
            each.finding(found, path)

    def trouble(self, what: str) -> None:
        """Something went wrong."""
        for each in self._listeners:
            each.trouble(what)


def require_writable(out: Path) -> None:
    """Raise now, not after an hour, where findings could not be written."""
    if out.exists() and not out.is_dir():
        raise InvalidCase(f"{out}: is no folder; findings need one")
    existed = out.exists()
    probe = out / ".qfuzz-writable"
    write_file(probe, b"")
    probe.unlink()
    if not existed:
        out.rmdir()
