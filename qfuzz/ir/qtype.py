"""Quantized types: a storage dtype with scale and zero point, exact to the bit."""

import struct
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec

from qfuzz.ir.errors import InvalidCase

QuantizedDType = Literal[
    "uint8", "int8", "uint2", "int2", "uint4", "int4", "uint16", "int16", "int32",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
]  # fmt: skip
Real: TypeAlias = Literal["float32", "float16", "bfloat16"]
PlainInteger: TypeAlias = Literal["uint8", "int32", "int64"]
"""Integers that stand for themselves: accumulators and biases in their units, indices, zero points."""
DType: TypeAlias = QuantizedDType | Real | PlainInteger | Literal["bool"]

INTEGER_RANGE: dict[str, tuple[int, int]] = {
    **{f"uint{n}": (0, 2**n - 1) for n in (2, 4, 8, 16)},
    **{f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (2, 4, 8, 16, 32, 64)},
    "bool": (0, 1),
}
BYTES: tuple[QuantizedDType, ...] = ("uint8", "int8")
"""What every quantized kernel takes."""
FLOAT8: tuple[QuantizedDType, ...] = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
"""Stored floating-point numbers with a scale. Their zero point is 0."""
REALS: tuple[Real, ...] = ("float32", "float16", "bfloat16")

FLOAT32_MIN_NORMAL = 2.0**-126
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127


def float32(x: float) -> float:
    """`x` rounded to the nearest float32, as a Python float; infinite where it overflows."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


class QType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How stored numbers stand for reals: `real = scale * (q - zero_point)`.

    Attributes
    ----------
    dtype
        Storage type: integers of 2 to 32 bits, or one of the float8 kinds.
    scale
        One value (per tensor), one per index of `axis`, or one per block (row-major, in the shape of the tensor with
        `axis` cut into blocks). Each is exactly a float32, normal and positive.
    zero_point
        As many as scales, each within `qmin` and `qmax`; 0 for float8.
    axis
        ``None`` is per tensor.
    block
        How many neighbours along `axis` share a scale; 0 is no blocks, but a scale for each index of the axis.
    """

    dtype: QuantizedDType
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    block: int = 0

    def __post_init__(self) -> None:
        if not self.scale:
            raise InvalidCase("qtype.scale: no scale given; one is needed, or one per channel")
        if len(self.scale) != len(self.zero_point):
            raise InvalidCase(
                f"qtype: {len(self.scale)} scales and {len(self.zero_point)} zero points; as many of each"
            )
        if self.axis is None and len(self.scale) != 1:
            raise InvalidCase(f"qtype.scale: {len(self.scale)} scales without an axis; per tensor has one scale")
        if self.axis is not None and self.axis < 0:
            raise InvalidCase(f"qtype.axis: {self.axis}; an axis counts from 0")
        if self.block < 0 or (self.block and self.axis is None):
            raise InvalidCase(f"qtype.block: {self.block} on axis {self.axis}; at least 1, along an axis")
        for s in self.scale:
            if not FLOAT32_MIN_NORMAL <= s <= 1 / FLOAT32_MIN_NORMAL:
                raise InvalidCase(f"qtype.scale: {s!r}; a scale and 1/scale are normal, positive float32")
            if float32(s) != s:
                raise InvalidCase(f"qtype.scale: {s!r} is no float32; the nearest one is {float32(s)!r}")
        low, high = (0, 0) if self.is_float else (self.qmin, self.qmax)
        for z in self.zero_point:
            if not low <= z <= high:
                raise InvalidCase(f"qtype.zero_point: {z} is outside {low}..{high} of {self.dtype}")

    @classmethod
    def per_tensor(cls, dtype: QuantizedDType, scale: float, zero_point: int) -> "QType":
        """A per-tensor type."""
        return cls(dtype, (scale,), (zero_point,))

    @property
    def is_float(self) -> bool:
        """Whether what is stored are floating-point numbers."""
        return self.dtype in FLOAT8

    @property
    def qmin(self) -> int:
        """Smallest storable integer."""
        return INTEGER_RANGE[self.dtype][0]

    @property
    def qmax(self) -> int:
        """Largest storable integer."""
        return INTEGER_RANGE[self.dtype][1]

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale and one zero point hold for all elements."""
        return self.axis is None

    @property
    def exact_scale(self) -> tuple[Fraction, ...]:
        """The scales as rationals."""
        return tuple(Fraction(s) for s in self.scale)


Element: TypeAlias = QType | Real | PlainInteger | Literal["bool"]
"""What the elements of a tensor are: quantized numbers, reals as floating-point numbers, integers without a scale, or
bool (a condition; files say 0 and 1)."""


def dtype_of(element: Element) -> DType:
    """The storage dtype of an element type."""
    return element.dtype if isinstance(element, QType) else element


def integer_range(element: Element) -> tuple[int, int] | None:
    """Smallest and largest stored integer; nothing where floating-point numbers are stored."""
    return INTEGER_RANGE.get(dtype_of(element))
