"""Small one-operator cases for backend tests, drawn from a seeded generator. No framework is imported here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.convolution import unit_conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax


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


def _contraction(d: Draw, op: Operator, shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> Case:
    q_x = d.qtype()
    n = weight_shape[0]
    per_channel, zero_points = d.chance(0.4), d.chance(0.25)
    count = n if per_channel else 1
    q_w = QType(
        "int8",
        tuple(d.scale(0.05, 2.0) for _ in range(count)),
        tuple(d.integer(-128, 127) if zero_points else 0 for _ in range(count)),
        0 if per_channel else None,
    )
    weight = d.rng.integers(-128, 128, weight_shape).astype(np.int8)
    constants: dict[int, tuple[TensorType, Any]] = {1: (TensorType(weight_shape, q_w), weight)}
    if d.chance(0.5):
        unit = q_x.scale[0] * q_w.scale[0]
        bias = (d.rng.integers(-2000, 2000, n) * unit if d.pow2 else d.rng.normal(0, 100 * unit, n)).astype(np.float32)
        constants[2] = (TensorType((n,), "float32"), bias)
    spread = q_x.scale[0] * max(q_w.scale) * 128 * np.sqrt(np.prod(weight_shape[1:]))
    q_y = d.qtype(spread / 64, spread * 4)
    return d.case(op, [(shape, q_x)], q_y, constants=constants)


def _conv(d: Draw) -> Case:
    spatial = d.integer(1, 2)
    shape = d.image_shape(spatial)
    channels, filters, groups = shape[1], d.integer(1, 9), 1
    if d.chance(0.3):
        groups, filters = channels, channels * d.integer(1, 2)
    elif channels % 2 == 0 and d.chance(0.3):
        groups, filters = 2, 2 * d.integer(1, 5)
    kernel = tuple(d.integer(1, 3) for _ in range(spatial))
    padding = tuple(d.integer(0, 2) for _ in range(spatial))
    op = unit_conv(
        spatial,
        strides=tuple(d.integer(1, 3) for _ in range(spatial)),
        padding=padding * 2,
        dilations=tuple(1 if d.chance(0.7) else 2 for _ in range(spatial)),
        groups=groups,
        relu=d.chance(0.4),
    )
    return _contraction(d, op, shape, (filters, channels // groups, *kernel))


def _linear(d: Draw) -> Case:
    k = int(d.rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 31, 33]))
    lead = tuple(d.integer(1, 5) for _ in range(d.integer(1, 2)))
    return _contraction(d, Linear(relu=d.chance(0.4)), (*lead, k), (d.integer(1, 18), k))


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
    spatial = d.integer(1, 2)
    shape = d.image_shape(spatial)
    kernel = tuple(d.integer(1, 3) for _ in range(spatial))
    strides = tuple(d.integer(1, 3) for _ in range(spatial))
    padding = tuple(d.integer(0, k // 2) for k in kernel) * 2
    q = d.qtype()
    op: Operator
    if average:
        op = AvgPool(
            kernel=kernel, strides=strides, padding=padding, ceil_mode=d.chance(0.3), count_include_pad=d.chance(0.5)
        )
    else:
        dilations = tuple(1 if d.chance(0.7) else 2 for _ in range(spatial))
        op = MaxPool(kernel=kernel, strides=strides, padding=padding, dilations=dilations, ceil_mode=d.chance(0.3))
    return d.case(op, [(shape, q)], q)


def _global_avg_pool(d: Draw) -> Case:
    q = d.qtype()
    return d.case(GlobalAvgPool(), [(d.image_shape(d.integer(1, 2)), q)], q)


def _concat(d: Draw) -> Case:
    shape = d.shape()
    axis = d.integer(0, len(shape) - 1)
    types = [((*shape[:axis], d.integer(1, 5), *shape[axis + 1 :]), d.qtype()) for _ in range(d.integer(1, 4))]
    return d.case(Concat(axis=axis), [*types], d.qtype() if d.chance(0.7) else types[0][1])


def _moved(make: Callable[[Draw, tuple[int, ...]], Operator]) -> Callable[[Draw], Case]:
    def draw(d: Draw) -> Case:
        shape, q = d.shape(), d.qtype()
        return d.case(make(d, shape), [(shape, q)], q)

    return draw


def _slice(d: Draw, shape: tuple[int, ...]) -> Operator:
    axis = d.integer(0, len(shape) - 1)
    start = d.integer(0, shape[axis])
    return Slice(axis=axis, start=start, stop=d.integer(start, shape[axis]), step=d.integer(1, 3))


def _float(d: Draw, *, to: bool) -> Case:
    q = d.qtype()
    shape = d.shape()
    return d.case(Quantize(), [(shape, "float32")], q) if to else d.case(Dequantize(), [(shape, q)], "float32")


def _requantize(d: Draw) -> Case:
    return d.case(Requantize(), [(d.shape(), d.qtype())], d.qtype())


SINGLE_OPS: Mapping[str, Callable[[Draw], Case]] = {
    "quantize": lambda d: _float(d, to=True),
    "dequantize": lambda d: _float(d, to=False),
    "requantize": _requantize,
    "conv": _conv,
    "linear": _linear,
    "add": _binary(lambda relu: Add(relu=relu), product=False),
    "mul": _binary(lambda relu: Mul(relu=relu), product=True),
    "relu": _unary(lambda d: Relu(), _same),
    "clamp": _unary(_clamp, _same),
    "max_pool": lambda d: _pool(d, average=False),
    "avg_pool": lambda d: _pool(d, average=True),
    "global_avg_pool": _global_avg_pool,
    "concat": _concat,
    "reshape": _moved(lambda d, shape: Reshape(shape=(1, int(np.prod(shape))))),
    "transpose": _moved(lambda d, shape: Transpose(perm=tuple(int(i) for i in d.rng.permutation(len(shape))))),
    "slice": _moved(_slice),
    "pad": _moved(lambda d, shape: Pad(padding=tuple(d.integer(0, 2) for _ in range(2 * len(shape))))),
    "flatten": _moved(lambda d, shape: Flatten(start_axis=d.integer(0, len(shape) - 1))),
    "sigmoid": _unary(lambda d: Sigmoid(), _share),
    "tanh": _unary(lambda d: Tanh(), _fixed(2.0**-7, 128, 0)),
    "leaky_relu": _unary(lambda d: LeakyRelu(negative_slope=float32(float(d.rng.uniform(0, 1)))), _free),
    "elu": _unary(lambda d: Elu(alpha=float32(float(d.rng.uniform(0, 2)))), _free),
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
}
"""Operator name to a function that draws a case in the form that most kernels have."""
