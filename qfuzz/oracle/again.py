"""The same network on fresh inputs: what is said of a kernel holds there, too."""

from collections.abc import Iterator

import numpy as np

from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor

SEED = 1


def fresh_inputs(case: Case) -> Iterator[Case]:
    """The case with its inputs' values drawn anew among themselves, and with values from the whole range.

    A pure function of the case. The first are likely to show a fault again, the second to show another one.
    """
    generator = np.random.default_rng(SEED)
    for drawn in (_resampled, _uniform):
        tensors = []
        for value, tensor in zip(case.network.inputs, case.inputs, strict=True):
            element = value.type.element
            array = tensor.array
            if array.size:
                array = drawn(generator, array, element if isinstance(element, QType) else None)
            tensors.append(Tensor(array))
        yield Case(case.network, tuple(tensors))


def _resampled(generator: np.random.Generator, array: Array, element: QType | None) -> Array:
    return generator.choice(array.ravel(), size=array.shape)


def _uniform(generator: np.random.Generator, array: Array, element: QType | None) -> Array:
    if array.dtype == np.bool_:
        return generator.integers(0, 1, size=array.shape, endpoint=True).astype(np.bool_)
    if element is None or element.is_float:
        values = array.astype(np.float64)
        largest = np.abs(values[np.isfinite(values)]).max(initial=1.0)
        return np.asarray(generator.uniform(-largest, largest, size=array.shape).astype(array.dtype))
    dtype = array.dtype if element.dtype in _DRAWN else np.dtype(np.int16)
    integers = generator.integers(element.qmin, element.qmax, size=array.shape, endpoint=True, dtype=dtype)
    return np.asarray(integers.astype(array.dtype))


_DRAWN = ("uint8", "int8", "uint16", "int16", "int32")
"""Types that NumPy's generator draws; others are narrower."""
