"""The timeline: examples, coverage, findings and deaths over the seconds of the campaign."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from qfuzz.campaign.record import Moment
from qfuzz.report.drawing import colour, drawing, inlined
from qfuzz.report.shown import short_count

_WIDTH, _HEIGHT = 1100.0, 116.0
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_POINTS = 500
"""Of a longer timeline, as many moments are drawn: more than the figure has room for."""


def curves(timeline: Sequence[Moment]) -> Markup | None:
    """The figure; None where there are not two moments to draw a line between."""
    moments = thinned(timeline)
    if len(moments) < 2:
        return None
    seconds = [m.seconds for m in moments]
    panels: list[tuple[str, list[int], bool]] = [
        ("examples", [m.examples for m in moments], False),
        ("distinct features of cases", [m.features for m in moments], False),
        ("findings", [m.findings for m in moments], True),
    ]
    if any(m.deaths for m in moments):
        panels.append(("worker processes lost to kernels", [m.deaths for m in moments], True))
    unit, name = next((u, name) for u, name in _UNITS if seconds[-1] > 3 * u or u == 1)
    with drawing(_WIDTH, len(panels) * _HEIGHT + 20) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)
        at = [s / unit for s in seconds]
        for (title, values, stepped), ax in zip(panels, axes.flat, strict=True):
            tint = colour("alert" if stepped else "accent")
            ax.plot(at, values, color=tint, linewidth=1.8, drawstyle="steps-post" if stepped else "default")
            ax.fill_between(at, values, step="post" if stepped else None, color=tint, alpha=0.12, linewidth=0)
            ax.set_title(f"{title}: {values[-1]:,}", fontsize=11.5)
            ax.set_xlim(min(at[0], 0), at[-1] or 1)
            ax.set_ylim(0, max(1, *values) * 1.12)
            ax.tick_params(length=0)
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda n, _: short_count(n)))
        axes.flat[-1].set_xlabel(name)
        figure.tight_layout(h_pad=1.0)
        return inlined(figure, "timeline", f"Examples, coverage and findings over {name}; the table below has numbers")


def thinned(timeline: Sequence[Moment], points: int = _POINTS) -> tuple[Moment, ...]:
    """At most `points` moments, evenly taken, the first and the last among them."""
    last = len(timeline) - 1
    if last < points:
        return tuple(timeline)
    return tuple(timeline[round(i * last / (points - 1))] for i in range(points))
