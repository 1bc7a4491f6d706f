"""``qfuzz run``: the main job."""

from pathlib import Path

import click
import msgspec

from qfuzz.backends.discovery import canonical, default_rides
from qfuzz.campaign.protocol import KnownDeath, Ride
from qfuzz.campaign.saved import SavedCases
from qfuzz.campaign.state import State
from qfuzz.cli.fuzzing import FuzzOptions, campaign_options, not_empty, require_writable, run_campaign
from qfuzz.cli.options import backend_option
from qfuzz.cli.writing import writing
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import KnownIssue, known_issues
from qfuzz.ir.errors import BackendMissing, InvalidCase
from qfuzz.strategies.families import selected_ops

FIXED_BY_RESUME = (
    *("specs", "ops", "seed", "max_nodes", "invalid", "out", "corpora", "fail_fast", "no_reduce", "database"),
)
"""Options that a resumed campaign has already."""


@click.command("run")
@backend_option
@campaign_options
@click.option(
    "--invalid",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="Share of cases with one argument that is to be refused.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("qfuzz-out"), show_default=True, metavar="DIR")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the campaign in DIR. --time then adds to what it took, --max-examples replaces its own.",
)
@click.option(
    "--corpus",
    "corpora",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where known issues are listed. Default: corpus/, if there.",
)
@click.option(
    "--database",
    default="",
    callback=not_empty,
    metavar="SPEC",
    help="Check the cases that others saved there first, and save what is found: a folder, or redis://host:port/0.",
)
@click.pass_context
def command(
    ctx: click.Context,
    specs: tuple[str, ...],
    invalid: float,
    out: Path,
    resume: Path | None,
    corpora: tuple[Path, ...],
    database: str,
    options: FuzzOptions,
) -> int:
    """Fuzz backends against the exact reference; reduce what is found and write it to DIR.

    Without --time and --max-examples it takes 60 s. Exit code 1 where a finding is new.
    """
    if resume is not None:
        given = [n for n in FIXED_BY_RESUME if ctx.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE]
        if given:
            option = next(p.opts[-1] for p in ctx.command.params if p.name == given[0])
            raise click.UsageError(f"--resume goes on with the campaign that {resume} holds; it takes no {option}")
        return _resumed(resume, options)
    selected_ops(options.ops)
    rides = _rides(specs)
    if not corpora and Path("corpus").is_dir():
        corpora = (Path("corpus"),)
    issues = _known(corpora)
    database = _full_name(database)
    saved = _saved_cases(database, rides)
    require_writable(out)
    known_deaths = _known_deaths(issues, rides)
    plan = options.plan(rides, known_deaths=known_deaths, invalid=invalid, corpora=corpora, database=database)
    with writing(plan, out) as write:
        return run_campaign(plan, lambda: State.create(out, plan), options, issues, write, saved=saved)


def _resumed(folder: Path, options: FuzzOptions) -> int:
    """Go on with what a campaign has not done."""
    state = State.open(folder)
    try:
        before = state.snapshot()
        plan, seconds, max_examples = before.plan, options.seconds, options.max_examples
        if max_examples is not None:
            plan = msgspec.structs.replace(plan, max_examples=max_examples)
        if seconds is not None:
            plan = msgspec.structs.replace(plan, seconds=before.seconds + seconds if seconds < float("inf") else None)
        ended = before.stopped == "" and len(before.concluded) == len(before.suspects)
        if ended and seconds is None and max_examples is None and not before.lost:
            raise InvalidCase(f"{folder}: its campaign has ended; give it more --time or --max-examples to go on")
        issues = _known(plan.corpora)
        saved = _saved_cases(plan.database, plan.profile.rides)
        with writing(plan, folder) as write:
            return run_campaign(plan, lambda: state, options, issues, write, saved=saved)
    finally:
        state.close()


def _full_name(database: str) -> str:
    if not database:
        return ""
    from qfuzz.strategies.database import full_name  # loads hypothesis

    return full_name(database)


def _saved_cases(database: str, rides: tuple[Ride, ...]) -> SavedCases | None:
    if not database:
        return None
    from qfuzz.strategies.database import open_database  # loads hypothesis

    return SavedCases(open_database(database), [r.spec for r in rides])


def _rides(specs: tuple[str, ...]) -> tuple[Ride, ...]:
    """The backends asked for, each on every example; else the default set.

    Raises
    ------
    BackendMissing
    """
    if specs:
        return tuple(Ride(s) for s in dict.fromkeys(canonical(s) for s in specs))
    rides = tuple(Ride(canonical(s), every) for s, every in default_rides())
    if not rides:
        raise BackendMissing("no backend is installed; pip install 'qfuzz[torch]' or 'qfuzz[onnxruntime]'")
    return rides


def _known(corpora: tuple[Path, ...]) -> tuple[KnownIssue, ...]:
    for path in corpora:
        if not path.exists():
            raise InvalidCase(f"{path}: no such file or folder")
    return known_issues(corpora)


def _known_deaths(issues: tuple[KnownIssue, ...], rides: tuple[Ride, ...]) -> tuple[KnownDeath, ...]:
    """The known crashes and hangs of these backends, which need not be run every time."""
    deaths = []
    for issue in issues:
        e = issue.expectation
        if e.verdict in ("crash", "hang") and e.signature:
            op, *_, form = e.signature.split("/")
            parts = tuple(part for part in form.split(",") if part not in ("-", "*"))
            deaths += [KnownDeath(r.spec, op, parts, e.when) for r in rides if names_backend(e, r.spec)]
    return tuple(deaths)
