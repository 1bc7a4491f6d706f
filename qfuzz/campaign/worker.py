"""The worker process: loads the frameworks once, generates shards, and forks a runner for everything that runs kernels.

It stays single-threaded and never calls a kernel itself, so that it can fork at any time (10 ms, where importing torch
takes a second). When a runner dies or stalls, the guilty call is known from the shared mark; it is confirmed in a fresh
fork, and a new runner goes on. Run as ``python -m qfuzz.campaign.worker READ_FD WRITE_FD SUPERVISOR SPEC…``.
"""

import gc
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.ahead import prepare
from qfuzz.campaign.conclude import Lab, conclude
from qfuzz.campaign.pipes import decode_reply, frame, read_request, verdicts_in, write_all
from qfuzz.campaign.processes import adopt_orphans, die_with_parent, keep_children, start_warden
from qfuzz.campaign.protocol import (
    PROTOCOL,
    SHARD_SIZE,
    Broke,
    CheckCase,
    Checked,
    Conclude,
    Concluded,
    FoundCase,
    Profile,
    Ran,
    Ready,
    Recall,
    Reply,
    Request,
    Revisit,
    RunCase,
    RunShard,
    ShardDone,
    StartFailed,
    Value,
)
from qfuzz.campaign.runner import Death, Mark, Runner, Send, forget_output
from qfuzz.campaign.saved import revisit
from qfuzz.campaign.shard import OURS, Shard, judge_example, verdict_of
from qfuzz.campaign.tally import Tally
from qfuzz.ir.errors import BackendMissing, Corrupted, Crashed, QfuzzError, Rejected, Unsupported
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend, NotSupported
from qfuzz.ops import CODEC
from qfuzz.oracle.memory import limit_reached
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, Verdicts, legible


def main(argv: Sequence[str]) -> int:
    """Serve requests until the pipe closes."""
    read_fd, write_fd, supervisor, specs = int(argv[0]), int(argv[1]), int(argv[2]), argv[3:]
    die_with_parent(supervisor)
    start_warden()  # before the frameworks load, for it is to hold nothing open
    adopt_orphans()
    worker = Worker(read_fd, write_fd)
    try:
        described = {spec: worker.described(spec) for spec in specs}
        _require_names(described)
    except QfuzzError as e:
        worker.send(StartFailed(str(e)))
        return 3
    gc.freeze()  # what the frameworks loaded stays, and forks share its pages
    worker.send(Ready(PROTOCOL, described))
    while (request := read_request(read_fd)) is not None:
        try:
            worker.serve(request)
        except BrokenPipeError:
            return 0
        except Exception:  # noqa: BLE001  the worker's rim
            worker.send(Broke(traceback.format_exc()))
    return 0


def _require_names(described: Mapping[str, Mapping[str, str]]) -> None:
    """Verdicts name their backend: two of one name could be accused of each other's bugs."""
    specs_of: dict[str, str] = {}
    for spec, facts in described.items():
        name = facts["name"]
        if name in specs_of:
            raise BackendMissing(f"backends {specs_of[name]!r} and {spec!r} both call themselves {name!r}")
        specs_of[name] = spec


