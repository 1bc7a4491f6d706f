"""The drawing side of pools."""

from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.strategies.builder import Builder

KERNELS = (1, 2, 3, 2, 3, 2, 3, 4)
"""Few kernels of one element, which some runtimes refuse."""


def fits_pool(b: Builder) -> bool:
    """Whether the current value is a signal or an image."""
    return len(b.type.shape) in (3, 4) and 0 not in b.type.shape[1:]


def fits_window(b: Builder) -> bool:
    """Whether there is something to slide a window over."""
    return fits_pool(b) and max(b.type.shape[2:]) > 1


def _window(b: Builder, *, dilated: bool) -> dict[str, tuple[int, ...]]:
    d = b.d
    kind = d.integer(0, 5)
    kernel, strides, before, after, dilations = [], [], [], [], []
    for size in b.type.shape[2:]:
        k = min(d.pick(KERNELS), size)
        pad = d.integer(0, k // 2) if kind in (1, 2, 5) else 0
        dilation = 2 if dilated and kind == 3 and 2 * (k - 1) + 1 <= size else 1
        uneven = kind == 5 and not b.flavour.common and pad > 0
        kernel.append(k)
        strides.append(d.integer(1, 3) if kind in (2, 4, 5) else k if kind == 0 else 1)
        before.append(pad)
        after.append(pad - 1 if uneven else pad)
        dilations.append(dilation)
    window = {"kernel": tuple(kernel), "strides": tuple(strides), "padding": (*before, *after)}
    return window | ({"dilations": tuple(dilations)} if dilated else {})


def draw_max_pool(b: Builder) -> None:
    """A max_pool node."""
    window = _window(b, dilated=True)
    b.add_node(MaxPool(**window, ceil_mode=b.d.rarely(4)), (b.current,), b.same_or_output(b.qtype.scale[0]))


def draw_avg_pool(b: Builder) -> None:
    """An avg_pool node."""
    window = _window(b, dilated=False)
    op = AvgPool(**window, ceil_mode=b.d.rarely(4), count_include_pad=not b.d.rarely(3))
    b.add_node(op, (b.current,), b.same_or_output(b.qtype.scale[0]))


def draw_global_avg_pool(b: Builder) -> None:
    """A global_avg_pool node."""
    b.add_node(GlobalAvgPool(), (b.current,), b.same_or_output(b.qtype.scale[0] / 2))
