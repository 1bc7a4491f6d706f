"""What `check` says: per backend one outcome, counts of element verdicts, and the first mismatches."""

from enum import StrEnum

import msgspec

from qfuzz.ir.network import Case


class Outcome(StrEnum):
    """What happened to one case on one backend. Exactly one of these, always.

    ``changed`` is of two backends that are compared: they returned different bits. ``refused`` and
    ``accepted-invalid`` are of networks whose form is invalid: what is right there, and what is not.
    """

    JUDGED = "judged"
    CRASH = "crash"
    HANG = "hang"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    UNSTABLE = "unstable"
    CORRUPTED = "corrupted"
    CHANGED = "changed"
    ACCEPTED_INVALID = "accepted-invalid"
    REFUSED = "refused"


class Kind(StrEnum):
    """How the violations of a value look, all together."""

    OFF_BY_ONE = "off-by-one"
    SATURATION = "saturation"
    PERMUTED = "permuted"
    BOUNDARY = "boundary"
    GARBAGE = "garbage"
    MALFORMED = "malformed"


class Counts(msgspec.Struct, frozen=True):
    """Output elements by verdict."""

    exact: int = 0
    admissible: int = 0
    violation: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.exact + other.exact, self.admissible + other.admissible, self.violation + other.violation)

    @property
    def total(self) -> int:
        """All elements."""
        return self.exact + self.admissible + self.violation


class Mismatch(msgspec.Struct, frozen=True):
    """One element outside its admissible set.

    Attributes
    ----------
    value, op
        The node whose output it is, and its operator.
    tapped
        Whether the node was judged alone on the values that it received; else the whole network was.
    index
        Position in the value; empty where the value is missing or malformed (see `problem`).
    got, lo, hi, exact
        Stored integers (or float32 values); `exact` is None in an untapped network with uncertain inputs.
    problem
        For a value that cannot be compared: missing, of a wrong shape, of a wrong dtype.
    """

    value: str
    op: str
    tapped: bool
    index: tuple[int, ...]
    got: float | None = None
    lo: float | None = None
    hi: float | None = None
    exact: float | None = None
    problem: str = ""

    def __str__(self) -> str:
        where = f"{self.op} {self.value}[{', '.join(map(str, self.index))}]"
        if self.got is None or self.lo is None or self.hi is None:
            return f"{self.op} {self.value}: {self.problem}"
        return f"{where}: got {told(self.got)}, admissible {told_interval(self.lo, self.hi)}"


def told(x: float) -> str:
    """An integer in full where float64 holds it; of other numbers nine digits, which tell float32 numbers apart."""
    x = float(x)
    return f"{x:.0f}" if x.is_integer() and abs(x) < 2**53 else f"{x:.9g}"


def told_interval(low: float, high: float) -> str:
    """The number, or both ends."""
    return told(low) if low == high else f"{told(low)}..{told(high)}"


REASON_KEPT = 4000
"""Characters of a reason that are kept: its beginning, and its end."""


def legible(reason: str) -> str:
    """A framework's message as it can be sent, stored and shown: not endless, and encodable."""
    if len(reason) > REASON_KEPT:
        half = REASON_KEPT // 2
        reason = f"{reason[:half]} … {reason[-half:]}"
    return reason.encode("utf-8", "backslashreplace").decode()


class BackendVerdict(msgspec.Struct, frozen=True):
    """The verdict on one backend.

    Attributes
    ----------
    reason
        Why it is unsupported, rejected, crashed, …; empty when judged.
    op
        The operator that is accused: of the first mismatch, or of the node that crashes alone; empty where none is: a
        network was judged as a whole, or its nodes are right on what they receive when its inner values are exposed.
    cause
        Of a violation: the arithmetic model that reproduces every element of the first guilty node's output.
    kind
        How the first guilty node's violations look.
    mismatches
        The first few of each guilty node, in network order.
    by_op
        `counts` by the operator whose output they are; ``network`` for a network that was judged as a whole.
    steps
        Signed errors in quantized steps (returned minus correctly rounded) and how many output elements had each,
        where both are known; errors of more than 8 steps count at the next power of two away from zero.
    digests
        Name and digest of each value that was returned, in network order, where they were asked for.
    compile_seconds, run_seconds
        Wall time inside the framework's own calls.
    """

    backend: str
    outcome: Outcome
    reason: str = ""
    op: str = ""
    cause: str | None = None
    kind: Kind | None = None
    counts: Counts = Counts()
    mismatches: tuple[Mismatch, ...] = ()
    by_op: tuple[tuple[str, Counts], ...] = ()
    steps: tuple[tuple[int, int], ...] = ()
    digests: tuple[tuple[str, str], ...] = ()
    compile_seconds: float = 0.0
    run_seconds: float = 0.0

    @property
    def is_finding(self) -> bool:
        """Whether this verdict accuses the backend."""
        match self.outcome:
            case Outcome.JUDGED:
                return self.counts.violation > 0
            case Outcome.UNSUPPORTED | Outcome.REFUSED:
                return False
            case (
                Outcome.CRASH
                | Outcome.HANG
                | Outcome.REJECTED
                | Outcome.UNSTABLE
                | Outcome.CORRUPTED
                | Outcome.CHANGED
                | Outcome.ACCEPTED_INVALID
            ):
                return True

    @property
    def shows_exposed(self) -> bool:
        """Whether this showed where inner values were exposed: outputs alone were judged, and counted, before that."""
        if self.outcome is Outcome.JUDGED:
            return bool(self.mismatches) and self.mismatches[0].tapped
        return bool(self.by_op)

    @property
    def verdict(self) -> str:
        """The verdict's name in reports: violation, exact, admissible, or the outcome."""
        if self.outcome is not Outcome.JUDGED:
            return str(self.outcome)
        return "violation" if self.counts.violation else ("admissible" if self.counts.admissible else "exact")


class Verdicts(msgspec.Struct, frozen=True):
    """What each backend did with one case.

    Attributes
    ----------
    case
        The case, where it was judged from this process; a worker does not send it back.
    known
        Backends whose verdict is a known issue.
    """

    backends: tuple[BackendVerdict, ...]
    reference_seconds: float = 0.0
    oracle_seconds: float = 0.0
    elements_refined: int = 0
    elements_decided: int = 0
    case: Case | None = None
    known: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[BackendVerdict, ...]:
        """The verdicts that accuse a backend of something that is not a known issue."""
        return tuple(v for v in self.backends if v.is_finding and v.backend not in self.known)

    def raise_for_mismatch(self) -> None:
        """Raise `Mismatched` if any backend is accused."""
        if self.findings:
            raise Mismatched(self)


class Mismatched(AssertionError):
    """A backend returned what no correct kernel may return.

    Attributes
    ----------
    verdicts
        The details.
    case
        What was judged, if it is known.
    """

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self.case = verdicts.case
        lines = []
        for v in verdicts.findings:
            detail = str(v.mismatches[0]) if v.mismatches else v.reason
            lines.append(f"{v.backend}: {v.verdict}: {detail}")
        super().__init__("\n".join(lines))
