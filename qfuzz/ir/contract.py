"""What an implementation promises: which roundings it may do, as data. `qfuzz.oracle` says what follows from it."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Literal, TypeAlias

import msgspec

TieRule: TypeAlias = Literal["half_even", "half_even_after_zero_point", "either_even", "any"]
"""How an exact tie is rounded when no float32 rounding came before it.

`half_even` rounds, then adds the zero point; `half_even_after_zero_point` adds it first; `either_even` does either
(vector bodies and scalar tails of one kernel differ); `any` admits both neighbours of the tie. The correctly rounded
value, half to even before the zero point, is admissible under every rule.
"""

Terms: TypeAlias = Literal["exact", "accumulator", "real", "affine", "fixed_point"]
"""What the rounding error is relative to, in output units before the final rounding.

`exact`: nothing is rounded but the final result, in effect computed without error.
`accumulator`: the magnitude of the exact integer accumulator times its multiplier, plus that of a float32 bias.
`real`: the sum of magnitudes of all real products and addends, `s*(q - zp)` taken together.
`affine`: `|s*q|` and `|s*zp|` apart, plus `|zero_point_y|`.
`fixed_point`: as `affine`, with the largest of the scales in the place of each: integer multipliers share one shift, so
that each is off by as much as the largest. Such multipliers are shorter than a float32, and nothing counts as exact.

Where the tie rule says that the zero point is added before rounding, `|zero_point_y|` counts in every one of them.
"""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The roundings that a kernel may do for one operator.

    Attributes
    ----------
    terms
        What the error is relative to.
    k
        How many float32 roundings stand in the kernel's own chain of operations, scale reciprocals included.
    tie
        How exact ties are rounded.
    source
        Where the promise stands: documentation, or the order and precision of operations in the source.
    accumulates_float
        Whether the products are summed in float32, so that gamma_n over the n summed terms is added to k.
    adds_zero_point
        Whether the output zero point is added in float32, before the final rounding: then |zero_point_y| counts, too
        (`affine` and `fixed_point` terms hold it already). Of data that are quantized on the way: theirs.
    function_ulps
        Error of an elementary function's value in float32 ulps of that value.
    function_addend
        Magnitude that the function's own formula adds, whose roundings stay however small the value is: 1 for a sigmoid
        that is computed as a quotient plus 1/2.
    in_real_type
        Whether it computes in the type of the reals (float16, bfloat16) where that is not float32.
    activation_block
        Where activations may be rounded to int8 on the way: how many neighbours along the summed axis share a scale
        where the weight has no blocks of its own; else 0.
    bias_steps
        Error of the bias in units of scale_x * scale_w: 0.5 where a float32 bias is rounded to int32.
    exact_mean
        Whether the mean of equal elements is that element, as where it is updated or summed in float64.
    distributes
        Whether a normalization multiplies x and its mean apart, as ``x * c + (bias - mean * c)``: then |x| and |mean|
        count, however small their difference is.
    from_middle
        Whether stored weights and their zero points are taken apart as integers around 0, counted from the middle of
        their range.
    multiplies_scale
        Of interpolations: whether a coordinate is a product with a rounded quotient of lengths, or with the rounded
        reciprocal of a given scale, as in PyTorch; else it is a quotient itself, as ONNX says it.
    rounding_open
        Whether the specification leaves the final rounding open: then either integer next to the real result is right.
    """

    terms: Terms
    k: int
    tie: TieRule
    source: str
    accumulates_float: bool = False
    adds_zero_point: bool = False
    function_ulps: float = 0.0
    function_addend: float = 0.0
    bias_steps: float = 0.0
    in_real_type: bool = False
    exact_mean: bool = False
    distributes: bool = False
    multiplies_scale: bool = False
    rounding_open: bool = False
    activation_block: int = 0
    from_middle: bool = False


def contract_of(contracts: Mapping[str, Contract], op: str, said: Iterable[str], otherwise: Contract) -> Contract:
    """The contract of an operator of which that is said (`Network.said_of`).

    A table may have one for forms or types that ask for another arithmetic, as ``op?name=value``,
    ``op?name=value&name=value``. Two of them that it has one for decide before one does, and earlier ones before later.
    """
    said = tuple(said)
    for chosen in (*combinations(said, 2), *combinations(said, 1)):
        own = contracts.get(f"{op}?{'&'.join(chosen)}")
        if own is not None:
            return own
    return contracts.get(op, otherwise)
