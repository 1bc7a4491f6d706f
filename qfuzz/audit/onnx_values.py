"""A node of a traced graph with its values, and the operator that it stands for: what readings are written in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto

from qfuzz.audit.onnx_trace import Trace
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import Element, QType, QuantizedDType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.sliding import same_padding


@dataclass(frozen=True)
class Operand:
    """An array, and what its elements are."""

    array: Array
    element: Element


@dataclass(frozen=True)
class Work:
    """What a kernel did, as one operator of qfuzz; nothing is checked before it becomes a case."""

    op: Operator
    operands: tuple[Operand, ...]
    element: Element
    got: Array
    layout: str = ""

    def case(self) -> Case:
        """The case of one node. Raises `InvalidCase` naming the rule that it would break."""
        inputs: list[tuple[Input, Tensor]] = []
        constants: list[Constant] = []
        names = []
        for position, operand in enumerate(self.operands):
            data = Tensor(operand.array)
            type_ = TensorType(operand.array.shape, operand.element)
            if position in self.op.constant_inputs:
                names.append(("", "weight", "bias")[position])
                constants.append(Constant(names[-1], type_, data))
            else:
                names.append(f"x{position}" if position else "x")
                inputs.append((Input(names[-1], type_), data))
        node = Node("y", self.op, tuple(names), self.element)
        network = Network(tuple(i for i, _ in inputs), tuple(constants), (node,), ("y",))
        if getattr(self.op, "ceil_mode", False) and network.types["y"].shape != self.got.shape:
            raise InvalidCase("ceil_mode: opsets differ in the last window, and this one has another than qfuzz has")
        return Case(network, tuple(t for _, t in inputs))


_MADE_UP = "_token_"
"""Part of the names that the runtime makes up."""


@dataclass(frozen=True)
class Call:
    """One node that ran."""

    node: NodeProto
    trace: Trace

    @property
    def name(self) -> str:
        """As the model names it; a kernel that the runtime fused goes by its weight."""
        named = [str(self.node.name), *(str(o) for o in self.node.output)]
        own = [name for name in named if name and _MADE_UP not in name]
        values = self.trace.values
        weights = [str(n) for n in self.node.input if n in self.trace.constants and n in values and values[n].ndim > 1]
        return next(iter([*own, *weights, *filter(None, named)]), str(self.node.op_type))

    @property
    def kernel(self) -> str:
        """Operator and domain, as the runtime names them."""
        domain = self.node.domain
        return f"{domain}.{self.node.op_type}" if domain and domain != "ai.onnx" else str(self.node.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute; lists become tuples, bytes text."""
        for a in self.node.attribute:
            if a.name == name:
                value = onnx.helper.get_attribute_value(a)
                if isinstance(value, bytes):
                    return value.decode("utf-8", "replace")
                return tuple(value) if isinstance(value, list) else value
        return default

    def has(self, position: int) -> bool:
        """Whether an input is given."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def array(self, position: int) -> Array:
        """Value of an input."""
        if not self.has(position):
            raise InvalidCase(f"input {position} is not given")
        return value_of(self.trace, self.node.input[position])

    def constant(self, position: int, what: str) -> Array:
        """Value of an input that no input of the model changes."""
        array = self.array(position)
        if self.node.input[position] not in self.trace.constants:
            raise InvalidCase(f"{what} is computed while the model runs; it is a constant where a layer is judged")
        return array

    def result(self, position: int = 0) -> Array:
        """Value of an output."""
        return value_of(self.trace, self.node.output[position])

    def qtype(self, dtype: np.dtype[Any], scale: int, zero_point: int, axis: int | None = None) -> QType:
        """Type of stored integers from the inputs that hold scales and zero points.

        Parameters
        ----------
        axis
            Where several scales lie; None allows one only.
        """
        stored = self.array(zero_point) if self.has(zero_point) else np.zeros(1, dtype)
        return qtype_of(dtype, self.array(scale), stored, axis)

    def quantized(self, x: int, scale: int, zero_point: int) -> Operand:
        """An activation with its scale and zero point."""
        array = self.array(x)
        return Operand(array, self.qtype(array.dtype, scale, zero_point))


Reading: TypeAlias = Callable[[Call], Iterator[Work]]
"""Says a node as operators of qfuzz, or raises `InvalidCase` with the reason why it cannot."""


def value_of(trace: Trace, name: str) -> Array:
    """A value by name."""
    if name not in trace.values:
        raise InvalidCase(f"value {name!r} is no tensor that can be read")
    return trace.values[name]


def qtype_of(dtype: np.dtype[Any], scale: Array, zero_point: Array, axis: int | None) -> QType:
    """A quantized type; several scales lie along `axis`."""
    name = stored_dtype(dtype)
    if scale.dtype != np.float32:
        raise InvalidCase(f"scales of {scale.dtype}; float32 is judged")
    if scale.size == 1 and zero_point.size == 1:
        return QType.per_tensor(name, float(scale.reshape(())), int(zero_point.reshape(())))
    if axis is None:
        raise InvalidCase(f"{max(scale.size, zero_point.size)} scales or zero points; activations have one of each")
    if scale.ndim > 1 or zero_point.ndim > 1:
        raise InvalidCase(f"scales of shape {scale.shape}: per block; per tensor and per channel are judged")
    n = max(scale.size, zero_point.size)
    scales = np.broadcast_to(scale, (n,)).tolist()
    return QType(name, tuple(scales), tuple(np.broadcast_to(zero_point, (n,)).tolist()), axis)


def stored_dtype(dtype: np.dtype[Any]) -> QuantizedDType:
    """The 8-bit storage dtype of that name."""
    match dtype.name:
        case "uint8":
            return "uint8"
        case "int8":
            return "int8"
        case other:
            raise InvalidCase(f"elements of {other}; 8-bit integers are judged")


def plain(array: Array) -> Operand:
    """Stored integers as they are, for kernels that move or compare them: one step is 1.0."""
    return Operand(array, QType.per_tensor(stored_dtype(array.dtype), 1.0, 0))


def attributes_only(call: Call, **expected: Any) -> None:
    """Raise `InvalidCase` unless these attributes have the values (their defaults) that qfuzz can say."""
    for name, default in expected.items():
        value = call.attribute(name, default)
        if value != default:
            raise InvalidCase(f"{name} = {value}: qfuzz has no such operator; {default} is judged")


def windows(
    call: Call, size: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, padding and dilations of a convolution or pool over `size`, automatic padding worked out."""
    n = len(size)
    strides = call.attribute("strides", (1,) * n)
    dilations = call.attribute("dilations", (1,) * n)
    match call.attribute("auto_pad", "NOTSET"):
        case "NOTSET" | "":
            return strides, call.attribute("pads", (0,) * (2 * n)), dilations
        case "VALID":
            return strides, (0,) * (2 * n), dilations
        case auto:
            totals = same_padding(size, kernel, strides, dilations)
            if min(totals, default=0) < 0:
                raise InvalidCase(f"auto_pad = {auto}: pads by {min(totals)}, and no text says what that means")
            less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
            return strides, (*less, *more) if auto == "SAME_UPPER" else (*more, *less), dilations


def channels_first(array: Array) -> Array:
    """[N, *spatial, C] as [N, C, *spatial]."""
    return np.moveaxis(array, -1, 1)


def single(call: Call, op: Operator, operands: tuple[Operand, ...], element: Element, got: Array | None = None) -> Work:
    """One operator whose result is the node's first output."""
    return Work(op, operands, element, call.result() if got is None else got)
