"""What is kept with a network goes with it, without Python's cycle collector: runners do without it."""

import gc
import weakref
from collections.abc import Iterator
from itertools import chain, islice

import pytest

from qfuzz.backends.discovery import default_specs, load_backend
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import NotSupported
from qfuzz.ops.activation import LeakyRelu, Sigmoid
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference
from qfuzz.strategies import cases_of


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def _ends_processes(case: Case) -> bool:
    """ONNX Runtime aborts where QLinearSigmoid or QLinearLeakyRelu has no last zero point; here that ends the test."""
    tables = any(isinstance(n.op, Sigmoid | LeakyRelu) for n in case.network.nodes)
    return tables and "zero_points=omitted" in case.network.forms


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("spec", default_specs())
def test_judged_and_refused_networks_leave_no_cycles(spec: str) -> None:
    backend = load_backend(spec)
    # Loads the framework before there is a case, as workers do: torch.fx.wrap, called while torch is imported, keeps
    # the frames of all who asked for the import, and what these hold, in a cycle.
    backend.describe()
    kept, refused = [], 0
    # Of flatten, every backend refuses a form.
    drawn = chain(islice(cases_of(8, 0), 70), islice(cases_of(8, 0, ops=("flatten",)), 40))
    full = (c for c in drawn if c.inputs and all(0 not in t.shape for t in c.network.types.values()))
    cases = (c for c in full if not _ends_processes(c))
    for case in cases:
        refused += isinstance(backend.supports(case.network), NotSupported)
        check_one(case, backend, Reference(case))
        kept.append(weakref.ref(case.inputs[0].array))
    del case, cases, full, drawn
    backend.supports(next(cases_of(8, 1)).network)  # a backend may keep the last network
    assert refused
    assert sum(r() is not None for r in kept) == 0
