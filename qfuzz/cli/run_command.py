"""``qfuzz run``: the main job."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import click

from qfuzz.backends.discovery import canonical, default_rides, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.conclude import Lab, conclude
from qfuzz.campaign.protocol import KnownDeath, Ride
from qfuzz.campaign.report import as_document
from qfuzz.campaign.run import Campaign, Fuzzing, Plan, Suspect
from qfuzz.cli.options import backend_option, output_options, print_json
from qfuzz.cli.progress import Progress
from qfuzz.cli.rim import FOUND, INCOMPLETE, INTERRUPTED, OK
from qfuzz.findings.conditions import names_backend
from qfuzz.findings.corpus import KnownIssue, known_issues
from qfuzz.findings.files import write_file
from qfuzz.findings.finding import Finding, write_finding
from qfuzz.ir.errors import BackendMissing, InvalidCase
from qfuzz.ir.protocols import Backend
from qfuzz.strategies.families import selected_ops

DEFAULT_SECONDS = 60.0
REDUCTION_SHARE = 0.35
"""Of a time budget, at most this much is kept for reduction; fuzzing ends earlier by it once there are suspects."""


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        units = {"s": 1.0, "m": 60.0, "h": 3600.0}
        number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
        try:
            seconds = float(number) * unit
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{text!r} is no duration; say 90s, 5m or 2h", param, ctx)
        return seconds


@click.command("run")
@backend_option
@click.option("--ops", multiple=True, metavar="PATTERN", help="Shell glob over operator names. Repeatable.")
@click.option("--max-examples", type=click.IntRange(min=1), metavar="N", help="How many cases to generate.")
@click.option("--time", "seconds", type=_Duration(), metavar="90s", help="How long to take, reduction included.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Which cases. Default: a random one, printed.")
@click.option(
    "--max-nodes", type=click.IntRange(1, 32), default=4, show_default=True, metavar="N", help="Largest network."
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N", help="Worker processes."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("qfuzz-out"), show_default=True, metavar="DIR")
@click.option("--fail-fast", is_flag=True, help="Stop at the first finding that is not known.")
@click.option("--no-reduce", is_flag=True, help="Write findings as they were found.")
@click.option(
    "--corpus",
    "corpora",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where known issues are listed. Default: corpus/, if there.",
)
@output_options
def command(
    specs: tuple[str, ...],
    ops: tuple[str, ...],
    max_examples: int | None,
    seconds: float | None,
    seed: int | None,
    max_nodes: int,
    jobs: int,
    out: Path,
    fail_fast: bool,
    no_reduce: bool,
    corpora: tuple[Path, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Fuzz backends against the exact reference; reduce what is found and write it to DIR.

    Without --time and --max-examples it takes 60 s. Exit code 1 where a finding is new.
    """
    selected_ops(ops)
    rides = _rides(specs)
    issues = _known(corpora)
    _check_writable(out)
    budget = DEFAULT_SECONDS if seconds is None and max_examples is None else seconds
    plan = Plan(
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        rides=rides,
        max_examples=max_examples,
        seconds=budget,
        ops=ops,
        max_nodes=max_nodes,
        jobs=jobs,
        fail_fast=fail_fast,
        known_deaths=_known_deaths(issues, rides),
        out=out,
    )
    started = time.monotonic()
    with Progress(plan, quiet=quiet or as_json, silent=as_json) as progress:
        campaign = Campaign(
            plan, progress.update, progress.suspect, reduction_share=0 if no_reduce else REDUCTION_SHARE
        )
        fuzzing = campaign.fuzz()
        reduce_started = time.monotonic()
        findings: list[Finding] = []
        paths: dict[str, str] = {}
        interrupted = fuzzing.stopped == "interrupted"

        def keep(finding: Finding) -> None:
            # A known issue is written already: its case lies in the corpus.
            path = finding.known or str(write_finding(out, finding, _in_process(finding.backend)))
            findings.append(finding)
            paths[finding.signature.text] = path
            progress.finding(finding, path)

        if fuzzing.suspects:
            progress.reducing(len(fuzzing.suspects))
            interrupted |= _conclude(
                plan, fuzzing, issues, keep, reduce=not no_reduce and not interrupted, started=started
            )
    reduce_seconds = time.monotonic() - reduce_started
    document = as_document(
        plan, fuzzing, tuple(findings), paths, seconds=time.monotonic() - started, reduce_seconds=reduce_seconds
    )
    if findings:
        import msgspec

        write_file(out / "run.json", msgspec.json.format(msgspec.json.encode(document), indent=2))
    if as_json:
        print_json(document)
    else:
        progress.summary(document, verbose=verbose)
    if interrupted:
        return INTERRUPTED
    if any(not f.known for f in findings):
        return FOUND
    if fuzzing.tally.examples == 0 or not any(b.examples for b in fuzzing.tally.backends.values()):
        click.echo("qfuzz: error: nothing was compared: no backend supported any case", err=True)
        return INCOMPLETE
    return OK


def _conclude(
    plan: Plan,
    fuzzing: Fuzzing,
    issues: tuple[KnownIssue, ...],
    keep: Callable[[Finding], None],
    *,
    reduce: bool,
    started: float,
) -> bool:
    """Make findings of suspects; True where Ctrl-C ended it. What was not reduced by then is kept as it was found."""
    deadline = None if plan.seconds is None else started + plan.seconds
    left: list[Suspect] = list(fuzzing.suspects)
    specs = tuple(r.spec for r in plan.rides)
    try:
        with WorkerClient(specs) as client:
            conclude(Lab(client, issues), left, reduce=reduce, on_finding=keep, deadline=deadline)
    except KeyboardInterrupt:
        with WorkerClient(specs) as client:
            conclude(Lab(client, issues), left, reduce=False, on_finding=keep)
        return True
    return False


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
    default = Path("corpus")
    return known_issues(corpora or ((default,) if default.is_dir() else ()))


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


def _check_writable(out: Path) -> None:
    """Raise `OSError` now, not after an hour, where findings could not be written."""
    if out.exists() and not out.is_dir():
        raise InvalidCase(f"{out}: is no folder; findings need one")
    existed = out.exists()
    probe = out / ".qfuzz-writable"
    write_file(probe, b"")
    probe.unlink()
    if not existed:
        out.rmdir()


def _in_process(spec: str) -> Backend | None:
    """The backend, to print its calls; loading it runs no kernel."""
    try:
        return load_backend(spec)
    except BackendMissing:
        return None
