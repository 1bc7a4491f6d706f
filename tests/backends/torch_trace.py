"""Which operators of torch run where drawn cases are lowered and executed, as torch's own profiler records them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from itertools import islice

from torch._C._profiler import _ExperimentalConfig
from torch.autograd.profiler import profile

from qfuzz.backends.torch_backends import TorchBackend
from qfuzz.backends.torch_operators import Operator
from qfuzz.ir.errors import Rejected, Unsupported
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Supported
from qfuzz.strategies import cases_of

DIALECTS = {"eager": ("fbgemm", "onednn", "qnnpack", "x86"), "export": ("export",)}
"""Dialect to the engines that run it."""


def traced(op: str, dialect: str, wanted: frozenset[str], operators: dict[str, Operator], limit: int) -> frozenset[str]:
    """Operators of torch that run in drawn one-node cases of `op`, until those wanted are among them.

    They are those that the calls of the lowering dispatch to: themselves, or what torch composes them of.
    """
    backends = [TorchBackend(engine) for engine in DIALECTS[dialect]]
    cases = list(islice(cases_of(0, 0, ops=(op,), max_nodes=1), limit))
    tasks = [(b, c) for c in cases for b in backends if isinstance(b.supports(c.network), Supported)]
    found: set[str] = set()
    for line in _lines(tasks, operators):
        found.update(line.split())
        if wanted <= found:
            break
    return frozenset(found)


def _lines(tasks: list[tuple[TorchBackend, Case]], operators: dict[str, Operator]) -> Iterator[str]:
    """A line of names for each task, told by a child; where a known bug ends it, another goes on after that task."""
    done = 0
    while done < len(tasks):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
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


def _dispatched(backend: TorchBackend, case: Case, operators: dict[str, Operator]) -> set[str]:
    inputs = {i.name: t.array for i, t in zip(case.network.inputs, case.inputs, strict=True)}
    recording = profile(use_kineto=False, experimental_config=_ExperimentalConfig(capture_overload_names=True))
    with recording, contextlib.suppress(Rejected, Unsupported):
        backend.compile(case.network).run(inputs)
    found = set()
    for event in recording.function_events or ():
        caller = event.cpu_parent
        while caller is not None and _composes(caller, operators):
            caller = caller.cpu_parent
        if caller is None:
            found.add(_name(event))
    return found & set(operators)


def _composes(event: object, operators: dict[str, Operator]) -> bool:
    """Whether the operator has no kernel of its own for tensors of the CPU: torch writes it with other operators."""
    operator = operators.get(_name(event))
    return operator is not None and all(key.startswith("Composite") for key in operator.kernels)


def _name(event: object) -> str:
    return f"{event.name}.{event.overload_name}".rstrip(".")  # type: ignore[attr-defined]
