"""The drawing side of flip, channel_shuffle, unfold, reflection_pad, sort, topk."""

import math
from typing import Literal

from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.views import ChannelShuffle, Flip, ReflectionPad, Unfold
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.draw import Draw
from qfuzz.strategies.movement import same
from qfuzz.strategies.rearrangement import MAX_DRAWN_RANK, any_axis


def draw_flip(b: Builder) -> None:
    """A flip node: of one axis or several, counted from either end; seldom of none."""
    d = b.d
    rank = len(b.type.shape)
    chosen, from_back = d.integer(0, 63), d.integer(0, 63)
    axes = [a for a in range(rank) if chosen >> a & 1] or ([] if d.rarely(8) else [rank - 1])
    b.add_node(Flip(axes=tuple(a - rank if from_back >> a & 1 else a for a in axes)), (b.current,), same(b))


def fits_channels(b: Builder) -> bool:
    """Whether the value has channels, and something beside them."""
    return len(b.type.shape) >= 3 and b.type.shape[1] > 0


def with_groups(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels that several groups can be made of."""
    groups = d.pick((1, 2, 3, 4, 2, 3, 4, 2))
    return (shape[0], groups * max(1, min(shape[1], 33) // groups), *shape[2:])


def draw_channel_shuffle(b: Builder) -> None:
    """A channel_shuffle node; one group, or as many as channels, now and then."""
    c = b.type.shape[1]
    divisors = [n for n in range(1, c + 1) if c % n == 0]
    inner = [n for n in divisors if 1 < n < c]
    groups = b.d.pick(inner if inner and not b.d.rarely(6) else divisors)
    b.add_node(ChannelShuffle(groups=groups), (b.current,), same(b))


def fits_unfold(b: Builder) -> bool:
    """Whether there is room for one more dimension."""
    return 1 <= len(b.type.shape) < MAX_DRAWN_RANK


def draw_unfold(b: Builder) -> None:
    """An unfold node: windows side by side, apart, or overlapping; empty ones now and then."""
    d = b.d
    axis = any_axis(b)
    size = b.type.shape[axis]
    window = 0 if size == 0 or d.rarely(32) else d.integer(1, min(size, 4))
    step = d.integer(1, 3)
    if ((size - window) // step + 1) * max(window, 1) * b.type.n_elements > 2 * MAX_VALUE_ELEMENTS * max(size, 1):
        window, step = min(size, 1), 1
    b.add_node(Unfold(axis=axis, size=window, step=step), (b.current,), same(b))


def fits_reflection_pad(b: Builder) -> bool:
    """Whether the value is a signal, an image or a volume, or one without a batch."""
    shape = b.type.shape
    return 2 <= len(shape) <= 5 and 0 not in shape[1:] and (len(shape) > 2 or shape[0] > 0)


def with_channels(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A signal without a batch is not empty."""
    return (max(shape[0], 1), *shape[1:]) if len(shape) == 2 else shape


def draw_reflection_pad(b: Builder) -> None:
    """A reflection_pad node; the first dimension is channels now and then."""
    d = b.d
    shape = b.type.shape
    rank = len(shape)
    n = rank - 2 if rank == 5 or (rank > 2 and (shape[0] == 0 or not d.rarely(5))) else rank - 1
    circular = d.rarely(5)
    sides = [d.integer(0, min(size - (not circular), 3)) for size in (*shape[-n:], *shape[-n:])]
    padded = (size + sides[i] + sides[n + i] for i, size in enumerate(shape[-n:]))
    if math.prod((*shape[:-n], *padded)) > 2 * MAX_VALUE_ELEMENTS:
        sides = [0] * (2 * n)
    mode: Literal["reflect", "circular"] = "circular" if circular else "reflect"
    b.add_node(ReflectionPad(padding=tuple(sides), mode=mode), (b.current,), same(b))


def draw_sort(b: Builder) -> None:
    """A sort node."""
    _add_ordered(b, Sort(axis=any_axis(b), descending=b.d.rarely(2)))


def draw_topk(b: Builder) -> None:
    """A topk node: one, some or all of the elements; none of them now and then."""
    d = b.d
    axis = any_axis(b)
    size = b.type.shape[axis]
    k = 0 if size == 0 or d.rarely(32) else d.integer(1, size) if d.rarely(2) else min(size, d.integer(1, 3))
    _add_ordered(b, Topk(k=k, axis=axis, largest=not d.rarely(2)))


def _add_ordered(b: Builder, op: Sort | Topk) -> None:
    """A node of elements, or now and then of their indices, which ends a branch: what follows reads its input."""
    source, places = b.current, b.d.rarely(4)
    b.add_node(op, (source,), "int64" if places else same(b))
    b.current = source if places else b.current
