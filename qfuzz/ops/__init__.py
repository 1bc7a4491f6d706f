"""Operators: attributes, shape and type rules, exact semantics, terms of their error bounds. One file a family."""

from qfuzz.ir.codec import Codec
from qfuzz.ir.operator import Operator
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.weight_only import Embedding, WeightOnlyLinear

OPERATORS: tuple[type[Operator], ...] = (
    Quantize,
    Dequantize,
    Requantize,
    Conv,
    Linear,
    Add,
    Mul,
    Relu,
    Clamp,
    MaxPool,
    AvgPool,
    GlobalAvgPool,
    Concat,
    Reshape,
    Transpose,
    Slice,
    Pad,
    Flatten,
    Sigmoid,
    Tanh,
    LeakyRelu,
    Elu,
    Hardsigmoid,
    Hardswish,
    Softmax,
    WeightOnlyLinear,
    Embedding,
)
"""Every operator, in the order in which `qfuzz ops` prints them."""

OPERATOR_NAMES: tuple[str, ...] = tuple(str(o.__struct_config__.tag) for o in OPERATORS)

CODEC = Codec(OPERATORS)
"""Reads and writes case files over all operators."""
