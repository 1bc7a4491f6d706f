"""`check(case, backends) -> Verdicts`: the centre. Run, replay, reduce, audit and pytest all call it."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.ir.contract import contract_of
from qfuzz.ir.errors import Corrupted, Crashed, Rejected, Unsupported
from qfuzz.ir.network import Case, Network, Node
from qfuzz.ir.protocols import Backend, NotSupported, Program
from qfuzz.ir.qtype import INTEGER_RANGE, integer_range
from qfuzz.ir.tensor import DTYPES, TensorType
from qfuzz.oracle.admissible import Admissible, floats_as_judged
from qfuzz.oracle.again import fresh_inputs
from qfuzz.oracle.crashes import settled
from qfuzz.oracle.invalid import judge_invalid
from qfuzz.oracle.memory import BANDS, FILLS, Guarded, difference, fill_allocations, limit_reached
from qfuzz.oracle.reference import DEFAULT_CONTRACT, Reference
from qfuzz.oracle.verdicts import BackendVerdict, Counts, Kind, Mismatch, Outcome, Verdicts, legible

Array = npt.NDArray[Any]

Observe = Callable[[], Iterator[tuple[Sequence[Array], Array]]]
"""Runs the same node again on fresh inputs: the values of all its inputs, and what the backend returned."""

Explainer = Callable[[Node, Sequence[TensorType], Sequence[Array], Array, Observe], str | None]
"""(node, types and values of all its inputs, what the backend returned, more such) -> the name of a cause, or None."""

NETWORK = "network"
"""What counts are told of where several nodes were judged as a whole."""

MISMATCHES_KEPT = 4
"""Mismatches kept of each guilty node."""


def check(case: Case, backends: Sequence[Backend], *, tap: bool = True) -> Verdicts:
    """Run `case` on each of `backends` in this process, and judge every output element.

    Parameters
    ----------
    tap
        Whether intermediate values are also exposed, and each node judged alone on what it received. A backend that
        does not fuse is always judged so, for exposing values changes nothing there.

    Returns
    -------
    Verdicts
        One verdict per backend, in their order. Crashes of the process are the supervisor's to see.
    """
    reference = Reference(case)
    start = time.perf_counter()
    verdicts = tuple(check_one(case, backend, reference, tap=tap) for backend in backends)
    framework = sum(v.compile_seconds + v.run_seconds for v in verdicts)
    return Verdicts(
        backends=verdicts,
        reference_seconds=reference.seconds,
        oracle_seconds=max(0.0, time.perf_counter() - start - framework - reference.seconds),
        elements_refined=reference.count.refined,
        elements_decided=reference.count.elements,
    )


def check_one(
    case: Case,
    backend: Backend,
    reference: Reference,
    *,
    tap: bool = True,
    explain: Explainer | None = None,
    digest: bool = False,
) -> BackendVerdict:
    """The verdict on one backend, sharing `reference` with the others.

    `explain` names causes of violations; `digest` asks for digests of all values that come back.
    """

    def judge() -> BackendVerdict:
        return _check_once(case, backend, reference, tap, explain, digest)

    def judge_plainly(part: Case) -> BackendVerdict:
        return _check_once(part, backend, reference if part is case else Reference(part), tap, None, False)

    try:
        return judge()
    except Crashed as e:
        return settled(e, case, backend.name, judge, judge_plainly)


def _check_once(
    case: Case, backend: Backend, reference: Reference, tap: bool, explain: Explainer | None, digest: bool
) -> BackendVerdict:
    support = backend.supports(case.network)
    if isinstance(support, NotSupported):
        return BackendVerdict(backend.name, Outcome.UNSUPPORTED, legible(support.reason))
    if case.network.is_invalid:
        return judge_invalid(case, backend)
    run = _Run(case, backend, reference, explain, digest)
    try:
        run.all_forms(tap)
    except Unsupported as e:
        return run.verdict(Outcome.UNSUPPORTED, str(e))
    except Rejected as e:
        return run.first_cause() or run.verdict(Outcome.REJECTED, str(e))
    except _Broken as e:
        return run.verdict(e.outcome, e.reason, e.op)
    return run.verdict(Outcome.JUDGED)


def _beginning(case: Case, n: int) -> Case:
    """The first `n` nodes, and what they read."""
    network = case.network
    nodes = network.nodes[:n]
    read = {i for node in nodes for i in node.inputs}
    inputs = tuple(i for i in network.inputs if i.name in read)
    constants = tuple(c for c in network.constants if c.name in read)
    outputs = tuple(node.name for node in nodes if node.name not in read)
    feeds = case.feeds
    return Case(Network(inputs, constants, nodes, outputs, network.forms), tuple(feeds[i.name] for i in inputs))


class _Broken(Exception):
    def __init__(self, outcome: Outcome, reason: str, op: str = "") -> None:
        self.outcome, self.reason, self.op = outcome, reason, op


@contextmanager
def _memory_errors() -> Iterator[None]:
    """What a backend raises for want of memory is a crash where the limit was reached, and a refusal where none was."""
    try:
        yield
    except MemoryError as e:
        message = f"MemoryError: {legible(str(e))}" if str(e) else "MemoryError"
        if reason := limit_reached(message):
            raise _Broken(Outcome.CRASH, reason) from None
        raise Rejected(message) from None
    except Rejected as e:
        if reason := limit_reached(legible(str(e))):
            raise _Broken(Outcome.CRASH, reason) from None
        raise


class _Run:
    """One case on one backend: accumulates counts, mismatches and seconds."""

    def __init__(
        self, case: Case, backend: Backend, reference: Reference, explain: Explainer | None, digest: bool
    ) -> None:
        self.digest = digest
        self.digests: dict[str, str] = {}
        self.by_op: dict[str, Counts] = {}
        self.steps: dict[int, int] = {}
        self.case, self.backend, self.reference, self.explain = case, backend, reference, explain
        self.cause: str | None = None
        self.kind: Kind | None = None
        self.network = case.network
        self.mismatches: list[Mismatch] = []
        self.no_node_is_guilty = False
        self.compile_seconds = self.run_seconds = 0.0

    def verdict(self, outcome: Outcome, reason: str = "", op: str = "") -> BackendVerdict:
        return BackendVerdict(
            backend=self.backend.name,
            outcome=outcome,
            reason=legible(reason),
            op=op or self._accused(outcome),
            cause=self.cause,
            kind=self.kind,
            counts=sum(self.by_op.values(), Counts()),
            mismatches=tuple(self.mismatches),
            by_op=tuple(self.by_op.items()),
            steps=tuple(sorted(self.steps.items())),
            digests=tuple(self.digests.items()),
            compile_seconds=self.compile_seconds,
            run_seconds=self.run_seconds,
        )

    def _accused(self, outcome: Outcome) -> str:
        if self.no_node_is_guilty:
            return ""
        if self.mismatches:
            first = self.mismatches[0]
            return first.op if first.tapped or len(self.network.nodes) == 1 else ""
        alone = len(self.network.nodes) == 1
        return self.network.nodes[0].op.name if alone and outcome not in (Outcome.JUDGED, Outcome.UNSUPPORTED) else ""

    def first_cause(self) -> BackendVerdict | None:
        """The verdict on the shortest part of a refused network that is accused by itself.

        A kernel that returns a wrong shape makes the next one refuse it: the first of them is guilty, not the second.
        """
        for n in range(1, len(self.network.nodes)):
            part = _beginning(self.case, n)
            verdict = check_one(part, self.backend, Reference(part), explain=self.explain)
            self.compile_seconds += verdict.compile_seconds
            self.run_seconds += verdict.run_seconds
            if verdict.is_finding:
                return msgspec.structs.replace(
                    verdict, compile_seconds=self.compile_seconds, run_seconds=self.run_seconds
                )
        return None

    def all_forms(self, tap: bool) -> None:
        inner = tuple(n.name for n in self.network.nodes if n.name not in self.network.outputs)
        if not self.backend.fuses:
            self.judge_each(self.values(inner))
            return
        values = self.values(())
        if not inner:
            self.judge_each(values)
            return
        self.judge_whole(values)
        if tap:
            self.prefer_tapped(self.values(inner))

    def prefer_tapped(self, values: Mapping[str, Array]) -> None:
        """Judge each node alone. One that is guilty so is accused; where none is, the network as a whole is."""
        whole, kind = self.mismatches, self.kind
        self.mismatches, self.kind = [], None
        self.judge_each(values)
        self.no_node_is_guilty = bool(whole) and not self.mismatches
        self.mismatches += whole
        self.kind = self.kind or kind

    def values(self, taps: Sequence[str]) -> Mapping[str, Array]:
        """Outputs and taps of two identical runs, required to be bit-equal and to leave all other memory alone.

        Memory that nobody wrote holds something else in the second run: what a kernel read of it, or left of it in its
        outputs, makes the two differ.
        """
        try:
            first, second = self._two_runs(taps)
        finally:
            fill_allocations(0)
        inner = {node.name for node in self.network.nodes}
        for node in self.network.nodes:
            mine = node.name in first and node.name in second
            if mine and not _bit_equal(first[node.name], second[node.name]):
                where = difference(first[node.name], second[node.name])
                # Accused where all that it received was the same in both runs; later nodes follow from it.
                is_first = not inner.intersection(node.inputs).difference(first)
                op = node.op.name if is_first else ""
                raise _Broken(Outcome.UNSTABLE, f"two identical runs differ in {node.name!r}{where}", op)
        if self.digest:
            self.digests = {n: digest_of(first[n]) for n in self.network.types if n in first} | self.digests
        return first

    def _two_runs(self, taps: Sequence[str]) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        fed = Guarded({name: t.array for name, t in self.case.feeds.items()})
        fill_allocations(FILLS[0])
        start = time.perf_counter()
        try:
            with _memory_errors():
                program = self.backend.compile(self.network, taps)
        except Rejected:
            self.compile_seconds += time.perf_counter() - start
            raise
        except Corrupted as e:
            raise _Broken(Outcome.CORRUPTED, str(e)) from None
        elapsed = time.perf_counter() - start
        # A program that knows how long its framework took says so; lowering is ours, not the backend's.
        self.compile_seconds += float(getattr(program, "compile_seconds", elapsed))
        first = self._timed(program, fed, taps, 0)
        second = self._timed(program, fed, taps, 1)
        start = time.perf_counter()
        del program  # freeing what was compiled is the framework's time, too
        self.run_seconds += time.perf_counter() - start
        return first, second

    def _timed(self, program: Program, fed: Guarded, taps: Sequence[str], which: int) -> dict[str, Array]:
        fed.fill(BANDS[which])
        fill_allocations(FILLS[which])
        start = time.perf_counter()
        try:
            with _memory_errors():
                values = program.run(fed.arrays, taps)
        except Corrupted as e:
            raise _Broken(Outcome.CORRUPTED, str(e)) from None
        self.run_seconds += time.perf_counter() - start
        # After each run: a second one may undo what the first did.
        if damage := fed.damage():
            raise _Broken(Outcome.CORRUPTED, damage)
        return values

    def count(self, op: str, counts: Counts) -> None:
        """Add elements of an operator's output."""
        self.by_op[op] = self.by_op[op] + counts if op in self.by_op else counts

    def judge_whole(self, values: Mapping[str, Array]) -> None:
        exact = self.reference.exact()
        if all(name in values and _bit_equal(values[name], exact[name]) for name in self.network.outputs):
            # Right whatever the contracts: no interval needs to be propagated.
            self.count(NETWORK, Counts(exact=sum(values[name].size for name in self.network.outputs)))
            return
        sets = self.reference.whole(self.backend.contracts)
        for name in self.network.outputs:
            self._judge(self.network.node(name), values.get(name), sets[name], tapped=False)

    def judge_each(self, values: Mapping[str, Array]) -> None:
        known: dict[str, Array] = {name: t.array for name, t in self.case.feeds.items()}
        exact = self.reference.exact()
        right = {*known, *self.network.constant_data}
        for node in self.network.nodes:
            got = values.get(node.name)
            if got is not None and right.issuperset(node.inputs) and _bit_equal(got, exact[node.name]):
                # What it received is right, and so is what it returned, whatever its contract.
                right.add(node.name)
                known[node.name] = got
                self.count(node.op.name, Counts(exact=got.size))
                continue
            if problem(got, self.network.types[node.name]):
                self._judge(node, got, None, tapped=True)
                return  # what later nodes received is not known
            assert got is not None
            known[node.name] = got
            received = [known.get(i) if i not in self.network.constant_data else None for i in node.inputs]
            contract = contract_of(self.backend.contracts, node.op.name, self.network.said_of(node), DEFAULT_CONTRACT)
            first = not self.mismatches
            self._judge(node, got, self.reference.node(node, received, contract), tapped=True)
            if first and self.mismatches and self.explain is not None:
                types, arrays = self.network.input_types(node), self._all_inputs(node, known)
                self.cause = self.explain(node, types, arrays, got, partial(self._observe, node))
            if self.network.types[node.name].dtype not in INTEGER_RANGE and not np.isfinite(got).all():
                return  # a violation; no operator is defined on what later nodes received

    def _observe(self, node: Node) -> Iterator[tuple[Sequence[Array], Array]]:
        """What `node` receives and returns where the network runs on fresh inputs."""
        inner = tuple(n.name for n in self.network.nodes if n.name not in self.network.outputs)
        for case in fresh_inputs(self.case):
            known: dict[str, Array] = {name: np.array(t.array) for name, t in case.feeds.items()}
            start = time.perf_counter()
            with _memory_errors():
                known |= self.backend.compile(self.network, inner).run(dict(known), inner)
            self.run_seconds += time.perf_counter() - start
            yield self._all_inputs(node, known), known[node.name]

    def _all_inputs(self, node: Node, known: Mapping[str, Array]) -> list[Array]:
        constants = self.network.constant_data
        return [constants[i].array if i in constants else known[i] for i in node.inputs]

    def _judge(self, node: Node, got: Array | None, allowed: Admissible | None, *, tapped: bool) -> None:
        why = problem(got, self.network.types[node.name])
        if why or got is None or allowed is None:
            n = self.network.types[node.name].n_elements
            self.count(node.op.name if tapped else NETWORK, Counts(violation=max(n, 1)))
            self.kind = self.kind or Kind.MALFORMED
            self.mismatches.append(Mismatch(node.name, node.op.name, tapped, (), problem=why))
            return
        if self.network.types[node.name].dtype not in INTEGER_RANGE:
            got = floats_as_judged(got, allowed)
        counts, bad = judge(got, allowed)
        self.count(node.op.name if tapped else NETWORK, counts)
        if counts.exact != counts.total and allowed.exact is not None and got.dtype.kind != "f":
            for step, n in steps_of(got, allowed.exact).items():
                self.steps[step] = self.steps.get(step, 0) + n
        if counts.violation and not self.mismatches:
            self.kind = classify(got, allowed, bad, self.network.types[node.name])
        for index in bad[:MISMATCHES_KEPT]:
            at = tuple(int(i) for i in index)
            self.mismatches.append(
                Mismatch(
                    node.name,
                    node.op.name,
                    tapped,
                    at,
                    got=float(got[at]),
                    lo=float(allowed.lo[at]),
                    hi=float(allowed.hi[at]),
                    exact=None if allowed.exact is None else float(allowed.exact[at]),
                )
            )


