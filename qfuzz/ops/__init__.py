"""Operators: attributes, shape and type rules, exact semantics, terms of their error bounds. One file a family."""

from qfuzz.ir.codec import Codec
from qfuzz.ir.operator import Operator
from qfuzz.ops.activation import Celu, Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.attention import Attention
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.comparison import Compare, CompareScalar
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.deviation import Std
from qfuzz.ops.dynamic import DynamicLinear, DynamicQuantize
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_nbits import DynamicNbitsLinear
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.embedding import EmbedLayerNorm
from qfuzz.ops.embedding_bag import EmbeddingBag
from qfuzz.ops.embedding_rows import EmbeddingRows
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.grid import GridSample
from qfuzz.ops.half_weights import LinearFp16
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.lstm import Lstm
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.mixture import Moe
from qfuzz.ops.movement import Concat, ConcatRelu, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.qparams import ChooseQparams
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.rearrangement import DepthToSpace, Expand, Gather, SpaceToDepth, Split, Squeeze, Unsqueeze
from qfuzz.ops.recurrent import Recurrent
from qfuzz.ops.reduction import Amax, Amin, Mean
from qfuzz.ops.repetition import GatherElements, Tile
from qfuzz.ops.scalar import AddScalar, MulScalar
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.threshold import Threshold
from qfuzz.ops.views import ChannelShuffle, Flip, ReflectionPad, Unfold
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
    Sub,
    Div,
    Minimum,
    Maximum,
    Where,
    Gelu,
    LayerNorm,
    InstanceNorm,
    Mean,
    Split,
    Squeeze,
    Unsqueeze,
    Expand,
    Gather,
    DepthToSpace,
    SpaceToDepth,
    Argmax,
    Interpolate,
    MatMul,
    ConvTranspose,
    ConvInteger,
    LinearInteger,
    MatMulInteger,
    DynamicQuantize,
    DynamicLinear,
    DynamicConv,
    DynamicConvTranspose,
    Attention,
    Lstm,
    Recurrent,
    EmbedLayerNorm,
    Moe,
    LinearFp16,
    WeightOnlyLinear,
    Embedding,
    EmbeddingBag,
    EmbeddingRows,
    Tile,
    GatherElements,
    Amax,
    Amin,
    AdaptiveAvgPool,
    ConcatRelu,
    Flip,
    ChannelShuffle,
    Unfold,
    ReflectionPad,
    Sort,
    Topk,
    MaskedFill,
    IndexPut,
    ConstantPad,
    GridSample,
    LinearPointwise,
    ConvPointwise,
    LinearAdd,
    ConvAdd,
    BatchNorm,
    GroupNorm,
    FakeQuantize,
    ChooseQparams,
    Celu,
    Threshold,
    Prelu,
    Std,
    AddScalar,
    MulScalar,
    Compare,
    CompareScalar,
    ScaledMm,
    DynamicNbitsLinear,
)
"""Every operator, in the order in which `qfuzz ops` prints them."""

OPERATOR_NAMES: tuple[str, ...] = tuple(str(o.__struct_config__.tag) for o in OPERATORS)

CODEC = Codec(OPERATORS)
"""Reads and writes case files over all operators."""
