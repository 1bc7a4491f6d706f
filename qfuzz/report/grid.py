"""Operators by backends: the worst verdict of each pair, with its counts."""

from collections.abc import Mapping, Sequence

import msgspec

SEVERITY = (
    *("crash", "hang", "corrupted", "violation", "accepted-invalid", "unstable", "rejected"),
    *("admissible", "exact", "refused", "unsupported"),
)
"""Verdicts, the worst first."""


class Cell(msgspec.Struct, frozen=True):
    """What one backend did with one operator.

    Attributes
    ----------
    worst
        The first verdict of `SEVERITY` that was counted; empty where nothing ran.
    counts
        Verdicts that were counted, the worst first, then what `SEVERITY` does not list.
    cases
        Cases that held the operator and ran.
    """

    op: str
    backend: str
    worst: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    cases: int = 0

    @property
    def worst_count(self) -> int:
        """How often the worst verdict was counted."""
        return dict(self.counts).get(self.worst, 0)


class Grid(msgspec.Struct, frozen=True):
    """All cells; `rows[i][j]` is of `ops[i]` on `backends[j]`."""

    ops: tuple[str, ...]
    backends: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The worst verdicts that occur, the worst first."""
        seen = {c.worst for row in self.rows for c in row}
        return tuple(v for v in SEVERITY if v in seen)


def verdict_grid(by_op: Mapping[str, Mapping[str, Mapping[str, int]]], order: Sequence[str]) -> Grid:
    """The grid of what was counted.

    Parameters
    ----------
    by_op
        Backend to operator to verdict (or ``cases``) to count.
    order
        Backends in the order of the columns; those that are not in it come after.
    """
    backends = tuple(dict.fromkeys([*(b for b in order if b in by_op), *by_op]))
    ops = tuple(sorted({op for counted in by_op.values() for op in counted}))
    rows = tuple(tuple(_cell(op, b, by_op[b].get(op, {})) for b in backends) for op in ops)
    return Grid(ops, backends, rows)


def _cell(op: str, backend: str, counted: Mapping[str, int]) -> Cell:
    known = [(v, counted[v]) for v in SEVERITY if counted.get(v)]
    others = sorted((v, n) for v, n in counted.items() if n and v not in SEVERITY and v != "cases")
    return Cell(op, backend, known[0][0] if known else "", (*known, *others), counted.get("cases", 0))
