"""Which choices of a contraction cannot differ on a domain, and why: each a proof in one sentence.

Models that differ in such choices only are one class; an identification that is left with one class is done.
"""

from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.family import Equality, Form


def _always(model: Contraction, form: Form) -> bool:
    return True


def _no_bias(model: Contraction, form: Form) -> bool:
    return form.bias == "none"


_NO_BIAS = "there is no bias"

EQUALITIES: tuple[Equality, ...] = (
    Equality(
        "accumulator",
        "int32_wrapping",
        ("int32",),
        _always,
        "the accumulators of a valid network stay within int32, and sums modulo 2^32 are right where the last one fits",
    ),
    Equality(
        "accumulator",
        "float64",
        ("int32",),
        lambda m, f: m.operands == "integers",
        "sums of products of 8-bit integers that stay within int32 are exact in float64",
    ),
    Equality(
        "clamp",
        "int32_conversion",
        ("after_zero_point",),
        lambda m, f: m.rounding == "magic",
        "a magic number is added instead of a conversion; bits of large floats are large integers",
    ),
    Equality(
        "rounding",
        "magic",
        ("half_even",),
        _always,
        "adding 1.5 * 2^23 rounds to nearest even below 2^22; above, both saturate to the same end",
    ),
    Equality(
        "clamp",
        "before_rounding",
        ("after_zero_point",),
        _always,
        "the ends of the range are integers, and rounding is monotone and keeps integers",
    ),
    Equality(
        "relu",
        "before_rounding",
        ("after_rounding",),
        _always,
        "rounding is monotone and keeps 0 and the zero point; without a relu there is nothing to clip",
    ),
    Equality(
        "products",
        "int16_pairs_channels_last",
        ("int16_pairs",),
        lambda m, f: f.op == "linear",
        "a linear layer has one order of products: its channels are its only dimension",
    ),
    Equality(
        "products",
        "int16_pairs_per_tap",
        ("int16_pairs",),
        lambda m, f: f.op == "linear",
        "a linear layer has one tap",
    ),
    Equality("padding", "stored_zero", ("zero_point",), lambda m, f: f.op == "linear", "a linear layer pads nothing"),
    *(
        Equality("bias", choice, ("exact", "int32", "after_multiplier"), _no_bias, _NO_BIAS)
        for choice in (
            "int32",
            "before_multiplier",
            "before_multiplier_reciprocal",
            "before_multiplier_fused",
            "after_multiplier",
        )
    ),
    Equality(
        "bias",
        "int32",
        ("exact",),
        lambda m, f: f.bias == "int32" and m.multiplier == "exact" and m.accumulator != "float32_sequential",
        "an int32 bias is a multiple of scale_x * scale_w",
    ),
    Equality(
        "bias",
        "int32",
        ("after_multiplier",),
        lambda m, f: f.bias == "int32" and m.operands == "dequantized",
        "an int32 bias is not rounded to int32",
    ),
    *(
        Equality(
            "bias",
            choice,
            ("before_multiplier",),
            lambda m, f: f.bias == "int32",
            "an int32 bias is in units of the accumulator and is not divided",
        )
        for choice in ("before_multiplier_reciprocal", "before_multiplier_fused")
    ),
    Equality(
        "bias",
        "before_multiplier",
        ("int32",),
        lambda m, f: (
            f.bias == "int32"
            and m.operands == "integers"
            and (m.multiplier == "float64") != (m.accumulator == "float32_sequential")
        ),
        "an int32 bias is added exactly in float64; and to a float32 accumulator it is a float32 addend either way",
    ),
    Equality(
        "rounding",
        "half_away",
        ("half_up",),
        lambda m, f: m.zero_point == "before_rounding" and f.dtype == "uint8",
        "with the zero point added what is rounded is not negative, or saturates at 0 in any case",
    ),
    Equality(
        "zero_point",
        "before_rounding",
        ("after_rounding",),
        lambda m, f: m.rounding == "half_up" and m.multiplier == "exact",
        "rounding ties up commutes with adding an integer, and nothing is rounded in that sum",
    ),
)