def judge(got: Array, allowed: Admissible) -> tuple[Counts, npt.NDArray[np.int64]]:
    """Counts by verdict, and the indices of violations. NaN is admissible only where everything is."""
    expected = allowed.exact if allowed.exact is not None else allowed.lo
    n_exact = int(np.count_nonzero(got == expected))
    if n_exact == got.size and (allowed.exact is not None or allowed.lo is allowed.hi):
        return Counts(n_exact, 0, 0), _NOWHERE
    inside = (got >= allowed.lo) & (got <= allowed.hi)
    if got.dtype.kind == "f":
        inside |= (allowed.lo == -np.inf) & (allowed.hi == np.inf)
    n_inside = int(np.count_nonzero(inside))
    exact = inside & (got == expected)
    if allowed.exact is None:
        exact &= np.asarray(allowed.lo == allowed.hi)
    n_exact = int(np.count_nonzero(exact))
    counts = Counts(n_exact, n_inside - n_exact, got.size - n_inside)
    return counts, np.argwhere(~inside) if counts.violation else _NOWHERE


def steps_of(got: Array, exact: Array) -> dict[int, int]:
    """Non-zero differences in quantized steps and how often each occurs; far ones at powers of two away from zero."""
    away = got.astype(np.int64) - exact.astype(np.int64)
    found, n = np.unique(away[away != 0], return_counts=True)
    steps: dict[int, int] = {}
    for step, count in zip(found.tolist(), n.tolist(), strict=True):
        size = abs(step) if abs(step) <= 8 else 1 << (abs(step) - 1).bit_length()
        key = size if step > 0 else -size
        steps[key] = steps.get(key, 0) + count
    return steps


