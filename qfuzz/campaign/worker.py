"""The worker process: loads the frameworks once, generates shards, and forks a runner for everything that runs kernels.

It stays single-threaded and never calls a kernel itself, so that it can fork at any time (10 ms, where importing torch
takes a second). When a runner dies or stalls, the guilty call is known from the shared mark; it is confirmed in a fresh
fork, and a new runner goes on. Run as ``python -m qfuzz.campaign.worker READ_FD WRITE_FD SPEC…``.
"""

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.ahead import AHEAD, Prepared, prepare
from qfuzz.campaign.protocol import (
    KNOWN_EVERY,
    Broke,
    CheckCase,
    Checked,
    Example,
    KnownDeath,
    Ran,
    Ready,
    Reply,
    Request,
    RunCase,
    RunShard,
    ShardDone,
    StartFailed,
    Value,
    decode_reply,
    frame,
    read_request,
    write_all,
)
from qfuzz.campaign.runner import Death, Mark, Runner, Send, die_with_parent, forget_output, run_forked
from qfuzz.findings.conditions import why_not
from qfuzz.findings.signature import Symptom, signature_of
from qfuzz.ir.errors import QfuzzError, Rejected, Unsupported
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend, NotSupported
from qfuzz.ops import CODEC
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, Verdicts
from qfuzz.reduce.isolate import node_alone

HANGS_PER_SHARD = 2
"""Confirmed hangs of one backend on one set of operators, after which the shard runs it on no more such examples."""

Broken = dict[tuple[int, int], BackendVerdict]
"""(index, backend position) -> the verdict on a call that must not be run again."""


def main(argv: Sequence[str]) -> int:
    """Serve requests until the pipe closes."""
    die_with_parent()
    read_fd, write_fd, specs = int(argv[0]), int(argv[1]), argv[2:]
    worker = Worker(write_fd)
    try:
        described = {spec: _described(worker.backend(spec)) for spec in specs}
    except QfuzzError as e:
        worker.send(StartFailed(str(e)))
        return 3
    gc.freeze()  # what the frameworks loaded stays, and forks share its pages
    worker.send(Ready(described))
    while (request := read_request(read_fd)) is not None:
        try:
            worker.serve(request)
        except BrokenPipeError:
            return 0
        except Exception:  # noqa: BLE001  the worker's rim
            worker.send(Broke(traceback.format_exc()))
    return 0


def _described(backend: Backend) -> dict[str, str]:
    # Frameworks have string types of their own; what goes over the pipe is plain.
    return {"name": backend.name} | {k: str(v) for k, v in backend.describe().items()}


class Worker:
    """One zygote: its loaded backends, and the pipe to its supervisor."""

    def __init__(self, write_fd: int) -> None:
        self._write_fd = write_fd
        self._backends: dict[str, Backend] = {}
        self._checks = _CheckRunner()

    def backend(self, spec: str) -> Backend:
        """The backend of that spec, loaded once."""
        if spec not in self._backends:
            self._backends[spec] = load_backend(spec)
        return self._backends[spec]

    def send(self, reply: Reply) -> None:
        """Send to the supervisor."""
        self.forward(frame(reply))

    def forward(self, whole_frame: bytes) -> None:
        """Pass a runner's frame on."""
        write_all(self._write_fd, whole_frame)

    def serve(self, request: Request) -> None:
        """Answer one request."""
        match request:
            case CheckCase():
                self._check(request)
            case RunCase():
                self._run_case(request)
            case RunShard():
                self._run_shard(request)

    def _check(self, request: CheckCase) -> None:
        """Judge a case in the runner that serves checks; after a death, once more in a fresh one, then without it."""
        died: set[int] = set()
        while True:
            reply = self._checks.ask(request, self.backend)
            if not isinstance(reply, Death):
                self.send(reply)
                return
            position = max(reply.at[2], 0)
            if position in died:
                nodes = CODEC.decode(request.case).case.network.nodes
                op = nodes[0].op.name if len(nodes) == 1 else ""
                verdict = verdict_of(reply, self.backend(request.specs[position]), op)
                request = msgspec.structs.replace(request, known=(*request.known, (position, verdict)))
            died.add(position)

    def _run_case(self, request: RunCase) -> None:
        """Run a case in the runner that serves checks; a death is its answer."""
        reply = self._checks.ask(request, self.backend)
        if isinstance(reply, Death):
            reply = Ran(refusal=verdict_of(reply, self.backend(request.spec)))
        self.send(reply)

    def _run_shard(self, request: RunShard) -> None:
        from qfuzz.strategies import cases_of  # loads hypothesis; a worker that only checks cases needs none

        started = time.perf_counter()
        gc.disable()
        stream = cases_of(request.seed, request.shard, ops=request.ops, max_nodes=request.max_nodes)
        cases = list(stream)[: request.stop]
        gc.enable()
        generate_seconds = time.perf_counter() - started
        shard = _Shard(self, request, cases)
        shard.run()
        counts = getattr(stream, "counts", None)
        self.send(
            ShardDone(
                request.shard,
                len(cases),
                generate_seconds,
                time.perf_counter() - started,
                draws=counts.draws if counts else len(cases),
                draws_rejected=counts.rejected if counts else 0,
                deaths=shard.deaths,
            )
        )


