"""The drawing side of linear_fp16: weights next to float16's ties, its ends, and where it has fewer bits."""

import math

import numpy as np

from qfuzz.ops.half_weights import LinearFp16
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.contraction import draw_channels
from qfuzz.strategies.dynamic import float_data
from qfuzz.strategies.layer_forms import draw_entry

_BITS = 13
"""Of a weight, two more than a float16 has: a quarter of them are ties."""
_EXPONENTS = (0, 0, 0, -8, -14, -24, -26, 4, -40)
"""The largest weight is about two to that: also where float16 is subnormal or ends."""


def draw_linear_fp16(b: Builder) -> None:
    """A linear_fp16 node, which ends a branch."""
    d = b.d
    source = b.current
    x = float_data(b, least_rank=2)
    shape = b.types[x].shape
    rows, features = math.prod(shape[:-1]), shape[-1]
    channels = draw_channels(b, rows, rows * features)
    unit = 2.0 ** (d.pick(_EXPONENTS) - _BITS + (12 if d.rarely(8) else 0))
    integers = _integers(d.key(), 2**_BITS, (channels, features))
    inputs: tuple[str, ...] = (x, b.add_constant("w", "float32", (integers * unit).astype(np.float32)))
    if d.integer(0, 1):
        largest = b.ranges[x].magnitude * 16 if x in b.ranges else 1.0
        bias = _integers(d.key(), 128, (channels,)) / 128 * largest
        inputs = (*inputs, b.add_constant("b", "float32", bias.astype(np.float32)))
    b.add_node(LinearFp16(relu=d.rarely(4)), inputs, "float32")
    draw_entry(b, 2)  # some engines have no other
    if d.rarely(6):
        b.forms.append(("packing", "shared"))
    b.current = source


def _integers(key: int, most: int, shape: tuple[int, ...]) -> fill.Array:
    """Integers from -`most` to `most`; 0 for the key 0."""
    n = math.prod(shape)
    steps = fill.below(fill.words(key, n), 2 * most + 1) - most if key else np.zeros(n)
    return np.asarray(steps).reshape(shape)
