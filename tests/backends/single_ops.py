"""Small one-operator cases for backend tests, drawn from a seeded generator. No framework is imported here."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
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
from qfuzz.ops.rearrangement import DepthToSpace, Expand, Gather, SpaceToDepth, Split, Squeeze, Unsqueeze
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


class Draw:
    """Draws the parts of a case. `pow2` makes all scales powers of two, so that float32 arithmetic is mostly exact."""

    def __init__(self, seed: int, dtype: str, *, pow2: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype: Any = dtype
        self.pow2 = pow2

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return bool(self.rng.random() < p)

    def scale(self, low: float = 0.01, high: float = 1.0) -> float:
        """A float32 between `low` and `high`."""
        x = float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        return float(2.0 ** round(np.log2(x))) if self.pow2 else float32(x)

    def qtype(self, low: float = 0.01, high: float = 1.0, dtype: str | None = None) -> QType:
        """A per-tensor type; its zero point is an end, the middle, or anything."""
        name: Any = dtype or self.dtype
        qmin, qmax = (0, 255) if name == "uint8" else (-128, 127)
        zero_point = int(self.rng.choice([qmin, qmax, (qmin + qmax + 1) // 2, self.integer(qmin, qmax)]))
        return QType.per_tensor(name, self.scale(low, high), zero_point)

    def stored(self, shape: tuple[int, ...], q: QType) -> np.ndarray[Any, Any]:
        """Integers of a type: all of its range, or near its zero point."""
        if self.chance(0.3):
            near = q.zero_point[0] + self.rng.integers(-8, 9, shape)
            return np.clip(near, q.qmin, q.qmax).astype(q.dtype)
        return self.rng.integers(q.qmin, q.qmax + 1, shape).astype(q.dtype)

    def image_shape(self, spatial: int) -> tuple[int, ...]:
        """[N, C, *spatial]."""
        channels = int(self.rng.choice([1, 2, 3, 4, 8, 9, 16, 17, 33]))
        return (self.integer(1, 3), channels, *(self.integer(4, 9) for _ in range(spatial)))

    def shape(self) -> tuple[int, ...]:
        """Any small shape."""
        return tuple(int(self.rng.choice([1, 2, 3, 4, 5, 8, 17])) for _ in range(self.integer(1, 4)))

    @property
    def chooser(self) -> Any:
        """Who chooses the scale of float32 data: one for each dtype, which says nothing there."""
        return "onnx" if self.dtype == "uint8" else "torch"

    def reduces(self) -> bool:
        """Whether the range of data is reduced."""
        return self.chooser == "torch" and self.chance(0.3)

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: mostly itself."""
        if self.chance(0.7):
            return shape
        return tuple(1 if self.chance(0.5) else n for n in shape)[self.integer(0, len(shape)) :]

    def case(self, op: Operator, types: list[tuple[tuple[int, ...], Element]], out: Element, *,
             constants: dict[int, tuple[TensorType, Any]] | None = None) -> Case:  # fmt: skip
        """A one-node case; `types` are of the activations, constants are given by input position."""
        feeds, inputs, names = [], [], []
        constants = constants or {}
        remaining = list(types)
        for position in range(len(types) + len(constants)):
            name = f"{'c' if position in constants else 'x'}{position}"
            names.append(name)
            if position not in constants:
                shape, element = remaining.pop(0)
                inputs.append(Input(name, TensorType(shape, element)))
                if isinstance(element, QType):
                    data = self.stored(shape, element)
                elif element == "bool":
                    data = self.rng.integers(0, 2, shape).astype(np.bool_)
                else:
                    data = (self.rng.normal(0, 20, shape)).astype(np.float32)
                feeds.append(Tensor(data))
        network = Network(
            tuple(inputs),
            tuple(Constant(f"c{p}", t, Tensor(a)) for p, (t, a) in constants.items()),
            (Node("y", op, tuple(names), out),),
            ("y",),
        )
        return Case(network, tuple(feeds))


def _weight(d: Draw, shape: tuple[int, ...], axis: int = 0) -> tuple[TensorType, Any]:
    n = shape[axis]
    per_channel, zero_points = d.chance(0.4), d.chance(0.25)
    count = n if per_channel else 1
    q_w = QType(
        "int8",
        tuple(d.scale(0.05, 2.0) for _ in range(count)),
        tuple(d.integer(-128, 127) if zero_points else 0 for _ in range(count)),
        axis if per_channel else None,
    )
    return TensorType(shape, q_w), d.rng.integers(-128, 128, shape).astype(np.int8)


def _contraction(
    d: Draw, op: Operator, shape: tuple[int, ...], weight_shape: tuple[int, ...], axis: int = 0, groups: int = 1
) -> Case:
    q_x = d.qtype()
    constants: dict[int, tuple[TensorType, Any]] = {1: _weight(d, weight_shape, axis)}
    q_w, n = constants[1][0].qtype, weight_shape[axis] * groups
    if d.chance(0.5):
        unit = q_x.scale[0] * q_w.scale[0]
        bias = (d.rng.integers(-2000, 2000, n) * unit if d.pow2 else d.rng.normal(0, 100 * unit, n)).astype(np.float32)
        constants[2] = (TensorType((n,), "float32"), bias)
    spread = q_x.scale[0] * max(q_w.scale) * 128 * np.sqrt(np.prod(weight_shape) / weight_shape[axis])
    q_y = d.qtype(spread / 64, spread * 4)
    return d.case(op, [(shape, q_x)], q_y, constants=constants)


