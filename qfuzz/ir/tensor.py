"""Concrete tensors as values: immutable, hashable, compared bit for bit."""

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import INTEGER_RANGE, DType, Element, QType, dtype_of

MAX_ELEMENTS = 2**24
"""No value of a network has more elements: a case is small, and a file that asks for terabytes is refused."""
MAX_RANK = 8


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise `InvalidCase` unless `shape` has sane dimensions and at most `MAX_ELEMENTS` elements."""
    if len(shape) > MAX_RANK:
        raise InvalidCase(f"shape {shape}: rank {len(shape)}; at most {MAX_RANK} dimensions")
    n_elements = 1
    for d in shape:
        if d < 0:
            raise InvalidCase(f"shape {shape}: a dimension is negative")
        n_elements *= d or 1
    if n_elements > MAX_ELEMENTS:
        raise InvalidCase(f"shape {shape}: {math.prod(shape)} elements; at most {MAX_ELEMENTS}")


class TensorType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    element: Element

    def __post_init__(self) -> None:
        check_shape(self.shape)
        q = self.element
        if isinstance(q, QType) and q.axis is not None:
            if q.axis >= len(self.shape):
                raise InvalidCase(f"axis {q.axis} of the scales is outside shape {self.shape}")
            if len(q.scale) != self.shape[q.axis]:
                raise InvalidCase(
                    f"{len(q.scale)} scales on axis {q.axis} of size {self.shape[q.axis]}; "
                    "per-channel needs one scale per channel"
                )

    @property
    def qtype(self) -> QType:
        """The quantized element type.

        Raises
        ------
        InvalidCase
            If the elements are not quantized.
        """
        if not isinstance(self.element, QType):
            raise InvalidCase(f"needs quantized elements, got {self.element}")
        return self.element

    @property
    def is_quantized(self) -> bool:
        """Whether the elements are quantized integers."""
        return isinstance(self.element, QType)

    @property
    def dtype(self) -> DType:
        """The storage dtype."""
        return dtype_of(self.element)

    @property
    def n_elements(self) -> int:
        """How many elements."""
        return math.prod(self.shape)


class Tensor:
    """An immutable array of a storage dtype. `array` is read-only and C-contiguous."""

    __slots__ = ("_hash", "array")
    array: npt.NDArray[Any]
    _hash: int | None

    def __init__(self, array: npt.NDArray[Any]) -> None:
        if array.dtype not in _NAMES:
            raise InvalidCase(f"tensor: dtype {array.dtype}; one of {', '.join(_NAMES.values())}")
        copy = np.array(array, order="C", copy=True)
        copy.flags.writeable = False
        object.__setattr__(self, "array", copy)
        object.__setattr__(self, "_hash", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Tensor is immutable: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Tensor is immutable: {name}")

    def __reduce__(self) -> tuple[type["Tensor"], tuple[npt.NDArray[Any]]]:
        return Tensor, (self.array,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """Storage dtype by name."""
        return _NAMES[self.array.dtype]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        a, b = self.array, other.array
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    def __hash__(self) -> int:
        known = self._hash
        if known is None:
            known = hash((self.dtype, self.shape, self.array.tobytes()))
            object.__setattr__(self, "_hash", known)
        return known

    def __repr__(self) -> str:
        return f"Tensor({self.array.tolist()}, {self.dtype}, shape={self.shape})"


_NAMES: dict[np.dtype[Any], str] = {np.dtype(name): name for name in (*INTEGER_RANGE, "float32")}
