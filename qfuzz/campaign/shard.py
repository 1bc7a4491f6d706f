"""One shard in a worker: its examples are judged in forked runners, one after another, however many of them die."""

import time
import traceback
from collections.abc import Callable, Sequence

import msgspec

from qfuzz.arithmetic.cause import cause_of
from qfuzz.campaign.ahead import AHEAD, Prepared, prepare
from qfuzz.campaign.coverage import features_of
from qfuzz.campaign.pipes import decode_reply
from qfuzz.campaign.protocol import (
    KNOWN_EVERY,
    SHARD_SIZE,
    Broke,
    Errored,
    Example,
    Judged,
    KnownDeath,
    RunShard,
    Suspect,
)
from qfuzz.campaign.runner import Death, Job, Mark, Runner, Send, forget_output
from qfuzz.campaign.tally import BackendTally, Tally, add_counts
from qfuzz.findings.conditions import why_not
from qfuzz.findings.signature import Symptom, signature_of, symptom_of
from qfuzz.ir.alone import node_alone
from qfuzz.ir.errors import WorkerFailed
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend
from qfuzz.ops import CODEC
from qfuzz.oracle.check import check_one
from qfuzz.oracle.compare import ARROW, compared
from qfuzz.oracle.invalid import told_of
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.oracle.verdicts import BackendVerdict, Outcome

SEND_EVERY = 0.05
"""Seconds after which a runner sends what it has judged."""
TELL_EVERY = 0.25
"""Seconds between two messages about a shard under way."""

OURS = -1
"""Mark of a runner in which no backend runs."""

Broken = dict[tuple[int, int], BackendVerdict]
"""(index, backend position) -> the verdict on a call that must not be run again."""


def _ignore(whole_frame: bytes) -> None:
    pass


