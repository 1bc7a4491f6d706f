"""The drawing side of tile, gather_elements, amax, amin."""

import math

from qfuzz.ops.reduction import Amax, Amin
from qfuzz.ops.repetition import GatherElements, Tile
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.draw import Draw
from qfuzz.strategies.movement import same

MAX_INDICES = 24
"""More are no other thing to a kernel; each is an integer in the case."""


def draw_tile(b: Builder) -> None:
    """A tile node: a dimension or two repeated, seldom none of them, more seldom an empty result."""
    d = b.d
    shape = b.type.shape
    repeats = [1] * len(shape)
    for _ in range(d.integer(1, 2)):
        axis = d.integer(0, len(shape) - 1)
        more = d.pick((2, 3, 1, 4))
        if more * math.prod(repeats) * b.type.n_elements <= 2 * MAX_VALUE_ELEMENTS:
            repeats[axis] = more
    if d.rarely(16):
        repeats[d.integer(0, len(shape) - 1)] = 0
    b.add_node(Tile(repeats=tuple(repeats)), (b.current,), same(b))


def small_enough(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Short dimensions, of which an index for each element still says something; one is as it is now and then."""
    long = d.integer(0, 3 * len(shape) - 1)
    return tuple(n if i == long else min(n, 3) if i else min(n, 2) for i, n in enumerate(shape))


def fits_elements(b: Builder) -> bool:
    """Whether a dimension has something to pick."""
    return any(b.type.shape)


def draw_gather_elements(b: Builder) -> None:
    """A gather_elements node: of the first indices of all other axes; seldom of none of them; negative ones, too."""
    d = b.d
    shape = b.type.shape
    some = [i for i, n in enumerate(shape) if n]
    axis = some[min(1, len(some) - 1)] if b.flavour.common else d.pick(some)
    size = shape[axis]
    room = MAX_INDICES
    wanted = []
    for i, n in enumerate(shape):
        most = d.integer(1, 5) if i == axis else n if d.rarely(2) else min(n, 2)
        wanted.append(min(most, max(room, 1)))
        room //= max(wanted[-1], 1)
    if d.rarely(24):
        wanted[d.integer(0, len(wanted) - 1)] = 0
    taken = []
    for _ in range(math.prod(wanted)):
        i = d.integer(0, size - 1)
        taken.append(i - size if d.rarely(3) else i)
    op = GatherElements(
        axis=axis - len(shape) if d.rarely(3) else axis,
        indices=tuple(taken),
        indices_shape=tuple(wanted),
        index_dtype="int32" if d.rarely(3) else "int64",
    )
    b.add_node(op, (b.current,), same(b))


def draw_amax(b: Builder) -> None:
    """An amax node."""
    _draw_extreme(b, Amax)


def draw_amin(b: Builder) -> None:
    """An amin node."""
    _draw_extreme(b, Amin)


def _draw_extreme(b: Builder, kind: type[Amax] | type[Amin]) -> None:
    """Over one or some axes, in any order, counted from either end; over all of them; over none."""
    d = b.d
    rank = len(b.type.shape)
    some = [i for i, n in enumerate(b.type.shape) if n][::-1]
    form = d.integer(0, 5)
    axes: list[int] = []
    if form < 4:
        chosen, from_back = d.integer(0, 63), d.integer(0, 63)
        axes = [a for i, a in enumerate(some) if chosen >> i & 1] or some[:1]
        axes = [a - rank if from_back >> 2 * i & 3 == 3 else a for i, a in enumerate(axes)]
        if d.rarely(2):
            axes.reverse()
    noop = (form == 5 or (form == 3 and d.rarely(2))) if len(some) == rank or axes else True
    op = kind(axes=tuple(axes), keepdims=not d.rarely(3), noop_with_empty_axes=noop)
    b.add_node(op, (b.current,), same(b))
