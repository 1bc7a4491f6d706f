"""Quantized types: a storage dtype with scale and zero point, exact to the bit."""

import struct
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec

from qfuzz.ir.errors import InvalidCase

DType: TypeAlias = Literal["uint8", "int8", "int32", "float32", "bool"]
QuantizedDType: TypeAlias = Literal["uint8", "int8"]

INTEGER_RANGE: dict[str, tuple[int, int]] = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "int32": (-(2**31), 2**31 - 1),
    "bool": (0, 1),
}

FLOAT32_MIN_NORMAL = 2.0**-126
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127


def float32(x: float) -> float:
    """`x` rounded to the nearest float32, as a Python float; infinite where it overflows."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


class QType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How stored integers stand for reals: `real = scale * (q - zero_point)`.

    Attributes
    ----------
    dtype
        Storage type, ``uint8`` or ``int8``.
    scale
        One value (per tensor), or one per index of `axis`. Each is exactly a float32, normal and positive.
    zero_point
        As many as scales, each within `qmin` and `qmax`.
    axis
        ``None`` is per tensor.
    """

    dtype: QuantizedDType
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

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
        for s in self.scale:
            if not FLOAT32_MIN_NORMAL <= s <= 1 / FLOAT32_MIN_NORMAL:
                raise InvalidCase(f"qtype.scale: {s!r}; a scale and 1/scale are normal, positive float32")
            if float32(s) != s:
                raise InvalidCase(f"qtype.scale: {s!r} is no float32; the nearest one is {float32(s)!r}")
        for z in self.zero_point:
            if not self.qmin <= z <= self.qmax:
                raise InvalidCase(f"qtype.zero_point: {z} is outside {self.qmin}..{self.qmax} of {self.dtype}")

    @classmethod
    def per_tensor(cls, dtype: QuantizedDType, scale: float, zero_point: int) -> "QType":
        """A per-tensor type."""
        return cls(dtype, (scale,), (zero_point,))

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


Element: TypeAlias = QType | Literal["float32", "int32", "bool"]
"""What the elements of a tensor are: quantized integers, float32, plain int32 (a bias in accumulator units), or bool (a
condition; files say 0 and 1)."""


def dtype_of(element: Element) -> DType:
    """The storage dtype of an element type."""
    return element.dtype if isinstance(element, QType) else element
