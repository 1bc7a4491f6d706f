"""The drawing side of grid_sample."""

import numpy as np

from qfuzz.ops.grid import GridSample, Padding
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.draw import Draw

MAX_PLACES = 24
"""More are no other thing to a kernel; each is two numbers in the case."""


def fits_grid_sample(b: Builder) -> bool:
    """Whether the value is a batch of images."""
    return len(b.type.shape) == 4 and 0 not in b.type.shape[2:]


def few_images(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A short batch: each image has a grid of its own."""
    return (min(shape[0], d.integer(1, 3)), *shape[1:])


def draw_grid_sample(b: Builder) -> None:
    """A grid_sample node: places within the image mostly, some on its elements, some outside, few of them far."""
    d = b.d
    n, _, height, width = b.type.shape
    rows = d.integer(1, 4)
    columns = d.integer(1, max(1, min(4, MAX_PLACES // (max(n, 1) * rows))))
    kind, key = d.integer(0, 7), d.key()
    modes: tuple[Padding, ...] = ("zeros", "border", "reflection")
    op = GridSample(padding_mode=d.pick(modes), align_corners=d.rarely(2))
    grid = _grid(key, kind, (n, rows, columns, 2), (width, height))
    b.add_node(op, (b.current, b.add_constant("g", "float32", grid)), b.same_or_output(b.qtype.scale[0]))


def _grid(key: int, kind: int, shape: tuple[int, ...], sizes: tuple[int, int]) -> fill.Array:
    """Coordinates; key 0 is the middle everywhere."""
    count = int(np.prod(shape))
    if key == 0 or count == 0:
        return np.zeros(shape, dtype=np.float32)
    w = fill.words(key, count)
    uniform = (fill.below(w, 2**24) * 2.0**-23 - 1.0).reshape(shape)
    # Quarters of elements, as align_corners counts them; halves of them lie on ties.
    steps = np.maximum(np.array(sizes) - 1, 1)
    quarters = fill.below(w, 997).reshape(shape) % (4 * steps + 1) / (2 * steps) - 1
    match kind:
        case 0 | 1:
            values = uniform
        case 2 | 3:
            values = quarters
        case 4:
            values = uniform * 2
        case 5:
            values = fill.below(w, 17).reshape(shape) * 0.25 - 2
        case 6:
            values = quarters * 3
        case _:
            values = uniform * 2.0 ** (fill.below(fill.words(key, 1, stream=1), 40) - 4)
    return values.astype(np.float32)
