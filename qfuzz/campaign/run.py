"""The main job: shards go to a crew, what they find is gathered by symptom, concluded, merged and committed.

Results depend on the seed and the number of examples alone: a shard is a pure function of (seed, shard, profile), every
symptom keeps its lowest example, a suspect is concluded once all shards before it are done, in the order of examples,
and of a signature the smallest case is kept.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from qfuzz.campaign.crew import RECALLED, Crew, Lost, Report, Task
from qfuzz.campaign.merging import could_cover, covers, merged
from qfuzz.campaign.plan import Ledger, Plan
from qfuzz.campaign.protocol import (
    SHARD_SIZE,
    Conclude,
    Concluded,
    FoundCase,
    Judged,
    Revisit,
    Revisited,
    RunShard,
    ShardDone,
    Suspect,
)
from qfuzz.campaign.record import Moment
from qfuzz.campaign.saved import SavedCases
from qfuzz.campaign.state import Snapshot, State, symptom_key
from qfuzz.campaign.suspects import ALIKE_KEPT, Suspects
from qfuzz.campaign.tally import Tally
from qfuzz.findings.corpus import KnownIssue, known_as
from qfuzz.findings.signature import signature_of
from qfuzz.ir.errors import CampaignFailed, WorkerFailed
from qfuzz.ops import CODEC
from qfuzz.reduce.driver import never

SECONDS_A_SUSPECT = 3.0
"""What concluding one suspect takes, about."""
REDUCTION_SHARE = 0.35
"""Of a time budget, at most this much is kept for reduction; fuzzing ends earlier by it once there are suspects."""
MOMENT_EVERY = 1.0
"""Seconds between two points of the timeline."""
ERRORS_ALLOWED = 20
"""Errors inside qfuzz after which a campaign stops, unless they are rare."""
RARE = 0.001
"""Share of examples up to which such errors count as rare."""
FAIL_FAST = "fail-fast"
"""Why a campaign stopped that was to stop at its first finding."""
GRACE = 10.0
"""Seconds beyond its time that a campaign takes at least for what every suspect gets."""
TICK = 0.5
"""Seconds between two looks at the clock."""


class Listener(Protocol):
    """Is told what happens."""

    def update(self, campaign: "Campaign") -> None:
        """Counts have changed."""
        ...

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        """An accusation; `new` where its symptom was not seen before."""
        ...

    def finding(self, found: FoundCase, path: str) -> None:
        """A finding is written."""
        ...

    def trouble(self, what: str) -> None:
        """Something went wrong that is no finding."""
        ...


Write = Callable[[FoundCase], str]
"""Writes a finding's folder, or knows where a known issue lies; its path."""


