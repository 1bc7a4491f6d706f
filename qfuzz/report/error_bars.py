"""Distributions of errors, in quantized steps, one panel a backend."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from qfuzz.report.drawing import colour, drawing, inlined
from qfuzz.report.shown import one_line, short_count

_WIDTH, _HEIGHT = 1100.0, 172.0
_EXACT_UP_TO = 8
_LABELLED_BARS = 21
"""With more steps on the axis, numbers above the bars would run into each other."""
_LABEL_PIXELS = 30.0


def error_bars(steps: Mapping[str, Mapping[int, int]]) -> Markup | None:
    """The figure; None where no element was compared. Counts are on a logarithmic axis."""
    counted = {b: {s: n for s, n in by_step.items() if n > 0} for b, by_step in steps.items()}
    counted = {b: by_step for b, by_step in counted.items() if by_step}
    if not counted:
        return None
    bins = step_bins(s for by_step in counted.values() for s in by_step)
    positions = {s: i for i, s in enumerate(bins)}
    highest = max(n for by_step in counted.values() for n in by_step.values())
    columns = min(2, len(counted))
    labelled = labelled_bins(bins, (_WIDTH / columns - 60) / len(bins))
    rows = -(-len(counted) // columns)
    with drawing(_WIDTH, rows * _HEIGHT + 26) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for (backend, by_step), ax in zip(counted.items(), axes.flat, strict=False):
            at = sorted(by_step)
            tints = [colour("calm" if s == 0 else "accent") for s in at]
            ax.bar([positions[s] for s in at], [by_step[s] for s in at], width=0.78, color=tints)
            if len(bins) <= _LABELLED_BARS:
                for s in at:
                    where = (positions[s], by_step[s] * 1.25)
                    ax.text(*where, short_count(by_step[s]), ha="center", fontsize=9.5, color=colour("muted"))
            ax.set_title(one_line(backend, 52))
            ax.set_yscale("log")
            ax.set_ylim(0.7, highest * 8)
            ax.set_xlim(-0.6, len(bins) - 0.4)
            ax.set_xticks([positions[s] for s in labelled], [_signed(s) for s in labelled])
            ax.tick_params(labelbottom=True, length=0)
            ax.yaxis.set_major_locator(LogLocator(numticks=5))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_formatter(FuncFormatter(lambda n, _: short_count(n)))
        for ax in axes.flat[len(counted) :]:
            ax.set_axis_off()
        figure.supxlabel("returned minus correctly rounded, in quantized steps", fontsize=11, color=colour("muted"))
        figure.tight_layout(h_pad=1.2, w_pad=2.0)
        label = f"Errors of {len(counted)} backends in quantized steps; the table below has the numbers"
        return inlined(figure, "error-bars", label)


def step_bins(seen: Iterable[int]) -> tuple[int, ...]:
    """The axis: each step up to 8, then powers of two, from the lowest to the highest that was seen, in order."""
    values = set(seen)
    low, high = min(*values, -1), max(*values, 1)
    ladder = {*range(-_EXACT_UP_TO, _EXACT_UP_TO + 1), *(sign * 2**k for k in range(4, 33) for sign in (-1, 1))}
    return tuple(sorted(values | {s for s in ladder if low <= s <= high}))


def labelled_bins(bins: Sequence[int], pixels: float) -> tuple[int, ...]:
    """The steps to write below the axis so that none runs into another: 0, then the ends, then powers of two first.

    Parameters
    ----------
    pixels
        Between two neighbouring bins.
    """
    ends = (bins[0], bins[-1])
    order = sorted(bins, key=lambda s: (s != 0, s not in ends, abs(s).bit_count(), abs(s)))
    taken: list[int] = []
    for step in order:
        at = bins.index(step)
        if all(abs(at - bins.index(t)) * pixels >= _LABEL_PIXELS for t in taken):
            taken.append(step)
    return tuple(sorted(taken))


def _signed(step: int) -> str:
    return f"{step:+d}".replace("-", "\N{MINUS SIGN}") if step else "0"
