"""Two backends on one case: the same bits, or a change, and whether it went from right to wrong."""

from qfuzz.ir.network import Case
from qfuzz.oracle.verdicts import BackendVerdict, Counts, Outcome

ARROW = " => "
"""Between the names of two backends that are compared."""


def compared(case: Case, a: BackendVerdict, b: BackendVerdict) -> BackendVerdict:
    """One verdict on both, named ``a => b``.

    ``changed`` where they returned different bits or ended differently; its cause is ``right -> wrong`` and the like,
    where right is what the reference admits, and a crash, say, is called by its name. ``unsupported`` where either is.
    Both verdicts must have been asked for digests. The time that they took is told by themselves.
    """
    name = a.backend + ARROW + b.backend
    for v in (a, b):
        if v.outcome is Outcome.UNSUPPORTED:
            return BackendVerdict(name, Outcome.UNSUPPORTED, f"{v.backend}: {v.reason}")
    same = a.outcome is b.outcome and (a.digests == b.digests if a.outcome is Outcome.JUDGED else True)
    if same:
        return BackendVerdict(name, Outcome.JUDGED, counts=Counts(exact=b.counts.total), by_op=b.by_op)
    return BackendVerdict(
        name,
        Outcome.CHANGED,
        reason="; ".join(f"{v.backend}: {_what(v)}" for v in (a, b)),
        op=_changed_op(case, a, b),
        cause=f"{_word(a)} -> {_word(b)}",
        mismatches=(b if b.mismatches else a).mismatches,
    )


def _word(v: BackendVerdict) -> str:
    if v.outcome is not Outcome.JUDGED:
        return str(v.outcome)
    return "wrong" if v.counts.violation else "right"


def _what(v: BackendVerdict) -> str:
    if v.outcome is not Outcome.JUDGED:
        return f"{v.outcome}: {v.reason}"
    if v.mismatches:
        return str(v.mismatches[0])
    return f"{v.verdict}, as the reference admits"


def _changed_op(case: Case, a: BackendVerdict, b: BackendVerdict) -> str:
    """The operator of the first node that received the same and returned other bits; empty where that is not known."""
    nodes = case.network.nodes
    if len(nodes) == 1:
        return nodes[0].op.name
    before, after = dict(a.digests), dict(b.digests)
    given = {v.name for v in case.network.leaves}
    for node in nodes:
        if node.name not in before or node.name not in after:
            return ""
        if before[node.name] != after[node.name]:
            return node.op.name if all(i in given or before[i] == after[i] for i in node.inputs) else ""
    return ""