def digest_of(array: Array) -> str:
    """A digest of an array's dtype, shape and bits."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=8).hexdigest()


_NOWHERE: npt.NDArray[np.int64] = np.empty((0, 0), dtype=np.int64)


def classify(got: Array, allowed: Admissible, bad: npt.NDArray[np.int64], type_: TensorType) -> Kind:
    """How the violations at `bad` look."""
    at = tuple(bad.T)
    wrong = got[at].astype(np.float64)
    excess = np.maximum(wrong - allowed.hi[at].astype(np.float64), allowed.lo[at].astype(np.float64) - wrong)
    limits = integer_range(type_.element)
    if limits is None:
        return Kind.GARBAGE
    if excess.max() <= 1:
        return Kind.OFF_BY_ONE
    expected = allowed.lo if allowed.exact is None else allowed.exact
    if np.array_equal(np.sort(got, axis=None), np.sort(expected, axis=None)):
        return Kind.PERMUTED
    if np.isin(wrong, limits).all():
        return Kind.SATURATION
    inner = np.zeros(got.shape, dtype=bool)
    if got.ndim > 2:
        inner[(slice(None), slice(None), *(slice(1, -1) for _ in range(got.ndim - 2)))] = True
        if inner.any() and not inner[at].any():
            return Kind.BOUNDARY
    return Kind.GARBAGE


def problem(got: Array | None, type_: TensorType) -> str:
    """Why a returned value cannot be compared at all, or nothing."""
    if got is None:
        return "the backend returned no such value"
    if got.dtype != DTYPES[type_.dtype]:
        return f"dtype {got.dtype.name} returned, {type_.dtype} expected"
    if got.shape != type_.shape:
        return f"shape {got.shape} returned, {type_.shape} expected"
    return ""


def _bit_equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
