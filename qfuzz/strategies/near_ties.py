"""Cases whose results lie within 2^-16 of a rounding tie, by the thousand: what proves a contract's k.

Random data proves nothing here: it takes a scale that puts every odd accumulator on half a step, off by an ulp of the
scale. Zero points are at both ends of the range. A pure function of the seed; no hypothesis draws.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, QuantizedDType, float32
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import unit_conv
from qfuzz.ops.dynamic import Chooser, DynamicLinear, DynamicQuantize, Output
from qfuzz.ops.dynamic_nbits import DynamicNbitsLinear
from qfuzz.ops.dynamic_range import STORED
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.interpolation import Coordinates, Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import MatMul
from qfuzz.ops.movement import Concat
from qfuzz.ops.normalization import InstanceNorm, LayerNorm
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool
from qfuzz.ops.quantization import Quantize, Requantize
from qfuzz.ops.reduction import Mean
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.semantics import Operand
from qfuzz.ops.softmax import Softmax
from qfuzz.oracle.reference import image_of
from qfuzz.strategies import fill
from qfuzz.strategies.fill import Array

ROWS = 512

NEAR_TIE_OPS = (
    "quantize",
    "requantize",
    "conv",
    "linear",
    "add",
    "mul",
    "avg_pool",
    "global_avg_pool",
    "concat",
    "sigmoid",
    "tanh",
    "leaky_relu",
    "elu",
    "hardsigmoid",
    "hardswish",
    "softmax",
    "sub",
    "div",
    "minimum",
    "maximum",
    "where",
    "gelu",
    "layer_norm",
    "instance_norm",
    "mean",
    "interpolate",
    "matmul",
    "conv_transpose",
    "dynamic_quantize",
    "dynamic_linear",
    "dynamic_nbits_linear",
)
"""Operators that round."""


def near_tie_cases(op: str, seed: int, *, dtypes: tuple[QuantizedDType, ...] = ("uint8", "int8")) -> Iterator[Case]:
    """Endless single-node cases of `op`."""
    number = 0
    while True:
        w = fill.words(seed * 1_000_003 + number, 24, stream=5)
        number += 1
        try:
            yield _case(op, w, dtypes)
        except InvalidCase:
            continue  # scales that left the range of float32


def _case(op: str, w: fill.Words, dtypes: tuple[QuantizedDType, ...]) -> Case:
    choose = _Chooser(w)
    dtype: QuantizedDType = dtypes[choose(len(dtypes))]
    q_x = QType.per_tensor(dtype, _mantissa(choose, 2.0 ** (choose(13) - 8)), _zero_point(choose, dtype))
    key = int(w[0]) | 1
    match op:
        case "linear" | "conv" | "matmul" | "conv_transpose":
            return _contraction(op, choose, q_x, key)
        case "add" | "mul" | "concat" | "sub" | "div" | "minimum" | "maximum" | "where":
            return _pair(op, choose, q_x, key)
        case "layer_norm" | "instance_norm":
            return _normalization(op, choose, q_x, key)
        case "avg_pool" | "global_avg_pool" | "mean":
            return _pool(op, choose, q_x, key)
        case "quantize":
            return _quantize(choose, dtype, key)
        case "interpolate":
            return _interpolate(choose, q_x, key)
        case "dynamic_quantize" | "dynamic_linear":
            return _dynamic(op, choose, key)
        case "dynamic_nbits_linear":
            return _dynamic_rows(choose, key)
        case _:
            return _unary(op, choose, q_x, key)


class _Chooser:
    def __init__(self, words: fill.Words) -> None:
        self._words = iter(words.tolist())

    def __call__(self, n: int) -> int:
        """One of 0..n-1."""
        return (int(next(self._words)) >> 32) * n >> 32


def _zero_point(choose: _Chooser, dtype: QuantizedDType) -> int:
    lo, hi = (0, 255) if dtype == "uint8" else (-128, 127)
    return (lo, hi, lo, hi, (lo + hi + 1) // 2, (lo + hi - 1) // 2, lo + 1, hi - 1)[choose(8)]


def _mantissa(choose: _Chooser, power: float) -> float:
    return float32(power * (1 + (0, 0, choose(2**23) * 2.0**-23)[choose(3)]))


def _halving(choose: _Chooser, unit: float) -> float:
    """An output scale near 2/odd units, a few ulps off: odd multiples of the unit fall next to ties."""
    odd = (1, 1, 3, 5, 7)[choose(5)]
    scale = np.float32(2.0 * unit / odd)
    return float((scale.view(np.int32) + np.int32(choose(9) - 4)).view(np.float32))


def _output(choose: _Chooser, q_x: QType, unit: float) -> QType:
    return QType.per_tensor(q_x.dtype, _halving(choose, unit), _zero_point(choose, q_x.dtype))


def _single(
    op: Operator, inputs: list[tuple[Element, Array]], element: Element, constants: list[tuple[Element, Array]]
) -> Case:
    fed = tuple(Input(f"x{i}", TensorType(a.shape, e)) for i, (e, a) in enumerate(inputs))
    kept = tuple(Constant(f"c{i}", TensorType(a.shape, e), Tensor(a)) for i, (e, a) in enumerate(constants))
    names = (*(v.name for v in fed), *(v.name for v in kept))
    network = Network(fed, kept, (Node("y", op, names, element),), ("y",))
    return Case(network, tuple(Tensor(a) for _, a in inputs))


def _contraction(op: str, choose: _Chooser, q_x: QType, key: int) -> Case:
    """Weights of -1, 0, 1 and inputs around the zero point, so that accumulators stay within a few hundred."""
    n_in, n_out = (1, 2, 3, 4, 8, 9, 16)[choose(7)], (1, 4, 8, 16, 17)[choose(5)]
    q_w = QType.per_tensor("int8", _mantissa(choose, 2.0 ** -choose(10)), 0)
    weight = (fill.below(fill.words(key, n_in * n_out, stream=1), 3) - 1).astype(np.int8)
    element = _output(choose, q_x, q_x.scale[0] * q_w.scale[0])
    if op in ("linear", "matmul"):
        x = fill.quantized(key, fill.UNIFORM, (ROWS, n_in), q_x.dtype, q_x.zero_point[0])
    if op == "matmul":
        return _single(MatMul(), [(q_x, x), (q_w, weight.reshape(n_in, n_out))], element, [])
    if op == "linear":
        return _single(Linear(), [(q_x, x)], element, [(q_w, weight.reshape(n_out, n_in))])
    x = fill.quantized(key, fill.UNIFORM, (2, n_in, 16, 16), q_x.dtype, q_x.zero_point[0])
    if op == "conv_transpose":
        transposed = ConvTranspose(strides=(1, 1), padding=(0,) * 4, dilations=(1, 1), output_padding=(0, 0))
        return _single(transposed, [(q_x, x)], element, [(q_w, weight.reshape(n_in, n_out, 1, 1))])
    return _single(unit_conv(2), [(q_x, x)], element, [(q_w, weight.reshape(n_out, n_in, 1, 1))])


def _pair(op: str, choose: _Chooser, q_a: QType, key: int) -> Case:
    shape = (ROWS, 17)
    scale_b = q_a.scale[0] * 2.0 ** (choose(11) - 5)
    q_b = QType.per_tensor(q_a.dtype, scale_b, _zero_point(choose, q_a.dtype))
    a = fill.quantized(key, fill.UNIFORM, shape, q_a.dtype, q_a.zero_point[0])
    b = fill.quantized(key + 2, fill.UNIFORM, shape, q_b.dtype, q_b.zero_point[0])
    if op == "mul":
        b = np.clip(q_b.zero_point[0] + fill.below(fill.words(key, b.size, stream=3), 3) - 1, q_b.qmin, q_b.qmax)
        b = b.astype(a.dtype).reshape(shape)
        return _single(Mul(), [(q_a, a), (q_b, b)], _output(choose, q_a, q_a.scale[0] * q_b.scale[0]), [])
    if op == "div":  # by a few steps, and by 0 in every other case
        steps = np.array((1, 2, 3, 4, -1, -2, -3, choose(2)))[fill.below(fill.words(key, b.size, stream=3), 8)]
        stored = q_b.zero_point[0] + steps
        stored = np.where((stored < q_b.qmin) | (stored > q_b.qmax), q_b.zero_point[0] - steps, stored)
        b = stored.astype(a.dtype).reshape(shape)
        unit = q_a.scale[0] / scale_b / (1, 2, 3)[choose(3)]
        return _single(Div(), [(q_a, a), (q_b, b)], _output(choose, q_a, unit), [])
    element = _output(choose, q_a, min(q_a.scale[0], scale_b))
    inputs: list[tuple[Element, Array]] = [(q_a, a), (q_b, b)]
    if op == "where":
        return _single(Where(), [*inputs, ("bool", fill.conditions(key + 4, (ROWS, 1)))], element, [])
    operators = {"add": Add(), "concat": Concat(axis=1), "sub": Sub(), "minimum": Minimum(), "maximum": Maximum()}
    return _single(operators[op], inputs, element, [])


def _pool(op: str, choose: _Chooser, q_x: QType, key: int) -> Case:
    size = (2, 3, 4, 6)[choose(4)]
    x = fill.quantized(
        key, fill.NARROW if choose(2) else fill.UNIFORM, (4, 17, size, size), q_x.dtype, q_x.zero_point[0]
    )
    keeps = choose(3) < 2
    operator: Operator
    if op in ("global_avg_pool", "mean"):
        count = size * size
        operator = GlobalAvgPool() if op == "global_avg_pool" else Mean(axes=(2, 3))
    else:
        k = 2 if size > 2 else 1 + choose(2)
        count = k * k
        operator = AvgPool(kernel=(k, k), strides=(1, 1), padding=(0, 0, 0, 0))
    element = q_x if keeps else _output(choose, q_x, q_x.scale[0] / count)
    return _single(operator, [(q_x, x)], element, [])


def _normalization(op: str, choose: _Chooser, q_x: QType, key: int) -> Case:
    """One row a hundred times, with an output scale that puts one of its results next to a tie."""
    n = (2, 3, 7, 8, 9, 16, 33, 64)[choose(8)]
    # Few steps apart and far from 0, elements make the rounding of the mean large against the deviation.
    middle = (q_x.zero_point[0], q_x.qmin + 5, q_x.qmax - 5)[choose(3)]
    row = fill.quantized(key, fill.NARROW if choose(3) else fill.UNIFORM, (1, n), q_x.dtype, middle)
    epsilon = (float32(1e-5), float32(1e-12), 1.0)[choose(3)]
    weight, bias = _mantissa(choose, 2.0 ** (choose(5) - 2)), (0.0, _mantissa(choose, 1.0))[choose(2)]
    instance = op == "instance_norm"
    operator: Operator = InstanceNorm(epsilon=epsilon) if instance else LayerNorm(axis=1, epsilon=epsilon)
    own = 1 if instance else n
    parameters: list[tuple[Element, Array]] = [("float32", np.full(own, v, np.float32)) for v in (weight, bias)]
    x = np.repeat(row, 96, axis=0).reshape((96, 1, n) if instance else (96, n))
    probe = _single(operator, [(q_x, x[:1])], QType.per_tensor(q_x.dtype, 1.0, 0), parameters)
    operands = [
        Operand.point(t, a)
        for t, a in zip(
            probe.network.input_types(probe.network.nodes[0]), [x[:1], *(a for _, a in parameters)], strict=True
        )
    ]
    value = float(image_of(probe.network.nodes[0], operands).lower.approx.ravel()[choose(n)])
    return _single(operator, [(q_x, x)], _tied(choose, q_x, value, octaves=12), parameters)


def _tied(choose: _Chooser, q_x: QType, value: float, octaves: int = 1) -> QType:
    """An output type whose steps put `value` next to a tie, a few ulps off, or up to 2^octaves times as many."""
    if not 2.0**-40 < abs(value) < 2.0**40:
        raise InvalidCase("the value is too small to be put next to a tie")
    steps = choose(100) + 0.5
    scale = np.float32(abs(value) / steps)
    scale = (scale.view(np.int32) + np.int32((choose(5) - 2) * 2 ** choose(octaves))).view(np.float32)
    return QType.per_tensor(q_x.dtype, float(scale), q_x.qmin if value > 0 else q_x.qmax)


def _interpolate(choose: _Chooser, q_x: QType, key: int) -> Case:
    """Images resized so that weights are quarters, fifths, sixths, and their squares."""
    mode: Literal["linear", "cubic"] = ("linear", "linear", "cubic")[choose(3)]
    size, unit = ((8, 1 / 4), (12, 1 / 3), (6, 1 / 2), (5, 1 / 5), (10, 1 / 10))[choose(5)]
    coordinates: tuple[Coordinates, ...] = ("half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
    x = fill.quantized(key, fill.UNIFORM, (4, 17, 4, 4), q_x.dtype, q_x.zero_point[0])
    operator = Interpolate(sizes=(4, 17, size, (4, size)[choose(2)]), mode=mode, coordinates=coordinates[choose(4)])
    return _single(operator, [(q_x, x)], _output(choose, q_x, q_x.scale[0] * unit), [])


def _quantize(choose: _Chooser, dtype: QuantizedDType, key: int) -> Case:
    scale = _mantissa(choose, 2.0 ** (choose(13) - 8))
    element = QType.per_tensor(dtype, scale, _zero_point(choose, dtype))
    steps = fill.below(fill.words(key, ROWS * 16), 512) - 256 + 0.5
    x = (steps * scale).astype(np.float32)
    x = (x.view(np.int32) + (fill.below(fill.words(key, x.size, stream=2), 5) - 2).astype(np.int32)).view(np.float32)
    return _single(Quantize(), [("float32", np.ascontiguousarray(x.reshape(ROWS, 16)))], element, [])


def _dynamic(op: str, choose: _Chooser, key: int) -> Case:
    """Data next to half steps of a 255th of their range; now and then the zero point is next to a tie, too."""
    kind = (fill.NEAR_TIES, fill.NEAR_TIES, fill.EXACT_SCALE)[choose(3)]
    x = fill.ranged(key, kind, (64, 16), 2.0 ** (choose(13) - 8))
    if choose(3) == 0:
        x[0, 0], x[-1, -1] = -(largest := np.abs(x).max()), largest  # a zero point of 127.5
    if op == "dynamic_quantize":
        output: Output = ("y", "y", "scale", "zero_point")[choose(4)]
        element: Element = "float32" if output == "scale" else STORED
        return _single(DynamicQuantize(output=output), [("float32", x)], element, [])
    q_w = QType.per_tensor("int8", _mantissa(choose, 2.0 ** -choose(10)), 0)
    weight = (fill.below(fill.words(key, 16 * 17, stream=1), 255) - 127).astype(np.int8).reshape(17, 16)
    bias = (x.ravel()[:17] * np.float32(100)).astype(np.float32)
    constants: list[tuple[Element, Array]] = [(q_w, weight), ("float32", bias)]
    chosen_as: Chooser = ("onnx", "torch")[choose(2)]
    return _single(DynamicLinear(chosen_as=chosen_as), [("float32", x)], "float32", constants[: 1 + choose(2)])


def _dynamic_rows(choose: _Chooser, key: int) -> Case:
    """The same of each row, by a weight of channels or groups."""
    groups = (1, 2, 4)[choose(3)]
    features = 32 * groups if groups > 1 else (2, 16, 48)[choose(3)]
    rows = [fill.ranged(key + i, (fill.NEAR_TIES, fill.EXACT_SCALE)[i % 2], (features,), 1.0) for i in range(64)]
    x = np.array(rows, np.float32) * np.float32(2.0 ** (choose(13) - 8))
    x[::3, 0], x[::3, -1] = -(largest := np.abs(x[::3]).max(axis=1)), largest  # a zero point of -0.5
    numbers = 1 + fill.below(fill.words(key, 5 * groups, stream=2), 2**23) * 2.0**-23 * (choose(3) > 0)
    scales = tuple(map(float, numbers * 2.0 ** -choose(4)))
    q_w = QType("int4", scales, (0,) * len(scales), 1 if groups > 1 else 0, 32 if groups > 1 else 0)
    weight = (fill.below(fill.words(key, 5 * features, stream=1), 16) - 8).astype(DTYPES["int4"]).reshape(5, features)
    bias = (x.ravel()[:5] * np.float32(100)).astype(np.float32)
    constants: list[tuple[Element, Array]] = [(q_w, weight), ("float32", bias)]
    return _single(DynamicNbitsLinear(), [("float32", x)], "float32", constants[: 1 + choose(2)])


def _unary(op: str, choose: _Chooser, q_x: QType, key: int) -> Case:
    """All values of the input (or rows of one), with an output scale that puts one value's image next to a tie."""
    operators: dict[str, Operator] = {
        "requantize": Requantize(),
        "relu": Relu(),
        "clamp": Clamp(min=0.0, max=6.0),
        "sigmoid": Sigmoid(),
        "tanh": Tanh(),
        "leaky_relu": LeakyRelu(negative_slope=(0.5, 0.25, float32(0.01), float32(0.3))[choose(4)]),
        "elu": Elu(),
        "hardsigmoid": Hardsigmoid(),
        "hardswish": Hardswish(),
        "softmax": Softmax(axis=1),
        "gelu": Gelu(approximate="tanh" if key >> 40 & 1 else "none"),
    }
    operator = operators[op]
    length = (1, 2, 3, 8, 9, 17)[choose(6)] if op == "softmax" else 33
    if op in ("requantize", "leaky_relu"):
        x = fill.quantized(key, fill.UNIFORM, (256, length), q_x.dtype, q_x.zero_point[0])
        return _single(operator, [(q_x, x)], _output(choose, q_x, q_x.scale[0]), [])
    if op in _FIXED and choose(2):
        return _fixed_output(op, operator, choose, q_x)
    style = fill.NARROW if op == "softmax" else fill.UNIFORM
    one = fill.quantized(key, style, (1, length), q_x.dtype, q_x.zero_point[0])
    if op != "softmax":
        one[:] = one[0, 0]
    x = np.ascontiguousarray(np.repeat(one, 128, axis=0))
    unit = QType.per_tensor(q_x.dtype, 1.0, 0)
    probe = _single(operator, [(q_x, one)], unit, [])
    value = float(
        image_of(probe.network.nodes[0], [Operand.point(TensorType(one.shape, q_x), one)]).lower.approx.flat[0]
    )
    return _single(operator, [(q_x, x)], _tied(choose, q_x, value), [])


