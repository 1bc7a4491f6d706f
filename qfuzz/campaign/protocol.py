"""What the supervisor and a worker say to each other, as frozen data; `qfuzz.campaign.pipes` says how it travels."""

from typing import TypeAlias

import msgspec
import numpy as np

from qfuzz.campaign.tally import Tally
from qfuzz.findings.corpus import KnownIssue
from qfuzz.findings.finding import Finding
from qfuzz.findings.signature import Signature, Symptom
from qfuzz.ir.expectation import Condition
from qfuzz.ir.protocols import Array
from qfuzz.ops import CODEC
from qfuzz.oracle.verdicts import BackendVerdict, Verdicts
from qfuzz.reduce.driver import MAX_ATTEMPTS

PROTOCOL = 3
"""Version of what follows. A worker of another version is refused."""

SHARD_SIZE = 200
"""Cases of a shard; what `qfuzz.strategies.cases_of` makes (repeated here, for that room loads hypothesis)."""

TAP_EVERY = 4
"""Fusing backends run a second, tapped session on every so many-th example: it costs as much as the untapped one."""

MEMORY_LIMIT = 4 * 2**30
"""Bytes of private memory that a runner may hold: what it began with, its kernels', and its judgements'."""

HANGS_PER_SHARD = 2
"""Confirmed hangs of one backend on one set of operators, after which the shard runs it on no more such examples."""


class Ride(msgspec.Struct, frozen=True):
    """A backend in a campaign, run on every `every`-th example by index."""

    spec: str
    every: int = 1


KNOWN_EVERY = 20
"""Examples that look like a known crash or hang run on one in so many, by index."""


class KnownDeath(msgspec.Struct, frozen=True):
    """A known crash or hang: what a case has that shows it, on which backend, and under which condition."""

    spec: str
    op: str
    form: tuple[str, ...]
    when: Condition


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the shards of a campaign have in common. A shard's result is a function of (seed, shard, profile).

    Attributes
    ----------
    rides
        The backends and how often each runs.
    ops, max_nodes, invalid
        As for `qfuzz.cases`.
    compare
        Whether the two backends are compared with each other: only their differences accuse.
    tap_every
        Intermediate values of fusing backends are exposed on every n-th example by index.
    time_limit
        Seconds that one backend may take for one example.
    memory_limit
        Bytes of private memory that a runner may hold.
    hangs_per_shard
        As `HANGS_PER_SHARD`.
    known_deaths
        Crashes and hangs that need not be run every time.
    """

    rides: tuple[Ride, ...]
    ops: tuple[str, ...] = ()
    max_nodes: int = 4
    invalid: float = 0.0
    compare: bool = False
    tap_every: int = TAP_EVERY
    time_limit: float = 30.0
    memory_limit: int = MEMORY_LIMIT
    hangs_per_shard: int = HANGS_PER_SHARD
    known_deaths: tuple[KnownDeath, ...] = ()

    @property
    def specs(self) -> tuple[str, ...]:
        """Specs of the backends, in order."""
        return tuple(r.spec for r in self.rides)


class RunShard(msgspec.Struct, frozen=True, tag=True):
    """Generate shard `shard` of `seed` and judge its examples `start` to `stop` (exclusive)."""

    seed: int
    shard: int
    start: int
    stop: int
    profile: Profile


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """An example that showed a symptom on a backend.

    Attributes
    ----------
    example
        Its number in the campaign: `SHARD_SIZE` times its shard plus its index.
    case
        Bytes of the case file; empty where an earlier example of the shard showed the symptom, too.
    """

    spec: str
    example: int
    symptom: Symptom
    verdict: BackendVerdict
    case: bytes = b""


class Conclude(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Make a finding of a suspect: reduce it, see who else reproduces it, and whether it is known.

    Attributes
    ----------
    seconds
        After which reduction stops early; None is never.
    attempts
        How many candidates may be tried.
    """

    suspect: Suspect
    profile: Profile
    issues: tuple[KnownIssue, ...] = ()
    reduce: bool = True
    seconds: float | None = None
    attempts: int = MAX_ATTEMPTS


