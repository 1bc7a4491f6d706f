"""The drawing side of pools."""

from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder

KERNELS = (1, 2, 3, 2, 3, 2, 3, 4)
"""Few kernels of one element, which some runtimes refuse."""


def fits_pool(b: Builder) -> bool:
    """Whether the current value is a signal, an image or a volume."""
    return len(b.type.shape) in (3, 4, 5) and 0 not in b.type.shape[1:]


def fits_window(b: Builder) -> bool:
    """Whether there is something to slide a window over."""
    return fits_pool(b) and max(b.type.shape[2:]) > 1


def _window(b: Builder, *, dilated: bool) -> dict[str, tuple[int, ...]]:
    d = b.d
    kind = d.integer(0, 5)
    kernel, strides, before, after, dilations = [], [], [], [], []
    for size in b.type.shape[2:]:
        padded = kind in (1, 2, 5)
        k = min(d.pick(KERNELS), size + 1 if padded and d.rarely(4) else size)
        pad = d.integer(min(1, max(k - size, 0)), k // 2) if padded else 0
        dilation = 2 if dilated and kind == 3 and 2 * (k - 1) + 1 <= size else 1
        uneven = kind == 5 and not b.flavour.common and pad > 0
        kernel.append(k)
        strides.append(d.integer(1, 3) if kind in (2, 4, 5) else k if kind == 0 else 1)
        before.append(pad)
        after.append(pad - 1 if uneven else pad)
        dilations.append(dilation)
    window = {"kernel": tuple(kernel), "strides": tuple(strides), "padding": (*before, *after)}
    return window | ({"dilations": tuple(dilations)} if dilated else {})


def _say_alone(b: Builder) -> None:
    """Now and then, a batch of one is told without its dimension."""
    if b.type.shape[0] == 1 and b.d.rarely(4):
        b.forms.append(("calls", "unbatched"))


def draw_max_pool(b: Builder) -> None:
    """A max_pool node."""
    _say_alone(b)
    if b.d.rarely(5):
        b.forms.append(("entry", "aten"))
    window = _window(b, dilated=True)
    b.add_node(MaxPool(**window, ceil_mode=b.d.rarely(4)), (b.current,), b.same_or_output(b.qtype.scale[0]))


def draw_avg_pool(b: Builder) -> None:
    """An avg_pool node."""
    _say_alone(b)
    window = _window(b, dilated=False)
    op = AvgPool(
        **window,
        ceil_mode=b.d.rarely(4),
        count_include_pad=not b.d.rarely(3),
        divisor_override=0 if b.flavour.common or not b.d.rarely(6) else b.d.pick((1, 2, 3, 5, 7, 64)),
    )
    b.add_node(op, (b.current,), b.same_or_output(b.qtype.scale[0]))


def draw_global_avg_pool(b: Builder) -> None:
    """A global_avg_pool node."""
    _say_alone(b)
    b.add_node(GlobalAvgPool(), (b.current,), b.same_or_output(b.qtype.scale[0] / 2))


def draw_adaptive_avg_pool(b: Builder) -> None:
    """An adaptive_avg_pool node: sizes that divide the input's or do not, larger ones, seldom none at all."""
    d = b.d
    _say_alone(b)
    sizes = b.type.shape[2:]
    out = []
    room = 2 * MAX_VALUE_ELEMENTS // max(b.type.n_elements, 1)
    for size in sizes:
        largest = max(1, min(size + 2, size * room))
        n = 0 if d.rarely(64) else d.integer(1, largest)
        room = max(1, room * size // max(n, 1))
        out.append(n)
    b.add_node(AdaptiveAvgPool(output_size=tuple(out)), (b.current,), b.same_or_output(b.qtype.scale[0]))
