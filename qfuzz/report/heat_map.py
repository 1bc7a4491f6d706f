"""The heat map: operators by backends, each cell in the colour of its worst verdict, with how often it was seen."""

import textwrap

from markupsafe import Markup
from matplotlib.patches import Rectangle

from qfuzz.report.drawing import colour, drawing, inlined
from qfuzz.report.grid import Cell, Grid
from qfuzz.report.shown import one_line, short_count

_WIDTH, _HEIGHT, _GAP = 118.0, 26.0, 2.0
_LABEL_LETTERS, _LETTER, _LINE = 24, 6.9, 14.0
_HEAD_LETTERS, _HEAD_LINES = 16, 4


def heat_map(grid: Grid) -> Markup:
    """The figure, in pixels: as wide as its backends, as high as its operators."""
    ops = [one_line(op, _LABEL_LETTERS) for op in grid.ops]
    heads = [_wrapped(b) for b in grid.backends]
    left = max(len(op) for op in ops) * _LETTER + 14
    top = max(len(h) for h in heads) * _LINE + 12
    width, height = left + len(heads) * _WIDTH, top + len(ops) * _HEIGHT
    tips: dict[str, str] = {}
    with drawing(width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0))
        for j, head in enumerate(heads):
            for k, line in enumerate(reversed(head)):
                x, y = left + (j + 0.5) * _WIDTH, top - 9 - k * _LINE
                axes.text(x, y, line, ha="center", va="baseline", fontsize=11)
        for i, (op, row) in enumerate(zip(ops, grid.rows, strict=True)):
            y = top + i * _HEIGHT
            axes.text(left - 10, y + _HEIGHT / 2 + 4, op, ha="right", va="baseline", fontsize=12)
            for j, cell in enumerate(row):
                x, gid = left + j * _WIDTH, f"cell-{i}-{j}"
                ground = colour(f"of-{cell.worst}" if cell.worst else "panel")
                axes.add_patch(
                    Rectangle((x + _GAP / 2, y + _GAP / 2), _WIDTH - _GAP, _HEIGHT - _GAP, fc=ground, lw=0, gid=gid)
                )
                ink = colour(f"on-{cell.worst}" if cell.worst else "muted")
                axes.text(x + _WIDTH / 2, y + _HEIGHT / 2 + 4, _said(cell), ha="center", color=ink, fontsize=11)
                tips[gid] = _tip(cell)
        label = f"Worst verdicts of {len(ops)} operators on {len(heads)} backends; the table below has the numbers"
        return inlined(figure, "heat-map", label, tips)


def _wrapped(name: str) -> list[str]:
    lines = textwrap.wrap(one_line(name, _HEAD_LETTERS * _HEAD_LINES - 8), _HEAD_LETTERS) or [""]
    return lines if len(lines) <= _HEAD_LINES else [*lines[: _HEAD_LINES - 1], "…"]


def _said(cell: Cell) -> str:
    return f"{cell.worst} {short_count(cell.worst_count)}" if cell.worst else "\N{EN DASH}"


def _tip(cell: Cell) -> str:
    counts = ", ".join(f"{one_line(v, 40)} {n:,}" for v, n in cell.counts) or "nothing ran"
    return f"{one_line(cell.op, 80)} on {one_line(cell.backend, 80)}: {counts}"