class Revisit(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Judge a case that another campaign saved, and make findings of what it shows.

    Attributes
    ----------
    case
        Bytes of the case file.
    issues, reduce, seconds, attempts
        As for `Conclude`.
    """

    case: bytes
    profile: Profile
    issues: tuple[KnownIssue, ...] = ()
    reduce: bool = True
    seconds: float | None = None
    attempts: int = MAX_ATTEMPTS


class Recall(msgspec.Struct, frozen=True, tag=True):
    """Stop the shard under way: what was judged so far is sent, and `ShardDone` says how far it went."""


class CheckCase(msgspec.Struct, frozen=True, tag=True):
    """Judge one case, given as the bytes of a case file.

    Attributes
    ----------
    known
        Verdicts on backends (by position) that are not to be run again.
    """

    case: bytes
    specs: tuple[str, ...]
    tap: bool = True
    compare: bool = False
    time_limit: float = 30.0
    memory_limit: int = MEMORY_LIMIT
    known: tuple[tuple[int, BackendVerdict], ...] = ()


class RunCase(msgspec.Struct, frozen=True, tag=True):
    """Run one case on one backend, and return what it computes; nothing is judged.

    Attributes
    ----------
    taps
        Intermediate values that are wanted, too.
    """

    case: bytes
    spec: str
    taps: tuple[str, ...] = ()
    time_limit: float = 30.0
    memory_limit: int = MEMORY_LIMIT


Request: TypeAlias = RunShard | Recall | Conclude | Revisit | CheckCase | RunCase


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker has loaded its backends."""

    protocol: int
    described: dict[str, dict[str, str]]


class StartFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker could not load a backend that was asked for."""

    message: str


class Example(msgspec.Struct, frozen=True, tag=True):
    """One judged example, as a runner tells it to its worker.

    Attributes
    ----------
    case
        Bytes of the case file where a backend is accused, else empty.
    """

    index: int
    verdicts: tuple[BackendVerdict, ...]
    case: bytes = b""
    reference_seconds: float = 0.0
    oracle_seconds: float = 0.0
    elements_refined: int = 0
    elements_decided: int = 0


class Errored(msgspec.Struct, frozen=True, tag=True):
    """An error inside qfuzz on one example, with its traceback: never a finding about a backend."""

    index: int
    traceback: str


class Judged(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Some more examples of a shard, in sum.

    Attributes
    ----------
    stop
        The examples before this index have been told by now.
    suspects
        All accusations, in order; only the first of each symptom in the shard brings its case.
    errors
        What went wrong inside qfuzz.
    """

    shard: int
    stop: int
    tally: Tally
    suspects: tuple[Suspect, ...] = ()
    errors: tuple[Errored, ...] = ()


class ShardDone(msgspec.Struct, frozen=True, tag=True):
    """The shard has ended; nothing more comes of it.

    Attributes
    ----------
    stop
        The examples before this index were told.
    complete
        Whether these are all that was asked for; else the shard was recalled.
    """

    shard: int
    stop: int
    complete: bool


class Concluded(msgspec.Struct, frozen=True, tag=True):
    """What a suspect came to: a finding, or nothing where its symptom does not show again."""

    suspect: Suspect
    finding: "FoundCase | None"
    seconds: float


class Revisited(msgspec.Struct, frozen=True, tag=True):
    """What a saved case came to: findings, and the specs of backends that computed it and are not accused."""

    case: bytes
    findings: "tuple[FoundCase, ...]"
    passed: tuple[str, ...]
    seconds: float


class FoundCase(msgspec.Struct, frozen=True, kw_only=True):
    """A `qfuzz.findings.finding.Finding` as it goes over a pipe and to disk: its case is the bytes of a case file."""

    signature: Signature
    case: bytes
    backend: str
    backends: tuple[str, ...]
    verdict: BackendVerdict
    environment: dict[str, dict[str, str]]
    first_example: int | None
    known: str
    reduction: str

    @classmethod
    def of(cls, finding: Finding) -> "FoundCase":
        """The finding, to be sent."""
        fields = {name: getattr(finding, name) for name in finding.__struct_fields__}
        fields["environment"] = {spec: dict(facts) for spec, facts in finding.environment.items()}
        return cls(**fields | {"case": CODEC.encode(finding.case)})

    def finding(self) -> Finding:
        """The finding itself."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return Finding(**fields | {"case": CODEC.decode(self.case).case})


class Checked(msgspec.Struct, frozen=True, tag=True):
    """The verdicts on a `CheckCase`."""

    verdicts: Verdicts


class Value(msgspec.Struct, frozen=True):
    """An array as it goes over a pipe."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: Array) -> "Value":
        """The value `name` with the elements of `array`."""
        return cls(name, array.dtype.name, array.shape, array.tobytes())

    @property
    def array(self) -> Array:
        """The elements."""
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)


class Ran(msgspec.Struct, frozen=True, tag=True):
    """What a `RunCase` computed; or, in `refusal`, why nothing came of it: unsupported, rejected, crash or hang."""

    values: tuple[Value, ...] = ()
    refusal: BackendVerdict | None = None


class Broke(msgspec.Struct, frozen=True, tag=True):
    """An error inside qfuzz, with its traceback: never a finding about a backend."""

    traceback: str


Reply: TypeAlias = (
    Ready | StartFailed | Example | Errored | Judged | ShardDone | Concluded | Revisited | Checked | Ran | Broke
)
