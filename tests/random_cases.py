"""Small random one-node cases of every operator, over all legal scales, zero points and attributes, kernels or not.

They are drawn without `qfuzz.strategies`, so that the exact reference is also tested where no strategy goes: output
types free, scales far apart, empty dimensions, values that saturate or vanish.
"""

import math
import random
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import FLOAT8, INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
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
from qfuzz.ops.post_operation import Activation
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.qparams import ChooseQparams
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.rearrangement import (
    DepthToSpace,
    Expand,
    Gather,
    SpaceToDepth,
    Split,
    Squeeze,
    Unsqueeze,
    equal_parts,
)
from qfuzz.ops.recurrent import GATES, Recurrent
from qfuzz.ops.reduction import Amax, Amin, Mean
from qfuzz.ops.repetition import GatherElements, Tile
from qfuzz.ops.scalar import AddScalar, MulScalar
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.threshold import Threshold
from qfuzz.ops.views import ChannelShuffle, Flip, ReflectionPad, Unfold
from qfuzz.ops.weight_only import Embedding, WeightOnlyLinear

Shape = tuple[int, ...]


class Dice:
    """A seeded source of the parts of a case."""

    def __init__(self, seed: str, *, wide: bool = False) -> None:
        self.random = random.Random(seed)
        self.wide = wide
        self.center = self.random.choice((0.0, 0.0, 0.0, -20.0, 20.0, -60.0))
        self.dyadic = self.random.random() < 0.4

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def scale(self, exponent: float | None = None) -> float:
        """A float32 near 2^exponent: a power of two, one step off it, or anything."""
        about = (self.center if exponent is None else exponent) + self.random.uniform(-4.0, 4.0)
        if self.dyadic or self.chance(0.3):
            power = math.ldexp(1.0, round(about))
            return power if self.dyadic else float32(power * self.pick(1.0, 1.0 + 2.0**-23, 1.0 - 2.0**-24))
        return float32(2.0**about)

    def qtype(self, exponent: float | None = None) -> QType:
        """uint8 or int8; where all is `wide`, int32."""
        if self.wide:
            qmin, qmax = INTEGER_RANGE["int32"]
            about = self.pick(0, 9, 2**24 + 1, 2**30, qmax) * self.pick(1, -1)
            return QType.per_tensor("int32", self.scale(exponent), max(qmin, about))
        dtype = self.pick("uint8", "int8")
        qmin = 0 if dtype == "uint8" else -128
        zero_point = self.pick(qmin, qmin + 255, qmin + 128, self.integer(qmin, qmin + 255))
        return QType.per_tensor(dtype, self.scale(exponent), zero_point)

    def data(self, shape: Shape, q: QType) -> np.ndarray[Any, Any]:
        """Stored integers: anything, near the zero point, or mostly the same."""
        style, base = self.integer(0, 2), self.integer(q.qmin, q.qmax)
        z = q.zero_point[0]

        def value() -> int:
            if style == 0:
                return self.integer(q.qmin, q.qmax)
            near = z + self.integer(-3, 3) if style == 1 else base + self.integer(0, 1)
            return min(max(near, q.qmin), q.qmax)

        return np.array([value() for _ in range(math.prod(shape))], dtype=DTYPES[q.dtype]).reshape(shape)

    def conditions(self, shape: Shape) -> np.ndarray[Any, Any]:
        return np.array([self.chance(0.5) for _ in range(math.prod(shape))], dtype=np.bool_).reshape(shape)

    def broadcast(self, shape: Shape) -> Shape:
        """A shape that broadcasts to `shape`: itself, with sizes of 1, without leading dimensions."""
        some = tuple(1 if self.chance(0.3) else n for n in shape)
        return some[self.integer(0, len(shape)) if self.chance(0.4) else 0 :]

    def shape(self, least: int = 1, most: int = 4) -> Shape:
        return tuple(self.pick(1, 2, 2, 3, 4) for _ in range(self.integer(least, most)))

    def image_shape(self) -> Shape:
        return (self.integer(1, 2), self.integer(1, 4), *(self.integer(1, 6) for _ in range(self.integer(1, 2))))

    def float32(self, low: float, high: float) -> float:
        return float32(self.random.uniform(low, high))


def _case(
    d: Dice,
    op: Operator,
    activations: list[tuple[Shape, Element]],
    out: Element,
    constants: tuple[tuple[TensorType, np.ndarray[Any, Any]], ...] = (),
) -> Case:
    inputs, feeds = [], []
    for i, (shape, element) in enumerate(activations):
        inputs.append(Input(f"x{i}", TensorType(shape, element)))
        if isinstance(element, QType):
            feeds.append(Tensor(d.data(shape, element)))
        elif element == "bool":
            feeds.append(Tensor(d.conditions(shape)))
        else:
            reals = [d.float32(-9.0, 9.0) * 2.0 ** d.integer(-3, 6) for _ in range(math.prod(shape))]
            feeds.append(Tensor(np.array(reals, dtype=np.float32).reshape(shape)))
    fixed = tuple(Constant(f"c{i}", t, Tensor(a)) for i, (t, a) in enumerate(constants))
    names = (*(v.name for v in inputs), *(c.name for c in fixed))
    return Case(Network(tuple(inputs), fixed, (Node("y", op, names, out),), ("y",)), tuple(feeds))


def _weight(d: Dice, shape: Shape, axis: int = 0, dtype: str = "") -> tuple[TensorType, np.ndarray[Any, Any]]:
    dtype, n = dtype or d.pick("int8", "uint8"), shape[axis]
    qmin, qmax = INTEGER_RANGE[dtype]
    count, of = (n, axis) if d.chance(0.5) else (1, None)
    zero_points = tuple(d.integer(qmin, qmax) if d.chance(0.3) else max(qmin, 0) for _ in range(count))
    q = QType(dtype, tuple(d.scale(0.0) for _ in range(count)), zero_points, of)  # type: ignore[arg-type]
    data = np.array([d.integer(qmin, qmax) for _ in range(math.prod(shape))], dtype=DTYPES[dtype])
    return TensorType(shape, q), data.reshape(shape)


def _own_bias(d: Dice, n: int, unit: float) -> tuple[TensorType, np.ndarray[Any, Any]]:
    """A bias with scales and zero points of its own, at `unit` or around it."""
    dtype = d.pick("int32", "int8", "uint8")
    qmin, qmax = INTEGER_RANGE[dtype]
    count, axis = (n, 0) if d.chance(0.5) else (1, None)
    zero_points = tuple(0 if dtype == "int32" or d.chance(0.5) else d.integer(qmin, qmax) for _ in range(count))
    scales = tuple(float32(unit) if d.chance(0.3) else d.scale(math.log2(unit)) for _ in range(count))
    most = 9999 if dtype == "int32" else qmax
    data = [d.integer(max(qmin, -most), most) for _ in range(n)]
    return TensorType((n,), QType(dtype, scales, zero_points, axis)), np.array(data, dtype=dtype)


def _contraction(d: Dice, op: Operator, shape: Shape, weight_shape: Shape, axis: int = 0, channels: int = 0) -> Case:
    q_x, n = d.qtype(), channels or weight_shape[axis]
    if d.chance(0.2):
        dtype = d.pick("uint2", "int4", "uint16", "int16")
        q_x = QType.per_tensor(dtype, q_x.scale[0], d.integer(*INTEGER_RANGE[dtype]))
    constants = [_weight(d, weight_shape, axis, d.pick("int2", "uint4", "int16", "uint16") if d.chance(0.2) else "")]
    unit = q_x.scale[0] * constants[0][0].qtype.scale[0]
    match d.integer(0, 3):
        case 3:
            constants.append(_own_bias(d, n, unit))
        case 1:
            constants.append(
                (TensorType((n,), "int32"), np.array([d.integer(-9999, 9999) for _ in range(n)], dtype=np.int32))
            )
        case 2:
            bias = np.array([d.random.uniform(-9999, 9999) * unit for _ in range(n)], dtype=np.float32)
            constants.append((TensorType((n,), "float32"), bias))
    spread = math.log2(unit) + d.random.uniform(-2.0, 10.0)
    is_plain = len(constants) == 2 and constants[1][0].element == "int32"
    if isinstance(op, Conv | ConvTranspose) and not is_plain and d.chance(0.2):
        reals = d.qtype(math.log2(unit / q_x.scale[0]) + d.random.uniform(0.0, 10.0))
        return _case(d, op, [(shape, "float32")], "float32" if d.chance(0.3) else reals, tuple(constants))
    return _case(d, op, [(shape, q_x)], d.qtype(spread), tuple(constants))


