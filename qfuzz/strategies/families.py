"""Which operator is drawn how: one literal table, in the order of `OPERATOR_NAMES`."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

from qfuzz.ir.errors import InvalidCase
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies import contraction, elementwise, movement, pooling, weight_only
from qfuzz.strategies.builder import Builder


class Drawing(NamedTuple):
    """How an operator is drawn.

    Attributes
    ----------
    fits
        Whether it can read the builder's current value.
    draw
        Adds one node (and its constants) to the builder.
    ranks
        Ranks of a first input that it can read.
    worthwhile
        Whether it has something to do on the builder's current value: elsewhere it is drawn only where asked for.
    """

    fits: Callable[[Builder], bool]
    draw: Callable[[Builder], None]
    ranks: tuple[int, ...] = (2, 4, 3)
    worthwhile: Callable[[Builder], bool] = movement.fits_any


_ANY = movement.fits_any
_IMAGES = (4, 3)

DRAWINGS: dict[str, Drawing] = {
    "quantize": Drawing(_ANY, elementwise.draw_quantize),
    "dequantize": Drawing(_ANY, elementwise.draw_dequantize),
    "requantize": Drawing(_ANY, elementwise.draw_requantize),
    "conv": Drawing(contraction.fits_conv, contraction.draw_conv, _IMAGES),
    "linear": Drawing(contraction.fits_linear, contraction.draw_linear, (2, 2, 3)),
    "add": Drawing(_ANY, elementwise.draw_add),
    "mul": Drawing(elementwise.fits_mul, elementwise.draw_mul),
    "relu": Drawing(_ANY, elementwise.draw_relu),
    "clamp": Drawing(_ANY, elementwise.draw_clamp),
    "max_pool": Drawing(pooling.fits_pool, pooling.draw_max_pool, _IMAGES, pooling.fits_window),
    "avg_pool": Drawing(pooling.fits_pool, pooling.draw_avg_pool, _IMAGES, pooling.fits_window),
    "global_avg_pool": Drawing(pooling.fits_pool, pooling.draw_global_avg_pool, _IMAGES),
    "concat": Drawing(_ANY, movement.draw_concat),
    "reshape": Drawing(_ANY, movement.draw_reshape),
    "transpose": Drawing(_ANY, movement.draw_transpose),
    "slice": Drawing(_ANY, movement.draw_slice),
    "pad": Drawing(_ANY, movement.draw_pad),
    "flatten": Drawing(_ANY, movement.draw_flatten),
    "sigmoid": Drawing(_ANY, elementwise.draw_sigmoid),
    "tanh": Drawing(_ANY, elementwise.draw_tanh),
    "leaky_relu": Drawing(_ANY, elementwise.draw_leaky_relu),
    "elu": Drawing(_ANY, elementwise.draw_elu),
    "hardsigmoid": Drawing(_ANY, elementwise.draw_hardsigmoid),
    "hardswish": Drawing(_ANY, elementwise.draw_hardswish),
    "softmax": Drawing(elementwise.fits_softmax, elementwise.draw_softmax),
    "weight_only_linear": Drawing(weight_only.fits, weight_only.draw_weight_only_linear),
    "embedding": Drawing(weight_only.fits, weight_only.draw_embedding),
}


def selected_ops(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Operators whose names match one of the shell globs; all, where there are none.

    Raises
    ------
    InvalidCase
        Where a glob matches nothing.
    """
    for p in patterns:
        if not any(fnmatchcase(name, p) for name in OPERATOR_NAMES):
            raise InvalidCase(f"ops: no operator matches {p!r}; qfuzz ops lists them")
    if not patterns:
        return OPERATOR_NAMES
    return tuple(n for n in OPERATOR_NAMES if any(fnmatchcase(n, p) for p in patterns))
