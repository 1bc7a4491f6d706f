"""What an audited ONNX model is run on: given arrays, checked against the model, or such as are drawn from a seed."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import INTEGER_RANGE
from qfuzz.ir.tensor import MAX_ELEMENTS


def inputs_of(
    model: ModelProto, given: Mapping[str, Array] | None, seed: int, dimensions: Mapping[str, int]
) -> dict[str, Array]:
    """An array for each input of the model.

    Parameters
    ----------
    given
        Arrays by name; None draws them from `seed`.
    dimensions
        Sizes of symbolic dimensions; those not named are 1, or as in `given`.

    Raises
    ------
    InvalidCase
        Where `given` does not fit the model, or an input cannot be drawn.
    """
    constants = {t.name for t in model.graph.initializer}
    wanted = [value for value in model.graph.input if value.name not in constants]
    symbols = {d.dim_param for value in wanted for d in value.type.tensor_type.shape.dim if d.dim_param}
    unknown = sorted(set(dimensions) - symbols)
    if unknown:
        there = f"the model has {', '.join(sorted(symbols))}" if symbols else "the model has none"
        raise InvalidCase(f"dimension {unknown[0]!r}: no symbolic dimension of that name; {there}")
    if given is not None:
        return _fitting(wanted, given, dict(dimensions))
    rng = np.random.default_rng(seed)
    return {value.name: _drawn(model.graph, value, rng, dimensions) for value in wanted}


def _fitting(wanted: list[ValueInfoProto], given: Mapping[str, Array], sizes: dict[str, int]) -> dict[str, Array]:
    names = [value.name for value in wanted]
    for name in names:
        if name not in given:
            raise InvalidCase(f"inputs: no array {name!r}; the model takes {', '.join(names)}")
    for name in given:
        if name not in names:
            raise InvalidCase(f"inputs: {name!r} is no input of the model, which takes {', '.join(names)}")
    for value in wanted:
        array, dtype = given[value.name], _dtype(value)
        if array.dtype != dtype:
            raise InvalidCase(f"input {value.name!r}: elements of {array.dtype}; the model takes {dtype}")
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        shape = tensor.shape.dim
        if len(shape) != array.ndim:
            raise InvalidCase(f"input {value.name!r}: shape {array.shape}; the model takes {len(shape)} dimensions")
        for position, (dim, size) in enumerate(zip(shape, array.shape, strict=True)):
            expected = dim.dim_value if dim.HasField("dim_value") else size
            if dim.dim_param:
                expected = sizes.setdefault(dim.dim_param, size)
            if size != expected:
                raise InvalidCase(
                    f"input {value.name!r}: shape {array.shape}; dimension {position} of the model is {expected}"
                )
    return {name: np.ascontiguousarray(given[name]) for name in names}


def _dtype(value: ValueInfoProto) -> np.dtype[np.generic]:
    try:
        dtype: np.dtype[np.generic] = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except (KeyError, TypeError):
        raise InvalidCase(f"input {value.name!r}: it is no tensor of a type that can be fed") from None
    return dtype


def _drawn(graph: GraphProto, value: ValueInfoProto, rng: np.random.Generator, dimensions: Mapping[str, int]) -> Array:
    tensor = value.type.tensor_type
    dtype = _dtype(value)
    if not tensor.HasField("shape"):
        raise InvalidCase(f"input {value.name!r}: the model states no shape; give inputs")
    shape = tuple(d.dim_value if d.HasField("dim_value") else dimensions.get(d.dim_param, 1) for d in tensor.shape.dim)
    if any(d < 0 for d in shape) or math.prod(max(d, 1) for d in shape) > MAX_ELEMENTS:
        raise InvalidCase(f"input {value.name!r}: shape {shape}; at most {MAX_ELEMENTS} elements")
    if dtype.name in ("uint8", "int8"):
        low, high = INTEGER_RANGE[dtype.name]
        return rng.integers(low, high, shape, dtype, endpoint=True)
    if dtype.kind == "f":
        low_real, high_real = _quantized_range(graph, value.name)
        return rng.uniform(low_real, high_real, shape).astype(dtype)
    if dtype.kind in "iub":
        return rng.integers(0, 1, shape, endpoint=True).astype(dtype)
    raise InvalidCase(f"input {value.name!r}: elements of {dtype} cannot be drawn; give inputs")


def _quantized_range(graph: GraphProto, name: str) -> tuple[float, float]:
    """The real values that the first quantization of an input can tell apart; else -1 to 1."""
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == name and node.input[1] in constants:
            scale = onnx.numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
            stored = constants.get(node.input[2]) if len(node.input) > 2 else None
            zero_point = np.zeros(1, np.uint8) if stored is None else onnx.numpy_helper.to_array(stored)
            if zero_point.dtype.name in INTEGER_RANGE and scale.size == zero_point.size == 1:
                low, high = INTEGER_RANGE[zero_point.dtype.name]
                z, s = int(zero_point.item()), float(scale.item())
                if 0 < s < 1e30:
                    return (low - z) * s, (high - z) * s
    return -1.0, 1.0
