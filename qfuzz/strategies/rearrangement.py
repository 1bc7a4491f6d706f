"""The drawing side of split, squeeze, unsqueeze, expand, gather, depth_to_space, space_to_depth, argmax."""

import math

from qfuzz.ir.network import Node
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.rearrangement import DepthToSpace, Expand, Gather, SpaceToDepth, Split, Squeeze, Unsqueeze, equal_parts
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.draw import Draw
from qfuzz.strategies.movement import same

MAX_DRAWN_RANK = 6


def any_axis(b: Builder) -> int:
    """Any axis: the second where cases keep to common forms; now and then counted from the back."""
    rank = len(b.type.shape)
    if b.flavour.common:
        return min(1, rank - 1)
    axis = b.d.integer(0, rank - 1)
    return axis - rank if b.d.rarely(4) else axis


def draw_split(b: Builder) -> None:
    """A part of the current value, or another part of one that was split before."""
    d = b.d
    if _draw_other_part(b):
        return
    axis = any_axis(b)
    size = b.type.shape[axis]
    n = d.integer(1, 3)
    counted = equal_parts(size, n) if d.rarely(4) else None
    cuts = sorted(d.integer(0, size) for _ in range(n - 1)) if counted is None else []
    sizes = counted or tuple(stop - start for start, stop in zip((0, *cuts), (*cuts, size), strict=True))
    op = Split(axis=axis, sizes=sizes, index=d.integer(0, len(sizes) - 1), counted=counted is not None)
    b.add_node(op, (b.current,), same(b))


def _draw_other_part(b: Builder) -> bool:
    """Where a value was split and parts are left: one of those, mostly, of the type that its siblings have."""
    earlier = [n for n in b.nodes if isinstance(n.op, Split) and len(n.op.sizes) > 1]
    if not earlier or b.d.rarely(4):
        return False
    node = b.d.pick(earlier)
    assert isinstance(node.op, Split)
    taken = {n.op.index for n in b.nodes if isinstance(n.op, Split) and _is_part(n, node)}
    left = [i for i in range(len(node.op.sizes)) if i not in taken]
    if not left:
        return False
    op = node.op
    b.add_node(Split(axis=op.axis, sizes=op.sizes, index=b.d.pick(left), counted=op.counted), node.inputs, node.element)
    return True


def _is_part(node: Node, other: Node) -> bool:
    a, b = node.op, other.op
    return (
        isinstance(a, Split)
        and isinstance(b, Split)
        and node.inputs == other.inputs
        and (a.axis, a.sizes, a.counted) == (b.axis, b.sizes, b.counted)
    )


