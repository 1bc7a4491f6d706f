"""From a suspect to a finding: reduce it out of process, see who else reproduces it, and whether it is known."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from qfuzz.campaign.protocol import Suspect
from qfuzz.findings.corpus import KnownIssue, known_as
from qfuzz.findings.finding import Finding
from qfuzz.findings.signature import Signature, Symptom, signature_of, symptom_of
from qfuzz.ir.network import Case
from qfuzz.ops import CODEC
from qfuzz.oracle.compare import ARROW
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, Verdicts
from qfuzz.reduce.driver import MAX_ATTEMPTS, never, reduce_case

CHECK_LIMIT = 20.0
"""Seconds that judging a case may take."""
HANG_LIMIT = 2.0
"""Seconds after which an attempt to reduce a hang counts as one; the last word has `CHECK_LIMIT`."""
HANG_ATTEMPTS = 100
"""Attempts to reduce a hang: each that succeeds costs `HANG_LIMIT` twice."""
ATTEMPTS_AT_LEAST = 60
"""Attempts that every suspect gets, however little time is left."""
FLAKY_TRIES = 8
"""How often a case that does not show its symptom every time is judged."""


class Bench(Protocol):
    """Where cases are judged in isolation: a `qfuzz.campaign.client.WorkerClient`, or a worker by itself."""

    @property
    def described(self) -> dict[str, dict[str, str]]:
        """What each backend says of itself, by spec."""
        ...

    def check(
        self,
        case: Case,
        specs: Sequence[str] = (),
        *,
        tap: bool = True,
        compare: bool = False,
        time_limit: float = 30.0,
    ) -> Verdicts:
        """Judge `case`; crashes and hangs are verdicts."""
        ...


class Lab:
    """A bench to judge cases on, and what it takes to make findings of them.

    Parameters
    ----------
    bench
        Runs cases.
    issues
        The known issues.
    check_limit
        Seconds that judging a case may take.
    compare
        Whether the bench's two backends are compared: then the one spec is ``a => b``.
    """

    def __init__(
        self,
        bench: Bench,
        issues: Sequence[KnownIssue],
        max_attempts: int = MAX_ATTEMPTS,
        *,
        check_limit: float = CHECK_LIMIT,
        compare: bool = False,
    ) -> None:
        self._bench, self._issues, self._max_attempts, self._compare = bench, issues, max_attempts, compare
        self._limit = min(check_limit, CHECK_LIMIT)
        self.described: Mapping[str, Mapping[str, str]] = bench.described
        if compare:
            self.described = {**bench.described, **described_pair(bench.described)}

    def judge(self, case: Case, spec: str, limit: float | None = None) -> BackendVerdict:
        """The verdict on one backend, or on the comparison of two, within `limit` seconds."""
        return self._judge_all(case, (spec,), limit)[-1]

    def _judge_all(self, case: Case, specs: Sequence[str], limit: float | None = None) -> tuple[BackendVerdict, ...]:
        limit = self._limit if limit is None else min(limit, self._limit)
        if self._compare:
            pair = tuple(self._bench.described)
            return self._bench.check(case, pair, compare=True, time_limit=limit).backends[-1:]
        return self._bench.check(case, specs, time_limit=limit).backends

    def finding(
        self,
        case: Case,
        spec: str,
        symptom: Symptom,
        *,
        first_example: int | None,
        reduce: bool,
        out_of_time: Callable[[], bool] = never,
    ) -> Finding | None:
        """The finding that `case` leads to on the backend `spec`; None where the symptom does not show again.

        Reduction keeps the symptom's operator, verdict and cause. A symptom without an operator (a whole network that
        crashes) may settle on one.
        """
        # A campaign taps some examples only: here all values are seen, and a cause may be named that was not before.
        again = self.judge(case, spec)
        flaky = not (again.is_finding and symptom.shows_in(symptom_of(again)))
        if not flaky:
            symptom = symptom_of(again)
        elif not self._accused_at_times(case, spec):
            return None

        hung = symptom.verdict == str(Outcome.HANG)
        limit, attempts = (HANG_LIMIT, HANG_ATTEMPTS) if hung else (self._limit, self._max_attempts)

        def interesting(candidate: Case) -> bool:
            if flaky:
                return self._accused_at_times(candidate, spec) is not None
            return symptom.leads_to(symptom_of(self.judge(candidate, spec, limit)))

        reduction = "none"
        if reduce:
            result = reduce_case(
                case, interesting, max_attempts=min(attempts, self._max_attempts), out_of_time=out_of_time
            )
            case, reduction = result.case, "stopped" if result.stopped else "done"
        verdicts = self._judge_all(case, tuple(self.described))
        specs_of = {facts["name"]: s for s, facts in self.described.items()}
        last = next(v for v in verdicts if specs_of[v.backend] == spec)
        verdict = self._accused_at_times(case, spec) if flaky else last
        if verdict is None or not verdict.is_finding:
            return None
        final = symptom_of(verdict)
        if not final.op and len(case.network.nodes) == 1:
            final = msgspec.structs.replace(final, op=case.network.nodes[0].op.name)
        alike = tuple(
            specs_of[v.backend]
            for v in verdicts
            if v.is_finding and (v.verdict, v.cause or "") == (final.verdict, final.cause)
        )
        signature = signature_of(case, final)
        known = self._known_as(signature, spec)
        if known is not None:
            # One that reproduces it without being known for it is a suspect of its own.
            alike = tuple(s for s in alike if self._known_as(signature, s) is not None)
        return Finding(
            signature=signature,
            case=case,
            backend=spec,
            backends=(spec, *(s for s in alike if s != spec)),
            verdict=verdict,
            environment=self.described,
            first_example=first_example,
            known=known.path if known else "",
            reduction="unstable" if flaky else reduction,
        )

    def known(self, case: Case, suspect: Suspect) -> Finding | None:
        """The known issue that an unreduced suspect plainly is, as a finding that needs no reduction."""
        signature = signature_of(case, suspect.symptom)
        issue = self._known_as(signature, suspect.spec)
        if issue is None:
            return None
        return Finding(
            signature=signature,
            case=case,
            backend=suspect.spec,
            backends=(suspect.spec,),
            verdict=suspect.verdict,
            environment=self.described,
            first_example=suspect.example,
            known=issue.path,
            reduction="none",
        )

    def _known_as(self, signature: Signature, spec: str) -> KnownIssue | None:
        return known_as(self._issues, signature, spec, self.described[spec])

    def _accused_at_times(self, case: Case, spec: str) -> BackendVerdict | None:
        """The verdict on a backend whose results change from run to run: the first accusing one of a few, if any.

        `unstable` where two identical runs were seen to differ, which proves it without any contract.
        """
        accusing = None
        for _ in range(FLAKY_TRIES):
            verdict = self.judge(case, spec)
            if verdict.outcome is Outcome.UNSTABLE:
                return verdict
            accusing = accusing or (verdict if verdict.is_finding else None)
        return accusing


def described_pair(described: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """What two backends that are compared say of themselves together, by their spec ``a => b``."""
    a, b = described.values()
    facts = {k: a[k] if a.get(k) == b.get(k) else f"{a.get(k, '')}{ARROW}{b.get(k, '')}" for k in {**a, **b} if k in a}
    return {ARROW.join(described): facts}


def conclude(lab: Lab, suspect: Suspect, *, reduce: bool, deadline: float | None = None) -> Finding | None:
    """The finding of a suspect; None where it does not show again.

    Parameters
    ----------
    deadline
        A `time.monotonic` value after which reduction stops early; the finding is then marked so.
    """
    case = CODEC.decode(suspect.case).case
    return lab.known(case, suspect) or lab.finding(
        case,
        suspect.spec,
        suspect.symptom,
        first_example=suspect.example,
        reduce=reduce,
        out_of_time=_after(deadline),
    )


def _after(deadline: float | None) -> Callable[[], bool]:
    """Time is up at `deadline`, but not before the attempts that cut a network to its guilty node."""
    if deadline is None:
        return never
    asked = itertools.count()
    return lambda: next(asked) >= ATTEMPTS_AT_LEAST and time.monotonic() > deadline
