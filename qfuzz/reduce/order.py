"""The one order of cases under which reduction goes down: nodes, elements, distance from defaults, then data."""

import math
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.ir.network import Case
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import BYTES, Element, QType

Key: TypeAlias = tuple[float, ...]

PLAIN: dict[str, Any] = {
    "strides": 1,
    "dilations": 1,
    "padding": 0,
    "kernel": 1,
    "groups": 1,
    "saturate": True,
    "relu": False,
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": 0,
    "descending": False,
    "align_corners": False,
    "largest": True,
    "value": 0.0,
    "output_size": 1,
    "negative_slope": 0.5,
    "alpha": 1.0,
    "beta": 1.0,
    "output_padding": 0,
    "says_sizes": False,
    "omits_zeros": False,
    "min": 0.0,
    "max": 6.0,
    "step": 1,
    "start": 0,
    "axis": 1,
    "start_axis": 1,
    "index": 0,
    "counted": False,
    "keepdims": True,
    "select_last_index": False,
    "smallest": False,
    "exclude_outside": False,
    "antialias": False,
    "top": 1,
    "normalized": False,
    "input_forget": False,
    "num_heads": 1,
    "unidirectional": False,
    "mask_filter_value": -10000.0,
}
"""The value of each attribute (or of each of its entries) that says nothing."""


def plain_value(op: Operator, name: str) -> Any:
    """What the attribute `name` says nothing with; of one that is a word, its default. None where there is no such."""
    if name in PLAIN or not isinstance(getattr(op, name), str):
        return PLAIN.get(name)
    return next(f.default for f in msgspec.structs.fields(op) if f.name == name)


def size_key(case: Case) -> Key:
    """Smaller is simpler."""
    network = case.network
    arrays = [t.array for t in case.inputs] + [c.data.array for c in network.constants]
    elements = [v.type.element for v in network.leaves] + [n.element for n in network.nodes]
    return (
        len(network.nodes),
        sum(a.size for a in arrays),
        len(network.inputs) + len(network.constants),
        sum(len(t.shape) for t in case.inputs),
        len(network.forms),
        sum(attribute_cost(n.op) for n in network.nodes),
        sum(qtype_cost(e) for e in elements),
        sum(int(np.count_nonzero(a)) for a in arrays),
        float(sum(_magnitudes(a).sum() for a in arrays)),
        sum(_mantissa_bits(float(v)) for a in arrays if a.dtype.kind == "f" for v in a.ravel()[:64]),
    )


def _magnitudes(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Those of numbers, and more than any for infinities and NaN, which no key may hold: it could not be compared."""
    values = np.abs(array.astype(np.float64))
    return np.where(np.isfinite(values), values, _BEYOND)


_BEYOND = 2.0**200


def attribute_cost(op: Operator) -> float:
    """Distance of an operator's attributes from saying nothing."""
    cost = 0.0
    for name in op.__struct_fields__:
        value, plain = getattr(op, name), plain_value(op, name)
        if plain is None:
            continue
        if isinstance(value, str):
            cost += value != plain
            continue
        for entry in value if isinstance(value, tuple) else (value,):
            if entry != plain:
                cost += 1 + math.log2(1 + abs(float(entry) - float(plain))) / 64
                cost += _mantissa_bits(float(entry)) / 64
    return cost


def qtype_cost(element: Element) -> float:
    """Distance of scales from 1 and zero points from 0; a scale per channel costs more than one for all."""
    if not isinstance(element, QType):
        return 0.0 if element == "float32" else 1.0
    scales = sum(scale_cost(s) for s in element.scale)
    zeros = sum(min(abs(z), 1) + abs(z) / 256 for z in element.zero_point)
    kind = 0 if element.dtype in BYTES else 1
    return scales + zeros + kind + (len(element.scale) if element.axis is not None else 0)


def scale_cost(scale: float) -> float:
    """0 for 1, little for powers of two, more for each bit of a mantissa."""
    if scale == 1.0:
        return 0.0
    _, exponent = math.frexp(scale)
    return 1 + abs(exponent - 1) / 64 + 2 * _mantissa_bits(scale)


def _mantissa_bits(x: float) -> int:
    """Significant bits of `x`, less one: 0 for powers of two and for 0."""
    if x == 0 or not math.isfinite(x):
        return 0
    numerator, _ = abs(x).as_integer_ratio()
    return (numerator >> ((numerator & -numerator).bit_length() - 1)).bit_length() - 1


def replace_op(op: Operator, **changes: Any) -> Operator:
    """`op` with other attributes."""
    return msgspec.structs.replace(op, **changes)
