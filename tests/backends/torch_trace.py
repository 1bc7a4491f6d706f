"""Which operators of torch run where drawn cases are lowered and executed, as torch's own profiler records them."""

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator
from itertools import count, cycle, islice

from torch._C._profiler import _ExperimentalConfig
from torch.autograd.profiler import profile

from qfuzz.backends.discovery import load_backend
from qfuzz.backends.torch_operators import Operator
from qfuzz.ir.errors import Rejected, Unsupported
from qfuzz.ir.forms import CHOICES
from qfuzz.ir.network import Case, Network
from qfuzz.ir.protocols import Backend, Supported
from qfuzz.strategies import cases_of

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says on stderr that it starts and stops

DIALECTS = {
    "eager": ("torch-fbgemm", "torch-onednn", "torch-qnnpack", "torch-x86"),
    "export": ("torch-export", "torch-export?format=qdq"),
}
"""Dialect to the backends that run it."""

FORMS = (
    *((f"{name}={value}",) for name, value in CHOICES if name in ("entry", "calls", "packing")),
    *(("packing=repacked", f"entry={name}") for name in ("older", "sparse")),
    *(("calls=out", f"entry={name}") for name in ("second", "older", "aten")),
)
"""Forms that other operators of torch are called in; drawn cases are said in them, too."""

STEP = 50
"""How many cases are drawn at a time."""


def traced(
    op: str, dialect: str, wanted: frozenset[str], operators: dict[str, Operator], *, least: int, most: int
) -> frozenset[str]:
    """Operators of torch that run in drawn one-node cases of `op`: in all of `least`, then until those `wanted` have.

    They are those that the calls of the lowering dispatch to: themselves, or what torch composes them of. Those of aten
    that plain tensors have other kernels for count where a quantized tensor is an argument.
    """
    backends = [load_backend(spec) for spec in DIALECTS[dialect]]
    cases = (_by_one_thread(case) for shard in count() for case in cases_of(0, shard, ops=(op,), max_nodes=1))
    drawn = [said for case, form in zip(islice(cases, least), cycle(FORMS)) for said in (case, _said(case, form))]
    found = {name for line in _lines(_tasks(backends, drawn), operators) for name in line.split()}
    for _ in range(least, most, STEP):
        if wanted <= found:
            break
        drawn = [said for case in islice(cases, STEP) for said in (case, *(_said(case, form) for form in FORMS))]
        for line in _lines(_tasks(backends, drawn), operators):
            found.update(line.split())
            if wanted <= found:
                break
    return frozenset(found)


def _by_one_thread(case: Case) -> Case:
    """The case as it is, but by one thread: the profiler in a forked child waits for others without end."""
    return _said(case, tuple(f for f in case.network.forms if f.split("=")[0] not in ("threads", "callers")))


def _said(case: Case, forms: tuple[str, ...]) -> Case:
    """The case in these forms only."""
    n = case.network
    return Case(Network(n.inputs, n.constants, n.nodes, n.outputs, forms), case.inputs)


def _tasks(backends: list[Backend], cases: list[Case]) -> list[tuple[Backend, Case]]:
    return [(b, c) for c in cases for b in backends if isinstance(b.supports(c.network), Supported)]


def _lines(tasks: list[tuple[Backend, Case]], operators: dict[str, Operator]) -> Iterator[str]:
    """A line of names for each task, told by a child; where a known bug ends it, another goes on after that task."""
    done = 0
    while done < len(tasks):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            faulthandler.disable()
            try:
                os.close(reading)
                with os.fdopen(writing, "w", buffering=1) as out:
                    for backend, case in tasks[done:]:
                        print(*_dispatched(backend, case, operators), file=out)
            finally:
                os._exit(0)
        os.close(writing)
        try:
            with os.fdopen(reading) as lines:
                for line in lines:
                    done += 1
                    yield line
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        done += 1


def _dispatched(backend: Backend, case: Case, operators: dict[str, Operator]) -> set[str]:
    inputs = {i.name: t.array for i, t in zip(case.network.inputs, case.inputs, strict=True)}
    overloads = _ExperimentalConfig(capture_overload_names=True)
    recording = profile(use_kineto=False, record_shapes=True, experimental_config=overloads)
    with recording, contextlib.suppress(Rejected, Unsupported):
        backend.compile(case.network).run(inputs)
    found: set[str] = set()
    events = list(recording.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        operator = operators.get(f"{event.name}.{event.overload_name}".rstrip("."))
        if operator is None:
            continue
        if not _has_other_kernels(operator) or any(map(_is_quantized, event.extra_fields.inputs)):
            found.add(operator.name)
        if all(key.startswith("Composite") for key in operator.kernels):
            events += event.children  # of no kernel of its own: torch writes it with other operators
    return found


def _has_other_kernels(operator: Operator) -> bool:
    """Whether a call may come to a kernel that is not the one for quantized tensors, which is in question."""
    return operator.namespace == "aten" and "QuantizedCPU" in operator.kernels and len(operator.kernels) > 1


def _is_quantized(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_is_quantized, value))
    return "torch.q" in str(getattr(value, "dtype", ""))
