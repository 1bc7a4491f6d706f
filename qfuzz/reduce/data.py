"""Reduction passes over data, and what is simpler than a number."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from qfuzz.ir.network import Case
from qfuzz.ir.qtype import INTEGER_RANGE, QType
from qfuzz.ir.tensor import Tensor
from qfuzz.reduce.edit import Array, Candidate, Pass, with_arrays


def simpler_data(case: Case) -> Iterator[Candidate]:
    """Runs of elements to 0 or the zero point, then single elements to 0, 1, or smaller."""
    network = case.network
    tensors = [(i.name, i.type, t) for i, t in zip(network.inputs, case.inputs, strict=True)]
    tensors += [(c.name, c.type, c.data) for c in network.constants]
    for name, type_, tensor in tensors:
        flat = tensor.array.ravel()
        fills = dict.fromkeys([0, *(type_.element.zero_point[:1] if isinstance(type_.element, QType) else ())])
        run = flat.size
        while run >= 1:
            for start in range(0, flat.size, run):
                for fill in fills:
                    if (flat[start : start + run] != fill).any():
                        yield partial(_with_filled, case, name, tensor, slice(start, start + run), fill)
            run //= 2
        for i in range(min(flat.size, 256)):
            for value in _simpler_elements(flat[i].item(), tensor.dtype):
                yield partial(_with_filled, case, name, tensor, slice(i, i + 1), value)


def _simpler_elements(value: float, dtype: str) -> Iterator[float]:
    if dtype not in INTEGER_RANGE:
        yield from (v for v in (0.0, 1.0, float(np.rint(value)), *simpler_floats(float(value))) if v != value)
        return
    lo, hi = INTEGER_RANGE[dtype]
    yield from (v for v in simpler_integers(int(value)) if lo <= v <= hi)


def _with_filled(case: Case, name: str, tensor: Tensor, where: slice, value: float) -> Case:
    return with_arrays(case, {name: _filled(tensor, where, value)})


def _filled(tensor: Tensor, where: slice, value: float) -> Array:
    array = tensor.array.copy()
    array.reshape(-1)[where] = value
    return array


def simpler_floats(x: float) -> Iterator[float]:
    """1, the powers of two around, then mantissas of few bits; all float32."""
    if x == 0:
        return
    yield 1.0
    mantissa, exponent = np.frexp(x)
    for e in (exponent - 1, exponent):
        yield float(np.copysign(np.ldexp(1.0, int(e)), x))
    for bits in (2, 3, 4, 6, 8, 12, 16, 20, 22):
        yield float(np.ldexp(np.rint(mantissa * 2**bits), int(exponent) - bits))


def simpler_integers(v: int) -> Iterator[int]:
    """0, 1, -1, half of it, one less."""
    for candidate in dict.fromkeys((0, 1, -1, v // 2 if v >= 0 else -(-v // 2), v - 1 if v > 0 else v + 1)):
        if abs(candidate) < abs(v):
            yield candidate


DATA: list[Pass] = [simpler_data]