class Campaign:
    """Runs a plan with a crew, and keeps it in a state.

    Parameters
    ----------
    issues
        The known issues.
    write
        Writes findings.
    interrupted
        Whether to end: what is under way is kept as far as it has come, and findings as they were found.
    saved
        Cases of other campaigns, which are checked first, and where to leave this one's.
    """

    def __init__(
        self,
        plan: Plan,
        crew: Crew,
        state: State,
        issues: Sequence[KnownIssue],
        write: Write,
        listener: Listener,
        interrupted: Callable[[], bool] = never,
        saved: SavedCases | None = None,
    ) -> None:
        self.plan, self.crew, self.state = plan, crew, state
        self._issues, self._write, self._listener = tuple(issues), write, listener
        self._interrupted, self._saved = interrupted, saved
        self._to_revisit = list(saved.cases) if saved is not None else []
        self._revisiting = 0
        before: Snapshot = state.snapshot()
        self.described = crew.described
        self._committed = before.tally
        self._ledger = Ledger(before.ranges, before.partial)
        self._remaining = self._ledger.remaining(plan)
        self._under_way: dict[int, Tally] = {}
        self._pending: dict[int, list[Suspect]] = {}
        self._suspects = Suspects(plan.profile.specs, before.suspects, before.concluded)
        self._concluding: dict[tuple[str, bytes], Suspect] = {}
        self.findings = dict(before.findings)
        self.paths = dict(before.paths)
        self._forget_unreduced()
        self._own = {text: f for text, f in self.findings.items() if f.first_example is not None}
        self.lost: dict[int, str] = {}
        self.errors = before.errors
        self.seconds_before = self.state_seconds = before.seconds
        self._started = self._noted = time.monotonic()
        self.stopped = ""
        self._found_new = False
        self._irreducible: set[tuple[str, bytes]] = set()
        self._lost_workers = crew.lost_workers

    def _forget_unreduced(self) -> None:
        """Findings that an interruption kept as they were found: their suspects are concluded again."""
        for text, found in list(self.findings.items()):
            if self._is_for_later(found):
                del self.findings[text], self.paths[text]
                # Not the path that the file names: it may have been made by anybody.
                shutil.rmtree(self.state.folder / found.signature.slug, ignore_errors=True)
                self.state.forget(text)

    def _is_for_later(self, found: FoundCase) -> bool:
        return self.plan.reduce and found.reduction == "none" and not found.known

    # What others may look at.

    @property
    def tally(self) -> Tally:
        """Counts so far, those of shards under way among them."""
        total = Tally()
        for part in (self._committed, *(t for t in self._under_way.values() if t.examples)):
            total.merge(part)
        total.deaths += self.crew.lost_workers - self._lost_workers
        return total

    @property
    def seconds(self) -> float:
        """That the campaign has taken, with those before it was resumed."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def n_suspects(self) -> int:
        """Symptoms that have not been concluded."""
        return len(self._suspects.open())

    # The run.

    def run(self) -> None:
        """Do all shards, or until time is up, a finding stops it, or it is interrupted; then conclude what was found.

        Raises
        ------
        CampaignFailed, BackendMissing, WorkerFailed
            Where it cannot go on. What was committed is kept.
        """
        self._started = self._noted = time.monotonic()
        self.state.begin(self.described, self.plan)
        self._write_missing()
        self._begin_with_saved()
        while True:
            self._fuzz()
            self._conclude_rest()
            if self.stopped != FAIL_FAST or self._found_new:
                break
            # What seemed new is a known issue once it is reduced, or did not show again.
            self.stopped, self._remaining = "", self._ledger.remaining(self.plan)
        self._commit(force_moment=True)
        self.state_seconds = self.seconds
        self.state.end(self.stopped, self.state_seconds)
        if self._saved is not None and (why_not := self._saved.flush()):
            raise CampaignFailed(f"{why_not}; its findings were not saved there, all else is done")

    def _write_missing(self) -> None:
        """Folders of findings that are gone: somebody removed them, or a process was killed as it replaced one."""
        for text, found in self.findings.items():
            path = self.state.folder / found.signature.slug
            if not found.known and (self.paths[text] != str(path) or not path.is_dir()):
                self.paths[text] = str(path) if path.is_dir() else self._write(found)
                self.state.keep(found, self.paths[text])

    def _begin_with_saved(self) -> None:
        if self._saved is not None:
            for what in self._saved.unreadable:
                self._listener.trouble(what)
            for found in self.findings.values():  # of before, should they be missing
                self._saved.keep(found)

    def _fuzz(self) -> None:
        """Shards, and suspects as they become final, until there are none left or fuzzing is over."""
        while not self._fuzzing_is_over():
            self._hand_out()
            if not (self._under_way or self._concluding or self._revisiting):
                return
            self._take_all(self.crew.wait(self._patience()))
            self._listener.update(self)
        self._take_all(self.crew.recall())

    def _conclude_rest(self) -> None:
        """No more shards will be done: every suspect is final."""
        reduce = self.plan.reduce
        while (suspects := self._suspects.open()) or self._revisiting:
            if reduce and (self._is_interrupted() or self._is_overdue()):
                reduce = False  # what was found so far is kept as it was found, and reduced when resumed
                self._take_all(self.crew.abandon())
            self._hand_out_suspects(suspects, reduce=reduce)
            if not (self._concluding or self._revisiting):
                return
            self._take_all(self.crew.wait(TICK))
            self._listener.update(self)

    def _is_overdue(self) -> bool:
        """Whether suspects, each of which gets some attempts, have taken much longer than the plan has time."""
        left = self._seconds_left()
        return (
            left is not None
            and self.plan.seconds is not None
            and left < -max(GRACE, REDUCTION_SHARE * self.plan.seconds)
        )

    def _is_interrupted(self) -> bool:
        if self._interrupted():
            self.stopped = "interrupted"
        return self.stopped == "interrupted"

    def _fuzzing_is_over(self) -> bool:
        if self._is_interrupted() or self.stopped:
            return True
        left = self._seconds_left()
        return left is not None and left - self._for_reduction() <= 0

    def _seconds_left(self) -> float | None:
        return None if self.plan.seconds is None else self.plan.seconds - self.seconds

    def _for_reduction(self) -> float:
        """Seconds to leave for reducing the suspects so far."""
        if not self.plan.reduce or self.plan.seconds is None:
            return 0.0
        waves = -(-len(self._suspects.open()) // self.crew.size)
        return min(REDUCTION_SHARE * self.plan.seconds, SECONDS_A_SUSPECT * waves)

    def _patience(self) -> float:
        left = self._seconds_left()
        return TICK if left is None else max(0.0, min(TICK, left - self._for_reduction()))

    # Giving tasks.

    def _hand_out(self) -> None:
        while self._to_revisit and self.crew.wants() > 0:
            self._revisiting += 1
            self.crew.give(self._revisit(self._to_revisit.pop(0)))
        self._hand_out_suspects([s for s in self._suspects.open() if self._is_final(s)], reduce=self.plan.reduce)
        while self.crew.wants() > 0:
            shard = next(self._remaining, None)
            if shard is None:
                return
            self._under_way[shard.shard] = Tally()
            self.crew.give(shard)

    def _hand_out_suspects(self, suspects: Sequence[Suspect], *, reduce: bool) -> None:
        """Those that no finding covers, nor that one under way or before them could come to cover."""
        before = list(self._concluding.values())
        for suspect in suspects:
            if self.crew.wants() <= 0:
                return
            if symptom_key(suspect) in self._concluding or any(could_cover(b, suspect) for b in before):
                before.append(suspect)
                continue
            if any(covers(f, suspect) for f in self._own.values()):
                self._suspects.conclude(suspect)
                self.state.conclude(suspect, None, "")
                continue
            before.append(suspect)
            key = symptom_key(suspect)
            self._concluding[key] = suspect
            as_found = key in self._irreducible
            self.crew.give(self._request(suspect, reduce=reduce and not as_found))

    def _revisit(self, case: bytes) -> Revisit:
        return Revisit(
            case=case,
            profile=self.plan.profile,
            issues=self._issues,
            reduce=self.plan.reduce,
            seconds=self._reduction_seconds(),
        )

    def _reduction_seconds(self) -> float | None:
        left = self._seconds_left()
        return None if left is None else max(0.0, left)

    def _request(self, suspect: Suspect, *, reduce: bool) -> Conclude:
        return Conclude(
            suspect=suspect,
            profile=self.plan.profile,
            issues=self._issues,
            reduce=reduce,
            seconds=self._reduction_seconds(),
        )

    def _is_final(self, suspect: Suspect) -> bool:
        """Whether no lower example can show the symptom any more."""
        return self.plan.fail_fast or suspect.example // SHARD_SIZE < self._ledger.frontier

    # Taking what comes back.

    def _take_all(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self._take(report)
        if any(isinstance(r, ShardDone | Lost) for r in reports):
            self._commit()

    def _take(self, report: Report) -> None:
        match report:
            case Judged():
                self._under_way[report.shard].merge(report.tally)
                self._pending.setdefault(report.shard, []).extend(s for s in report.suspects if s.case)
                for suspect in report.suspects:
                    new = not self._suspects.has(suspect) and self._is_new_in_pending(suspect)
                    self._listener.suspect(suspect, new=new)
                    if new and self.plan.fail_fast and not self._is_known(suspect):
                        self.stopped = self.stopped or FAIL_FAST
                for error in report.errors:
                    self._count_error(report.shard * SHARD_SIZE + error.index, error.traceback)
            case ShardDone(shard, stop, complete):
                self._settle(shard)
                if complete and self.plan.shard(shard).stop == SHARD_SIZE:
                    self._ledger.complete(shard)
                else:
                    self._ledger.partial[shard] = stop
            case Concluded():
                self._take_concluded(report)
            case Revisited():
                self._take_revisited(report)
            case Lost(task, why):
                self._take_lost(task, why)

    def _take_lost(self, task: Task, why: str) -> None:
        match task:
            case RunShard():
                # What was told of it was judged for good; the rest is not done.
                self._settle(task.shard)
                self._ledger.partial[task.shard] = task.start
                shard, what = task.shard, f"shard {task.shard} from its example {task.start} on"
            case Conclude(suspect=suspect):
                key = symptom_key(suspect)
                del self._concluding[key]
                if why != RECALLED and task.reduce and key not in self._irreducible:
                    self._irreducible.add(key)  # it is kept as it was found, for a worker that can do more
                elif why != RECALLED:
                    self._suspects.conclude(suspect)
                shard, what = (
                    suspect.example // SHARD_SIZE,
                    f"the suspect of example {suspect.example} on {suspect.spec}",
                )
            case Revisit():
                self._revisiting -= 1
                if why != RECALLED:
                    self.errors += 1
                    self._listener.trouble(f"a saved case: {why}")
                return
        if why != RECALLED:
            self.lost[shard] = why
            self._listener.trouble(f"{what}: {why}")

    def _is_new_in_pending(self, suspect: Suspect) -> bool:
        """Whether no shard under way has shown the symptom before."""
        shown = [s for pending in self._pending.values() for s in pending if s is not suspect]
        return bool(suspect.case) and all((s.spec, s.symptom) != (suspect.spec, suspect.symptom) for s in shown)

    def _settle(self, shard: int) -> None:
        """Add what the shard gave to what will be committed."""
        self._committed.merge(self._under_way.pop(shard, Tally()))
        crowded = set(self._suspects.crowded)
        for suspect in self._pending.pop(shard, ()):
            self._suspects.add(suspect)
        for spec, op, verdict in self._suspects.crowded - crowded:
            what = f"{op or 'network'} {verdict}"
            self._listener.trouble(f"{spec}: more than {ALIKE_KEPT} symptoms of {what}: the first are looked at")

    def _take_concluded(self, report: Concluded) -> None:
        self._concluding.pop(symptom_key(report.suspect), None)
        self._suspects.conclude(report.suspect)
        self._committed.seconds["reduce"] += report.seconds
        found = report.finding
        if found is None:
            self.state.conclude(report.suspect, None, "")
            return
        text = found.signature.text
        self._own[text] = merged(self._own.get(text), found)
        kept = self._kept(found)
        self.state.conclude(report.suspect, kept, self.paths[text], for_good=not self._is_for_later(found))

    def _take_revisited(self, report: Revisited) -> None:
        assert self._saved is not None
        self._revisiting -= 1
        self._committed.seconds["reduce"] += report.seconds
        kept = [self._kept(found) for found in report.findings]
        for found in kept:
            self.state.keep(found, self.paths[found.signature.text])
        self._saved.revisited(report, kept)
        if self.plan.fail_fast and any(not f.known for f in kept):
            self.stopped = self.stopped or FAIL_FAST

    def _kept(self, found: FoundCase) -> FoundCase:
        """The finding of its signature, once `found` is merged into it and written."""
        self._found_new |= not found.known
        text = found.signature.text
        before = self.findings.get(text)
        kept = merged(before, found)
        if kept is not before:
            self.findings[text] = kept
            self.paths[text] = self._write(kept)
            self._listener.finding(kept, self.paths[text])
            if self._saved is not None and not self._is_for_later(kept):
                self._saved.keep(kept, before)
                if why_not := self._saved.flush():
                    self._listener.trouble(f"{why_not}; it is tried again")
        return kept

    def _is_known(self, suspect: Suspect) -> bool:
        """Whether it plainly is a known issue, before anything is reduced."""
        signature = signature_of(CODEC.decode(suspect.case).case, suspect.symptom)
        return known_as(self._issues, signature, suspect.spec, self.described.get(suspect.spec, {})) is not None

    def _count_error(self, example: int, text: str) -> None:
        self.errors += 1
        self._listener.trouble(f"an error inside qfuzz at example {example}:\n{text}")
        if self.errors > ERRORS_ALLOWED and self.errors > RARE * self.tally.examples:
            raise WorkerFailed(f"an error inside qfuzz, {self.errors} times by now:\n{text}")

    def _commit(self, *, force_moment: bool = False) -> None:
        now = time.monotonic()
        moment = None
        self._committed.deaths += self.crew.lost_workers - self._lost_workers
        self._lost_workers = self.crew.lost_workers
        if force_moment or now - self._noted >= MOMENT_EVERY:
            self._noted = now
            t = self._committed
            moment = Moment(self.seconds, t.examples, t.elements, len(t.features), len(self.findings), t.deaths)
        self.state.commit(
            self._ledger,
            self._committed,
            tuple(self._suspects.changed.values()),
            tuple(self._suspects.dropped.values()),
            self.seconds,
            moment,
            self.lost,
            self.errors,
        )
        self._suspects.changed.clear()
        self._suspects.dropped.clear()
