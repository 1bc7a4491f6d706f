"""Campaigns as tests run them: real workers, a real state in a folder of their own, and all that was told."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qfuzz.campaign.crew import Crew, LocalCrew
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import FoundCase, KnownDeath, Profile, Ride, Suspect
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.state import State
from qfuzz.findings.corpus import KnownIssue
from qfuzz.findings.finding import write_finding
from qfuzz.reduce.driver import never


class Heard:
    """A listener that remembers."""

    def __init__(self, on_update: Callable[[Campaign], None] = lambda _: None) -> None:
        self.suspects: list[Suspect] = []
        self.findings: list[FoundCase] = []
        self.troubles: list[str] = []
        self._on_update = on_update

    def update(self, campaign: Campaign) -> None:
        self._on_update(campaign)

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        self.suspects.append(suspect)

    def finding(self, found: FoundCase, path: str) -> None:
        self.findings.append(found)

    def trouble(self, what: str) -> None:
        self.troubles.append(what)


def a_plan(
    *specs: str,
    seed: int = 5,
    n: int | None = None,
    seconds: float | None = None,
    ops: tuple[str, ...] = (),
    max_nodes: int = 4,
    limit: float = 30.0,
    known: tuple[KnownDeath, ...] = (),
    rides: Sequence[Ride] = (),
    reduce: bool = True,
    **more: Any,
) -> Plan:
    """A plan over these backends."""
    of_profile = {k: more.pop(k) for k in ("compare", "hangs_per_shard", "invalid", "memory_limit") if k in more}
    profile = Profile(
        rides=tuple(rides) or tuple(Ride(s) for s in specs),
        ops=ops,
        max_nodes=max_nodes,
        time_limit=limit,
        known_deaths=known,
        **of_profile,
    )
    return Plan(seed=seed, profile=profile, max_examples=n, seconds=seconds, reduce=reduce, **more)


@contextmanager
def a_folder(folder: Path | None) -> Iterator[Path]:
    """`folder`, or one that is removed."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def fuzz(
    plan: Plan,
    jobs: int = 1,
    folder: Path | None = None,
    heard: Heard | None = None,
    crew: Crew | None = None,
    resume: bool = False,
    interrupted: Callable[[], bool] = never,
    issues: Sequence[KnownIssue] = (),
) -> Campaign:
    """The campaign, run to its end; findings are written to `folder`."""
    with a_folder(folder) as out:
        state = State.open(out) if resume else State.create(out, plan)
        hired = crew if crew is not None else LocalCrew(plan.profile.specs, jobs)
        try:

            def write(found: FoundCase) -> str:
                return found.known or str(write_finding(out, found.finding(), None))

            campaign = Campaign(plan, hired, state, issues, write, heard or Heard(), interrupted)
            campaign.run()
        finally:
            if crew is None:
                hired.close()
            state.close()
    return campaign


def counts(campaign: Campaign) -> dict[str, Any]:
    """What does not depend on time: counts of everything."""
    tally = campaign.tally
    return {
        "examples": tally.examples,
        "elements": tally.elements,
        "features": tally.features,
        "draws": (tally.draws, tally.draws_rejected),
        "reference": (tally.decided, tally.refined),
        "backends": {
            name: (b.examples, b.unsupported, b.elements, b.verdicts, b.reasons, b.by_op, b.steps)
            for name, b in tally.backends.items()
        },
    }
