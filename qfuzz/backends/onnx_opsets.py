"""A graph that was written for opset 22 at another opset: what moved between inputs and attributes, and what is new.

Source: onnx/docs/Changelog.md, each operator's versions. Where an older text leaves a case open that the operator here
defines (windows under ceil_mode), the opset that defines it is the oldest.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

OPSET = 22
"""ONNX opset of the plain model: its text is the first to say where the last window of ceil_mode ends."""

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Need: TypeAlias = Callable[[NodeProto, Arrays], int]


def _flag(node: NodeProto, name: str) -> bool:
    return any(a.name == name and a.i for a in node.attribute)


def _has(node: NodeProto, name: str) -> bool:
    return any(a.name == name for a in node.attribute)


def _since(opset: int) -> Need:
    return lambda node, arrays: opset


def _reduce(opset: int) -> Need:
    return lambda node, arrays: 18 if _flag(node, "noop_with_empty_axes") else opset


def _stored(node: NodeProto, arrays: Arrays) -> bool:
    """Whether a constant input of the node holds stored integers."""
    return any(i in arrays and arrays[i].dtype.kind in "iu" and arrays[i].dtype.itemsize == 1 for i in node.input)


_TYPES: Mapping[int, int] = MappingProxyType(
    {
        getattr(TensorProto, name): opset
        for names, opset in (
            (("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT16", "BFLOAT16"), 19),
            (("INT16", "UINT16", "INT4", "UINT4"), 21),
            (("INT2", "UINT2"), 25),
        )
        for name in names
        if hasattr(TensorProto, name)
    }
)
"""Types of initializers to the first opset whose QuantizeLinear and DequantizeLinear take them."""


def _quantization(node: NodeProto, arrays: Arrays) -> int:
    need = 10
    scale = arrays.get(node.input[1])
    if _has(node, "axis") or (scale is not None and scale.size != 1):
        need = 13
    if _has(node, "block_size") or _has(node, "output_dtype"):
        need = 21
    if _has(node, "saturate"):
        need = max(need, 19)
    if _has(node, "precision"):
        need = 23
    return 23 if node.op_type == "DequantizeLinear" and _has(node, "output_dtype") else need


def _reshape(node: NodeProto, arrays: Arrays) -> int:
    shape = arrays.get(node.input[1])
    return 14 if shape is None or (shape == 0).any() else 5


NEEDS: Mapping[str, Need] = MappingProxyType(
    {
        "QuantizeLinear": _quantization,
        "DequantizeLinear": _quantization,
        "QLinearConv": _since(10),
        "QLinearMatMul": _since(10),
        "ConvInteger": _since(10),
        "MatMulInteger": _since(10),
        "DynamicQuantizeLinear": _since(11),
        "Conv": _since(1),
        "Gemm": _since(11),
        "MatMul": _since(9),
        "Add": _since(7),
        "Sub": _since(7),
        "Mul": _since(7),
        "Div": _since(7),
        "Relu": _since(14),  # int8; float32 was always there, and 14 is not much to ask
        "Clip": lambda node, arrays: 12 if _stored(node, arrays) else 6,
        "Sigmoid": _since(6),
        "Tanh": _since(6),
        "Elu": _since(6),
        "LeakyRelu": _since(6),
        "HardSigmoid": _since(6),
        "HardSwish": _since(14),
        "Gelu": _since(20),
        "LayerNormalization": _since(17),
        "InstanceNormalization": _since(6),
        "Softmax": _since(13),
        "MaxPool": lambda node, arrays: OPSET if _flag(node, "ceil_mode") else 12,
        "AveragePool": lambda node, arrays: OPSET if _flag(node, "ceil_mode") else 10,
        "GlobalAveragePool": _since(1),
        "Concat": _since(4),
        "Reshape": _reshape,
        "Flatten": _since(9),
        "Transpose": _since(1),
        "Slice": _since(10),
        "Pad": lambda node, arrays: 13 if _stored(node, arrays) else 2,
        "Squeeze": _since(1),
        "Unsqueeze": _since(1),
        "Split": lambda node, arrays: 18 if _has(node, "num_outputs") else 2,
        "Expand": _since(8),
        "Gather": _since(11),
        "DepthToSpace": _since(11),
        "SpaceToDepth": _since(1),
        "ArgMax": _since(12),
        "Min": _since(12),
        "Max": _since(12),
        "Where": _since(9),
        "ReduceMean": _reduce(11),
        "ReduceMax": _reduce(12),  # int8; float32 was always there
        "ReduceMin": _reduce(12),
        "Tile": _since(6),
        "GatherElements": _since(11),
        "Cast": _since(13),
        "Constant": _since(9),
    }
)
"""Operator to the oldest opset that can say a node of it, once `_older` has rewritten it; others need `OPSET`."""


def axes_need(node: NodeProto) -> int:
    """The oldest opset in which the node's axis may be negative."""
    return 13 if node.op_type in ("QuantizeLinear", "DequantizeLinear") else 11


def said_at(graph: GraphProto, opset: int) -> int:
    """Say `graph`, in place, at `opset`, or at the oldest that can; returns which."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    needs = [_TYPES.get(t.data_type, 0) for t in graph.initializer]
    for node in graph.node:
        if not node.domain:
            needs.append(NEEDS.get(node.op_type, _since(OPSET))(node, arrays))
    opset = max(opset, *needs, 1)
    for node in graph.node:
        if not node.domain:
            _older(node, arrays, opset)
    return opset


def _older(node: NodeProto, arrays: Arrays, opset: int) -> None:
    """Inputs that were attributes before some opset are attributes again, and attributes that were not there go."""
    if node.op_type == "Reshape" and opset < 14:
        _drop(node, "allowzero")
    if node.op_type == "AveragePool" and opset < 19:
        _drop(node, "dilations")
    if node.op_type == "ReduceMean" and opset < 18:
        _drop(node, "noop_with_empty_axes")
    for op_type, since, inputs in _MOVED:
        if node.op_type == op_type and opset < since:
            for position, name in reversed(inputs):
                if position < len(node.input):
                    if node.input[position]:
                        _set(node, name, arrays[node.input[position]])
                    del node.input[position]


_MOVED: tuple[tuple[str, int, tuple[tuple[int, str], ...]], ...] = (
    ("Clip", 11, ((1, "min"), (2, "max"))),
    ("Pad", 11, ((1, "pads"), (2, "value"))),
    ("Squeeze", 13, ((1, "axes"),)),
    ("Unsqueeze", 13, ((1, "axes"),)),
    ("Split", 13, ((1, "split"),)),
    ("ReduceMean", 18, ((1, "axes"),)),
    ("ReduceMax", 18, ((1, "axes"),)),
    ("ReduceMin", 18, ((1, "axes"),)),
)
"""Operator, the opset since which these are inputs, and what they were called as attributes."""


def _set(node: NodeProto, name: str, value: npt.NDArray[Any]) -> None:
    if value.dtype.kind == "f":
        node.attribute.add(name=name, type=AttributeProto.FLOAT, f=float(value))
    else:
        node.attribute.add(name=name, type=AttributeProto.INTS, ints=np.ravel(value).tolist())


def _drop(node: NodeProto, name: str) -> None:
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