class Worker:
    """One zygote: its loaded backends, and the pipes to its supervisor."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._backends: dict[str, Backend] = {}
        self._described: dict[str, dict[str, str]] = {}
        self._checks = _CheckRunner((read_fd, write_fd))

    def backend(self, spec: str) -> Backend:
        """The backend of that spec, loaded once, its framework, too: forks have it then."""
        if spec not in self._backends:
            backend = load_backend(spec)
            # Frameworks have string types of their own; these are plain.
            facts = {k: str(v) for k, v in backend.describe().items()}
            keep_children()  # another Python that it has started
            self._described[spec] = {"name": backend.name} | facts
            self._backends[spec] = backend
        return self._backends[spec]

    def described(self, spec: str) -> dict[str, str]:
        """What the backend of that spec says of itself."""
        self.backend(spec)
        return self._described[spec]

    def send(self, reply: Reply) -> None:
        """Send to the supervisor."""
        write_all(self._write_fd, frame(reply))

    def serve(self, request: Request) -> None:
        """Answer one request."""
        match request:
            case CheckCase():
                self.send(self.checked(request))
            case RunCase():
                self._run_case(request)
            case RunShard():
                self._run_shard(request)
            case Conclude():
                self._conclude(request)
            case Revisit():
                self.send(revisit(self._lab(request), request))
            case Recall():
                pass  # what it was to stop has ended by itself

    def checked(self, request: CheckCase) -> Reply:
        """Judge a case in the runner that serves checks; after a death, once more in a fresh one, then without it."""
        died: set[int] = set()
        while True:
            reply = self._checks.ask(request, self.backend)
            if not isinstance(reply, Death):
                return reply
            position = reply.at[2]
            if position < 0 or reply.internal:
                # No backend was running: an error of ours, unless it does not come back.
                if OURS in died:
                    return Broke(f"a runner ended in qfuzz's own code: {reply.reason}")
                died.add(OURS)
                continue
            if position in died:
                case = CODEC.decode(request.case).case
                nodes = case.network.nodes
                op = nodes[0].op.name if len(nodes) == 1 else ""
                verdict = verdict_of(reply, self.backend(request.specs[position]), case, op)
                request = msgspec.structs.replace(request, known=(*request.known, (position, verdict)))
            died.add(position)

    def _run_case(self, request: RunCase) -> None:
        """Run a case in the runner that serves checks; a death is its answer."""
        reply = self._checks.ask(request, self.backend)
        if isinstance(reply, Death):
            ours = reply.internal or reply.at[2] < 0
            case = CODEC.decode(request.case).case
            reply = Broke(reply.reason) if ours else Ran(refusal=verdict_of(reply, self.backend(request.spec), case))
        self.send(reply)

    def _run_shard(self, request: RunShard) -> None:
        from qfuzz.strategies import generate  # loads hypothesis; a worker that only checks cases needs none

        assert generate.SHARD_SIZE == SHARD_SIZE
        started = time.perf_counter()
        profile = request.profile
        gc.disable()
        stream = generate.cases_of(
            request.seed, request.shard, ops=profile.ops, max_nodes=profile.max_nodes, invalid=profile.invalid
        )
        cases = list(stream)[: request.stop]
        gc.enable()
        overhead = Tally(draws=stream.counts.draws, draws_rejected=stream.counts.rejected)
        overhead.seconds["generate"] = time.perf_counter() - started
        shard = Shard(
            request,
            cases,
            [self.backend(spec) for spec in profile.specs],
            [self.described(spec) for spec in profile.specs],
            self.send,
            self._is_recalled,
            (self._read_fd, self._write_fd),
        )
        complete = shard.run(overhead)
        self.send(ShardDone(request.shard, shard.sent, complete))

    def _is_recalled(self) -> bool:
        """Whether a message waits: while a shard is under way, that is a recall, or the end of the pipe."""
        ready, _, _ = select.select([self._read_fd], [], [], 0)
        return bool(ready)

    def _conclude(self, request: Conclude) -> None:
        started = time.monotonic()
        deadline = None if request.seconds is None else started + request.seconds
        finding = conclude(self._lab(request), request.suspect, reduce=request.reduce, deadline=deadline)
        found = None if finding is None else FoundCase.of(finding)
        self.send(Concluded(request.suspect, found, time.monotonic() - started))

    def _lab(self, request: Conclude | Revisit) -> Lab:
        profile = request.profile
        return Lab(
            _Bench(self, profile),
            request.issues,
            request.attempts,
            check_limit=profile.time_limit,
            compare=profile.compare,
        )


class _Bench:
    """Judges cases for a `Lab` in this worker's own runner."""

    def __init__(self, worker: Worker, profile: Profile) -> None:
        self._worker, self._memory_limit = worker, profile.memory_limit
        self.described = {spec: worker.described(spec) for spec in profile.specs}

    def check(
        self,
        case: Case,
        specs: Sequence[str] = (),
        *,
        tap: bool = True,
        compare: bool = False,
        time_limit: float = 30.0,
    ) -> Verdicts:
        request = CheckCase(CODEC.encode(case), tuple(specs), tap, compare, time_limit, self._memory_limit)
        return verdicts_in(self._worker.checked(request))