def verdict_of(death: Death, backend: Backend, op: str = "") -> BackendVerdict:
    """The verdict on the call that a runner died of."""
    outcome = Outcome.HANG if death.hung else Outcome.CRASH
    return BackendVerdict(backend.name, outcome, death.reason, op)


class _CheckRunner:
    """A runner that answers one `CheckCase` or `RunCase` after another, forked when there is none."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._request_write = -1

    def ask(self, request: CheckCase | RunCase, backend_of: Callable[[str], Backend]) -> Reply | Death:
        """The reply, or how the runner died of it."""
        for spec in request.specs if isinstance(request, CheckCase) else (request.spec,):
            backend_of(spec)  # loaded here, so that the next fork has it
        if self._runner is None:
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
        self._runner.close()
        os.close(self._request_write)
        self._runner = None
        return replies[0] if replies else death or Broke("the runner finished without a reply")

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

        runner = Runner(job, close_in_child=(self._request_write,))
        os.close(request_read)
        return runner


def _checked(request: CheckCase, backend_of: Callable[[str], Backend], mark: Mark) -> Reply:
    example: list[Reply] = []
    case = CODEC.decode(request.case).case
    backends = [(i, backend_of(s)) for i, s in enumerate(request.specs)]
    broken = {(0, position): verdict for position, verdict in request.known}
    prepared = prepare(case, [backend for _, backend in backends])
    _judge(0, 0, prepared, backends, broken, example.append, mark, tap=request.tap)
    (e,) = example
    assert isinstance(e, Example)
    return Checked(Verdicts(e.verdicts, e.reference_seconds, e.oracle_seconds, e.elements_refined, e.elements_decided))


def _ran(request: RunCase, backend: Backend) -> Ran:
    case = CODEC.decode(request.case).case
    support = backend.supports(case.network)
    if isinstance(support, NotSupported):
        return Ran(refusal=BackendVerdict(backend.name, Outcome.UNSUPPORTED, support.reason))
    try:
        program = backend.compile(case.network, request.taps)
        values = program.run({name: np.array(t.array) for name, t in case.feeds.items()}, request.taps)
    except Unsupported as e:
        return Ran(refusal=BackendVerdict(backend.name, Outcome.UNSUPPORTED, str(e)))
    except Rejected as e:
        return Ran(refusal=BackendVerdict(backend.name, Outcome.REJECTED, str(e)))
    wanted = (*case.network.outputs, *request.taps)
    return Ran(tuple(Value.of(name, values[name]) for name in wanted if name in values))


class _Shard:
    """The examples of one shard, run by as many runners as it takes."""

    def __init__(self, worker: Worker, request: RunShard, cases: Sequence[Case]) -> None:
        self.worker, self.request, self.cases = worker, request, cases
        self.backends = [worker.backend(r.spec) for r in request.rides]
        self.broken: Broken = {}
        self.retried: set[tuple[int, int]] = set()
        self.hangs: dict[tuple[int, frozenset[str]], int] = {}
        self.deaths = 0
        self.sent = request.start
        for death in request.known_deaths:
            self._skip_known(death)

    def _skip_known(self, death: KnownDeath) -> None:
        """Most examples that look like a known crash or hang are counted, and not run."""
        reason = f"known, not run: {death.op} with {', '.join(death.form)}"
        for position, (ride, backend) in enumerate(zip(self.request.rides, self.backends, strict=True)):
            if ride.spec != death.spec or why_not(death.when, _described(backend)):
                continue
            for index, case in enumerate(self.cases):
                if index % KNOWN_EVERY and death.op in _ops(case):
                    form = signature_of(case, Symptom(death.op, str(Outcome.CRASH))).form
                    if set(death.form) <= set(form):
                        skipped = BackendVerdict(backend.name, Outcome.UNSUPPORTED, reason)
                        self.broken[index, position] = skipped

    def run(self) -> None:
        while self.sent < len(self.cases):
            death = run_forked(self._job, self._forward, self.request.time_limit)
            if death is None:
                return
            self.deaths += 1
            self._after(death)

    def _forward(self, whole_frame: bytes) -> None:
        reply = decode_reply(whole_frame)
        if isinstance(reply, Example):
            self.sent = reply.index + 1
        self.worker.forward(whole_frame)

    def _job(self, send: Send, mark: Mark) -> None:
        shard, start, stop = self.request.shard, self.sent, len(self.cases)
        for first in range(start, stop, AHEAD):
            indices = range(first, min(first + AHEAD, stop))
            ready = [prepare(self.cases[i], [backend for _, backend in self._riding(i)]) for i in indices]
            for index, prepared in zip(indices, ready, strict=True):
                forget_output()
                tap = index % self.request.tap_every == 0
                _judge(shard, index, prepared, self._riding(index), self.broken, send, mark, tap=tap)

    def _riding(self, index: int) -> list[tuple[int, Backend]]:
        return [
            (position, backend)
            for position, (ride, backend) in enumerate(zip(self.request.rides, self.backends, strict=True))
            if index % ride.every == 0
        ]

    def _after(self, death: Death) -> None:
        """Confirm a death in a fresh process, and keep its verdict; one that does not come back is tried once more."""
        _, index, position = death.at
        index, position = max(index, self.sent), max(position, 0)
        backend, case = self.backends[position], self.cases[index]
        tap = index % self.request.tap_every == 0

        def again(send: Send, mark: Mark) -> None:
            mark.set(self.request.shard, index, position)
            check_one(case, backend, Reference(case), tap=tap)

        confirmed = run_forked(again, lambda _: None, self.request.time_limit)
        if confirmed is not None:
            self.broken[index, position] = verdict_of(confirmed, backend, self._guilty(case, backend))
            if confirmed.hung:
                self._skip_alike(index, position)
        elif (index, position) in self.retried:
            outcome = Outcome.HANG if death.hung else Outcome.CRASH
            reason = f"{death.reason} (twice in one process; not in a process of its own)"
            self.broken[index, position] = BackendVerdict(backend.name, outcome, reason)
        else:
            self.retried.add((index, position))

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

            if run_forked(job, lambda _: None, self.request.time_limit) is not None:
                return node.op.name
        return ""

    def _skip_alike(self, index: int, position: int) -> None:
        ops = _ops(self.cases[index])
        key = (position, frozenset(ops))
        self.hangs[key] = self.hangs.get(key, 0) + 1
        if self.hangs[key] < HANGS_PER_SHARD:
            return
        reason = f"known, not run: {self.backends[position].name} hung {self.hangs[key]} times on {', '.join(ops)}"
        for later in range(index + 1, len(self.cases)):
            if frozenset(_ops(self.cases[later])) == key[1]:
                self.broken.setdefault(
                    (later, position), BackendVerdict(self.backends[position].name, Outcome.UNSUPPORTED, reason)
                )


def _ops(case: Case) -> tuple[str, ...]:
    return tuple(sorted({n.op.name for n in case.network.nodes}))


def _judge(
    shard: int,
    index: int,
    prepared: Prepared,
    backends: Sequence[tuple[int, Backend]],
    broken: Broken,
    send: Send,
    mark: Mark,
    *,
    tap: bool,
) -> None:
    """Judge one example on `backends` (with their positions) and send it."""
    reference = prepared.reference
    case = reference.case
    start, known_before = time.perf_counter(), reference.seconds
    verdicts = []
    for position, backend in backends:
        known = broken.get((index, position))
        if known is None:
            mark.set(shard, index, position)
            known = check_one(case, backend, reference, tap=tap, explain=cause_of)
        verdicts.append(known)
    mark.set(shard, index, -1)
    framework = sum(v.compile_seconds + v.run_seconds for v in verdicts)
    elapsed = time.perf_counter() - start - framework - (reference.seconds - known_before)
    accused = any(v.is_finding for v in verdicts)
    send(
        Example(
            shard,
            index,
            tuple(verdicts),
            tuple(n.op.name for n in case.network.nodes),
            case=CODEC.encode(case) if accused else b"",
            reference_seconds=reference.seconds,
            oracle_seconds=prepared.lowering_seconds + max(0.0, elapsed),
            elements_refined=reference.count.refined,
            elements_decided=reference.count.elements,
        )
    )


if __name__ == "__main__":
    # Descriptors 1 and 2 stay the supervisor's log; runners get their own.
    sys.stdin.close()
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main(sys.argv[1:]))