def _windows(d: Draw, spatial: int) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """Attributes of a correlation, its input's shape and its weight's."""
    shape = d.image_shape(spatial)
    channels, filters, groups = shape[1], d.integer(1, 9), 1
    if d.chance(0.3):
        groups, filters = channels, channels * d.integer(1, 2)
    elif channels % 2 == 0 and d.chance(0.3):
        groups, filters = 2, 2 * d.integer(1, 5)
    kernel = tuple(d.integer(1, 3) for _ in range(spatial))
    padding = tuple(d.integer(0, 2) for _ in range(spatial))
    attributes = {
        "strides": tuple(d.integer(1, 3) for _ in range(spatial)),
        "padding": padding * 2,
        "dilations": tuple(1 if d.chance(0.7) else 2 for _ in range(spatial)),
        "groups": groups,
    }
    return attributes, shape, (filters, channels // groups, *kernel)


def _conv(d: Draw) -> Case:
    attributes, shape, weight_shape = _windows(d, d.integer(1, 3))
    return _contraction(d, Conv(**attributes, relu=d.chance(0.4)), shape, weight_shape)


def _conv_integer(d: Draw) -> Case:
    attributes, shape, weight_shape = _windows(d, d.integer(1, 3))
    op = ConvInteger(**attributes, omits_zeros=d.chance(0.5))
    return d.case(op, [(shape, d.qtype())], "int32", constants={1: _weight(d, weight_shape)})


def _conv_transpose(d: Draw) -> Case:
    attributes, shape, weight_shape = _windows(d, d.integer(1, 3))
    groups, says_sizes = attributes["groups"], d.chance(0.3)
    more = tuple(d.integer(0, s - 1) if d.chance(0.3) else 0 for s in attributes["strides"])
    op = ConvTranspose(**attributes, output_padding=more, says_sizes=says_sizes)
    return _contraction(d, op, shape, (shape[1], weight_shape[0] // groups, *weight_shape[2:]), 1, groups)


def _linear(d: Draw) -> Case:
    k = int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 31, 33]))
    lead = tuple(d.integer(1, 5) for _ in range(d.integer(1, 2)))
    return _contraction(d, Linear(relu=d.chance(0.4)), (*lead, k), (d.integer(1, 18), k))


def _linear_integer(d: Draw) -> Case:
    k = int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 31, 33]))
    lead = tuple(d.integer(1, 5) for _ in range(d.integer(0, 2)))
    op = LinearInteger(omits_zeros=d.chance(0.5))
    return d.case(op, [((*lead, k), d.qtype())], "int32", constants={1: _weight(d, (d.integer(1, 18), k))})


def _matrices(d: Draw) -> list[tuple[tuple[int, ...], Element]]:
    """Two activations to multiply: the second is int8 now and then."""
    m, k, n = (int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 17, 33])) for _ in range(3))
    stack = tuple(d.integer(1, 3) for _ in range(d.integer(0, 2)))
    a, b = (tuple(1 if d.chance(0.3) else s for s in stack) for _ in range(2))
    b = () if d.chance(0.3) else b
    other = d.qtype(dtype="int8" if d.chance(0.4) else None)
    vectors = d.integer(0, 9)
    return [((k,) if vectors == 8 else (*a, m, k), d.qtype()), ((k,) if vectors == 9 else (*b, k, n), other)]


def _matmul(d: Draw) -> Case:
    types = _matrices(d)
    (shape, q_a), (_, q_b) = types
    assert isinstance(q_a, QType) and isinstance(q_b, QType)
    spread = q_a.scale[0] * q_b.scale[0] * 128 * np.sqrt(shape[-1])
    return d.case(MatMul(relu=d.chance(0.4)), types, d.qtype(spread / 4, spread * 32))


def _linear_form(d: Draw) -> Case:
    case = _linear(d)
    network, (node,) = case.network, case.network.nodes
    if d.chance(0.7):
        return case
    real = Node(node.name, node.op, node.inputs, "float32")
    return Case(Network(network.inputs, network.constants, (real,), network.outputs), case.inputs)


def _binary(make: Callable[[bool], Operator], product: bool) -> Callable[[Draw], Case]:
    def draw(d: Draw) -> Case:
        shape = d.shape()
        other = shape
        if d.chance(0.3):
            other = tuple(1 if d.chance(0.5) else n for n in shape)[d.integer(0, len(shape) - 1) :]
        a, b = d.qtype(), d.qtype()
        if d.chance(0.3):
            b = a
        typical = a.scale[0] * b.scale[0] * 64 if product else max(a.scale[0], b.scale[0])
        return d.case(make(d.chance(0.4)), [(shape, a), (other, b)], d.qtype(typical / 4, typical * 4))

    return draw


def _two(op: Operator, *, divides: bool = False) -> Callable[[Draw], Case]:
    """Two operands (and a condition), often of one type; each is broadcast now and then."""

    def draw(d: Draw) -> Case:
        shape = d.shape()
        a, b = d.qtype(), d.qtype()
        if d.chance(0.4):
            b = a
        typical = a.scale[0] / b.scale[0] / 8 if divides else max(a.scale[0], b.scale[0])
        out = b if d.chance(0.4) else d.qtype(typical / 4, typical * 4)
        types: list[tuple[tuple[int, ...], Element]] = [(d.broadcast(shape), a), (d.broadcast(shape), b)]
        if isinstance(op, Minimum | Maximum):
            types = [*types, (d.broadcast(shape), b)][: int(d.rng.choice([1, 2, 2, 3]))]
        if not isinstance(op, Where):
            return d.case(op, types, out)
        condition = d.broadcast(shape)
        if d.chance(0.5):
            return d.case(op, [*types, (condition, "bool")], out)
        data = d.rng.integers(0, 2, condition).astype(np.bool_)
        return d.case(op, types, out, constants={2: (TensorType(condition, "bool"), data)})

    return draw


def _unary(make: Callable[[Draw], Operator], out: Callable[[Draw, QType], QType]) -> Callable[[Draw], Case]:
    def draw(d: Draw) -> Case:
        x = d.qtype()
        return d.case(make(d), [(d.shape(), x)], out(d, x))

    return draw


def _same(d: Draw, x: QType) -> QType:
    return x


def _free(d: Draw, x: QType) -> QType:
    return d.qtype(x.scale[0] / 4, x.scale[0] * 4)


def _share(d: Draw, x: QType) -> QType:
    return _fixed(2.0**-8, 0, -128)(d, x) if d.chance(0.4) else d.qtype(2.0**-10, 2.0**-6)


def _fixed(scale: float, unsigned: int, signed: int) -> Callable[[Draw, QType], QType]:
    def out(d: Draw, x: QType) -> QType:
        return QType.per_tensor(d.dtype, scale, unsigned if d.dtype == "uint8" else signed)

    return out


def _clamp(d: Draw) -> Operator:
    if d.chance(0.3):
        return Clamp(min=0.0, max=6.0)
    a, b = sorted(float32(float(v)) for v in d.rng.normal(0, 3, 2))
    return Clamp(min=a, max=b)


