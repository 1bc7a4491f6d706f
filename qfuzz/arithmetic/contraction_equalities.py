"""Which choices of a contraction cannot differ on a domain, and why: each a proof in one sentence.

Models that differ in such choices only are one class; an identification that is left with one class is done.
"""

from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.family import Equality, Form, alternatives, always
from qfuzz.arithmetic.rounded import EQUALITIES as FINISH


def _no_bias(model: Contraction, form: Form) -> bool:
    return form.bias == "none"


_NO_BIAS = "there is no bias"

EQUALITIES: tuple[Equality, ...] = (
    Equality(
        "accumulator",
        "int32_wrapping",
        ("int32",),
        always,
        "the accumulators of a valid network stay within int32, and sums modulo 2^32 are right where the last one fits",
    ),
    Equality(
        "accumulator",
        "float64",
        ("int32",),
        lambda m, f: m.operands == "integers",
        "sums of products of 8-bit integers that stay within int32 are exact in float64",
    ),
    *(e for e in FINISH if e.choice in alternatives(Contraction, e.field)),
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
        "a linear layer has one tap, and of up to 256 channels, as they are probed, one block",
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
        "zero_point",
        "before_rounding",
        ("after_rounding",),
        lambda m, f: m.rounding == "half_up" and m.multiplier == "exact",
        "rounding ties up commutes with adding an integer, and nothing is rounded in that sum",
    ),
)
