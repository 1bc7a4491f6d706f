"""Torch tensors as qfuzz's values: types, and arrays of stored integers in logical order, whatever their layout."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import Element, QType, QuantizedDType, float32
from qfuzz.ir.tensor import Tensor, TensorType

STORAGE: dict[Any, QuantizedDType] = {
    torch.quint8: "uint8",
    torch.qint8: "int8",
    torch.uint8: "uint8",
    torch.int8: "int8",
}
"""Torch's dtypes that hold 8-bit integers, by the name of what they store."""


@dataclass(frozen=True)
class Value:
    """A tensor at one moment: what it stores, and what it says of itself.

    Attributes
    ----------
    array
        Stored integers of a quantized tensor, else the numbers themselves.
    element
        Its element type; None where qfuzz has no such type, and `problem` says why.
    layout
        How it lies in memory where not in row-major order: ``channels_last``, or ``strided`` for any other.
    """

    array: Array
    element: Element | None
    problem: str = ""
    layout: str = ""

    @property
    def type(self) -> TensorType:
        """Shape and element type.

        Raises
        ------
        InvalidCase
            If qfuzz has no such type.
        """
        if self.element is None:
            raise InvalidCase(self.problem)
        return TensorType(self.array.shape, self.element)

    @property
    def stored(self) -> QuantizedDType | None:
        """The storage dtype, whatever the integers stand for; None where they are not of 8 bits."""
        return next((name for name in STORAGE.values() if name == self.array.dtype.name), None)

    @property
    def qtype(self) -> QType:
        """The quantized element type; raises `InvalidCase` where it is none."""
        return self.type.qtype

    def reshaped(self, *shape: int) -> "Value":
        """The same elements in another shape."""
        return replace(self, array=self.array.reshape(shape))


def value_of(tensor: Any) -> Value:
    """`tensor` as it is now; the array shares no memory with it."""
    tensor = tensor.detach()
    if tensor.layout is torch._mkldnn:
        tensor = tensor.to_dense()  # weights that were packed for onednn
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not _is_plain_or_quantized(tensor):
        nothing = np.broadcast_to(np.False_, tuple(tensor.shape))
        return Value(nothing, None, f"elements of {tensor.dtype}, {tensor.layout}, on {tensor.device}")
    layout = layout_of(tensor)
    if not tensor.is_quantized:
        array = np.array(tensor.resolve_conj().resolve_neg().numpy(), order="C", copy=True)
        if tensor.dtype is torch.float32:
            return Value(array, "float32", layout=layout)
        return Value(array, None, f"elements of {tensor.dtype}; float32 or quantized is judged", layout)
    stored = integers_of(tensor.int_repr())
    try:
        return Value(stored, _quantized_element(tensor), layout=layout)
    except InvalidCase as e:
        return Value(stored, None, str(e), layout)


def integers_of(tensor: Any) -> Array:
    """The numbers of a plain tensor in logical order; the array may share memory with it."""
    return np.ascontiguousarray(tensor.detach().numpy())


def layout_of(tensor: Any) -> str:
    """How a tensor lies in memory, as `Value` says it."""
    if tensor.is_contiguous():
        return ""
    is_image = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return "channels_last" if is_image else "strided"


def _is_plain_or_quantized(tensor: Any) -> bool:
    """Whether NumPy has the elements, or the integers that they are stored as."""
    if tensor.is_quantized:
        return tensor.dtype in (torch.quint8, torch.qint8, torch.qint32)
    return tensor.dtype in (torch.float64, torch.float32, torch.bool) or not (
        tensor.dtype.is_floating_point or tensor.dtype.is_complex
    )


def _quantized_element(tensor: Any) -> QType:
    dtype = STORAGE.get(tensor.dtype)
    if dtype is None:
        raise InvalidCase(f"elements of {tensor.dtype}; quint8 and qint8 are judged")
    scheme = tensor.qscheme()
    if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return QType.per_tensor(dtype, float32(tensor.q_scale()), int(tensor.q_zero_point()))
    if scheme in (torch.per_channel_affine, torch.per_channel_symmetric):
        scales = tuple(float32(s) for s in tensor.q_per_channel_scales().tolist())
        zero_points = tuple(int(z) for z in tensor.q_per_channel_zero_points().tolist())
        return QType(dtype, scales, zero_points, int(tensor.q_per_channel_axis()))
    raise InvalidCase(f"quantization scheme {scheme}; per tensor and per channel are judged")


def single_node(op: Operator, operands: tuple[Value, ...], element: Element) -> Case:
    """The case of one operator on `operands`, in the operator's order.

    Raises
    ------
    InvalidCase
        Naming the rule that a network of it would break.
    """
    inputs: list[tuple[Input, Tensor]] = []
    constants: list[Constant] = []
    names = []
    for position, operand in enumerate(operands):
        data = Tensor(operand.array)
        if position in op.constant_inputs:
            names.append(("", "weight", "bias")[position])
            constants.append(Constant(names[-1], operand.type, data))
        else:
            names.append(f"x{position}" if position else "x")
            inputs.append((Input(names[-1], operand.type), data))
    node = Node("y", op, tuple(names), element)
    network = Network(tuple(i for i, _ in inputs), tuple(constants), (node,), ("y",))
    return Case(network, tuple(t for _, t in inputs))
