"""Binary floating-point formats: the nearest number of a format, ties to even.

Sources: IEEE 754-2008 for float16 and float32; onnx/docs/docsgen "Float stored in 8 bits" for the float8 kinds (the
tables of values, and of what casting with and without `saturate` gives).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from qfuzz.exact.rounding import Floats


class Format(NamedTuple):
    """A format.

    Attributes
    ----------
    precision
        Bits of the significand, the leading one included.
    min_exponent
        Exponent of the smallest normal number.
    largest
        The largest finite number.
    has_infinity
        Whether what is beyond it is infinite; else it is NaN.
    """

    precision: int
    min_exponent: int
    largest: float
    has_infinity: bool = True


FORMATS: dict[str, Format] = {
    "float32": Format(24, -126, (2.0 - 2.0**-23) * 2.0**127),
    "float16": Format(11, -14, 65504.0),
    "bfloat16": Format(8, -126, (2.0 - 2.0**-7) * 2.0**127),
    "float8_e4m3fn": Format(4, -6, 448.0, has_infinity=False),
    "float8_e4m3fnuz": Format(4, -7, 240.0, has_infinity=False),
    "float8_e5m2": Format(3, -14, 57344.0),
    "float8_e5m2fnuz": Format(3, -15, 57344.0, has_infinity=False),
}


def nearest(x: Floats, format: Format) -> Floats:
    """The nearest numbers of `format` to float64 numbers, ties to even; infinite where there is none.

    Scaling by powers of two is exact, and so is rounding to a multiple of the last place: the exponent range of float64
    holds that of every format here with room to spare.
    """
    _, exponent = np.frexp(x)
    place = np.maximum(exponent - 1, format.min_exponent) - (format.precision - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(x, -place)), place)
    return np.where(np.abs(rounded) > format.largest, np.copysign(np.inf, x), rounded)


def nearest_exactly(x: Fraction, format: Format) -> float:
    """The nearest number of `format` to a rational, ties to even; infinite where there is none."""
    if x == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(x.numerator)) - math.log2(x.denominator))
    exponent += (abs(x) >= Fraction(2) ** (exponent + 1)) - (abs(x) < Fraction(2) ** exponent)
    place = Fraction(2) ** (max(exponent, format.min_exponent) - (format.precision - 1))
    rounded = round(x / place) * place
    if abs(rounded) > format.largest:
        return math.inf if x > 0 else -math.inf
    return float(rounded)