def with_ones(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One or two dimensions of length 1."""
    axes = {d.integer(0, len(shape) - 1) for _ in range(d.integer(1, 2))}
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def fits_ones(b: Builder) -> bool:
    """Whether a dimension has length 1."""
    return 1 in b.type.shape


def draw_squeeze(b: Builder) -> None:
    """A squeeze node; without axes where none of the dimensions of length 1 is named."""
    d = b.d
    shape = b.type.shape
    rank = len(shape)
    # One draw each, however many there are: a case with fewer of them would be the simpler one.
    left_out, from_back = d.integer(0, 63), d.integer(0, 63)
    ones = [a for a, n in enumerate(shape) if n == 1]
    axes = [a for i, a in enumerate(ones) if not left_out >> i & 1]
    axes = [a - rank if from_back >> 2 * i & 3 == 3 else a for i, a in enumerate(axes)]
    if d.rarely(3):
        axes.reverse()
    b.add_node(Squeeze(axes=tuple(axes)), (b.current,), same(b))


def fits_unsqueeze(b: Builder) -> bool:
    """Whether there is room for two more dimensions."""
    return 1 <= len(b.type.shape) <= MAX_DRAWN_RANK - 2


def draw_unsqueeze(b: Builder) -> None:
    """An unsqueeze node."""
    d = b.d
    rank = len(b.type.shape) + d.integer(1, 2)
    axes: list[int] = []
    while len(axes) + len(b.type.shape) < rank:
        free = [i for i in range(rank) if i not in axes and i - rank not in axes]
        axis = d.pick(free)
        axes.append(axis - rank if d.rarely(4) else axis)
    b.add_node(Unsqueeze(axes=tuple(axes)), (b.current,), same(b))


def draw_expand(b: Builder) -> None:
    """An expand node: dimensions of 1 made longer (or empty), ones where a dimension stays, new leading dimensions."""
    d = b.d
    shape = b.type.shape
    wide = [(d.pick((3, 2, 1, 5)) if n == 1 else n) for n in shape]
    if 1 in shape and d.rarely(16):
        wide[shape.index(1)] = 0
    said = [1 if wide[i] == n and d.rarely(2) else wide[i] for i, n in enumerate(shape)]
    lead = [d.integer(1, 3) for _ in range(d.integer(0, 1))]
    if math.prod((*lead, *wide)) > 2 * MAX_VALUE_ELEMENTS:
        lead, said = [], list(shape)
    if not lead and d.rarely(4):  # dimensions that are not said stay as they are
        while len(said) > 1 and said[0] in (1, shape[len(shape) - len(said)]):
            said.pop(0)
    b.add_node(Expand(shape=(*lead, *said)), (b.current,), same(b))


def fits_gather(b: Builder) -> bool:
    """Whether a dimension has something to pick."""
    return fits_unsqueeze(b) and any(b.type.shape)


def draw_gather(b: Builder) -> None:
    """A gather node: a vector of indices mostly, else a scalar or a matrix; negative ones, too."""
    d = b.d
    axis = any_axis(b)
    if b.type.shape[axis] == 0:
        axis = next(i for i, n in enumerate(b.type.shape) if n)
    size = b.type.shape[axis]
    kind = 0 if b.flavour.common else d.integer(0, 5)
    wanted: tuple[int, ...] = {3: (), 4: (2, d.integer(1, 2)), 5: (0,)}.get(kind, (d.integer(1, 4),))
    if kind == 5 and not d.rarely(3):
        wanted = (1,)
    if math.prod(wanted) * b.type.n_elements // size > 2 * MAX_VALUE_ELEMENTS:
        wanted = (1,)
    taken = []
    for _ in range(math.prod(wanted)):
        i = d.integer(0, size - 1)
        taken.append(i - size if d.rarely(3) else i)
    op = Gather(axis=axis, indices=tuple(taken), indices_shape=wanted, index_dtype="int32" if d.rarely(3) else "int64")
    b.add_node(op, (b.current,), same(b))


def with_depth(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels that blocks can be made of."""
    square = d.pick((1, 4, 4, 4, 9, 9))
    return (shape[0], square * max(1, min(shape[1], 8) // square), *shape[2:])


def with_space(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width that blocks can be cut of."""
    side = d.pick((1, 2, 2, 2, 3, 3))
    return (*shape[:2], *(side * max(1, n // side) for n in shape[2:]))


def fits_image(b: Builder) -> bool:
    """Whether the value is a batch of images."""
    return len(b.type.shape) == 4


def _depths(b: Builder) -> list[int]:
    return [s for s in (2, 3, 4) if b.type.shape[1] % s**2 == 0]


def _sides(b: Builder) -> list[int]:
    return [s for s in (2, 3, 4) if all(n % s == 0 for n in b.type.shape[2:])]


def _side(b: Builder, sides: list[int]) -> int:
    """One of them; 1, which moves nothing, where there is none, and now and then."""
    return b.d.pick(sides) if sides and (b.flavour.common or not b.d.rarely(16)) else 1


def fits_deep(b: Builder) -> bool:
    """Whether the images have as many channels as a block of them has pixels."""
    return bool(_depths(b))


def fits_wide(b: Builder) -> bool:
    """Whether the images divide into blocks."""
    return bool(_sides(b))


def draw_depth_to_space(b: Builder) -> None:
    """A depth_to_space node."""
    side = _side(b, _depths(b))
    b.add_node(DepthToSpace(blocksize=side, mode="CRD" if b.d.rarely(2) else "DCR"), (b.current,), same(b))


def draw_space_to_depth(b: Builder) -> None:
    """A space_to_depth node."""
    side = _side(b, _sides(b))
    b.add_node(SpaceToDepth(blocksize=side, mode="CRD" if b.d.rarely(3) else "DCR"), (b.current,), same(b))


def _argmax_axes(t: TensorType) -> list[int]:
    return [i for i, n in enumerate(t.shape) if n]


def fits_argmax(b: Builder) -> bool:
    """Whether a dimension has a largest element."""
    return bool(_argmax_axes(b.type))


def draw_argmax(b: Builder) -> None:
    """An argmax node, which ends a branch: what follows reads its input."""
    d = b.d
    source = b.current
    axis = d.pick(_argmax_axes(b.type)[::-1])
    axis = axis - len(b.type.shape) if d.rarely(3) else axis
    op = Argmax(
        axis=axis, keepdims=not d.rarely(2), select_last_index=d.rarely(2),
        smallest=not b.flavour.common and d.rarely(3),
    )  # fmt: skip
    b.add_node(op, (source,), "int64")
    b.current = source
