"""The drawing side of interpolate."""

import math
from fractions import Fraction
from typing import Literal

from msgspec.structs import replace

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import float32
from qfuzz.ops.interpolation import Aspect, Coordinates, Interpolate, NearestMode
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.draw import Draw

FACTORS = (2.0, 0.5, 1.5, 3.0, 1.0, 0.75, 4.0, 0.25, 1.25, 2.5, *map(float32, (4 / 3, 0.6, 1.2, 1.7, 1 / 3, 0.3, 2.3)))
COORDINATES: tuple[Coordinates, ...] = (
    "half_pixel",
    "asymmetric",
    "align_corners",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
)
NEAREST: tuple[NearestMode, ...] = ("round_prefer_floor", "floor", "round_prefer_ceil", "ceil")
_LINEAR: tuple[tuple[Coordinates, NearestMode], ...] = tuple(
    (c, "round_prefer_floor") for c in ("half_pixel", "align_corners")
)
OF_PYTORCH: dict[str, tuple[tuple[Coordinates, NearestMode], ...]] = {
    "nearest": (("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil")),
    "linear": _LINEAR,
    "cubic": _LINEAR,
}
"""Mode to coordinates and nearest modes of `torch.nn.functional.interpolate`."""


def fits_interpolate(b: Builder) -> bool:
    """Whether there are at least two dimensions, and only the first is empty, if any."""
    return 2 <= len(b.type.shape) <= 5 and 0 not in b.type.shape[1:]


def draw_interpolate(b: Builder) -> None:
    """An interpolate node: the trailing dimensions mostly, as in images; now and then others."""
    d = b.d
    shape = b.type.shape
    rank = len(shape)
    mode: Literal["nearest", "linear", "cubic"] = d.pick(("nearest", "linear", "linear", "nearest", "cubic"))
    mode = "nearest" if rank > 4 else mode
    axes = _axes(b)
    by_size = d.integer(0, 1) == 1
    factors = [1.0 if by_size else _factor(d, shape[a]) for a in axes]
    sizes = [d.integer(1, 2 * shape[a] + 1) if shape[a] else 0 for a in axes] if by_size else []
    out = list(shape)
    for i, a in enumerate(axes):
        out[a] = sizes[i] if by_size else math.floor(shape[a] * Fraction(factors[i]))
    if math.prod(out) > 2 * MAX_VALUE_ELEMENTS:
        factors, sizes = [1.0] * len(axes), [shape[a] for a in axes] if by_size else []
    named = d.rarely(3)
    if not named:  # a value for every dimension
        factors = [factors[axes.index(i)] if i in axes else 1.0 for i in range(rank)]
        sizes = [sizes[axes.index(i)] if i in axes else shape[i] for i in range(rank)] if by_size else []
    antialias = mode != "nearest" and d.rarely(4)
    coordinates, nearest_mode = d.pick(COORDINATES), d.pick(NEAREST) if mode == "nearest" else "round_prefer_floor"
    if d.rarely(2):  # what PyTorch has
        antialias = False
        coordinates, nearest_mode = d.pick(OF_PYTORCH[mode])
    op = Interpolate(
        scales=() if by_size else tuple(factors),
        sizes=tuple(sizes),
        axes=tuple(a - rank if d.rarely(4) else a for a in axes) if named else (),
        mode=mode,
        coordinates=coordinates,
        nearest_mode=nearest_mode,
        cubic_coeff_a=d.pick((-0.75, -0.5)) if mode == "cubic" else -0.75,
        exclude_outside=(mode == "cubic" or antialias) and d.rarely(3),
        antialias=antialias,
    )
    if by_size and d.rarely(6):
        op = _keeping_aspect(op, shape, "not_smaller" if d.rarely(2) else "not_larger")
    s = b.qtype.scale[0]
    # Averages of a 2x resize are quarters or sixteenths of a step: near ties at a coarser output scale.
    element = b.qtype if b.flavour.common or d.integer(0, 1) == 0 else b.output(s, unit=s / 4)
    b.add_node(op, (b.current,), element)


def _keeping_aspect(op: Interpolate, shape: tuple[int, ...], aspect: Aspect) -> Interpolate:
    """`op` with that policy, where it makes no more than the sizes do, and float32 rounds lengths as they are."""
    kept = replace(op, aspect=aspect)
    try:
        n_elements = math.prod(s.out for s in kept.samplings(shape))
    except InvalidCase:
        return op
    return kept if n_elements <= 2 * MAX_VALUE_ELEMENTS else op


def _axes(b: Builder) -> list[int]:
    d = b.d
    rank = len(b.type.shape)
    kind = 0 if b.flavour.common else d.integer(0, 7)
    if kind == 6:  # channels last
        return list(range(1, max(rank - 1, 2)))
    if kind == 7:
        return sorted({d.integer(0, rank - 1) for _ in range(2)})
    return [rank - 1] if kind == 5 else list(range(min(2, rank - 1), rank))


def _factor(d: Draw, n: int) -> float:
    """A factor whose product with `n` float32 rounds down as it is."""
    s = d.pick(FACTORS)
    return s if math.floor(n * Fraction(s)) == math.floor(float32(n * s)) else 2.0
