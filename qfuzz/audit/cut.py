"""One element cut out of a layer: the part of the case that it depends on, the same kernel's case but small."""

import math

import msgspec

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.table import UnaryOperator

Region = tuple[slice, ...]
"""What is kept of a value, one slice per dimension."""


def cut(case: Case, index: tuple[int, ...]) -> Case:
    """The smallest part of a single-node case on which the element at `index` depends; it is the only one left.

    Operators whose elements depend on all of their input, and windows that lie in the padding, are left whole.
    """
    (node,) = case.network.nodes
    try:
        if isinstance(node.op, Conv):
            return _convolution(case, node.op, index)
        if isinstance(node.op, Linear):
            row = tuple(slice(i, i + 1) for i in index[:-1])
            return _kept(case, node.op, [(*row, slice(None)), *_channel(case, index[-1])])
        if isinstance(node.op, Add | Mul):
            return _kept(case, node.op, [_broadcast(t.shape, index) for t in case.inputs])
        if isinstance(node.op, UnaryOperator | Quantize | Dequantize | Requantize):
            return _kept(case, node.op, [tuple(slice(i, i + 1) for i in index)])
    except InvalidCase:
        return case
    return case


def is_cut(case: Case) -> bool:
    """Whether only one element is left."""
    network = case.network
    return math.prod(network.types[network.nodes[0].name].shape) == 1


def _broadcast(shape: tuple[int, ...], index: tuple[int, ...]) -> Region:
    last = index[len(index) - len(shape) :]
    return tuple(slice(0, 1) if size == 1 else slice(i, i + 1) for size, i in zip(shape, last, strict=True))


def _channel(case: Case, channel: int) -> list[Region]:
    """One output channel of the weight, and of the bias if there is one."""
    weight, *bias = case.network.constants
    one = slice(channel, channel + 1)
    return [(one, *(slice(None),) * (len(weight.type.shape) - 1)), *((one,) for _ in bias)]


def _convolution(case: Case, op: Conv, index: tuple[int, ...]) -> Case:
    (x,) = case.inputs
    weight = case.network.constants[0].type.shape
    n = len(weight) - 2
    group = index[1] // (weight[0] // op.groups)
    region = [slice(index[0], index[0] + 1), slice(group * weight[1], (group + 1) * weight[1])]
    before, after = [], []
    for d in range(n):
        start = index[2 + d] * op.strides[d] - op.padding[d]
        stop = start + op.dilations[d] * (weight[2 + d] - 1) + 1
        low, high = max(start, 0), min(stop, x.shape[2 + d])
        if low >= high:
            return case
        region.append(slice(low, high))
        before.append(low - start)
        after.append(stop - high)
    one = msgspec.structs.replace(op, groups=1, strides=(1,) * n, padding=(*before, *after))
    return _kept(case, one, [tuple(region), *_channel(case, index[1])])


def _kept(case: Case, op: Operator, regions: list[Region]) -> Case:
    """The case with a region of each value that its node reads."""
    network = case.network
    (node,) = network.nodes
    region = dict(zip(node.inputs, regions, strict=True))
    inputs, tensors = [], []
    for value, tensor in zip(network.inputs, case.inputs, strict=True):
        small = Tensor(tensor.array[region[value.name]])
        inputs.append(Input(value.name, TensorType(small.shape, value.type.element)))
        tensors.append(small)
    constants = []
    for constant in network.constants:
        small = Tensor(constant.data.array[region[constant.name]])
        element = constant.type.element
        if isinstance(element, QType) and element.axis == 0:
            first = region[constant.name][0]
            element = QType(element.dtype, element.scale[first], element.zero_point[first], 0)
        constants.append(Constant(constant.name, TensorType(small.shape, element), small))
    changed = msgspec.structs.replace(node, op=op)
    return Case(Network(tuple(inputs), tuple(constants), (changed,), network.outputs), tuple(tensors))
