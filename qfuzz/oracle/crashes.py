"""Crashes of kernels that run in a process other than this one: confirmed in a fresh one before they are a verdict."""

from collections.abc import Callable

from qfuzz.ir.alone import node_alone
from qfuzz.ir.errors import Crashed
from qfuzz.ir.network import Case
from qfuzz.oracle.invalid import told_of
from qfuzz.oracle.reference import exact_outputs
from qfuzz.oracle.verdicts import BackendVerdict, Outcome, legible


def settled(
    first: Crashed,
    case: Case,
    backend: str,
    judge: Callable[[], BackendVerdict],
    judge_plainly: Callable[[Case], BackendVerdict],
) -> BackendVerdict:
    """The verdict on a case whose first judgement crashed, as `qfuzz.campaign.worker` has it for its own processes.

    Parameters
    ----------
    judge
        Judges the case as it was when it crashed; each crash leaves a fresh process to the next call.
    judge_plainly
        Judges any case, and explains nothing.
    """
    reason = told_of(case, legible(str(first)))
    for retried in (False, True):
        try:
            judge_plainly(case)
        except Crashed as e:
            reason = told_of(case, legible(str(e)))
            return BackendVerdict(backend, Outcome.CRASH, reason, _guilty(case, judge_plainly))
        if not retried:
            try:
                return judge()
            except Crashed as e:
                reason = told_of(case, legible(str(e)))
    reason = f"{reason} (twice in one process; not in a process of its own)"
    return BackendVerdict(backend, Outcome.CRASH, reason)


def _guilty(case: Case, judge_plainly: Callable[[Case], BackendVerdict]) -> str:
    """The operator of the first node that crashes by itself."""
    nodes = case.network.nodes
    if len(nodes) == 1:
        return nodes[0].op.name
    values = exact_outputs(case)
    for node in nodes:
        try:
            judge_plainly(node_alone(case, node.name, values))
        except Crashed:
            return node.op.name
    return ""
