"""The choices of a kernel that computes a convolution or a linear layer, and which of them go together."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from qfuzz.arithmetic.family import Choices
from qfuzz.arithmetic.finish import Relu, Rounding, ZeroPoint

Products: TypeAlias = Literal[
    "exact", "int16_pairs", "int16_pairs_channels_last", "int16_pairs_per_tap", "reduced_range"
]
Multiplier: TypeAlias = Literal[
    "exact",
    "float64",
    "float32",
    "float32_reciprocal",
    "float32_weight_first",
    "scaled_divided",
    "scaled_reciprocal",
    "scaled_apart_divided",
    "scaled_apart_reciprocal",
    "bfloat16",
    "q31",
    "q31_single",
    "fixed16",
]
Bias: TypeAlias = Literal[
    "exact",
    "int32",
    "before_multiplier",
    "before_multiplier_reciprocal",
    "before_multiplier_fused",
    "after_multiplier",
    "unscaled",
]
Scales: TypeAlias = Literal["own", "input_inverted_twice", "inverted_twice"]


class Contraction(Choices, frozen=True, kw_only=True):
    """One precise arithmetic of a convolution or linear layer.

    Attributes
    ----------
    operands
        What is multiplied: stored integers less their zero points, or float32 numbers dequantized from them.
    products
        ``int16_pairs``: products of uint8 and int8 are summed in adjacent pairs that saturate to int16 (x86
        vpmaddubsw), in the order of the weight's dimensions; ``int16_pairs_channels_last`` takes channels as the last
        one, and ``int16_pairs_per_tap`` too, but ends with each tap what it pairs, and leaves taps in the padding out
        (oneDNN, whose compensation for the zero point leaves them out, too). ``reduced_range``: weights
        lose their last bit (oneDNN's scale_adjust of 0.5 for int8 by int8 on CPUs without VNNI).
    accumulator
        ``float32_sequential``: products rounded, and summed one after another; ``float32_fma``: each product is added
        by a fused multiply-add; ``float32_pairwise``: as a binary tree.
    padding
        Whether padding is a real 0 (the zero point), or a stored 0.
    bias
        ``int32``: rounded to a multiple of scale_x * scale_w and added to the accumulator; ``before_multiplier``:
        float32 bias over scale_x * scale_w, added to the float32 accumulator; ``before_multiplier_reciprocal``
        multiplies it with fl(1 / (scale_x * scale_w)), and ``before_multiplier_fused`` does both in one fused
        multiply-add; ``after_multiplier``: added to the scaled result. Of dequantized operands: what the sum begins
        with, or added to the sum, and ``int32``: added to it, but rounded as above before.
        ``unscaled`` (a fault): an int32 bias is added to the result in output units.
    multiplier
        ``float32``: fl(fl(s_x * s_w) / s_y); ``float32_reciprocal``: fl(fl(s_x * s_w) * fl(1 / s_y));
        ``float32_weight_first``: fl(s_x * fl(s_w / s_y)); ``scaled_divided`` and ``scaled_reciprocal``: times
        fl(s_x * s_w) first, then over s_y or times fl(1 / s_y), each rounded; ``scaled_apart_divided`` and
        ``scaled_apart_reciprocal``: times s_x, times s_w, and then so. ``q31``: rounding doubling high multiply
        by a 31-bit fixed point number, then a rounding shift; ``q31_single``: one rounding for both; ``fixed16``: a
        multiplier of 15 bits. ``bfloat16``: the float32 one rounded to 8 bits (a fault).
    scales
        ``input_inverted_twice``: s_x is fl(1 / fl(1 / s_x)), as ideep hands it to oneDNN's convolution;
        ``inverted_twice``: s_w and s_y as well, as to its matmul.
    zero_points, channel_scale, tail
        Faults: the zero points of input and weight swapped; the scale of the following channel; the last input channel
        not summed where channels are no multiple of 8.
    rounding, zero_point, clamp, relu
        See `qfuzz.arithmetic.finish`. Of fixed-point multipliers the rounding is that of the last shift.
    """

    operands: Literal["integers", "dequantized"] = "integers"
    products: Products = "exact"
    accumulator: Literal[
        "int32", "int32_wrapping", "float64", "float32_sequential", "float32_fma", "float32_pairwise"
    ] = "int32"
    padding: Literal["zero_point", "stored_zero"] = "zero_point"
    bias: Bias = "exact"
    multiplier: Multiplier = "exact"
    scales: Scales = "own"
    rounding: Rounding = "half_even"
    zero_point: ZeroPoint = "after_rounding"
    clamp: Literal["after_zero_point", "before_rounding", "int32_conversion", "before_zero_point"] = "after_zero_point"
    relu: Relu = "after_rounding"
    zero_points: Literal["own", "swapped"] = "own"
    channel_scale: Literal["own", "next"] = "own"
    tail: Literal["summed", "dropped"] = "summed"


FIXED_POINT = ("q31", "q31_single", "fixed16")
IN_STEPS = ("scaled_divided", "scaled_reciprocal", "scaled_apart_divided", "scaled_apart_reciprocal")
BEFORE = ("before_multiplier", "before_multiplier_reciprocal", "before_multiplier_fused")
FAULTS: Mapping[str, frozenset[str]] = {
    "bias": frozenset({"unscaled"}),
    "clamp": frozenset({"before_zero_point"}),
    "relu": frozenset({"at_stored_zero"}),
    "zero_points": frozenset({"swapped"}),
    "channel_scale": frozenset({"next"}),
    "tail": frozenset({"dropped"}),
}
"""Choices that no kernel makes on purpose: they explain violations, and are no candidates of an identification."""


def why_not(model: Contraction) -> str | None:
    """Why these choices do not go together, or None."""
    m = model
    if m.operands == "dequantized":
        if m.products != "exact":
            return "saturating and reduced products are those of integers"
        if m.accumulator in ("int32", "int32_wrapping"):
            return "dequantized products are summed in floating point"
        if m.multiplier not in ("scaled_divided", "scaled_reciprocal"):
            return "the scales of the operands are multiplied in already"
        if m.bias not in ("int32", "before_multiplier", "after_multiplier"):
            return "the bias is a float32 addend: before the sum, or after it"
        if m.accumulator in ("float32_pairwise", "float64") and m.bias == "before_multiplier":
            return "a tree, or a sum in float64, is of products only"
    elif m.accumulator in ("float32_fma", "float32_pairwise"):
        return "float32 sums of integers are taken in order; their products are exact"
    if m.multiplier == "exact" and m.bias not in ("exact", "int32", "unscaled"):
        return "an exact multiplier adds the bias exactly, or to the accumulator"
    if m.multiplier != "exact" and m.bias in ("exact", "unscaled"):
        return "the bias is rounded with the result"
    if m.multiplier in FIXED_POINT:
        if m.bias != "int32":
            return "fixed point multiplies the whole accumulator"
        if m.rounding == "magic" or m.clamp in ("before_rounding", "int32_conversion"):
            return "fixed point shifts an integer"
        if m.zero_point == "before_rounding":
            return "fixed point adds the zero point to the shifted integer"
    if m.scales != "own" and (m.multiplier not in IN_STEPS or m.operands == "dequantized"):
        return "what inverts scales multiplies with them in steps"
    if m.multiplier == "float64" and m.bias == "before_multiplier_fused":
        return "the fused multiply-add is one of float32"
    if m.multiplier == "float64" and m.rounding == "magic":
        return "the magic number is a float32"
    if m.rounding == "magic" and m.clamp == "int32_conversion":
        return "a magic number is added instead of a conversion"
    if m.multiplier == "exact" and (m.rounding == "magic" or m.clamp == "int32_conversion"):
        return "magic numbers and conversions are of floating point"
    return None