class Shard:
    """The examples of one shard.

    Parameters
    ----------
    backends
        In the order of the profile's rides.
    described
        What each says of itself.
    tell
        Takes what is to be sent to the supervisor.
    recalled
        Whether to stop; asked between examples.
    not_for_runners
        Descriptors that runners are not to hold open.
    """

    def __init__(
        self,
        request: RunShard,
        cases: Sequence[Case],
        backends: Sequence[Backend],
        described: Sequence[dict[str, str]],
        tell: Callable[[Judged], None],
        recalled: Callable[[], bool],
        not_for_runners: Sequence[int],
    ) -> None:
        self._not_for_runners = not_for_runners
        self.request, self.profile, self.cases = request, request.profile, cases
        self.backends, self.described = backends, described
        self._recalled = recalled
        self._report = _Report(request, [b.name for b in backends], cases, tell)
        self._broken: Broken = {}
        self._retried: set[tuple[int, int]] = set()
        self._hangs: dict[tuple[int, frozenset[str]], int] = {}
        self.sent = request.start
        for death in self.profile.known_deaths:
            self._skip_known(death)

    def run(self, tally: Tally) -> bool:
        """Judge all examples, or those before a recall; False for a recall. `tally` is what to add to their counts."""
        self._report.tally.merge(tally)
        stopped = False
        while self.sent < len(self.cases) and not stopped:
            stopped = self._recalled()
            if not stopped:
                death = self._run_forked(self._job, self._forward, until=self._recalled)
                stopped = death is None and self.sent < len(self.cases)
                if death is not None:
                    self._report.tally.deaths += 1
                    self._after(death)
        self._report.flush(self.sent)
        return not stopped

    def _skip_known(self, death: KnownDeath) -> None:
        """Most examples that look like a known crash or hang are counted, and not run."""
        reason = f"known, not run: {death.op} with {', '.join(death.form)}"
        for position, (ride, backend) in enumerate(zip(self.profile.rides, self.backends, strict=True)):
            if ride.spec != death.spec or why_not(death.when, self.described[position]):
                continue
            for index, case in enumerate(self.cases):
                if index % KNOWN_EVERY and death.op in _ops(case):
                    form = signature_of(case, Symptom(death.op, str(Outcome.CRASH))).form
                    if set(death.form) <= set(form):
                        skipped = BackendVerdict(backend.name, Outcome.UNSUPPORTED, reason)
                        self._broken[index, position] = skipped

    def _forward(self, whole_frame: bytes) -> None:
        match decode_reply(whole_frame):
            case Example() as example:
                self._report.add(example)
                self.sent = example.index + 1
            case Errored() as error:
                self._report.add_error(error)
                self.sent = error.index + 1
            case Broke(text):
                raise WorkerFailed(f"an error inside qfuzz:\n{text}")
            case other:
                raise WorkerFailed(f"a runner sent {type(other).__name__}")

    def _job(self, send: Send, mark: Mark) -> None:
        start, stop, out = self.sent, len(self.cases), _Outbox(send)
        for first in range(start, stop, AHEAD):
            ready = [self._prepared(index, mark) for index in range(first, min(first + AHEAD, stop))]
            for index, prepared in enumerate(ready, first):
                forget_output()
                out.add(prepared if isinstance(prepared, Errored) else self._judged(index, prepared, mark))
            out.flush()

    def _prepared(self, index: int, mark: Mark) -> Prepared | Errored:
        mark.set(self.request.shard, index, OURS)
        try:
            return prepare(self.cases[index], [backend for _, backend in self._riding(index)])
        except Exception:  # noqa: BLE001  the worker's rim: an error of ours is told, and the next example runs
            return Errored(index, traceback.format_exc())

    def _judged(self, index: int, prepared: Prepared, mark: Mark) -> Example | Errored:
        def about_to_run(position: int) -> None:
            mark.set(self.request.shard, index, position)

        try:
            return judge_example(
                index,
                prepared,
                self._riding(index),
                self._broken,
                about_to_run,
                tap=self._taps(index),
                compare=self.profile.compare,
            )
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  as above
            return Errored(index, traceback.format_exc())

    def _run_forked(
        self, job: Job, forward: Callable[[bytes], None] = _ignore, until: Callable[[], bool] | None = None
    ) -> Death | None:
        """Run `job` in a fresh fork, as `Runner.pump` does."""
        with Runner(job, self._not_for_runners, self.profile.memory_limit) as runner:
            return runner.pump(forward, self.profile.time_limit, until)

    def _taps(self, index: int) -> bool:
        return index % self.profile.tap_every == 0

    def _riding(self, index: int) -> list[tuple[int, Backend]]:
        rides = enumerate(zip(self.profile.rides, self.backends, strict=True))
        return [(position, backend) for position, (ride, backend) in rides if index % ride.every == 0]

    def _after(self, death: Death) -> None:
        """Confirm a death in a fresh process, and keep its verdict; one that does not come back is tried once more."""
        _, index, position = death.at
        index = max(index, self.sent)
        if position == OURS or death.internal:
            self._after_our_own(index, death)
            return
        backend, case = self.backends[position], self.cases[index]
        tap = self._taps(index)

        def again(send: Send, mark: Mark) -> None:
            mark.set(self.request.shard, index, position)
            check_one(case, backend, Reference(case), tap=tap)

        confirmed = self._run_forked(again)
        if confirmed is not None and confirmed.internal:
            self._after_our_own(index, confirmed)
        elif confirmed is not None:
            self._broken[index, position] = verdict_of(confirmed, backend, case, self._guilty(case, backend))
            if confirmed.hung:
                self._skip_alike(index, position)
        elif (index, position) in self._retried:
            verdict = verdict_of(death, backend, case)
            reason = f"{verdict.reason} (twice in one process; not in a process of its own)"
            self._broken[index, position] = msgspec.structs.replace(verdict, reason=reason)
        else:
            self._retried.add((index, position))

    def _after_our_own(self, index: int, death: Death) -> None:
        """A runner ended while no backend ran: the example is tried once more, and then is an error of ours."""
        if (index, OURS) in self._retried:
            self._report.add_error(Errored(index, f"a runner ended in qfuzz's own code: {death.reason}"))
            self.sent = index + 1
        self._retried.add((index, OURS))

    def _guilty(self, case: Case, backend: Backend) -> str:
        """The operator of the first node that kills a process by itself."""
        nodes = case.network.nodes
        if len(nodes) == 1:
            return nodes[0].op.name
        values = exact_outputs(case)
        for node in nodes:
            alone = node_alone(case, node.name, values)

            def job(send: Send, mark: Mark, alone: Case = alone) -> None:
                check_one(alone, backend, Reference(alone))

            if self._run_forked(job) is not None:
                return node.op.name
        return ""

    def _skip_alike(self, index: int, position: int) -> None:
        ops = _ops(self.cases[index])
        key = (position, frozenset(ops))
        self._hangs[key] = self._hangs.get(key, 0) + 1
        if self._hangs[key] < self.profile.hangs_per_shard:
            return
        reason = f"known, not run: {self.backends[position].name} hung {self._hangs[key]} times on {', '.join(ops)}"
        for later in range(index + 1, len(self.cases)):
            if frozenset(_ops(self.cases[later])) == key[1]:
                self._broken.setdefault(
                    (later, position), BackendVerdict(self.backends[position].name, Outcome.UNSUPPORTED, reason)
                )