_FIXED: dict[str, tuple[float, dict[str, int], Callable[[float], float]]] = {
    "sigmoid": (1 / 256, {"uint8": 0, "int8": -128}, lambda p: math.log(p / (1 - p))),
    "hardsigmoid": (1 / 256, {"uint8": 0, "int8": -128}, lambda p: 6 * (p - 0.5)),
    "tanh": (1 / 128, {"uint8": 128, "int8": 0}, math.atanh),
}
"""Kernels that have one output type: its scale and zero points, and the function's inverse."""


def _fixed_output(op: str, operator: Operator, choose: _Chooser, q_x: QType) -> Case:
    """Here the input's scale is what puts a value's image next to a tie."""
    scale_y, zero_points, inverse = _FIXED[op]
    value = inverse((1 + choose(100) + 0.5) * scale_y)
    distance = q_x.qmax - q_x.zero_point[0] if value > 0 else q_x.zero_point[0] - q_x.qmin
    if distance == 0 or value == 0:
        raise InvalidCase("no stored integer on that side of the zero point")
    offset = 1 + choose(distance)
    scale = np.float32(abs(value) / offset)
    scale = (scale.view(np.int32) + np.int32(choose(5) - 2)).view(np.float32)
    q = QType.per_tensor(q_x.dtype, float(scale), q_x.zero_point[0])
    stored = q.zero_point[0] + (offset if value > 0 else -offset)
    x = np.full((128, 33), stored, dtype=q.dtype)
    return _single(operator, [(q, x)], QType.per_tensor(q.dtype, scale_y, zero_points[q.dtype]), [])
