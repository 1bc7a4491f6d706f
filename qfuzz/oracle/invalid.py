"""Networks whose form is invalid: to be refused, and then all is right. What they would compute is not judged."""

import time

import numpy as np

from qfuzz.ir.errors import Corrupted, Rejected, Unsupported
from qfuzz.ir.network import Case, Network
from qfuzz.ir.protocols import Backend, KnowsInvalid
from qfuzz.oracle.memory import BANDS, Guarded, limit_reached
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, legible


def judge_invalid(case: Case, backend: Backend) -> BackendVerdict:
    """Whether `backend` refuses a case whose form is invalid, once the operator on real numbers does.

    The verdict is ``refused``, ``accepted-invalid``, or how else it ended; ``unsupported`` where nothing says that it
    is invalid.
    """
    network = case.network
    kind = invalid_of(network)
    spent = [0.0, 0.0]

    def verdict(outcome: Outcome, reason: str) -> BackendVerdict:
        accused = "" if outcome is Outcome.UNSUPPORTED else network.nodes[0].op.name
        return BackendVerdict(
            backend.name,
            outcome,
            legible(f"{kind}: {reason}"),
            accused,
            compile_seconds=spent[0],
            run_seconds=spent[1],
        )

    if not isinstance(backend, KnowsInvalid):
        return verdict(Outcome.UNSUPPORTED, "nothing here says what this backend should refuse")
    fed = Guarded({name: t.array for name, t in case.feeds.items()})
    fed.fill(BANDS[0])
    try:
        why = backend.why_invalid(network, {name: np.array(a) for name, a in fed.arrays.items()})
        if not why:
            return verdict(Outcome.UNSUPPORTED, "valid after all: the operator on real numbers takes it, too")
        start = time.perf_counter()
        try:
            program = backend.compile(network)
        finally:
            spent[0] = time.perf_counter() - start
        start = time.perf_counter()
        try:
            returned = program.run(fed.arrays)
        finally:
            spent[1] = time.perf_counter() - start
    except Unsupported as e:
        return verdict(Outcome.UNSUPPORTED, str(e))
    except (MemoryError, Rejected) as e:
        message = str(e) if isinstance(e, Rejected) else f"MemoryError: {e}"
        reached = limit_reached(message)
        return verdict(Outcome.CRASH if reached else Outcome.REFUSED, reached or message)
    except Corrupted as e:
        return verdict(Outcome.CORRUPTED, str(e))
    if damage := fed.damage():
        return verdict(Outcome.CORRUPTED, damage)
    got = ", ".join(f"{a.dtype.name} {list(a.shape)}" for a in returned.values())
    return verdict(Outcome.ACCEPTED_INVALID, f"{got} returned; {why}")


def invalid_of(network: Network) -> str:
    """What is invalid of it. That kernels take what is empty is weaker evidence, and told apart."""
    is_empty = any(0 in t.shape for t in network.types.values())
    return network.form("invalid") + (", empty" if is_empty else "")


def told_of(case: Case, reason: str) -> str:
    """How a process died of `case`, with what is invalid of it: other such forms are other bugs."""
    return f"{case.network.form('invalid')}: {reason}" if case.network.is_invalid else reason