class _CheckRunner:
    """A runner that answers one `CheckCase` or `RunCase` after another, forked when there is none.

    Parameters
    ----------
    not_for_it
        Descriptors that it is not to hold open.
    """

    def __init__(self, not_for_it: tuple[int, ...]) -> None:
        self._not_for_it = not_for_it
        self._memory_limit = 0
        self._runner: Runner | None = None
        self._request_write = -1

    def ask(self, request: CheckCase | RunCase, backend_of: Callable[[str], Backend]) -> Reply | Death:
        """The reply, or how the runner died of it."""
        for spec in request.specs if isinstance(request, CheckCase) else (request.spec,):
            backend_of(spec)  # loaded here, so that the next fork has it
        if self._runner is not None and request.memory_limit != self._memory_limit:
            self._end()
        if self._runner is None:
            self._memory_limit = request.memory_limit
            self._runner = self._fork(backend_of)
        replies: list[Reply] = []
        try:
            write_all(self._request_write, frame(request))
            death = self._runner.pump(
                lambda whole: replies.append(decode_reply(whole)), request.time_limit, until=lambda: bool(replies)
            )
        except BrokenPipeError:
            death = self._runner.pump(lambda _: None, request.time_limit)
        if replies and not isinstance(replies[0], Broke):
            return replies[0]
        self._end()
        return replies[0] if replies else death or Broke("the runner finished without a reply")

    def _end(self) -> None:
        assert self._runner is not None
        self._runner.close()
        os.close(self._request_write)
        self._runner = None

    def _fork(self, backend_of: Callable[[str], Backend]) -> Runner:
        request_read, self._request_write = os.pipe()

        def job(send: Send, mark: Mark) -> None:
            while isinstance(request := read_request(request_read), CheckCase | RunCase):
                forget_output()
                if isinstance(request, CheckCase):
                    send(_checked(request, backend_of, mark))
                else:
                    mark.set(0, 0, 0)
                    send(_ran(request, backend_of(request.spec)))

        runner = Runner(job, (self._request_write, *self._not_for_it), self._memory_limit)
        os.close(request_read)
        return runner


def _checked(request: CheckCase, backend_of: Callable[[str], Backend], mark: Mark) -> Checked:
    backends = [backend_of(s) for s in request.specs]
    example = judge_example(
        0,
        prepare(CODEC.decode(request.case).case, backends),
        list(enumerate(backends)),
        {(0, position): verdict for position, verdict in request.known},
        lambda position: mark.set(0, 0, position),
        tap=request.tap,
        compare=request.compare,
    )
    return Checked(
        Verdicts(
            example.verdicts,
            example.reference_seconds,
            example.oracle_seconds,
            example.elements_refined,
            example.elements_decided,
        )
    )


def _ran(request: RunCase, backend: Backend) -> Ran:
    case = CODEC.decode(request.case).case
    support = backend.supports(case.network)
    if isinstance(support, NotSupported):
        return Ran(refusal=BackendVerdict(backend.name, Outcome.UNSUPPORTED, legible(support.reason)))
    try:
        program = backend.compile(case.network, request.taps)
        values = program.run({name: np.array(t.array) for name, t in case.feeds.items()}, request.taps)
    except Unsupported as e:
        return Ran(refusal=BackendVerdict(backend.name, Outcome.UNSUPPORTED, legible(str(e))))
    except (MemoryError, Rejected) as e:
        message = str(e) if isinstance(e, Rejected) else f"MemoryError: {e}"
        reason = limit_reached(message)
        outcome = Outcome.CRASH if reason else Outcome.REJECTED
        return Ran(refusal=BackendVerdict(backend.name, outcome, legible(reason or message)))
    except Corrupted as e:
        return Ran(refusal=BackendVerdict(backend.name, Outcome.CORRUPTED, legible(str(e))))
    except Crashed as e:
        return Ran(refusal=BackendVerdict(backend.name, Outcome.CRASH, legible(str(e))))
    wanted = (*case.network.outputs, *request.taps)
    return Ran(tuple(Value.of(name, values[name]) for name in wanted if name in values))


if __name__ == "__main__":
    # Descriptors 1 and 2 stay the supervisor's log; runners get their own.
    sys.stdin.close()
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main(sys.argv[1:]))