def _pool(d: Draw, *, average: bool) -> Case:
    spatial = d.integer(1, 3)
    shape = d.image_shape(spatial)
    kernel = tuple(d.integer(1, 3) for _ in range(spatial))
    strides = tuple(d.integer(1, 3) for _ in range(spatial))
    padding = tuple(d.integer(0, k // 2) for k in kernel) * 2
    q = d.qtype()
    op: Operator
    if average:
        op = AvgPool(
            kernel=kernel,
            strides=strides,
            padding=padding,
            ceil_mode=d.chance(0.3),
            count_include_pad=d.chance(0.5),
            divisor_override=d.integer(1, 5) if d.chance(0.2) else 0,
        )
    else:
        dilations = tuple(1 if d.chance(0.7) else 2 for _ in range(spatial))
        op = MaxPool(kernel=kernel, strides=strides, padding=padding, dilations=dilations, ceil_mode=d.chance(0.3))
    return d.case(op, [(shape, q)], q)


def _global_avg_pool(d: Draw) -> Case:
    q = d.qtype()
    return d.case(GlobalAvgPool(), [(d.image_shape(d.integer(1, 2)), q)], q)


def _adaptive_avg_pool(d: Draw) -> Case:
    q = d.qtype()
    spatial = d.integer(1, 3)
    shape = d.image_shape(spatial)
    return d.case(AdaptiveAvgPool(output_size=tuple(d.integer(1, n + 1) for n in shape[2:])), [(shape, q)], q)


def _concat(d: Draw, kind: type[Concat] = Concat) -> Case:
    shape = d.shape()
    axis = d.integer(0, len(shape) - 1)
    types = [((*shape[:axis], d.integer(1, 5), *shape[axis + 1 :]), d.qtype()) for _ in range(d.integer(1, 4))]
    return d.case(kind(axis=axis), [*types], d.qtype() if d.chance(0.7) else types[0][1])


def _moved(make: Callable[[Draw, tuple[int, ...]], Operator], *, places: bool = False) -> Callable[[Draw], Case]:
    """`places` are given now and then, as int64."""

    def draw(d: Draw) -> Case:
        shape, q = d.shape(), d.qtype()
        return d.case(make(d, shape), [(shape, q)], "int64" if places and d.chance(0.4) else q)

    return draw


def _sides(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What is put before each dimension, then after each, or left out there."""
    return tuple(d.integer(-(n // 2) if d.chance(0.2) else 0, 2) for n in (*shape, *shape))


def _channel_shuffle(d: Draw) -> Case:
    q, groups = d.qtype(), d.integer(1, 4)
    shape = (d.integer(1, 3), groups * d.integer(1, 9), d.integer(1, 5), d.integer(1, 5))
    return d.case(ChannelShuffle(groups=groups), [(shape, q)], q)


def _grid_sample(d: Draw) -> Case:
    shape, q = d.image_shape(2), d.qtype()
    at = (shape[0], d.integer(1, 4), d.integer(1, 4), 2)
    modes: Any = ("zeros", "border", "reflection")
    op = GridSample(padding_mode=modes[d.integer(0, 2)], align_corners=d.chance(0.5))
    grid = d.rng.uniform(-1.5, 1.5, at).astype(np.float32)
    return d.case(op, [(shape, q)], q, constants={1: (TensorType(at, "float32"), grid)})


def _unfold(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    return Unfold(axis=axis, size=d.integer(1, min(shape[axis], 3)), step=d.integer(1, 2))


def _topk(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    return Topk(k=d.integer(0, shape[axis]), axis=axis, largest=d.chance(0.5))


def _reflection_pad(d: Draw) -> Case:
    q, n = d.qtype(), d.integer(1, 2)
    shape = d.image_shape(n)[d.integer(0, 1) :]
    return d.case(ReflectionPad(padding=tuple(d.integer(0, 3) for _ in range(2 * n))), [(shape, q)], q)


def _filled(make: Callable[[Draw, tuple[int, ...], float], Operator]) -> Callable[[Draw], Case]:
    def draw(d: Draw) -> Case:
        shape, q = d.shape(), d.qtype()
        op = make(d, shape, float32(d.integer(-99, 600) / 2 * q.scale[0]))
        masks: list[tuple[tuple[int, ...], Element]] = [(d.broadcast(shape), "bool")]
        return d.case(op, [(shape, q), *(masks if isinstance(op, MaskedFill) else [])], q)

    return draw


def _slice(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    start = d.integer(0, shape[axis])
    return Slice(axis=axis, start=start, stop=d.integer(start, shape[axis]), step=d.integer(1, 3))


def _float(d: Draw, *, to: bool) -> Case:
    q = d.qtype()
    shape = d.shape()
    return d.case(Quantize(), [(shape, "float32")], q) if to else d.case(Dequantize(), [(shape, q)], "float32")


def _fake_quantize(d: Draw) -> Case:
    shape = d.shape()
    n = (shape[0],) if d.chance(0.5) else ()
    scale = np.array([d.scale() for _ in range(math.prod(n))], np.float32).reshape(n)
    zero_point = d.rng.integers(0, 128, n).astype(np.int32)
    constants: dict[int, Any] = {
        1: (TensorType(n, "float32"), scale),
        2: (TensorType(n, "int32"), np.array(zero_point)),
    }
    return d.case(FakeQuantize(quant_min=-128), [(shape, "float32")], "float32", constants=constants)


def _requantize(d: Draw) -> Case:
    return d.case(Requantize(), [(d.shape(), d.qtype())], d.qtype())


def _normalization(d: Draw, kind: type[LayerNorm | InstanceNorm | GroupNorm]) -> Case:
    instance = kind is not LayerNorm
    shape = d.image_shape(d.integer(1, 2)) if instance else d.shape()
    axis = d.integer(0, len(shape) - 1)
    own = (shape[1],) if instance else shape[axis:]
    weight: tuple[TensorType, Any] = (TensorType(own, "float32"), d.rng.normal(1, 0.5, own).astype(np.float32))
    if d.chance(0.4):
        q = QType.per_tensor("int8", d.scale(0.005, 0.05), 0)
        weight = (TensorType(own, q), d.stored(own, q))
    constants: dict[int, tuple[TensorType, Any]] = {1: weight}
    if instance or d.chance(0.7):
        constants[2] = (TensorType(own, "float32"), d.rng.normal(0, 1, own).astype(np.float32))
    epsilon = float32(float(d.rng.choice([1e-5, 1e-12, 0.5])))
    op: Operator = InstanceNorm(epsilon=epsilon) if instance else LayerNorm(axis=axis, epsilon=epsilon)
    if kind is GroupNorm:
        op = GroupNorm(groups=1 if shape[1] % 2 else 2, epsilon=epsilon)
    return d.case(op, [(shape, d.qtype())], d.qtype(0.005, 0.1), constants=constants)


def _batch_norm(d: Draw) -> Case:
    shape = d.image_shape(d.integer(1, 2)) if d.chance(0.7) else d.image_shape(0)
    own = TensorType((shape[1],), "float32")
    draws = (d.rng.normal(1, 0.5, shape[1]), d.rng.normal(0, 1, shape[1]), d.rng.normal(0, 9, shape[1]))
    values = (*draws, d.rng.uniform(0, 9, shape[1]))
    constants: dict[int, tuple[TensorType, Any]] = {i + 1: (own, v.astype(np.float32)) for i, v in enumerate(values)}
    op = BatchNorm(epsilon=float32(float(d.rng.choice([1e-5, 1e-12, 0.5]))), relu=d.chance(0.4))
    return d.case(op, [(shape, d.qtype())], d.qtype(0.005, 0.1), constants=constants)


def _mean(d: Draw) -> Case:
    shape, q = d.shape(), d.qtype()
    axes = tuple(a for a in range(len(shape)) if d.chance(0.5))
    op = Mean(axes=axes, keepdims=d.chance(0.7), noop_with_empty_axes=d.chance(0.5))
    return d.case(op, [(shape, q)], q if d.chance(0.5) else _free(d, q))


def _std(d: Draw) -> Case:
    shape, q = (*d.shape(), 3), d.qtype()
    axes = (len(shape) - 1,) if d.chance(0.5) else tuple(a for a in range(len(shape)) if d.chance(0.5) or a > 1)
    n = math.prod(shape[a] for a in axes or range(len(shape)))
    op = Std(axes=axes, keepdims=d.chance(0.5), correction=min(d.integer(0, 1), n - 1))
    return d.case(op, [(shape, q)], q)


def _compare(d: Draw) -> Case:
    shape, q = d.shape(), d.qtype()
    op = Compare(relation="eq" if d.chance(0.5) else "ge")
    return d.case(op, [(shape, q), (d.broadcast(shape), q if d.chance(0.6) else d.qtype())], "bool")


def _scalar(d: Draw, op: AddScalar | MulScalar) -> Case:
    q = d.qtype()
    return d.case(op, [(d.shape(), q)], op.derived(q).qtype(q))


def _prelu(d: Draw) -> Case:
    """1 is one of the slopes that the type can say."""
    shape = d.shape()
    n = shape[1] if len(shape) > 1 and d.chance(0.6) else 1
    q = QType.per_tensor(d.dtype, 2.0**-6, 3)
    x = d.qtype()
    return d.case(Prelu(), [(shape, x)], _free(d, x), constants={1: (TensorType((n,), q), d.stored((n,), q))})


def _split(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    cut = d.integer(0, shape[axis])
    return Split(axis=axis, sizes=(cut, shape[axis] - cut), index=d.integer(0, 1))


def _squeeze(d: Draw) -> Case:
    shape, q = d.shape(), d.qtype()
    at = d.integer(0, len(shape))
    return d.case(Squeeze(axes=(at,)), [((*shape[:at], 1, *shape[at:]), q)], q)


def _expand(d: Draw, shape: tuple[int, ...]) -> Operator:
    wide = tuple(d.integer(1, 4) if n == 1 else n for n in shape)
    return Expand(shape=(d.integer(1, 3), *wide) if d.chance(0.3) else wide)


def _gather(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis, n = d.integer(0, len(shape) - 1), d.integer(1, 4)
    taken = tuple(d.integer(-shape[axis], shape[axis] - 1) for _ in range(n))
    return Gather(axis=axis, indices=taken, indices_shape=(n,), index_dtype="int32" if d.chance(0.5) else "int64")


def _gather_elements(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    wanted = tuple(d.integer(1, 4 if i == axis else n) for i, n in enumerate(shape))
    taken = tuple(d.integer(-shape[axis], shape[axis] - 1) for _ in range(math.prod(wanted)))
    return GatherElements(axis=axis, indices=taken, indices_shape=wanted)


def _extreme(kind: type[Amax | Amin]) -> Callable[[Draw, tuple[int, ...]], Operator]:
    def operator(d: Draw, shape: tuple[int, ...]) -> Operator:
        axes = tuple(a - len(shape) * d.integer(0, 1) for a in range(len(shape)) if d.chance(0.5))
        return kind(axes=axes, keepdims=d.chance(0.7), noop_with_empty_axes=d.chance(0.3))

    return operator


def _blocks(d: Draw, *, deep: bool) -> Case:
    q, b = d.qtype(), d.integer(2, 3)
    n, c, h, w = (d.integer(1, 4) for _ in range(4))
    if deep:
        return d.case(DepthToSpace(blocksize=b, mode="CRD" if d.chance(0.5) else "DCR"), [((n, c * b * b, h, w), q)], q)
    return d.case(SpaceToDepth(blocksize=b, mode="CRD" if d.chance(0.5) else "DCR"), [((n, c, h * b, w * b), q)], q)


def _argmax(d: Draw) -> Case:
    shape = d.shape()
    op = Argmax(
        axis=d.integer(0, len(shape) - 1),
        keepdims=d.chance(0.5),
        select_last_index=d.chance(0.5),
        smallest=d.chance(0.3),
    )
    return d.case(op, [(shape, d.qtype())], "int64")


def _interpolate(d: Draw) -> Case:
    shape, q = d.image_shape(2), d.qtype()
    coordinates: Any = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    rounding: Any = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    op = Interpolate(
        sizes=(*shape[:2], d.integer(2, 13), d.integer(2, 13)),
        mode="linear" if d.chance(0.6) else "nearest",
        coordinates=coordinates[d.integer(0, 4)],
        nearest_mode=rounding[d.integer(0, 3)],
    )
    return d.case(op, [(shape, q)], q if d.chance(0.5) else d.qtype(q.scale[0] / 4, q.scale[0] * 4))


def _dynamic_quantize(d: Draw) -> Case:
    output: Any = d.rng.choice(["y", "y", "scale", "zero_point"])
    op = DynamicQuantize(output=str(output), chosen_as=d.chooser, reduce_range=d.reduces())  # type: ignore[arg-type]
    return d.case(op, [(d.shape(), "float32")], "float32" if output == "scale" else "uint8")


def _choose_qparams(d: Draw) -> Case:
    output: Any = str(d.rng.choice(["scale", "zero_point"]))
    low, high, symmetric = ((0, 255, False), (-128, 127, True), (-8, 7, False))[d.integer(0, 2)]
    op = ChooseQparams(
        dtype="uint8" if low == 0 else "int8", quant_min=low, quant_max=high, symmetric=symmetric, output=output
    )
    return d.case(op, [(d.shape(), "float32")], "float32" if output == "scale" else "int32")


def _dynamic_linear(d: Draw) -> Case:
    static = _linear(d)
    network, q = static.network, static.network.inputs[0].type
    kept = {i + 1: (c.type, c.data.array) for i, c in enumerate(network.constants)}
    op = DynamicLinear(chosen_as=d.chooser, relu=d.chooser == "torch" and d.chance(0.4), reduce_range=d.reduces())
    return d.case(op, [(q.shape, "float32")], "float32", constants=kept)


def _dynamic_conv(kind: type[DynamicConv | DynamicConvTranspose]) -> Callable[[Draw], Case]:
    def draw(d: Draw) -> Case:
        static = (_conv if kind is DynamicConv else _conv_transpose)(d)
        network, plain = static.network, static.network.nodes[0].op
        kept = {i + 1: (c.type, c.data.array) for i, c in enumerate(network.constants)}
        shared = {f: getattr(plain, f) for f in set(kind.__struct_fields__) & set(plain.__struct_fields__)}
        op = kind(**shared, chosen_as=d.chooser, reduce_range=d.reduces())
        return d.case(op, [(network.inputs[0].type.shape, "float32")], "float32", constants=kept)

    return draw


def _linear_fp16(d: Draw) -> Case:
    k, m = int(d.rng.choice([1, 2, 3, 7, 8, 16, 33])), d.integer(1, 18)
    weight = (d.rng.integers(-(2**13), 2**13 + 1, (m, k)) * 2.0 ** d.integer(-14, -12)).astype(np.float32)
    constants: dict[int, tuple[TensorType, Any]] = {1: (TensorType((m, k), "float32"), weight)}
    if d.chance(0.5):
        constants[2] = (TensorType((m,), "float32"), d.rng.normal(0, 9, m).astype(np.float32))
    shape = (*(d.integer(1, 5) for _ in range(d.integer(1, 2))), k)
    return d.case(LinearFp16(relu=d.chance(0.4)), [(shape, "float32")], "float32", constants=constants)


def _scaled_mm(d: Draw) -> Case:
    m, n, k = d.integer(1, 5), d.integer(1, 18), int(d.rng.choice([1, 2, 3, 7, 8, 16, 33]))
    axis = 0 if d.chance(0.4) else None
    kinds: tuple[Any, ...] = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")

    def kind(rows: int) -> QType:
        scales = tuple(d.scale() for _ in range(1 if axis is None else rows))
        return QType(kinds[d.integer(0, 3)], scales, (0,) * len(scales), axis)

    def values(shape: tuple[int, int], q: QType) -> Any:
        return d.rng.normal(0, 30, shape).astype(DTYPES[q.dtype])

    q_x, q_w = kind(m), kind(n)
    constants: dict[int, tuple[TensorType, Any]] = {1: (TensorType((n, k), q_w), values((n, k), q_w))}
    if d.chance(0.5):
        constants[2] = (TensorType((n,), "float32"), d.rng.normal(0, 9, n).astype(np.float32))
    results: tuple[Element, ...] = ("float32", "float16", "bfloat16", QType.per_tensor(kinds[0], d.scale(1, 99), 0))
    names = ("x0", "c1", "c2")[: 1 + len(constants)]
    network = Network(
        (Input("x0", TensorType((m, k), q_x)),),
        tuple(Constant(f"c{p}", t, Tensor(a)) for p, (t, a) in constants.items()),
        (Node("y", ScaledMm(), names, results[d.integer(0, 3)]),),
        ("y",),
    )
    return Case(network, (Tensor(values((m, k), q_x)),))


def _attention(d: Draw) -> Case:
    batch, length, features = d.integer(1, 3), int(d.rng.choice([1, 2, 3, 5, 8, 17])), d.integer(1, 9)
    heads = d.integer(1, 3)
    columns = 3 * heads * int(d.rng.choice([1, 2, 4, 8]))
    q_x = d.qtype()
    around = 1.0 / (q_x.scale[0] * 64 * 64 * np.sqrt(features))
    per_column = d.chance(0.4)
    scales = tuple(d.scale(around / 4, around * 4) for _ in range(columns if per_column else 1))
    q_w = QType("int8", scales, (0,) * len(scales), 1 if per_column else None)
    weight = d.rng.integers(-128, 128, (features, columns)).astype(np.int8)
    constants: dict[int, tuple[TensorType, Any]] = {
        1: (TensorType((features, columns), q_w), weight),
        2: (TensorType((columns,), "float32"), d.rng.normal(0, 1, columns).astype(np.float32)),
    }
    if d.chance(0.5):
        form = [(batch,), (2 * batch,), (batch, length), (batch, length, length)][d.integer(0, 3)]
        mask = d.rng.integers(0, (length if len(form) == 1 else 1) + 1, form).astype(np.int32)
        constants[3] = (TensorType(form, "int32"), mask)
    op = Attention(num_heads=heads, unidirectional=d.chance(0.4))
    return d.case(op, [((batch, length, features), q_x)], "float32", constants=constants)


def _lstm(d: Draw) -> Case:
    length, batch, features, hidden = (d.integer(1, 4) for _ in range(4))
    direction = ("forward", "reverse", "bidirectional")[d.integer(0, 2)]
    n = 2 if direction == "bidirectional" else 1
    constants: dict[int, tuple[TensorType, Any]] = {}
    for position, (rows, around) in enumerate(((features, 2.0**-11), (hidden, 2.0**-6)), 1):
        q = QType.per_tensor("int8", d.scale(around / 4, around * 4), 0)
        shape = (n, rows, 4 * hidden)
        constants[position] = (TensorType(shape, q), d.rng.integers(-128, 128, shape).astype(np.int8))
    if d.chance(0.6):
        constants[3] = (TensorType((n, 8 * hidden), "float32"), d.rng.normal(0, 1, (n, 8 * hidden)).astype(np.float32))
    op = Lstm(direction=direction, output=("y", "y_h", "y_c")[d.integer(0, 2)])  # type: ignore[arg-type]
    return d.case(op, [((length, batch, features), "float32")], "float32", constants=constants)


def _recurrent(d: Draw) -> Case:
    cell = d.chance(0.5)
    kind: Any = str(d.rng.choice(["rnn_tanh", "rnn_relu", "lstm", "gru"] if cell else ["lstm", "gru"]))
    layers, directions = (1, 1) if cell else (d.integer(1, 2), d.integer(1, 2))
    length, batch, features, hidden = (d.integer(1, 4) for _ in range(4))
    rows = GATES[kind] * hidden
    halves = d.chance(0.3)
    constants: dict[int, tuple[TensorType, Any]] = {}

    def add(element: Element, data: np.ndarray[Any, Any]) -> None:
        constants[1 + len(constants)] = (TensorType(data.shape, element), data)

    for i in range(layers * directions):
        for read in (features if i < directions else directions * hidden, hidden):
            if halves:
                add("float32", d.rng.normal(0, 1, (rows, read)).astype(np.float32))
            else:
                q = QType.per_tensor("int8", d.scale(2.0**-8, 2.0**-5), 0)
                add(q, d.rng.integers(-128, 128, (rows, read)).astype(np.int8))
        for _ in "bc":
            add("float32", d.rng.normal(0, 1, rows).astype(np.float32))
    for _ in range(2 if kind == "lstm" else 1):
        shape = (batch, hidden) if cell else (layers * directions, batch, hidden)
        add("float32", d.rng.normal(0, 1, shape).astype(np.float32))
    op = Recurrent(
        kind=kind,
        layers=layers,
        bidirectional=directions == 2,
        reduce_range=cell or d.chance(0.5),
        output="c" if kind == "lstm" and d.chance(0.3) else "y",
    )
    lead = (batch,) if cell else (length, batch)
    return d.case(op, [((*lead, features), "float32")], "float32", constants=constants)


def _embed_layer_norm(d: Draw) -> Case:
    n_words, features, batch, length = (
        d.integer(1, 9),
        int(d.rng.choice([1, 2, 3, 8, 17])),
        d.integer(1, 3),
        d.integer(1, 5),
    )
    words = d.qtype()
    constants: dict[int, tuple[TensorType, Any]] = {
        1: (TensorType((batch, length), "int32"), d.rng.integers(0, n_words, (batch, length)).astype(np.int32))
    }
    for position, shape in ((2, (length, features)), (3, (features,)), (4, (features,))):
        q = d.qtype()
        constants[position] = (TensorType(shape, q), d.stored(shape, q))
    if d.chance(0.5):
        q = d.qtype()
        constants[5] = (TensorType((batch, length), "int32"), d.rng.integers(0, 2, (batch, length)).astype(np.int32))
        constants[6] = (TensorType((2, features), q), d.stored((2, features), q))
    return d.case(EmbedLayerNorm(), [((n_words, features), words)], "float32", constants=constants)


def _moe(d: Draw) -> Case:
    tokens, features, experts, inner = (d.integer(1, 5) for _ in range(4))
    activation = ("identity", "relu", "silu", "swiglu")[d.integer(0, 3)]
    rows = inner * (2 if activation == "swiglu" else 1)
    mixing = d.rng.uniform(0.1, 1.0, (tokens, experts)).astype(np.float32)
    constants: dict[int, tuple[TensorType, Any]] = {2: (TensorType((tokens, experts), "float32"), mixing)}
    for position, shape, around in ((3, (experts, rows, features), 2.0**-10), (4, (experts, features, inner), 2.0**-6)):
        q = QType.per_tensor("uint8", d.scale(around / 4, around * 4), 128)
        constants[position] = (TensorType(shape, q), d.stored(shape, q))
    if d.chance(0.5):
        for position, n in ((5, rows), (6, features)):
            bias = d.rng.normal(0, 1, (experts, n)).astype(np.float32)
            constants[position] = (TensorType((experts, n), "float32"), bias)
    op = Moe(top=d.integer(1, experts), activation=activation, normalized=d.chance(0.5))  # type: ignore[arg-type]
    types: list[tuple[tuple[int, ...], Element]] = [((tokens, features), "float32"), ((tokens, experts), "float32")]
    return d.case(op, types, "float32", constants=constants)


def _stored_weight(d: Draw, dtype: str, shape: tuple[int, int]) -> tuple[TensorType, np.ndarray[Any, Any]]:
    """In blocks along the last axis, per row or per tensor; the zero points are of each of these."""
    low, high = INTEGER_RANGE[dtype]
    granularity, block = d.integer(0, 2), int(d.rng.choice([16, 32, 64]))
    count = (1, shape[0], shape[0] * -(-shape[1] // block))[granularity]
    zero_points = (
        tuple(d.integer(low, high) for _ in range(count)) if d.chance(0.6) else ((low + high + 1) // 2,) * count
    )
    name: Any = dtype
    axis = (None, 0, 1)[granularity]
    q = QType(name, tuple(d.scale() for _ in range(count)), zero_points, axis, block if granularity == 2 else 0)
    return TensorType(shape, q), d.rng.integers(low, high + 1, shape).astype(DTYPES[dtype])


def _weight_only_linear(d: Draw) -> Case:
    n, k = int(d.rng.choice([1, 3, 4, 16, 17, 33])), int(d.rng.choice([1, 15, 16, 17, 32, 48, 65, 130]))
    dtype = str(d.rng.choice(["uint4", "uint8", "uint2"] if d.dtype == "uint8" else ["int4", "int8", "int2"]))
    constants = {1: _stored_weight(d, dtype, (n, k))}
    if d.chance(0.5):
        constants[2] = (TensorType((n,), "float32"), d.rng.normal(0, 9, n).astype(np.float32))
    shape = (*(d.integer(1, 4) for _ in range(d.integer(1, 2))), k)
    return d.case(WeightOnlyLinear(), [(shape, "float32")], "float32", constants=constants)


def _dynamic_nbits_linear(d: Draw) -> Case:
    group = int(d.rng.choice([0, 0, 32, 64]))
    n, k = int(d.rng.choice([1, 3, 4, 16, 17])), group * d.integer(1, 3) or int(d.rng.choice([2, 16, 32, 48, 130]))
    count = n * k // group if group else n
    q = QType("int4", tuple(d.scale() for _ in range(count)), (0,) * count, 1 if group else 0, group)
    constants = {1: (TensorType((n, k), q), d.rng.integers(-8, 8, (n, k)).astype(DTYPES["int4"]))}
    if d.chance(0.5):
        constants[2] = (TensorType((n,), "float32"), d.rng.normal(0, 9, n).astype(np.float32))
    return d.case(DynamicNbitsLinear(), [((d.integer(1, 4), k), "float32")], "float32", constants=constants)


def _embedding(d: Draw) -> Case:
    rows, columns = d.integer(2, 9), int(d.rng.choice([16, 24, 32, 36, 80]))
    dtype = str(d.rng.choice(["uint4", "uint8", "uint2"] if d.dtype == "uint8" else ["int4", "int8", "int2"]))
    at = d.rng.integers(-rows, rows, (d.integer(1, 5), d.integer(1, 3))).astype(np.int64)
    constants = {0: _stored_weight(d, dtype, (rows, columns)), 1: (TensorType(at.shape, "int64"), at)}
    return d.case(Embedding(), [], "float32", constants=constants)


def _embedding_rows(d: Draw) -> Case:
    bits: Any = int(d.rng.choice([2, 4, 8]))
    features = int(d.rng.choice([4, 8, 12, 32, 44, 68]))
    return d.case(EmbeddingRows(bits=bits), [((d.integer(1, 5), features), "float32")], "float32")


def _embedding_bag(d: Draw) -> Case:
    rows, features = d.integer(1, 9), int(d.rng.choice([2, 8, 12, 16, 32, 48, 144]))
    dtype: Any = str(d.rng.choice(["uint4", "uint8", "uint2"]))
    features = -(-features // 4) * 4
    top = INTEGER_RANGE[dtype][1]
    q = QType(dtype, tuple(d.scale() for _ in range(rows)), tuple(d.integer(0, top) for _ in range(rows)), 0)
    at = d.rng.integers(0, rows, d.integer(0, 9)).astype(np.int64)
    offsets = np.sort(np.append(d.rng.integers(0, at.size + 1, d.integer(0, 4)), 0)).astype(np.int64)
    constants: dict[int, tuple[TensorType, Any]] = {
        0: (TensorType((rows, features), q), d.rng.integers(0, top + 1, (rows, features)).astype(DTYPES[dtype])),
        1: (TensorType(at.shape, "int64"), at),
        2: (TensorType(offsets.shape, "int64"), offsets),
    }
    weighted, pruned = d.chance(0.5), d.chance(0.5)
    if weighted:
        constants[3] = (TensorType(at.shape, "float32"), d.rng.normal(0, 2, at.shape).astype(np.float32))
    if pruned:
        mapping = d.rng.integers(-1, rows, rows).astype(np.int32)
        constants[3 + weighted] = (TensorType(mapping.shape, "int32"), mapping)
    op = EmbeddingBag(weighted=weighted, pruned=pruned, parameters="float32" if dtype == "uint8" else "float16")
    return d.case(op, [], "float32", constants=constants)


def _post_operation(d: Draw) -> dict[str, Any]:
    activations = get_args(Activation)
    low = d.integer(-2, 1) / 2
    return {"activation": activations[d.integer(0, len(activations) - 1)], "min": low, "max": low + d.integer(1, 6)}


def _linear_pointwise(d: Draw) -> Case:
    k = int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 31, 33]))
    lead = tuple(d.integer(1, 5) for _ in range(d.integer(1, 2)))
    return _contraction(d, LinearPointwise(**_post_operation(d)), (*lead, k), (d.integer(1, 18), k))


def _conv_pointwise(d: Draw) -> Case:
    attributes, shape, weight_shape = _windows(d, d.integer(1, 3))
    return _contraction(d, ConvPointwise(**attributes, **_post_operation(d)), shape, weight_shape)


def _and_add(d: Draw, layer: Case, op: Operator) -> Case:
    """The layer with another activation of its output's dtype, before its bias."""
    network, (node,) = layer.network, layer.network.nodes
    assert isinstance(node.element, QType)
    q = d.qtype(node.element.scale[0] / 4, node.element.scale[0] * 4)
    other = Input("other", TensorType(network.types[node.name].shape, q))
    added = Node(node.name, op, (*node.inputs[:2], "other", *node.inputs[2:]), node.element)
    fed = (*layer.inputs, Tensor(d.stored(other.type.shape, q)))
    return Case(Network((*network.inputs, other), network.constants, (added,), network.outputs), fed)


def _conv_add(d: Draw) -> Case:
    attributes, shape, weight_shape = _windows(d, d.integer(1, 2))
    layer = _contraction(d, ConvPointwise(**attributes), shape, weight_shape)
    return _and_add(d, layer, ConvAdd(**attributes, relu=d.chance(0.4)))


def _linear_add(d: Draw) -> Case:
    k = int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 31, 33]))
    lead = tuple(d.integer(1, 5) for _ in range(d.integer(1, 2)))
    layer = _contraction(d, LinearPointwise(), (*lead, k), (d.integer(1, 18), k))
    return _and_add(d, layer, LinearAdd(relu=d.chance(0.4)))


