"""Small random one-node cases of every operator, over all legal scales, zero points and attributes, kernels or not.

They are drawn without `qfuzz.strategies`, so that the exact reference is also tested where no strategy goes: output
types free, scales far apart, empty dimensions, values that saturate or vanish.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax

Shape = tuple[int, ...]


class Dice:
    """A seeded source of the parts of a case."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
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

        return np.array([value() for _ in range(math.prod(shape))], dtype=q.dtype).reshape(shape)

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


def _contraction(d: Dice, op: Operator, shape: Shape, weight_shape: Shape) -> Case:
    q_x = d.qtype()
    dtype, n = d.pick("int8", "uint8"), weight_shape[0]
    qmin = 0 if dtype == "uint8" else -128
    count, axis = (n, 0) if d.chance(0.5) else (1, None)
    zero_points = tuple(d.integer(qmin, qmin + 255) if d.chance(0.3) else max(qmin, 0) for _ in range(count))
    q_w = QType(dtype, tuple(d.scale(0.0) for _ in range(count)), zero_points, axis)
    weight = np.array([d.integer(qmin, qmin + 255) for _ in range(math.prod(weight_shape))], dtype=dtype)
    constants: list[tuple[TensorType, np.ndarray[Any, Any]]] = [
        (TensorType(weight_shape, q_w), weight.reshape(weight_shape))
    ]
    unit = q_x.scale[0] * q_w.scale[0]
    match d.integer(0, 2):
        case 1:
            constants.append(
                (TensorType((n,), "int32"), np.array([d.integer(-9999, 9999) for _ in range(n)], dtype=np.int32))
            )
        case 2:
            bias = np.array([d.random.uniform(-9999, 9999) * unit for _ in range(n)], dtype=np.float32)
            constants.append((TensorType((n,), "float32"), bias))
    spread = math.log2(unit) + d.random.uniform(-2.0, 10.0)
    return _case(d, op, [(shape, q_x)], d.qtype(spread), tuple(constants))


def _conv(d: Dice) -> Case:
    shape = d.image_shape()
    n = len(shape) - 2
    groups = d.pick(*(g for g in (1, shape[1], 2) if shape[1] % g == 0))
    kernel = tuple(d.integer(1, 3) for _ in range(n))
    op = Conv(
        strides=tuple(d.integer(1, 3) for _ in range(n)),
        padding=tuple(d.integer(0, 2) for _ in range(2 * n)),
        dilations=tuple(d.pick(1, 1, 2) for _ in range(n)),
        groups=groups,
        relu=d.chance(0.3),
    )
    return _contraction(d, op, shape, (groups * d.integer(1, 3), shape[1] // groups, *kernel))


def _linear(d: Dice) -> Case:
    k = d.integer(1, 6)
    return _contraction(d, Linear(relu=d.chance(0.3)), (*d.shape(1, 2), k), (d.integer(1, 4), k))


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


def _max_pool(d: Dice) -> Case:
    shape = d.image_shape()
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
    shape = d.image_shape()
    kernel = tuple(d.integer(1, 4) for _ in shape[2:])
    op = AvgPool(
        kernel=kernel,
        strides=tuple(d.integer(1, 4) for _ in kernel),
        padding=tuple(d.integer(0, k // 2) for k in (*kernel, *kernel)),
        ceil_mode=d.chance(0.5),
        count_include_pad=d.chance(0.5),
    )
    q = d.qtype()
    return _case(d, op, [(shape, q)], q if d.chance(0.5) else d.qtype())


def _concat(d: Dice) -> Case:
    shape = d.shape()
    axis = d.integer(0, len(shape) - 1)
    types = [((*shape[:axis], d.integer(0, 3), *shape[axis + 1 :]), d.qtype()) for _ in range(d.integer(1, 4))]
    return _case(d, Concat(axis=axis), [*types], d.qtype())


def _moved(make: Callable[[Dice, Shape], Operator]) -> Callable[[Dice], Case]:
    def draw(d: Dice) -> Case:
        shape, q = d.shape(), d.qtype()
        return _case(d, make(d, shape), [(shape, q)], q if d.chance(0.5) else d.qtype())

    return draw


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


RANDOM_CASES: dict[str, Callable[[Dice], Case]] = {
    "quantize": lambda d: _case(d, Quantize(), [(d.shape(), "float32")], d.qtype(0.0)),
    "dequantize": lambda d: _case(d, Dequantize(), [(d.shape(), d.qtype(d.pick(None, 124.0, -126.0)))], "float32"),
    "requantize": lambda d: _case(d, Requantize(), [(d.shape(), d.qtype())], d.qtype()),
    "conv": _conv,
    "linear": _linear,
    "add": _binary(lambda relu: Add(relu=relu), product=False),
    "mul": _binary(lambda relu: Mul(relu=relu), product=True),
    "relu": _unary(lambda d: Relu()),
    "clamp": _unary(_clamp, bounded=True),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda d: _case(d, GlobalAvgPool(), [(d.image_shape(), d.qtype())], d.qtype()),
    "concat": _concat,
    "reshape": _moved(_reshape),
    "transpose": _moved(_perm),
    "slice": _moved(_slice),
    "pad": _moved(lambda d, shape: Pad(padding=tuple(d.integer(0, 2) for _ in range(2 * len(shape))))),
    "flatten": _moved(lambda d, shape: Flatten(start_axis=d.integer(0, len(shape) - 1))),
    "sigmoid": _unary(lambda d: Sigmoid(), bounded=True),
    "tanh": _unary(lambda d: Tanh(), bounded=True),
    "leaky_relu": _unary(lambda d: LeakyRelu(negative_slope=d.pick(d.float32(-2.0, 2.0), 0.0, 0.25, 0.5))),
    "elu": _unary(lambda d: Elu(alpha=d.pick(1.0, d.float32(0.0, 3.0), 0.0)), bounded=True),
    "hardsigmoid": _unary(lambda d: Hardsigmoid(), bounded=True),
    "hardswish": _unary(lambda d: Hardswish(), bounded=True),
    "softmax": _softmax,
    "sub": _two(Sub()),
    "div": _two(Div(), divides=True),
    "minimum": _several(Minimum()),
    "maximum": _several(Maximum()),
    "where": _where,
}
"""Operator name to a function that throws a case. It may raise `InvalidCase`; `random_case` throws again."""


def random_case(op: str, seed: int) -> Case:
    """The valid case of an operator that belongs to `seed`."""
    for attempt in range(100):
        try:
            return RANDOM_CASES[op](Dice(f"{op}/{seed}/{attempt}"))
        except InvalidCase:
            continue
    raise AssertionError(f"no valid case of {op} in 100 attempts")
