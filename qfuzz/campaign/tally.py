"""What a campaign counts while it runs: examples, elements, verdicts by backend, seconds by stage."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from qfuzz.campaign.protocol import Example, ShardDone
from qfuzz.oracle.verdicts import BackendVerdict, Outcome


@dataclass
class BackendTally:
    """Counts of one backend. `verdicts`: exact, admissible, violation count elements; all others count cases."""

    examples: int = 0
    unsupported: int = 0
    elements: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    compile_seconds: float = 0.0
    run_seconds: float = 0.0

    def add(self, verdict: BackendVerdict) -> None:
        """Count one verdict."""
        self.compile_seconds += verdict.compile_seconds
        self.run_seconds += verdict.run_seconds
        counts = verdict.counts
        self.elements += counts.total
        for name, n in (("exact", counts.exact), ("admissible", counts.admissible), ("violation", counts.violation)):
            self.verdicts[name] += n
        match verdict.outcome:
            case Outcome.UNSUPPORTED:
                self.unsupported += 1
                self.reasons[verdict.reason] += 1
            case Outcome.JUDGED:
                self.examples += 1
            case Outcome.CRASH | Outcome.HANG | Outcome.REJECTED | Outcome.UNSTABLE | Outcome.CORRUPTED:
                self.examples += 1
                self.verdicts[str(verdict.outcome)] += 1


@dataclass
class Tally:
    """Counts of the whole campaign. `examples` counts cases; `backends` keeps the order of the specs."""

    backends: dict[str, BackendTally]
    examples: int = 0
    elements: int = 0
    draws: int = 0
    draws_rejected: int = 0
    deaths: int = 0
    refined: int = 0
    decided: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add_example(self, example: Example) -> None:
        """Count one example."""
        self.examples += 1
        self.seconds["reference"] += example.reference_seconds
        self.seconds["oracle"] += example.oracle_seconds
        self.refined += example.elements_refined
        self.decided += example.elements_decided
        for verdict in example.verdicts:
            self.backends[verdict.backend].add(verdict)
            self.elements += verdict.counts.total
            self.seconds["backends"] += verdict.compile_seconds + verdict.run_seconds

    def add_shard(self, done: ShardDone) -> None:
        """Count what a shard says of itself."""
        self.seconds["generate"] += done.generate_seconds
        self.draws += done.draws
        self.draws_rejected += done.draws_rejected
        self.deaths += done.deaths