SINGLE_OPS: Mapping[str, Callable[[Draw], Case]] = {
    "quantize": lambda d: _float(d, to=True),
    "dequantize": lambda d: _float(d, to=False),
    "requantize": _requantize,
    "conv": _conv,
    "linear": _linear_form,
    "add": _binary(lambda relu: Add(relu=relu), product=False),
    "mul": _binary(lambda relu: Mul(relu=relu), product=True),
    "relu": _unary(lambda d: Relu(), _same),
    "clamp": _unary(_clamp, _same),
    "max_pool": lambda d: _pool(d, average=False),
    "avg_pool": lambda d: _pool(d, average=True),
    "global_avg_pool": _global_avg_pool,
    "adaptive_avg_pool": _adaptive_avg_pool,
    "concat_relu": lambda d: _concat(d, ConcatRelu),
    "flip": _moved(lambda d, s: Flip(axes=tuple(a for a in range(len(s)) if d.chance(0.5)))),
    "channel_shuffle": _channel_shuffle,
    "grid_sample": _grid_sample,
    "unfold": _moved(_unfold),
    "reflection_pad": _reflection_pad,
    "sort": _moved(lambda d, s: Sort(axis=d.integer(0, len(s) - 1), descending=d.chance(0.5)), places=True),
    "topk": _moved(_topk, places=True),
    "masked_fill": _filled(lambda d, s, v: MaskedFill(value=v)),
    "index_put": _filled(lambda d, s, v: IndexPut(value=v, indices=(d.integer(-s[0], s[0] - 1),))),
    "constant_pad": _filled(lambda d, s, v: ConstantPad(value=v, padding=_sides(d, s))),
    "concat": _concat,
    "reshape": _moved(lambda d, shape: Reshape(shape=(1, int(np.prod(shape))))),
    "transpose": _moved(lambda d, shape: Transpose(perm=tuple(int(i) for i in d.rng.permutation(len(shape))))),
    "slice": _moved(_slice),
    "pad": _moved(lambda d, shape: Pad(padding=_sides(d, shape))),
    "flatten": _moved(lambda d, shape: Flatten(start_axis=d.integer(0, len(shape) - 1))),
    "sigmoid": _unary(lambda d: Sigmoid(), _share),
    "tanh": _unary(lambda d: Tanh(), _fixed(2.0**-7, 128, 0)),
    "leaky_relu": _unary(lambda d: LeakyRelu(negative_slope=float32(float(d.rng.uniform(0, 1)))), _free),
    "elu": _unary(lambda d: Elu(alpha=float32(float(d.rng.uniform(0, 2))), scale=1.0 if d.chance(0.6) else 1.5), _free),
    "celu": _unary(lambda d: Celu(alpha=float32(float(d.rng.uniform(0.1, 2)))), _free),
    "threshold": _unary(
        lambda d: Threshold(threshold=float32(float(d.rng.normal(0, 3))), value=float(d.integer(-9, 9))),
        _same,
    ),
    "prelu": _prelu,
    "std": _std,
    "compare": _compare,
    "compare_scalar": lambda d: d.case(
        CompareScalar(relation="lt" if d.chance(0.5) else "eq", other=float(d.integer(-3, 3))),
        [(d.shape(), d.qtype())],
        "bool",
    ),
    "add_scalar": lambda d: _scalar(d, AddScalar(other=float32(float(d.rng.normal(0, 9))), relu=d.chance(0.4))),
    "mul_scalar": lambda d: _scalar(d, MulScalar(other=float32(float(d.rng.normal(0, 3))), relu=d.chance(0.4))),
    "hardsigmoid": _unary(lambda d: Hardsigmoid(), _fixed(2.0**-8, 0, -128)),
    "hardswish": _unary(lambda d: Hardswish(), _free),
    "softmax": lambda d: d.case(
        Softmax(axis=d.integer(0, len(s := d.shape()) - 1)), [(s, q := d.qtype())], _share(d, q)
    ),
    "sub": _two(Sub()),
    "div": _two(Div(), divides=True),
    "minimum": _two(Minimum()),
    "maximum": _two(Maximum()),
    "where": _two(Where()),
    "gelu": _unary(
        lambda d: Gelu(approximate="tanh" if d.chance(0.5) else "none"),
        lambda d, x: x if d.chance(0.5) else _free(d, x),
    ),
    "layer_norm": lambda d: _normalization(d, LayerNorm),
    "instance_norm": lambda d: _normalization(d, InstanceNorm),
    "mean": _mean,
    "split": _moved(_split),
    "squeeze": _squeeze,
    "unsqueeze": _moved(lambda d, shape: Unsqueeze(axes=(d.integer(0, len(shape)),))),
    "expand": _moved(_expand),
    "gather": _moved(_gather),
    "depth_to_space": lambda d: _blocks(d, deep=True),
    "space_to_depth": lambda d: _blocks(d, deep=False),
    "argmax": _argmax,
    "interpolate": _interpolate,
    "matmul": _matmul,
    "conv_transpose": _conv_transpose,
    "conv_integer": _conv_integer,
    "linear_integer": _linear_integer,
    "matmul_integer": lambda d: d.case(MatMulInteger(omits_zeros=d.chance(0.5)), _matrices(d), "int32"),
    "dynamic_quantize": _dynamic_quantize,
    "fake_quantize": _fake_quantize,
    "choose_qparams": _choose_qparams,
    "dynamic_linear": _dynamic_linear,
    "dynamic_nbits_linear": _dynamic_nbits_linear,
    "dynamic_conv": _dynamic_conv(DynamicConv),
    "dynamic_conv_transpose": _dynamic_conv(DynamicConvTranspose),
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
    "tile": _moved(lambda d, shape: Tile(repeats=tuple(d.integer(1, 3) for _ in shape))),
    "gather_elements": _moved(_gather_elements),
    "linear_pointwise": _linear_pointwise,
    "conv_pointwise": _conv_pointwise,
    "linear_add": _linear_add,
    "conv_add": _conv_add,
    "amax": _moved(_extreme(Amax)),
    "amin": _moved(_extreme(Amin)),
    "batch_norm": _batch_norm,
    "group_norm": lambda d: _normalization(d, GroupNorm),
}
"""Operator name to a function that draws a case in the form that most kernels have."""
