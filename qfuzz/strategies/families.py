"""Which operator is drawn how: one literal table, in the order of `OPERATOR_NAMES`."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

from qfuzz.ir.errors import InvalidCase
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies import (
    binary,
    composite,
    contraction,
    dynamic,
    dynamic_nbits,
    elementwise,
    embedding_bag,
    embedding_rows,
    fake,
    filling,
    functions,
    granular,
    grid,
    half_weights,
    matmul,
    movement,
    pointwise,
    pooling,
    rearrangement,
    recurrent,
    repetition,
    resizing,
    scaled_mm,
    views,
    weight_only,
)
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.draw import Draw


def as_drawn(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` itself."""
    return shape


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
    shaped
        The shape of a first input that it can read, near a drawn one.
    """

    fits: Callable[[Builder], bool]
    draw: Callable[[Builder], None]
    ranks: tuple[int, ...] = (2, 4, 3)
    worthwhile: Callable[[Builder], bool] = movement.fits_any
    shaped: Callable[[Draw, tuple[int, ...]], tuple[int, ...]] = as_drawn


_ANY = movement.fits_any
_IMAGES = (4, 3)
_VOLUMES = (4, 3, 4, 3, 4, 3, 4, 3, 4, 3, 5)
_MATRICES = (2, 2, 3, 4)

DRAWINGS: dict[str, Drawing] = {
    "quantize": Drawing(_ANY, granular.draw_quantize),
    "dequantize": Drawing(_ANY, granular.draw_dequantize),
    "requantize": Drawing(_ANY, elementwise.draw_requantize),
    "conv": Drawing(contraction.fits_conv, contraction.draw_conv, _VOLUMES),
    "linear": Drawing(contraction.fits_linear, contraction.draw_linear, (2, 2, 3)),
    "add": Drawing(_ANY, elementwise.draw_add),
    "mul": Drawing(elementwise.fits_mul, elementwise.draw_mul),
    "relu": Drawing(_ANY, elementwise.draw_relu),
    "clamp": Drawing(_ANY, elementwise.draw_clamp),
    "max_pool": Drawing(pooling.fits_pool, pooling.draw_max_pool, _VOLUMES, pooling.fits_window),
    "avg_pool": Drawing(pooling.fits_pool, pooling.draw_avg_pool, _VOLUMES, pooling.fits_window),
    "global_avg_pool": Drawing(pooling.fits_pool, pooling.draw_global_avg_pool, _VOLUMES),
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
    "sub": Drawing(_ANY, binary.draw_sub),
    "div": Drawing(elementwise.fits_mul, binary.draw_div),
    "minimum": Drawing(_ANY, binary.draw_minimum),
    "maximum": Drawing(_ANY, binary.draw_maximum),
    "where": Drawing(_ANY, binary.draw_where),
    "gelu": Drawing(_ANY, functions.draw_gelu),
    "layer_norm": Drawing(functions.fits_layer_norm, functions.draw_layer_norm),
    "instance_norm": Drawing(functions.fits_instance_norm, functions.draw_instance_norm, _IMAGES),
    "mean": Drawing(functions.fits_mean, functions.draw_mean, (4, 3, 2)),
    "split": Drawing(_ANY, rearrangement.draw_split),
    "squeeze": Drawing(_ANY, rearrangement.draw_squeeze, (4, 3, 2), rearrangement.fits_ones, rearrangement.with_ones),
    "unsqueeze": Drawing(rearrangement.fits_unsqueeze, rearrangement.draw_unsqueeze),
    "expand": Drawing(rearrangement.fits_unsqueeze, rearrangement.draw_expand, shaped=rearrangement.with_ones),
    "gather": Drawing(rearrangement.fits_gather, rearrangement.draw_gather),
    "depth_to_space": Drawing(
        rearrangement.fits_image,
        rearrangement.draw_depth_to_space,
        (4,),
        rearrangement.fits_deep,
        rearrangement.with_depth,
    ),
    "space_to_depth": Drawing(
        rearrangement.fits_image,
        rearrangement.draw_space_to_depth,
        (4,),
        rearrangement.fits_wide,
        rearrangement.with_space,
    ),
    "argmax": Drawing(rearrangement.fits_argmax, rearrangement.draw_argmax),
    "interpolate": Drawing(resizing.fits_interpolate, resizing.draw_interpolate, (4, 4, 4, 2, 3, 5)),
    "matmul": Drawing(matmul.fits_matmul, matmul.draw_matmul, _MATRICES),
    "conv_transpose": Drawing(contraction.fits_conv_transpose, contraction.draw_conv_transpose, _VOLUMES),
    "conv_integer": Drawing(contraction.fits_conv, contraction.draw_conv_integer, _VOLUMES),
    "linear_integer": Drawing(contraction.fits_linear, contraction.draw_linear_integer, (2, 2, 3)),
    "matmul_integer": Drawing(matmul.fits_matmul, matmul.draw_matmul_integer, _MATRICES),
    "dynamic_quantize": Drawing(_ANY, dynamic.draw_dynamic_quantize),
    "dynamic_linear": Drawing(_ANY, dynamic.draw_dynamic_linear, (2, 2, 3)),
    "dynamic_conv": Drawing(contraction.fits_conv, dynamic.draw_dynamic_conv, _VOLUMES),
    "dynamic_conv_transpose": Drawing(contraction.fits_conv_transpose, dynamic.draw_dynamic_conv_transpose, _VOLUMES),
    "attention": Drawing(composite.fits_attention, composite.draw_attention, (3,)),
    "lstm": Drawing(_ANY, composite.draw_lstm),
    "recurrent": Drawing(_ANY, recurrent.draw_recurrent),
    "embed_layer_norm": Drawing(composite.fits_embed_layer_norm, composite.draw_embed_layer_norm, (2,)),
    "moe": Drawing(_ANY, composite.draw_moe),
    "linear_fp16": Drawing(_ANY, half_weights.draw_linear_fp16, (2, 2, 3)),
    "weight_only_linear": Drawing(weight_only.fits, weight_only.draw_weight_only_linear),
    "embedding": Drawing(weight_only.fits, weight_only.draw_embedding),
    "embedding_bag": Drawing(weight_only.fits, embedding_bag.draw_embedding_bag),
    "embedding_rows": Drawing(weight_only.fits, embedding_rows.draw_embedding_rows),
    "tile": Drawing(_ANY, repetition.draw_tile),
    "gather_elements": Drawing(
        repetition.fits_elements, repetition.draw_gather_elements, shaped=repetition.small_enough
    ),
    "amax": Drawing(_ANY, repetition.draw_amax, (4, 3, 2)),
    "amin": Drawing(_ANY, repetition.draw_amin, (4, 3, 2)),
    "adaptive_avg_pool": Drawing(pooling.fits_pool, pooling.draw_adaptive_avg_pool, _VOLUMES),
    "concat_relu": Drawing(_ANY, movement.draw_concat_relu),
    "flip": Drawing(_ANY, views.draw_flip),
    "channel_shuffle": Drawing(views.fits_channels, views.draw_channel_shuffle, (4, 4, 3), shaped=views.with_groups),
    "unfold": Drawing(views.fits_unfold, views.draw_unfold),
    "reflection_pad": Drawing(
        views.fits_reflection_pad, views.draw_reflection_pad, (4, 3, 2, 4, 3, 5), shaped=views.with_channels
    ),
    "sort": Drawing(_ANY, views.draw_sort),
    "topk": Drawing(_ANY, views.draw_topk),
    "masked_fill": Drawing(_ANY, filling.draw_masked_fill),
    "index_put": Drawing(_ANY, filling.draw_index_put),
    "constant_pad": Drawing(_ANY, filling.draw_constant_pad),
    "grid_sample": Drawing(grid.fits_grid_sample, grid.draw_grid_sample, (4,), shaped=grid.few_images),
    "linear_pointwise": Drawing(contraction.fits_linear, pointwise.draw_linear_pointwise, (2, 2, 3)),
    "conv_pointwise": Drawing(contraction.fits_conv, pointwise.draw_conv_pointwise, (4, 4, 4, 3, 5)),
    "linear_add": Drawing(contraction.fits_linear, pointwise.draw_linear_add, (2, 2, 3)),
    "conv_add": Drawing(contraction.fits_conv, pointwise.draw_conv_add, (4, 4, 4, 4, 4, 4, 3, 5)),
    "batch_norm": Drawing(functions.fits_batch_norm, functions.draw_batch_norm, (4, 3, 2, 5, 4, 5)),
    "group_norm": Drawing(functions.fits_instance_norm, functions.draw_group_norm, _VOLUMES),
    "fake_quantize": Drawing(_ANY, fake.draw_fake_quantize),
    "choose_qparams": Drawing(_ANY, dynamic.draw_choose_qparams, (2, 2, 3, 4)),
    "celu": Drawing(_ANY, elementwise.draw_celu),
    "threshold": Drawing(_ANY, elementwise.draw_threshold),
    "prelu": Drawing(_ANY, elementwise.draw_prelu),
    "add_scalar": Drawing(elementwise.fits_mul, elementwise.draw_add_scalar),
    "mul_scalar": Drawing(elementwise.fits_mul, elementwise.draw_mul_scalar),
    "compare": Drawing(_ANY, binary.draw_compare),
    "compare_scalar": Drawing(_ANY, binary.draw_compare_scalar),
    "std": Drawing(functions.fits_mean, functions.draw_std, (4, 3, 2)),
    "scaled_mm": Drawing(_ANY, scaled_mm.draw_scaled_mm),
    "dynamic_nbits_linear": Drawing(weight_only.fits, dynamic_nbits.draw_dynamic_nbits_linear),
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