class _Outbox:
    """What a runner has to tell, sent some at a time: each message wakes the worker, which takes a processor.

    What a dying runner has not sent yet is judged again.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[Example | Errored] = []
        self._sent = time.monotonic()

    def add(self, told: Example | Errored) -> None:
        """Send it, soon."""
        self._waiting.append(told)
        if time.monotonic() - self._sent > SEND_EVERY:
            self.flush()

    def flush(self) -> None:
        """Send all."""
        for told in self._waiting:
            self._send(told)
        self._waiting.clear()
        self._sent = time.monotonic()


class _Report:
    """Sums up what runners tell, and passes it on a few times a second; a new symptom at once."""

    def __init__(
        self, request: RunShard, names: Sequence[str], cases: Sequence[Case], tell: Callable[[Judged], None]
    ) -> None:
        self._request, self._cases, self._tell = request, cases, tell
        self._spec_of = dict(zip(names, request.profile.specs, strict=True))
        if request.profile.compare:
            self._spec_of |= {ARROW.join(names): ARROW.join(request.profile.specs)}
        self._told = time.monotonic()
        self._seen: set[tuple[str, Symptom]] = set()
        self._clear()

    def _clear(self) -> None:
        self.tally = Tally(backends={name: BackendTally() for name in self._spec_of})
        self._suspects: list[Suspect] = []
        self._errors: list[Errored] = []

    def add(self, example: Example) -> None:
        """Count an example."""
        case = self._cases[example.index]
        ops = {n.op.name for n in case.network.nodes}
        tally = self.tally
        tally.examples += 1
        tally.refined += example.elements_refined
        tally.decided += example.elements_decided
        add_counts(tally.features, dict.fromkeys(features_of(case), 1))
        stages = {"reference": example.reference_seconds, "oracle": example.oracle_seconds, "backends": 0.0}
        new = False
        for verdict in example.verdicts:
            tally.backends[verdict.backend].add(verdict, ops)
            if ARROW in verdict.backend or not self._request.profile.compare:
                new |= self._accuse(verdict, example)
            if ARROW not in verdict.backend:
                tally.elements += verdict.counts.total
                stages["backends"] += verdict.compile_seconds + verdict.run_seconds
        add_counts(tally.seconds, stages)
        if new or time.monotonic() - self._told > TELL_EVERY:
            self.flush(example.index + 1)

    def _accuse(self, verdict: BackendVerdict, example: Example) -> bool:
        """Note an accusation; True where its symptom is new in this shard."""
        if not verdict.is_finding:
            return False
        spec, symptom = self._spec_of[verdict.backend], symptom_of(verdict)
        new = (spec, symptom) not in self._seen
        self._seen.add((spec, symptom))
        number = self._request.shard * SHARD_SIZE + example.index
        case = example.case if new else b""
        self._suspects.append(Suspect(spec=spec, example=number, symptom=symptom, verdict=verdict, case=case))
        return new

    def add_error(self, error: Errored) -> None:
        """Note an error of ours."""
        self._errors.append(error)
        self.flush(error.index + 1)

    def flush(self, stop: int) -> None:
        """Tell what has come together."""
        self._tell(
            Judged(
                shard=self._request.shard,
                stop=stop,
                tally=self.tally,
                suspects=tuple(self._suspects),
                errors=tuple(self._errors),
            )
        )
        self._told = time.monotonic()
        self._clear()


def judge_example(
    index: int,
    prepared: Prepared,
    backends: Sequence[tuple[int, Backend]],
    broken: Broken,
    about_to_run: Callable[[int], None],
    *,
    tap: bool,
    compare: bool = False,
) -> Example:
    """Judge one example on `backends` (with their positions), two of which may be compared with each other."""
    reference = prepared.reference
    case = reference.case
    start, known_before = time.perf_counter(), reference.seconds
    verdicts = []
    for position, backend in backends:
        known = broken.get((index, position))
        if known is None:
            about_to_run(position)
            explain = None if compare else cause_of
            known = check_one(case, backend, reference, tap=tap, explain=explain, digest=compare)
        verdicts.append(known)
    about_to_run(-1)
    framework = sum(v.compile_seconds + v.run_seconds for v in verdicts)
    own = time.perf_counter() - start - framework - (reference.seconds - known_before)
    if compare:
        verdicts.append(compared(case, *verdicts))
    accused = any(v.is_finding for v in verdicts)
    return Example(
        index,
        tuple(msgspec.structs.replace(v, digests=()) if v.digests else v for v in verdicts),
        case=CODEC.encode(case) if accused else b"",
        reference_seconds=reference.seconds,
        oracle_seconds=prepared.lowering_seconds + max(0.0, own),
        elements_refined=reference.count.refined,
        elements_decided=reference.count.elements,
    )


def verdict_of(death: Death, backend: Backend, case: Case, op: str = "") -> BackendVerdict:
    """The verdict on the call that a runner died of."""
    outcome = Outcome.HANG if death.hung else Outcome.CRASH
    return BackendVerdict(backend.name, outcome, told_of(case, death.reason), op)


def _ops(case: Case) -> tuple[str, ...]:
    return tuple(sorted({n.op.name for n in case.network.nodes}))
