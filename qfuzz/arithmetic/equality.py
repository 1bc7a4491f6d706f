"""Which choices cannot differ on a domain, and why: each a proof in one sentence.

Models that differ in such choices only are one class; an identification that is left with one class is done.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from qfuzz.arithmetic.contraction import Contraction, why_not
from qfuzz.ir.qtype import QuantizedDType


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The domain of a question: an operator, and what its kernel takes.

    Attributes
    ----------
    op
        ``conv`` or ``linear``.
    dtype
        Of input and output.
    bias
        What kind of bias the kernel takes.
    per_channel
        Whether weights may have a scale for each channel.
    symmetric
        Whether the zero points of weights are 0; else they are not.
    relu
        Whether a relu is fused.
    """

    op: Literal["conv", "linear"]
    dtype: QuantizedDType
    bias: Literal["none", "int32", "float32"] = "none"
    per_channel: bool = True
    symmetric: bool = True
    relu: bool = False


class Equality(NamedTuple):
    """A choice that is the same as another one where `when` holds.

    Attributes
    ----------
    same_as
        The choice that stands for both; the first that fits the other choices of the model.
    why
        The proof.
    """

    field: str
    choice: str
    same_as: tuple[str, ...]
    when: Callable[[Contraction, Form], bool]
    why: str


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
    Equality("padding", "stored_zero", ("zero_point",), lambda m, f: f.op == "linear", "a linear layer pads nothing"),
    *(
        Equality("bias", choice, ("exact", "int32", "after_multiplier"), _no_bias, _NO_BIAS)
        for choice in ("int32", "before_multiplier", "before_multiplier_reciprocal", "after_multiplier")
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
        "before_multiplier_reciprocal",
        ("before_multiplier",),
        lambda m, f: f.bias == "int32",
        "an int32 bias is in units of the accumulator and is not divided",
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
"""In the order in which they are applied, again and again until none applies."""


def canonical(model: Contraction, form: Form) -> Contraction:
    """The model that stands for all that cannot differ from `model` on `form`."""
    return _settle(model, form)[0]


def reasons(model: Contraction, form: Form) -> tuple[str, ...]:
    """Why `model` is the same as its canonical one."""
    return _settle(model, form)[1]


def _settle(model: Contraction, form: Form) -> tuple[Contraction, tuple[str, ...]]:
    why: list[str] = []
    changed = True
    while changed:
        changed = False
        for e in EQUALITIES:
            if getattr(model, e.field) != e.choice or not e.when(model, form):
                continue
            for choice in e.same_as:
                candidate = msgspec.structs.replace(model, **{e.field: choice})
                if choice != e.choice and why_not(candidate) is None:
                    model, changed = candidate, True
                    why.append(f"{e.field} {e.choice} as {choice}: {e.why}")
                    break
                if choice == e.choice:
                    break
    return model, tuple(why)
