"""From a real result to the stored integer: the last steps of every kernel, each a choice of its own."""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, Ints, split_ties
from qfuzz.ir.qtype import QType

Array = npt.NDArray[Any]

Rounding: TypeAlias = Literal["half_even", "half_away", "half_up", "truncation", "magic"]
"""Of the result to an integer. ``magic``: by adding 1.5 * 2^23 and reading the bits (XNNPACK's fmagic)."""

ZeroPoint: TypeAlias = Literal["after_rounding", "before_rounding"]
"""When the output zero point is added: to the integer, or to the real result."""

Clamp: TypeAlias = Literal[
    "after_zero_point",
    "before_rounding",
    "int32_conversion",
    "int32_conversion_wrapping",
    "int32_limit",
    "before_zero_point",
]
"""How a result outside the storage range saturates. ``before_rounding``: the real number is clipped (MLAS, XNNPACK).
``int32_conversion``: what leaves int32 becomes its least number first, as x86 cvtps2dq does (FBGEMM, QNNPACK on SSE2).
``int32_conversion_wrapping``: the same, and adding the zero point wraps (PyTorch's RequantizeAvx512).
``int32_limit``: what leaves int32 becomes 2^31 - 128 or -2^31 first, and adding the zero point wraps (PyTorch's
QuantizeAvx512). ``before_zero_point``: the range is applied first and the sum wraps, a fault."""

Relu: TypeAlias = Literal["after_rounding", "before_rounding", "at_stored_zero"]
"""Where a fused relu clips: the integer at the zero point; the real number at 0; the integer at 0 (a fault)."""

_MAGIC = np.float32(1.5 * 2.0**23)


def stored(
    r: Array,
    element: QType,
    *,
    rounding: Rounding,
    zero_point: ZeroPoint,
    clamp: Clamp,
    relu: Relu | None = None,
    added: bool = False,
) -> Array:
    """Stored integers of real results.

    Parameters
    ----------
    r
        In output units, without the zero point. A zero point that is added before rounding is added in its dtype,
        float32 or float64; results that are known exactly come as `surrogates`.
    relu
        None where no relu is fused.
    added
        Whether `r` has come with the zero point, before rounding.
    """
    (z,) = element.zero_point
    shift = 0 if zero_point == "after_rounding" else z
    if relu == "before_rounding":
        r = np.maximum(r, r.dtype.type(z if added else 0))
    v = r + r.dtype.type(shift) if shift and not added else r
    if clamp == "before_rounding":
        v = np.clip(v, element.qmin - z + shift, element.qmax - z + shift)
    q = rounded(v, rounding)
    if clamp in ("int32_conversion", "int32_conversion_wrapping"):
        q = np.where((q >= 2**31) | (q < -(2**31)), -(2**31), q)
    if clamp == "before_zero_point":
        wrapped = np.clip(q - shift, element.qmin, element.qmax) + z - element.qmin
        return (wrapped % 256 + element.qmin).astype(element.dtype)
    if clamp == "int32_limit":
        q = np.clip(q, -(2**31), 2**31 - 128)
    q = q + (z - shift)
    if clamp in ("int32_limit", "int32_conversion_wrapping"):
        q = (q + 2**31) % 2**32 - 2**31
    floor = {"after_rounding": z, "at_stored_zero": 0}.get(relu or "", element.qmin)
    return np.clip(q, max(floor, element.qmin), element.qmax).astype(element.dtype)


def rounded(v: Array, rounding: Rounding) -> Ints:
    """Integers next to float numbers, cut at +/- 2^62."""
    if rounding == "magic":
        return _magic(v)
    wide = np.clip(v.astype(np.float64), -(2.0**62), 2.0**62)
    match rounding:
        case "half_even":
            return np.asarray(np.rint(wide).astype(np.int64))
        case "truncation":
            return np.asarray(np.trunc(wide).astype(np.int64))
        case "half_up":
            return split_ties(wide)[1]
        case "half_away":
            down, up = split_ties(wide)
            return np.where(wide >= 0, up, down)


def _magic(v: Array) -> Ints:
    with np.errstate(over="ignore"):
        bits = (v.astype(np.float32) + _MAGIC).view(np.int32).astype(np.int64)
    return np.asarray(bits - int(_MAGIC.view(np.int32)))


def surrogates(r: Reals) -> Floats:
    """float64 numbers that every rounding takes for `r`: equal at halves, and a little off them where `r` is off.

    Roundings only ask where among the multiples of 1/2 a number lies, and adding an integer does not change that.
    """
    approx = r.approx
    for i in np.flatnonzero(r.error > _BESIDE / 4):  # large addends that cancel
        approx = approx if approx is not r.approx else approx.copy()
        approx.flat[i] = float(r.refine(int(i), 80)[0])
    halves = np.rint(approx * 2) / 2
    beside = approx - halves
    sign = np.sign(beside)
    for i in np.flatnonzero((np.abs(beside) <= r.error + np.spacing(np.abs(approx))) & (r.error > 0)):
        sign.flat[i] = _side(r, int(i), float(halves.flat[i]))
    return np.where(np.abs(beside) > _BESIDE, approx, halves + sign * _BESIDE)


_BESIDE = 2.0**-9


def _side(r: Reals, i: int, half: float) -> int:
    """The exact sign of an element's distance from a multiple of 1/2."""
    bits = 80
    while bits < 20_000:
        low, high = r.refine(i, bits)
        if low > half or high < half or low == high:
            return (low > half) - (low < half)
        bits *= 2
    raise ArithmeticError(f"element {i} is not told from {half} at {bits} bits")