def _windows(d: Dice, shape: Shape) -> tuple[dict[str, Any], Shape]:
    """Attributes of a correlation of `shape`, and the weight's shape."""
    n = len(shape) - 2
    groups = d.pick(*(g for g in (1, shape[1], 2) if shape[1] % g == 0))
    kernel = tuple(d.integer(1, 3) for _ in range(n))
    attributes = {
        "strides": tuple(d.integer(1, 3) for _ in range(n)),
        "padding": tuple(d.integer(0, 2) for _ in range(2 * n)),
        "dilations": tuple(d.pick(1, 1, 2) for _ in range(n)),
        "groups": groups,
    }
    return attributes, (groups * d.integer(1, 3), shape[1] // groups, *kernel)


def _volume_shape(d: Dice) -> Shape:
    return (d.integer(0, 2), d.integer(1, 3), *(d.integer(1, 3) for _ in range(3)))


def _conv(d: Dice) -> Case:
    shape = _volume_shape(d) if d.chance(0.2) else d.image_shape()
    attributes, weight_shape = _windows(d, shape)
    return _contraction(d, Conv(**attributes, relu=d.chance(0.3)), shape, weight_shape)


def _conv_transpose(d: Dice) -> Case:
    shape = _volume_shape(d) if d.chance(0.2) else (d.integer(0, 2), *(d.integer(1, 4) for _ in range(d.integer(2, 3))))
    n = len(shape) - 2
    groups = d.pick(*(g for g in (1, shape[1], 2) if shape[1] % g == 0))
    says_sizes = d.chance(0.3)
    before = tuple(d.integer(0, 2) for _ in range(n))
    after = tuple(max(0, b - d.integer(0, 1)) if says_sizes else d.integer(0, 2) for b in before)
    strides = tuple(d.integer(1, 3) for _ in range(n))
    op = ConvTranspose(
        strides=strides,
        padding=(*before, *after),
        dilations=tuple(d.pick(1, 1, 2) for _ in range(n)),
        output_padding=tuple(d.integer(0, s - 1) for s in strides),
        groups=groups,
        relu=d.chance(0.3),
        says_sizes=says_sizes,
    )
    weight = (shape[1], d.integer(1, 3), *(d.integer(1, 3) for _ in range(n)))
    return _contraction(d, op, shape, weight, 1, weight[1] * groups)


def _linear(d: Dice) -> Case:
    k = d.integer(1, 6)
    alpha, beta = (d.pick(1.0, 2.0, -0.5, d.float32(-3.0, 3.0)) if d.chance(0.4) else 1.0 for _ in range(2))
    if d.chance(0.2):
        beta = d.pick(0.0, alpha)
    op = Linear(relu=d.chance(0.3), alpha=alpha, beta=beta)
    case = _contraction(d, op, (*d.shape(1, 2), k), (d.integer(1, 4), k))
    return _with_float_output(case) if d.chance(0.3) else case


def _matrices(d: Dice) -> tuple[Shape, Shape]:
    """Shapes of operands of a matrix product: vectors, matrices, and stacks that broadcast."""
    m, k, n = (d.integer(1, 4) for _ in range(3))
    stack = tuple(d.integer(0 if d.chance(0.1) else 1, 3) for _ in range(d.integer(0, 2)))
    sides = []
    for _ in range(2):
        own = tuple(1 if d.chance(0.3) else s for s in stack)
        sides.append(own[d.integer(0, len(own)) if d.chance(0.3) else 0 :])
    a: Shape = (k,) if d.chance(0.15) else (*sides[0], m, k)
    b: Shape = (k,) if d.chance(0.15) else (*sides[1], k, n)
    return a, b


def _matmul(d: Dice) -> Case:
    a, b = _matrices(d)
    q_a, q_b = d.qtype(), d.qtype()
    out = math.log2(q_a.scale[0] * q_b.scale[0]) + d.random.uniform(-2.0, 10.0)
    return _case(d, MatMul(relu=d.chance(0.3)), [(a, q_a), (b, q_b)], d.qtype(out))


def _matmul_integer(d: Dice) -> Case:
    a, b = _matrices(d)
    return _case(d, MatMulInteger(omits_zeros=d.chance(0.5)), [(a, d.qtype()), (b, d.qtype())], "int32")


def _linear_integer(d: Dice) -> Case:
    k = d.integer(1, 6)
    op = LinearInteger(omits_zeros=d.chance(0.5))
    return _case(d, op, [((*d.shape(0, 2), k), d.qtype())], "int32", (_weight(d, (d.integer(1, 4), k)),))


def _conv_integer(d: Dice) -> Case:
    shape = _volume_shape(d) if d.chance(0.2) else d.image_shape()
    attributes, weight_shape = _windows(d, shape)
    op = ConvInteger(**attributes, omits_zeros=d.chance(0.5))
    return _case(d, op, [(shape, d.qtype())], "int32", (_weight(d, weight_shape),))


def _with_float_output(case: Case) -> Case:
    network, (node,) = case.network, case.network.nodes
    real = Node(node.name, node.op, node.inputs, "float32")
    return Case(Network(network.inputs, network.constants, (real,), network.outputs), case.inputs)


def _binary(make: Callable[[bool], Operator], product: bool) -> Callable[[Dice], Case]:
    def draw(d: Dice) -> Case:
        shape = d.shape()
        other = tuple(1 if d.chance(0.3) else n for n in shape)[d.integer(0, len(shape) - 1) if d.chance(0.3) else 0 :]
        a, b = d.qtype(), d.qtype()
        out = math.log2(a.scale[0]) + (math.log2(b.scale[0]) if product else 0.0) + d.random.uniform(-2.0, 7.0)
        sides = [(shape, a), (other, b)]
        d.random.shuffle(sides)
        return _case(d, make(d.chance(0.3)), [*sides], d.qtype(out))

    return draw


def _two(op: Operator, *, divides: bool = False) -> Callable[[Dice], Case]:
    """Two operands of any ranks."""

    def draw(d: Dice) -> Case:
        shape = d.shape(0)
        a = d.qtype()
        # Near in scale, so that either operand is the smaller one, or anything.
        b = d.qtype(math.log2(a.scale[0])) if d.chance(0.5) else d.qtype()
        quotient = math.log2(a.scale[0]) - (math.log2(b.scale[0]) if divides else 0.0)
        out = d.qtype(quotient + d.random.uniform(-6.0, 4.0))
        return _case(d, op, [(d.broadcast(shape), a), (d.broadcast(shape), b)], a if d.chance(0.2) else out)

    return draw


def _several(op: Operator) -> Callable[[Dice], Case]:
    """One to four operands of any ranks, near each other in scale, or not."""

    def draw(d: Dice) -> Case:
        shape, first = d.shape(0), d.qtype()
        about = math.log2(first.scale[0])
        types = [first, *(d.qtype(about) if d.chance(0.7) else d.qtype() for _ in range(d.pick(1, 1, 0, 2, 3)))]
        out = first if d.chance(0.3) else d.qtype(about + d.random.uniform(-4.0, 4.0))
        return _case(d, op, [(d.broadcast(shape), q) for q in types], out)

    return draw


def _where(d: Dice) -> Case:
    shape = d.shape(0)
    a = d.qtype()
    types: list[tuple[Shape, Element]] = [
        (d.broadcast(shape), a),
        (d.broadcast(shape), a if d.chance(0.3) else d.qtype()),
    ]
    out, condition = a if d.chance(0.3) else d.qtype(), d.broadcast(shape)
    if d.chance(0.5):
        return _case(d, Where(), [*types, (condition, "bool")], out)
    return _case(d, Where(), types, out, ((TensorType(condition, "bool"), d.conditions(condition)),))


def _unary(make: Callable[[Dice], Operator], bounded: bool = False) -> Callable[[Dice], Case]:
    """`bounded` functions have outputs near 1 whatever the input's scale."""

    def draw(d: Dice) -> Case:
        x = d.qtype(d.pick(-5.0, -2.0, 0.0, 4.0, -20.0, 30.0) if bounded else None)
        out = d.pick(-8.0, -6.0, 0.0) if bounded else math.log2(x.scale[0]) + d.random.uniform(-3.0, 3.0)
        return _case(d, make(d), [(d.shape(), x)], d.qtype(out))

    return draw


def _softmax(d: Dice) -> Case:
    shape = d.shape()
    return _case(
        d,
        Softmax(axis=d.integer(0, len(shape) - 1)),
        [(shape, d.qtype(d.pick(-6.0, -2.0, 0.0, 5.0, 14.0)))],
        d.qtype(d.pick(-8.0, -3.0, 0.0)),
    )


def _pooled_shape(d: Dice) -> Shape:
    """An image's, seldom a volume's."""
    shape = d.image_shape()
    return (*shape[:2], d.integer(1, 3), d.integer(1, 3), d.integer(1, 4)) if d.chance(0.2) else shape


def _adaptive_avg_pool(d: Dice) -> Case:
    shape = _pooled_shape(d)
    q = d.qtype()
    op = AdaptiveAvgPool(output_size=tuple(d.integer(1, n + 2) for n in shape[2:]))
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _max_pool(d: Dice) -> Case:
    shape = _pooled_shape(d)
    kernel = tuple(d.integer(1, 4) for _ in shape[2:])
    op = MaxPool(
        kernel=kernel,
        strides=tuple(d.integer(1, 4) for _ in kernel),
        padding=tuple(d.integer(0, k // 2) for k in (*kernel, *kernel)),
        dilations=tuple(d.pick(1, 1, 2, 3) for _ in kernel),
        ceil_mode=d.chance(0.5),
    )
    q = d.qtype()
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _avg_pool(d: Dice) -> Case:
    shape = _pooled_shape(d)
    kernel = tuple(d.integer(1, 4) for _ in shape[2:])
    op = AvgPool(
        kernel=kernel,
        strides=tuple(d.integer(1, 4) for _ in kernel),
        padding=tuple(d.integer(0, k // 2) for k in (*kernel, *kernel)),
        ceil_mode=d.chance(0.5),
        count_include_pad=d.chance(0.5),
        divisor_override=d.pick(0, 0, 0, 1, 3, 8),
    )
    q = d.qtype()
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _concat(d: Dice, kind: type[Concat] = Concat) -> Case:
    shape = d.shape()
    axis = d.integer(0, len(shape) - 1)
    types = [((*shape[:axis], d.integer(0, 3), *shape[axis + 1 :]), d.qtype()) for _ in range(d.integer(1, 4))]
    return _case(d, kind(axis=axis), [*types], d.qtype())


def _channel_shuffle(d: Dice) -> Case:
    shape = (d.integer(1, 2), d.integer(1, 8), *(d.integer(1, 3) for _ in range(d.integer(1, 2))))
    groups = d.pick(*(g for g in range(1, shape[1] + 1) if shape[1] % g == 0))
    return _case(d, ChannelShuffle(groups=groups), [(shape, d.qtype())], d.qtype())


def _grid_sample(d: Dice) -> Case:
    shape = (d.integer(1, 2), d.integer(1, 2), d.integer(1, 4), d.integer(1, 4))
    at = (shape[0], d.integer(1, 3), d.integer(1, 3), 2)
    values = [d.pick(d.integer(-8, 8) / 4, d.float32(-1.5, 1.5), d.float32(-9.0, 9.0)) for _ in range(math.prod(at))]
    op = GridSample(padding_mode=d.pick("zeros", "border", "reflection"), align_corners=d.chance(0.5))
    grid = np.array(values, dtype=np.float32).reshape(at)
    q = d.qtype()
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype(), ((TensorType(at, "float32"), grid),))


def _unfold(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(-len(shape), len(shape) - 1)
    return Unfold(axis=axis, size=d.integer(0, shape[axis]), step=d.integer(1, 3))


def _topk(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(-len(shape), len(shape) - 1)
    return Topk(k=d.integer(0, shape[axis]), axis=axis, largest=d.chance(0.5))


def _reflection_pad(d: Dice) -> Case:
    shape = d.shape(2, 4)
    n = len(shape) - (1 if len(shape) < 3 or d.chance(0.4) else 2)
    circular = d.chance(0.4)
    padding = tuple(d.integer(0, size - (not circular)) for size in (*shape[-n:], *shape[-n:]))
    op = ReflectionPad(padding=padding, mode="circular" if circular else "reflect")
    return _case(d, op, [(shape, d.qtype())], d.qtype())


def _filled(make: Callable[[Dice, Shape, float], Operator]) -> Callable[[Dice], Case]:
    """Filled with half steps of the output, with next to nothing, or with more than it holds."""

    def draw(d: Dice) -> Case:
        shape, q = d.shape(), d.qtype()
        out = q if d.chance(0.5) else d.qtype()
        value = float32(d.pick(d.integer(-99, 999) / 2, d.float32(-9.0, 9.0), 1e9) * out.scale[0])
        op = make(d, shape, value)
        masks: list[tuple[Shape, Element]] = [(d.broadcast(shape), "bool")] if isinstance(op, MaskedFill) else []
        return _case(d, op, [(shape, q), *masks], out)

    return draw


_masked_fill = _filled(lambda d, shape, value: MaskedFill(value=value))


def _moved(make: Callable[[Dice, Shape], Operator], *, places: bool = False) -> Callable[[Dice], Case]:
    """`places` are given now and then, as int64."""

    def draw(d: Dice) -> Case:
        shape, q = d.shape(), d.qtype()
        op = make(d, shape)
        if places and d.chance(0.4):
            return _case(d, op, [(shape, q)], "int64")
        return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())

    return draw


def _sides(d: Dice, shape: Shape) -> Shape:
    """What is put before each dimension, then after each, or left out there."""
    return tuple(d.integer(-(n // 2) if d.chance(0.2) else 0, 2) for n in (*shape, *shape))


def _slice(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    start = d.integer(0, shape[axis])
    return Slice(axis=axis, start=start, stop=d.integer(start, shape[axis]), step=d.integer(1, 3))


def _reshape(d: Dice, shape: Shape) -> Operator:
    return Reshape(shape=d.pick((math.prod(shape),), (1, *shape), shape[::-1], (shape[0], math.prod(shape[1:]))))


def _clamp(d: Dice) -> Operator:
    low, high = sorted((d.float32(-6.0, 6.0), d.float32(-6.0, 6.0)))
    return d.pick(Clamp(min=0.0, max=6.0), Clamp(min=low, max=high), Clamp(min=-1.0, max=1.0))


def _perm(d: Dice, shape: Shape) -> Operator:
    return Transpose(perm=tuple(d.random.sample(range(len(shape)), len(shape))))


def _normalization(d: Dice, kind: type[LayerNorm | InstanceNorm | GroupNorm]) -> Case:
    """Scale and bias in any of their types, of any shape that they may have; epsilons that vanish, matter, or rule."""
    instance = kind is not LayerNorm
    shape = d.image_shape() if instance else d.shape()
    axis = d.integer(0, len(shape) - 1)
    q_x = d.qtype(d.pick(-3.0, 0.0, 8.0, -20.0, -30.0))
    own = (shape[1],) if instance else shape[axis:]
    if not instance and d.chance(0.3):
        own = tuple(d.pick(1, n) for n in shape[d.integer(0, len(shape) - 1) :])
    n = math.prod(own)
    reals = [d.float32(-3.0, 3.0) * d.pick(1.0, 0.0, 2.0**20) for _ in range(n)]
    weights: list[tuple[TensorType, np.ndarray[Any, Any]]] = [
        (TensorType(own, "float32"), np.array(reals, dtype=np.float32).reshape(own))
    ]
    q_w = QType.per_tensor("int8", d.scale(-5.0), d.integer(-128, 127))
    if d.chance(0.5):
        weights = [(TensorType(own, q_w), d.data(own, q_w))]
    quantized = weights[0][0].is_quantized
    bias = [float32(d.float32(-9.0, 9.0) * d.pick(1.0, 0.0, 0.5)) for _ in range(n)]
    match d.integer(-2, 1):
        case -2 if d.chance(0.5):
            weights.clear()
        case 1 if quantized:
            counts = [d.integer(-9999, 9999) for _ in range(n)]
            weights.append((TensorType(own, "int32"), np.array(counts, dtype=np.int32).reshape(own)))
        case 0 | 1:
            weights.append((TensorType(own, "float32"), np.array(bias, dtype=np.float32).reshape(own)))
    epsilon = d.pick(float32(1e-5), float32(1e-12), 1.0, 3.0, 2.0**-14, 2.0**30)
    op: Operator
    if kind is GroupNorm:
        op = GroupNorm(groups=d.pick(*(g for g in range(1, shape[1] + 1) if shape[1] % g == 0)), epsilon=epsilon)
    else:
        op = InstanceNorm(epsilon=epsilon) if instance else LayerNorm(axis=axis, epsilon=epsilon)
    return _case(d, op, [(shape, q_x)], d.qtype(d.pick(-6.0, 0.0, 10.0)), tuple(weights))


def _batch_norm(d: Dice) -> Case:
    """Roots that are rational, and any; scales of either sign and of 0."""
    shape = d.pick(d.image_shape(), d.image_shape()[:2])
    n = shape[1]
    epsilon = d.pick(float32(1e-5), float32(1e-12), 1.0, 3.0, 2.0**-14, 2.0**30)
    own = TensorType((n,), "float32")

    def vector(one: Callable[[], float]) -> tuple[TensorType, np.ndarray[Any, Any]]:
        return own, np.array([one() for _ in range(n)], dtype=np.float32)

    root = math.isqrt(int(epsilon)) + 1
    parameters = (
        vector(lambda: d.pick(d.float32(-3.0, 3.0), 0.0, 1.0, -0.5)),
        vector(lambda: d.pick(d.float32(-9.0, 9.0), 0.0, 0.5)),
        vector(lambda: d.pick(d.float32(-9.0, 9.0), 0.0, 2.0)),
        vector(lambda: d.pick(d.float32(0.0, 9.0), 0.0, float(root * root - epsilon if epsilon >= 1 else 1.0))),
    )
    op = BatchNorm(epsilon=epsilon, relu=d.chance(0.3))
    return _case(d, op, [(shape, d.qtype(d.pick(-3.0, 0.0, 8.0)))], d.qtype(d.pick(-6.0, 0.0)), parameters)


def _mean(d: Dice) -> Case:
    shape, q = d.shape(), d.qtype()
    axes = tuple(a for a in range(len(shape)) if d.chance(0.5))
    op = Mean(axes=axes, keepdims=d.chance(0.5), noop_with_empty_axes=d.chance(0.5))
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _threshold(d: Dice) -> Case:
    """Numbers on steps, on half steps, and any."""
    q = d.qtype()
    steps = [float32(q.scale[0] * d.pick(d.integer(-20, 20), d.integer(-40, 40) / 2, 0)) for _ in range(2)]
    op = Threshold(threshold=d.pick(steps[0], d.float32(-1.0, 1.0)), value=steps[1])
    return _case(d, op, [(d.shape(), q)], q if d.chance(0.5) else d.qtype(math.log2(q.scale[0])))


def _prelu(d: Dice) -> Case:
    q, shape = d.qtype(), d.shape()
    q_w = QType.per_tensor(d.pick("uint8", "int8"), d.scale(-6.0), 5)
    n = shape[1] if len(shape) > 1 and d.chance(0.6) else 1
    slope = (TensorType((n,), q_w), d.data((n,), q_w))
    return _case(d, Prelu(), [(shape, q)], d.qtype(math.log2(q.scale[0])), (slope,))


def _std(d: Dice) -> Case:
    shape, q = d.shape(), d.qtype()
    axes = tuple(a for a in range(len(shape)) if d.chance(0.5))
    n = math.prod(shape[a] for a in axes or range(len(shape)))
    op = Std(axes=axes, keepdims=d.chance(0.5), correction=min(d.pick(1, 0, 2), n - 1))
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype(math.log2(q.scale[0])))


def _compare(d: Dice) -> Case:
    shape, q = d.shape(), d.qtype()
    other = q if d.chance(0.5) else d.qtype(math.log2(q.scale[0]))
    op = Compare(relation=d.pick("eq", "ne", "lt", "le", "gt", "ge"))
    return _case(d, op, [(shape, q), (d.broadcast(shape), other)], "bool")


def _compare_scalar(d: Dice) -> Case:
    q = d.qtype()
    steps = d.pick(d.integer(-20, 20), d.integer(-20, 20) / 2, 0)
    op = CompareScalar(relation=d.pick("eq", "ne", "lt", "le", "gt", "ge"), other=float32(steps * q.scale[0]))
    return _case(d, op, [(d.shape(), q)], "bool")


def _add_scalar(d: Dice) -> Case:
    """Steps, half steps, and any."""
    q = d.qtype()
    steps = d.pick(d.integer(-300, 300), d.integer(-9, 9) + 0.5, d.random.uniform(-9.0, 9.0))
    return _with_scalar(d, AddScalar(other=float32(steps * q.scale[0]), relu=d.chance(0.3)), q)


def _mul_scalar(d: Dice) -> Case:
    op = MulScalar(other=d.pick(0.0, -1.0, 0.5, d.float32(-3.0, 3.0)), relu=d.chance(0.3))
    return _with_scalar(d, op, d.qtype())


def _with_scalar(d: Dice, op: AddScalar | MulScalar, q: QType) -> Case:
    out = op.derived(q).qtype(q)
    return _case(d, op, [(d.shape(), q)], out if d.chance(0.5) else d.qtype(math.log2(out.scale[0])))


def _parts(d: Dice, n: int) -> tuple[int, ...]:
    """Sizes that add up to `n`."""
    cuts = sorted(d.integer(0, n) for _ in range(d.integer(0, 2)))
    return tuple(b - a for a, b in zip((0, *cuts), (*cuts, n), strict=True))


def _split(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(-len(shape), len(shape) - 1)
    sizes = _parts(d, shape[axis])
    counted = d.chance(0.3) and equal_parts(shape[axis], len(sizes))
    sizes = counted or sizes
    return Split(axis=axis, sizes=sizes, index=d.integer(0, len(sizes) - 1), counted=bool(counted))


def _squeeze(d: Dice) -> Case:
    shape = tuple(d.pick(1, 1, 2, 3) for _ in range(d.integer(1, 5)))
    rank = len(shape)
    axes = [a - d.pick(0, rank) for a in range(rank) if shape[a] == 1 and d.chance(0.6)]
    d.random.shuffle(axes)
    q = d.qtype()
    return _case(d, Squeeze(axes=tuple(axes)), [(shape, q)], q if d.chance(0.5) else d.qtype())


def _unsqueeze(d: Dice, shape: Shape) -> Operator:
    rank = len(shape) + d.integer(1, 3)
    axes = d.random.sample(range(rank), rank - len(shape))
    return Unsqueeze(axes=tuple(a - d.pick(0, rank) for a in axes))


def _expand(d: Dice) -> Case:
    wide = d.shape()
    shape = tuple(1 if d.chance(0.5) else n for n in wide)[d.integer(0, len(wide) - 1) if d.chance(0.3) else 0 :]
    target = tuple(
        1 if d.chance(0.3) and shape[-1 - i] == n else n for i, n in enumerate(reversed(wide)) if i < len(shape)
    )
    q = d.qtype()
    op = Expand(shape=(*wide[: len(wide) - len(shape)], *reversed(target)))
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _gather(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(-len(shape), len(shape) - 1)
    wanted = tuple(d.integer(0 if d.chance(0.1) else 1, 3) for _ in range(d.integer(0, 2)))
    taken = tuple(d.integer(-shape[axis], shape[axis] - 1) for _ in range(math.prod(wanted)))
    return Gather(axis=axis, indices=taken, indices_shape=wanted, index_dtype=d.pick("int64", "int32"))


def _blocks(d: Dice, deep: bool) -> Case:
    b = d.integer(1, 3)
    c, h, w = d.integer(1, 3), d.integer(1, 3), d.integer(1, 3)
    q = d.qtype()
    shape = (d.integer(0, 2), c * b * b, h, w) if deep else (d.integer(0, 2), c, h * b, w * b)
    op = (
        DepthToSpace(blocksize=b, mode=d.pick("DCR", "CRD"))
        if deep
        else SpaceToDepth(blocksize=b, mode=d.pick("DCR", "CRD"))
    )
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _argmax(d: Dice) -> Case:
    shape = d.shape()
    op = Argmax(
        axis=d.integer(-len(shape), len(shape) - 1),
        keepdims=d.chance(0.5),
        select_last_index=d.chance(0.5),
        smallest=d.chance(0.3),
    )
    return _case(d, op, [(shape, d.qtype())], "int64")


def _interpolate(d: Dice) -> Case:
    shape = d.shape()
    rank = len(shape)
    axes = tuple(a - d.pick(0, rank) for a in d.random.sample(range(rank), min(d.integer(1, 3), rank)))
    if len(axes) == rank and d.chance(0.5):
        axes = ()
    mode = d.pick("nearest", "linear", "cubic")
    n = len(axes) or rank
    by_scale = d.chance(0.5)
    antialias = mode != "nearest" and d.chance(0.4)
    op = Interpolate(
        scales=tuple(d.pick(0.5, 1.0, 2.0, 1.5, d.float32(0.3, 3.0)) for _ in range(n)) if by_scale else (),
        sizes=() if by_scale else tuple(d.integer(1, 7) for _ in range(n)),
        axes=axes,
        mode=mode,
        coordinates=d.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"),
        nearest_mode=d.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        cubic_coeff_a=d.pick(-0.75, -0.5, d.float32(-1.0, 0.0)),
        exclude_outside=(mode == "cubic" or antialias) and d.chance(0.5),
        antialias=antialias,
        aspect="stretch" if by_scale or d.chance(0.7) else d.pick("not_larger", "not_smaller"),
    )
    q = d.qtype()
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype(math.log2(q.scale[0])))


def _range(d: Dice, shape: Shape) -> np.ndarray[Any, Any]:
    """float32 data whose range is what matters: of one sign or of both, equal, zero, exact in float32, tiny or huge."""
    n = math.prod(shape)
    unit = 2.0 ** d.pick(0, 0, -3, 10, -60, -130, 100)
    low, high = d.pick((-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (0.5, 0.75), (-3.0, -2.0), (1.0, 1.0), (0.0, 0.0))
    if d.chance(0.4):  # a scale of 2^n, and halves of it
        first = d.integer(-255, 0) + d.pick(0.0, 0.5)
        values = [first + d.integer(0, 510) * 0.5 for _ in range(n)]
        values[:2] = [first, first + 255.0][:n]
        d.random.shuffle(values)
    else:
        values = [d.random.uniform(low, high) * d.pick(1.0, 100.0) for _ in range(n)]
    return np.array([float32(v * unit) for v in values], dtype=np.float32).reshape(shape)


def _stored_type(d: Dice, shape: Shape, exponent: float | None) -> QType:
    """A type of any width, with one scale or one an index of an axis."""
    if d.chance(0.5):
        return d.qtype(exponent)
    dtype = d.pick("uint8", "int8", "int16", "uint16", "int32", "int32", "uint4", "int2")
    axis = d.pick(None, d.integer(0, len(shape) - 1))
    low, high = INTEGER_RANGE[dtype]
    n = 1 if axis is None else shape[axis]
    zero_points = tuple(d.pick(low, high, 0, d.integer(low, high)) for _ in range(n))
    return QType(dtype, tuple(d.scale(exponent) for _ in range(n)), zero_points, axis)


def _quantize(d: Dice) -> Case:
    shape = d.shape()
    return _case(d, Quantize(), [(shape, "float32")], _stored_type(d, shape, d.pick(0.0, 0.0, -26.0)))


def _dequantize(d: Dice) -> Case:
    shape = d.shape()
    return _case(d, Dequantize(), [(shape, _stored_type(d, shape, d.pick(None, 90.0, -126.0)))], "float32")


def _fake_quantize(d: Dice) -> Case:
    shape = d.shape()
    axis = d.pick(None, d.integer(0, len(shape) - 1))
    n = () if axis is None else (shape[axis],)
    low, high = d.pick((0, 255), (-128, 127), (-7, 7), (0, 65535), (3, 3))
    scale = np.array([d.scale(d.pick(0.0, 3.0)) for _ in range(math.prod(n))], np.float32).reshape(n)
    zero_point = np.array([d.integer(low, high) for _ in range(math.prod(n))], np.int32).reshape(n)
    constants = (TensorType(n, "float32"), scale), (TensorType(n, "int32"), zero_point)
    op = FakeQuantize(quant_min=low, quant_max=high, axis=axis or 0)
    return _case(d, op, [(shape, "float32")], "float32", constants)


def _dynamic_quantize(d: Dice) -> Case:
    shape = (*d.shape(1, 2), *d.pick((), (), (0,)))
    output = d.pick("y", "y", "scale", "zero_point")
    op = DynamicQuantize(output=output, **_chosen(d))
    case = _case(d, op, [(shape, "float32")], "float32" if output == "scale" else "uint8")
    return Case(case.network, (Tensor(_range(d, shape)),))


def _choose_qparams(d: Dice) -> Case:
    shape = d.shape(1, 3)
    tokens, symmetric = d.chance(0.4), d.chance(0.4)
    dtype, low, high = d.pick(("uint8", 0, 255), ("int8", -128, 127), ("int8", -127, 127), ("int16", -40, 3))
    output = d.pick("scale", "zero_point")
    op = ChooseQparams(
        dtype=dtype, quant_min=low, quant_max=high, least=2.0 ** d.pick(-23, -10, 0, -40),
        symmetric=symmetric, tokens=tokens, output=output,
    )  # fmt: skip
    case = _case(d, op, [(shape, "float32")], "float32" if output == "scale" else "int32")
    return Case(case.network, (Tensor(_range(d, shape)),))


def _chosen(d: Dice) -> dict[str, Any]:
    """How the data's scale is chosen."""
    by_torch = d.chance(0.5)
    return {"chosen_as": "torch" if by_torch else "onnx", "reduce_range": by_torch and d.chance(0.5)}


def _dynamic_linear(d: Dice) -> Case:
    k = d.integer(1, 5)
    quantized = _contraction(d, Linear(), (*d.shape(1, 2), k), (d.integer(1, 4), k))
    network, x = quantized.network, quantized.network.inputs[0]
    fixed = tuple(c for c in network.constants if c.type.element != "int32")
    op = DynamicLinear(**_chosen(d), relu=d.chance(0.3))
    node = Node("y", op, (x.name, *(c.name for c in fixed)), "float32")
    fed = (Input(x.name, TensorType(x.type.shape, "float32")),)
    return Case(Network(fed, fixed, (node,), ("y",)), (Tensor(_range(d, x.type.shape)),))


def _dynamic_conv(transposed: bool) -> Callable[[Dice], Case]:
    def draw(d: Dice) -> Case:
        quantized = (_conv_transpose if transposed else _conv)(d)
        network, x = quantized.network, quantized.network.inputs[0]
        fixed = tuple(
            c for c in network.constants if c.type.element in ("float32",) or c.name == network.nodes[0].inputs[1]
        )
        kind = DynamicConvTranspose if transposed else DynamicConv
        plain = network.nodes[0].op
        shared = set(kind.__struct_fields__) & set(plain.__struct_fields__)
        op = kind(**{f: getattr(plain, f) for f in shared}, **_chosen(d))
        node = Node("y", op, (x.name, *(c.name for c in fixed)), "float32")
        fed = (Input(x.name, TensorType(x.type.shape, "float32")),)
        return Case(Network(fed, fixed, (node,), ("y",)), (Tensor(_range(d, x.type.shape)),))

    return draw


def _linear_fp16(d: Dice) -> Case:
    k, m = d.integer(1, 5), d.integer(1, 4)
    shape = (*d.shape(1, 2), k)
    unit = 2.0 ** d.pick(-13, -13, -30, -38, 4)
    weight = np.array([d.integer(-(2**14), 2**14) * unit for _ in range(m * k)], dtype=np.float32).reshape(m, k)
    constants = [Constant("w", TensorType((m, k), "float32"), Tensor(weight))]
    if d.chance(0.5):
        bias = np.array([d.random.uniform(-4, 4) for _ in range(m)], dtype=np.float32)
        constants.append(Constant("b", TensorType((m,), "float32"), Tensor(bias)))
    node = Node("y", LinearFp16(relu=d.chance(0.3)), ("x", *(c.name for c in constants)), "float32")
    fed = (Input("x", TensorType(shape, "float32")),)
    return Case(Network(fed, tuple(constants), (node,), ("y",)), (Tensor(_range(d, shape)),))


def _attention(d: Dice) -> Case:
    batch, length, features = d.integer(0, 3), d.integer(1, 5), d.integer(1, 5)
    heads = d.integer(1, 3)
    columns = 3 * heads * d.integer(1, 3)
    q_x = d.qtype()
    qmin = 0 if (dtype := d.pick("int8", "uint8")) == "uint8" else -128
    count, axis = (columns, 1) if d.chance(0.5) else (1, None)
    around = d.random.uniform(-2.0, 3.0) - 11.0 - math.log2(q_x.scale[0])
    zero_points = tuple(d.integer(qmin, qmin + 255) if d.chance(0.3) else max(qmin, 0) for _ in range(count))
    q_w = QType(dtype, tuple(d.scale(around) for _ in range(count)), zero_points, axis)
    weight = np.array([d.integer(qmin, qmin + 255) for _ in range(features * columns)], dtype=dtype)
    bias = np.array([d.random.uniform(-2, 2) * d.pick(0, 1) for _ in range(columns)], dtype=np.float32)
    constants = [
        (TensorType((features, columns), q_w), weight.reshape(features, columns)),
        (TensorType((columns,), "float32"), bias),
    ]
    form = d.pick((), (batch,), (2 * batch,), (batch, length), (batch, length, length))
    if form:
        most = length if len(form) == 1 else 1
        mask = np.array([d.integer(0, most) for _ in range(math.prod(form))], dtype=np.int32)
        constants.append((TensorType(form, "int32"), mask.reshape(form)))
    op = Attention(
        num_heads=heads,
        unidirectional=d.chance(0.4),
        mask_filter_value=d.pick(-10000.0, -1.0, 0.5, -1e4),
        scale=d.pick(None, None, 0.5, 0.0, -1.5),
    )
    return _case(d, op, [((batch, length, features), q_x)], "float32", tuple(constants))


def _lstm(d: Dice) -> Case:
    direction = d.pick("forward", "reverse", "bidirectional")
    n = 2 if direction == "bidirectional" else 1
    length, batch, features, hidden = d.integer(1, 3), d.pick(0, 1, 1, 2, 3), d.integer(1, 3), d.integer(1, 3)
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = []
    for shape, around in (((n, features, 4 * hidden), -12.0), ((n, hidden, 4 * hidden), -6.0)):
        dtype = d.pick("int8", "uint8")
        qmin = 0 if dtype == "uint8" else -128
        axis = d.pick(None, 2 if n == 1 else 0)
        count = 1 if axis is None else shape[axis]
        zero_points = tuple(d.integer(qmin, qmin + 255) if d.chance(0.3) else qmin + 128 for _ in range(count))
        q = QType(dtype, tuple(d.scale(around) for _ in range(count)), zero_points, axis)
        weight = np.array([d.integer(qmin, qmin + 255) for _ in range(math.prod(shape))], dtype=dtype)
        constants.append((TensorType(shape, q), weight.reshape(shape)))
    shapes = ((n, 8 * hidden), (n, batch, hidden), (n, batch, hidden), (n, 3 * hidden))
    for shape in shapes[: d.integer(0, 4)]:
        reals = np.array([d.random.uniform(-2, 2) * d.pick(0, 1, 1) for _ in range(math.prod(shape))])
        constants.append((TensorType(shape, "float32"), reals.astype(np.float32).reshape(shape)))
    clip = d.pick(None, None, 0.5, 2.0)
    op = Lstm(direction=direction, input_forget=d.chance(0.3), clip=clip, output=d.pick("y", "y_h", "y_c"))
    return _case(d, op, [((length, batch, features), "float32")], "float32", tuple(constants))


def _recurrent(d: Dice) -> Case:
    cell = d.chance(0.5)
    kind = d.pick("rnn_tanh", "rnn_relu", "lstm", "gru")
    layers, directions = (1, 1) if cell else (d.integer(1, 2), d.integer(1, 2))
    length, batch, features, hidden = d.integer(1, 3), d.pick(0, 1, 1, 2, 3), d.integer(1, 3), d.integer(1, 3)
    batch_first = not cell and d.chance(0.4)
    rows = GATES[kind] * hidden
    halves = d.chance(0.3)
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = []

    def reals(shape: Shape, around: float = 2.0) -> None:
        values = np.array([d.random.uniform(-around, around) * d.pick(0, 1, 1) for _ in range(math.prod(shape))])
        constants.append((TensorType(shape, "float32"), values.astype(np.float32).reshape(shape)))

    for i in range(layers * directions):
        read = features if i < directions else directions * hidden
        for shape, around in (((rows, read), -17.0 if i < directions else -9.0), ((rows, hidden), -7.0)):
            if halves:
                reals(shape, 2.0**around * d.pick(64.0, 64.0, 2.0**-12, 2.0**34))
                continue
            axis = d.pick(None, 0)
            count = 1 if axis is None else rows
            zero_points = tuple(d.integer(-128, 127) if d.chance(0.3) else 0 for _ in range(count))
            q = QType("int8", tuple(d.scale(around) for _ in range(count)), zero_points, axis)
            weight = np.array([d.integer(-128, 127) for _ in range(math.prod(shape))], dtype=np.int8)
            constants.append((TensorType(shape, q), weight.reshape(shape)))
        reals((rows,))
        reals((rows,))
    for _ in range(2 if kind == "lstm" else 1):
        reals((batch, hidden) if cell else (layers * directions, batch, hidden), d.pick(2.0, 2.0, 2.0**-14))
    lead = (batch,) if cell else (batch, length) if batch_first else (length, batch)
    outputs = ("y", *("h",) * (not cell), *("c",) * (kind == "lstm"))
    op = Recurrent(
        kind=kind,
        layers=layers,
        bidirectional=directions == 2,
        batch_first=batch_first,
        reduce_range=d.chance(0.5),
        output=d.pick(*outputs),
    )
    return _case(d, op, [((*lead, features), "float32")], "float32", tuple(constants))


def _embed_layer_norm(d: Dice) -> Case:
    n_words, features, batch, length = d.integer(1, 4), d.integer(1, 5), d.integer(0, 2), d.integer(0, 3)
    words = d.qtype(d.pick(-5.0, 0.0, 20.0))
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = []

    def ids(rows: int) -> None:
        values = np.array([d.integer(0, rows - 1) for _ in range(batch * length)], dtype=np.int32)
        constants.append((TensorType((batch, length), "int32"), values.reshape(batch, length)))

    def table(shape: Shape, around: float) -> None:
        zero_point = d.integer(words.qmin, words.qmax)
        q = QType.per_tensor(words.dtype, d.scale(around), zero_point)
        constants.append((TensorType(shape, q), d.data(shape, q)))

    ids(n_words)
    table((length + d.integer(0, 1), features), math.log2(words.scale[0]))
    table((features,), -6.0)
    table((features,), -6.0)
    if d.chance(0.5):
        rows = d.integer(1, 3)
        ids(rows)
        table((rows, features), math.log2(words.scale[0]))
    op = EmbedLayerNorm(epsilon=float32(d.pick(1e-12, 1e-5, 1.0)))
    return _case(d, op, [((n_words, features), words)], "float32", tuple(constants))


def _moe(d: Dice) -> Case:
    tokens, features, experts, inner = d.integer(0, 3), d.integer(1, 3), d.integer(1, 3), d.integer(1, 3)
    activation = d.pick("identity", "relu", "silu", "swiglu")
    rows = inner * (2 if activation == "swiglu" else 1)
    normalized = d.chance(0.4)
    low = 0.01 if normalized else -1.0
    mixing = np.array([d.random.uniform(low, 2.0) for _ in range(tokens * experts)], dtype=np.float32)
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = [
        (TensorType((tokens, experts), "float32"), mixing.reshape(tokens, experts))
    ]
    for shape, around in (((experts, rows, features), -12.0), ((experts, features, inner), -6.0)):
        axis = d.pick(None, 0, 1)
        count = 1 if axis is None else shape[axis]
        zero_points = tuple(d.integer(0, 255) if d.chance(0.3) else 128 for _ in range(count))
        q = QType("uint8", tuple(d.scale(around) for _ in range(count)), zero_points, axis)
        weight = np.array([d.integer(0, 255) for _ in range(math.prod(shape))], dtype=np.uint8)
        constants.append((TensorType(shape, q), weight.reshape(shape)))
    if d.chance(0.5):
        for n in (rows, features):
            reals = np.array([d.random.uniform(-2, 2) for _ in range(experts * n)], dtype=np.float32)
            constants.append((TensorType((experts, n), "float32"), reals.reshape(experts, n)))
    op = Moe(
        top=d.integer(1, experts),
        activation=activation,
        normalized=normalized,
        alpha=float32(d.pick(1.0, 1.702, -0.5)),
        beta=d.pick(0.0, 1.0, -0.5),
        limit=d.pick(None, 7.0, 0.5),
    )
    return _case(d, op, [((tokens, features), "float32"), ((tokens, experts), "float32")], "float32", tuple(constants))


def _granular(d: Dice, dtype: Any, shape: Shape, axes: tuple[int | None, ...]) -> QType:
    """Scales per tensor, per index of an axis, or in blocks along the last."""
    axis = d.pick(*axes)
    block = d.integer(1, 4) if axis == len(shape) - 1 and d.chance(0.7) else 0
    count = 1 if axis is None else -(-shape[axis] // block) * math.prod(shape[:-1]) if block else shape[axis]
    qmin, qmax = (0, 0) if dtype.startswith("float") else INTEGER_RANGE[dtype]
    zero_points = tuple(d.pick(qmin, qmax, 0, d.integer(qmin, qmax)) for _ in range(count))
    return QType(dtype, tuple(d.scale(0.0) for _ in range(count)), zero_points, axis, block)


def _stored(d: Dice, q: QType, shape: Shape) -> np.ndarray[Any, Any]:
    n = math.prod(shape)
    values = [d.pick(-2.0, 0.5, 0.0, 1.75, 12.0) if q.is_float else d.integer(q.qmin, q.qmax) for _ in range(n)]
    return np.array(values).astype(DTYPES[q.dtype]).reshape(shape)


def _weight_only_linear(d: Dice) -> Case:
    n, k = d.integer(1, 4), d.integer(1, 9)
    axes: tuple[int | None, ...] = (None, 0, 1)
    q = _granular(d, d.pick("uint2", "int2", "uint4", "int4", "uint8", "int8"), (n, k), axes)
    if q.axis == 1 and not q.block:
        raise InvalidCase("scales along the summed axis stand for blocks only")
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = [(TensorType((n, k), q), _stored(d, q, (n, k)))]
    if d.chance(0.5):
        bias = np.array([d.float32(-99.0, 99.0) for _ in range(n)], dtype=np.float32)
        constants.append((TensorType((n,), "float32"), bias))
    real = d.pick("float32", "float32", "bfloat16", "float16")
    return _case(d, WeightOnlyLinear(), [((*d.shape(1, 2), k), real)], real, tuple(constants))


def _scaled_mm(d: Dice) -> Case:
    m, n, k = d.integer(0, 3), d.integer(1, 3), d.integer(0, 5)
    axis = 0 if m and d.chance(0.4) else None
    shapes = ((m, k), (n, k))
    types = [TensorType(s, _granular(d, d.pick(*FLOAT8), s, (axis,))) for s in shapes]
    x, w = (_any_float8(d, t) for t in types)
    constants = [Constant("w", types[1], Tensor(w))]
    if d.chance(0.5):
        real = d.pick("float32", "bfloat16", "float16")
        bias = np.array([d.float32(-9.0, 9.0) * types[0].qtype.scale[0] for _ in range(n)]).astype(DTYPES[real])
        constants.append(Constant("b", TensorType((n,), real), Tensor(bias)))
    kind = d.pick("float32", "float16", "bfloat16", *FLOAT8)
    element: Element = QType.per_tensor(kind, d.scale(d.pick(0.0, 4.0, -4.0)), 0) if kind in FLOAT8 else kind
    node = Node("y", ScaledMm(), ("x", *(c.name for c in constants)), element)
    return Case(Network((Input("x", types[0]),), tuple(constants), (node,), ("y",)), (Tensor(x),))


def _any_float8(d: Dice, t: TensorType) -> np.ndarray[Any, Any]:
    """Finite numbers of all magnitudes, or small ones."""
    kind, small = DTYPES[t.dtype], d.chance(0.5)
    bits = np.array([d.integer(0, 255) for _ in range(t.n_elements)], dtype=np.uint8).view(kind)
    values = np.array([d.integer(-8, 8) / 2 for _ in range(t.n_elements)]).astype(kind)
    return np.where(np.isfinite(bits) & (not small), bits, values).reshape(t.shape)


def _dynamic_nbits_linear(d: Dice) -> Case:
    real = d.pick("float32", "float32", "bfloat16")
    group = 32 if real == "float32" and d.chance(0.4) else 0
    n, k = d.integer(1, 4), group * d.integer(1, 2) or d.integer(1, 9)
    axis = 1 if group else d.pick(0, None)
    count = 1 if axis is None else n * k // group if group else n
    q = QType("int4", tuple(d.scale() for _ in range(count)), (0,) * count, axis, group)
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = [(TensorType((n, k), q), _stored(d, q, (n, k)))]
    if d.chance(0.5):
        bias = np.array([d.float32(-99.0, 99.0) for _ in range(n)], dtype=np.float32)
        constants.append((TensorType((n,), "float32"), bias))
    case = _case(d, DynamicNbitsLinear(), [((*d.shape(1, 2), k), real)], real, tuple(constants))
    x = case.inputs[0].array
    rows = [_range(d, (k,)) for _ in range(x.size // k)]
    return Case(case.network, (Tensor(np.array(rows, np.float32).reshape(x.shape).astype(x.dtype)),))


def _embedding(d: Dice) -> Case:
    shape = d.shape(1, 3)
    axis = d.integer(0, len(shape) - 1)
    q = _granular(d, d.pick("uint2", "int4", "uint8", "int16", "float8_e4m3fn"), shape, (None, 0, len(shape) - 1))
    at = d.shape(0, 2) if d.chance(0.8) else (0,)
    dtype = d.pick("int32", "int64")
    indices = np.array([d.integer(-shape[axis], shape[axis] - 1) for _ in range(math.prod(at))], dtype=dtype)
    return _case(
        d,
        Embedding(axis=axis),
        [],
        "float32",
        ((TensorType(shape, q), _stored(d, q, shape)), (TensorType(at, dtype), indices.reshape(at))),
    )


def _embedding_rows(d: Dice) -> Case:
    shape = (*d.shape(0, 2), d.integer(1, 5))
    n = math.prod(shape)
    unit = d.pick(1.0, 2.0**-9, 2.0**-20, 2.0**-30, 2.0**6)
    kind = d.integer(0, 2)
    values = [d.random.uniform(-2, 2) if kind == 0 else d.integer(0, 6) - 3 * (kind == 1) for _ in range(n)]
    x = np.array([float32(v * unit) for v in values], dtype=np.float32).reshape(shape)
    network = Network(
        (Input("x0", TensorType(shape, "float32")),),
        (),
        (Node("y", EmbeddingRows(bits=d.pick(2, 4, 8)), ("x0",), "float32"),),
        ("y",),
    )
    return Case(network, (Tensor(x),))


def _embedding_bag(d: Dice) -> Case:
    rows, features = d.integer(1, 4), d.integer(1, 5)
    dtype = d.pick("uint2", "uint4", "uint8")
    axis = d.pick(None, 0)
    scales = tuple(d.scale(d.pick(0.0, -12.0, -22.0)) for _ in range(1 if axis is None else rows))
    top = INTEGER_RANGE[dtype][1]
    q = QType(dtype, scales, tuple(d.integer(0, top) for _ in scales), axis)
    lengths = [d.integer(0, 4) for _ in range(d.integer(1, 4))]
    lengths = lengths if d.chance(0.7) else [d.integer(1, 3)] * len(lengths)
    flat = len({*lengths}) > 1 or not lengths[0] or d.chance(0.3)
    pruned, include_last = d.chance(0.4), flat and d.chance(0.5)
    n, n_rows = sum(lengths), d.integer(1, 6) if pruned else rows
    shape = (n,) if flat else (len(lengths), lengths[0])
    integers = d.pick("int32", "int64")
    at = np.array([d.integer(0, n_rows - 1) for _ in range(n)], dtype=integers).reshape(shape)
    constants = [(TensorType((rows, features), q), _stored(d, q, (rows, features))), (TensorType(shape, integers), at)]
    if flat:
        offsets = np.cumsum([0, *lengths])[: len(lengths) + include_last].astype(integers)
        constants.append((TensorType(offsets.shape, integers), offsets))
    mean = d.chance(0.2)
    weighted = not mean and d.chance(0.5)
    if weighted:
        weights = np.array([d.float32(-3.0, 3.0) for _ in range(n)], dtype=np.float32).reshape(shape)
        constants.append((TensorType(shape, "float32"), weights))
    if pruned:
        mapping = np.array([d.integer(-1, rows - 1) for _ in range(n_rows)], dtype=np.int32)
        constants.append((TensorType((n_rows,), "int32"), mapping))
    op = EmbeddingBag(
        mode="mean" if mean else "sum",
        include_last_offset=include_last,
        weighted=weighted,
        pruned=pruned,
        parameters=d.pick("float32", "float16"),
    )
    return _case(d, op, [], "float32", tuple(constants))


def _gather_elements(d: Dice, shape: Shape) -> Operator:
    axis = d.integer(-len(shape), len(shape) - 1)
    wanted = tuple(d.integer(0, 3) if i == axis % len(shape) else d.integer(0, n) for i, n in enumerate(shape))
    taken = tuple(d.integer(-shape[axis], shape[axis] - 1) for _ in range(math.prod(wanted)))
    return GatherElements(axis=axis, indices=taken, indices_shape=wanted, index_dtype=d.pick("int64", "int32"))


def _reduced(kind: type[Amax | Amin]) -> Callable[[Dice, Shape], Operator]:
    def operator(d: Dice, shape: Shape) -> Operator:
        rank = len(shape)
        axes = tuple(a - d.pick(0, rank) for a in d.random.sample(range(rank), d.integer(0, rank)))
        return kind(axes=axes, keepdims=d.chance(0.5), noop_with_empty_axes=d.chance(0.5))

    return operator


def _post_operation(d: Dice) -> dict[str, Any]:
    low = d.pick(0.0, -1.0, d.float32(-3.0, 3.0))
    return {
        "activation": d.pick(*get_args(Activation)),
        "negative_slope": d.pick(0.5, 0.0, d.float32(-2.0, 2.0)),
        "min": low,
        "max": float32(low + d.pick(0.0, 6.0, 0.3)),
    }


def _gives_reals(d: Dice, case: Case) -> Case:
    """The case, or one that ends with reals."""
    if d.chance(0.6):
        return case
    (node,) = case.network.nodes
    real = Node(node.name, node.op, node.inputs, d.pick("float32", "bfloat16"))
    return Case(Network(case.network.inputs, case.network.constants, (real,), case.network.outputs), case.inputs)


def _conv_followed(d: Dice) -> Case:
    shape = _volume_shape(d) if d.chance(0.2) else d.image_shape()
    attributes, weight_shape = _windows(d, shape)
    return _gives_reals(d, _contraction(d, ConvPointwise(**attributes, **_post_operation(d)), shape, weight_shape))


def _linear_followed(d: Dice) -> Case:
    k = d.integer(1, 5)
    op = LinearPointwise(**_post_operation(d))
    return _gives_reals(d, _contraction(d, op, (*d.shape(1, 2), k), (d.integer(1, 4), k)))


def _and_add(d: Dice, layer: Case, op: Operator) -> Case:
    """The layer with another activation, before its bias."""
    network, (node,) = layer.network, layer.network.nodes
    q: Any = d.qtype(math.log2(node.element.scale[0])) if isinstance(node.element, QType) else d.qtype()
    q = "float32" if d.chance(0.2) else q
    other = Input("other", TensorType(network.types[node.name].shape, q))
    added = Node(node.name, op, (*node.inputs[:2], "other", *node.inputs[2:]), node.element)
    shape = other.type.shape
    reals = np.array([d.float32(-99.0, 99.0) for _ in range(math.prod(shape))], dtype=np.float32).reshape(shape)
    fed = (*layer.inputs, Tensor(reals if q == "float32" else d.data(shape, q)))
    return Case(Network((*network.inputs, other), network.constants, (added,), network.outputs), fed)


def _conv_add(d: Dice) -> Case:
    shape = _volume_shape(d) if d.chance(0.2) else d.image_shape()
    attributes, weight_shape = _windows(d, shape)
    layer = _contraction(d, ConvPointwise(**attributes), shape, weight_shape)
    return _and_add(d, layer, ConvAdd(**attributes, relu=d.chance(0.3)))


def _linear_add(d: Dice) -> Case:
    k = d.integer(1, 5)
    layer = _contraction(d, LinearPointwise(), (*d.shape(1, 2), k), (d.integer(1, 4), k))
    return _and_add(d, layer, LinearAdd(relu=d.chance(0.3)))


RANDOM_CASES: dict[str, Callable[[Dice], Case]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "requantize": lambda d: _case(d, Requantize(), [(d.shape(), d.qtype())], d.qtype()),
    "conv": _conv,
    "linear": _linear,
    "add": _binary(lambda relu: Add(relu=relu), product=False),
    "mul": _binary(lambda relu: Mul(relu=relu), product=True),
    "relu": _unary(lambda d: Relu()),
    "clamp": _unary(_clamp, bounded=True),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda d: _case(d, GlobalAvgPool(), [(_pooled_shape(d), d.qtype())], d.qtype()),
    "adaptive_avg_pool": _adaptive_avg_pool,
    "concat_relu": lambda d: _concat(d, ConcatRelu),
    "flip": _moved(lambda d, s: Flip(axes=tuple(a - d.pick(0, len(s)) for a in range(len(s)) if d.chance(0.5)))),
    "channel_shuffle": _channel_shuffle,
    "grid_sample": _grid_sample,
    "unfold": _moved(_unfold),
    "reflection_pad": _reflection_pad,
    "sort": _moved(lambda d, s: Sort(axis=d.integer(-len(s), len(s) - 1), descending=d.chance(0.5)), places=True),
    "topk": _moved(_topk, places=True),
    "masked_fill": _masked_fill,
    "index_put": _filled(
        lambda d, s, v: IndexPut(value=v, indices=tuple(d.integer(-s[0], s[0] - 1) for _ in range(d.integer(0, 2))))
    ),
    "constant_pad": _filled(lambda d, s, v: ConstantPad(value=v, padding=_sides(d, s))),
    "concat": _concat,
    "reshape": _moved(_reshape),
    "transpose": _moved(_perm),
    "slice": _moved(_slice),
    "pad": _moved(lambda d, shape: Pad(padding=_sides(d, shape))),
    "flatten": _moved(lambda d, shape: Flatten(start_axis=d.integer(0, len(shape) - 1))),
    "sigmoid": _unary(lambda d: Sigmoid(), bounded=True),
    "tanh": _unary(lambda d: Tanh(), bounded=True),
    "leaky_relu": _unary(lambda d: LeakyRelu(negative_slope=d.pick(d.float32(-2.0, 2.0), 0.0, 0.25, 0.5))),
    "elu": _unary(
        lambda d: Elu(
            alpha=d.pick(1.0, d.float32(0.0, 3.0), 0.0),
            scale=d.pick(1.0, d.float32(0.1, 3.0)),
            input_scale=d.pick(1.0, d.float32(0.1, 3.0)),
        ),
        bounded=True,
    ),
    "hardsigmoid": _unary(lambda d: Hardsigmoid(), bounded=True),
    "hardswish": _unary(lambda d: Hardswish(), bounded=True),
    "softmax": _softmax,
    "sub": _two(Sub()),
    "div": _two(Div(), divides=True),
    "minimum": _several(Minimum()),
    "maximum": _several(Maximum()),
    "where": _where,
    "gelu": _unary(lambda d: Gelu(approximate=d.pick("none", "tanh")), bounded=True),
    "layer_norm": lambda d: _normalization(d, LayerNorm),
    "instance_norm": lambda d: _normalization(d, InstanceNorm),
    "mean": _mean,
    "split": _moved(_split),
    "squeeze": _squeeze,
    "unsqueeze": _moved(_unsqueeze),
    "expand": _expand,
    "gather": _moved(_gather),
    "depth_to_space": lambda d: _blocks(d, deep=True),
    "space_to_depth": lambda d: _blocks(d, deep=False),
    "argmax": _argmax,
    "interpolate": _interpolate,
    "matmul": _matmul,
    "conv_transpose": _conv_transpose,
    "conv_integer": _conv_integer,
    "linear_integer": _linear_integer,
    "matmul_integer": _matmul_integer,
    "dynamic_quantize": _dynamic_quantize,
    "fake_quantize": _fake_quantize,
    "choose_qparams": _choose_qparams,
    "dynamic_linear": _dynamic_linear,
    "dynamic_nbits_linear": _dynamic_nbits_linear,
    "dynamic_conv": _dynamic_conv(transposed=False),
    "dynamic_conv_transpose": _dynamic_conv(transposed=True),
    "linear_fp16": _linear_fp16,
    "attention": _attention,
    "lstm": _lstm,
    "recurrent": _recurrent,
    "embed_layer_norm": _embed_layer_norm,
    "moe": _moe,
    "weight_only_linear": _weight_only_linear,
    "scaled_mm": _scaled_mm,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "embedding_rows": _embedding_rows,
    "tile": _moved(lambda d, shape: Tile(repeats=tuple(d.pick(1, 2, 3, 0) for _ in shape))),
    "gather_elements": _moved(_gather_elements),
    "linear_pointwise": _linear_followed,
    "conv_pointwise": _conv_followed,
    "linear_add": _linear_add,
    "conv_add": _conv_add,
    "amax": _moved(_reduced(Amax)),
    "amin": _moved(_reduced(Amin)),
    "batch_norm": _batch_norm,
    "group_norm": lambda d: _normalization(d, GroupNorm),
    "celu": _unary(lambda d: Celu(alpha=d.pick(1.0, d.float32(0.1, 3.0))), bounded=True),
    "threshold": _threshold,
    "prelu": _prelu,
    "std": _std,
    "add_scalar": _add_scalar,
    "compare": _compare,
    "compare_scalar": _compare_scalar,
    "mul_scalar": _mul_scalar,
}
"""Operator name to a function that throws a case. It may raise `InvalidCase`; `random_case` throws again."""


def random_case(op: str, seed: int, *, wide: bool = False) -> Case:
    """The valid case of an operator that belongs to `seed`; `wide` ones have activations of int32."""
    for attempt in range(100):
        try:
            return RANDOM_CASES[op](Dice(f"{op}/{seed}/{attempt}", wide=wide))
        except InvalidCase:
            continue
    raise AssertionError(f"no valid case of {op} in 100 attempts")
