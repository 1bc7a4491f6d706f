"""Cases on which models of all operators but contractions must differ.

Results next to ties are found by search: many rows are computed under the models left, and those on which they part are
kept. Where a case has few different results, its output scale is chosen so that one of them is next to a tie.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Form
from qfuzz.exact.rounding import Ints
from qfuzz.identify.draw import Draw
from qfuzz.identify.probe import Probe, probe
from qfuzz.identify.rows import ROWS_KEPT, evaluate, narrowed, row_axis, with_rows
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.movement import Concat
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.ops.softmax import Softmax

FEW = 7
"""Elements that fill no vector register."""
BLOCK = 64
"""The longest vector of 8-bit integers."""
ROWS_SEARCHED = 8192
SCALES_SEARCHED = 24
KERNELS = ((2, 3), (2, 5), (2, 7), (4, 3), (2, 11), (2, 13))
"""Of pools: even numbers of elements, for means of them lie on ties."""


def build(form: Form, arrays: Sequence[Array], scales: Sequence[float], zeros: Sequence[int], y: Element) -> Case:
    """A case of one node."""
    elements: list[Element] = ["float32"]
    if form.op != "quantize":
        elements = [QType.per_tensor(form.dtype, float32(s), z) for s, z in zip(scales, zeros, strict=True)]
    dtype = "float32" if form.op == "quantize" else form.dtype
    arrays = [np.ascontiguousarray(a.astype(dtype)) for a in arrays]
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = tuple(Input(n, TensorType(a.shape, e)) for n, a, e in zip(names, arrays, elements, strict=True))
    node = Node("y", _operator(form.op, float32(scales[0]), arrays[0].shape), tuple(names), y)
    return Case(Network(inputs, (), (node,), ("y",)), tuple(Tensor(a) for a in arrays))


def _operator(op: str, scale: float, shape: tuple[int, ...]) -> Operator:
    match op:
        case "add":
            return Add()
        case "mul":
            return Mul()
        case "avg_pool":
            kernel = (shape[2], shape[3] - 1)  # not the whole image, which kernels treat as a global mean
            return AvgPool(kernel=kernel, strides=(1, 1), padding=(0, 0, 0, 0), count_include_pad=False)
        case "global_avg_pool":
            return GlobalAvgPool()
        case "clamp":
            return Clamp(min=float32(-90.5 * scale), max=float32(60.5 * scale))
        case "leaky_relu":
            # A slope that keeps ties where scales are powers of two.
            return LeakyRelu(negative_slope=0.25 if np.frexp(scale)[0] == 0.5 else float32(0.3))
        case "concat":
            return Concat(axis=1)
        case "elu":
            return Elu(alpha=1.0)
        case "softmax":
            return Softmax(axis=1)
        case _:
            plain: dict[str, Callable[[], Operator]] = {
                "quantize": Quantize,
                "dequantize": Dequantize,
                "requantize": Requantize,
                "relu": Relu,
                "sigmoid": Sigmoid,
                "tanh": Tanh,
                "hardsigmoid": Hardsigmoid,
                "hardswish": Hardswish,
            }
            return plain[op]()


def general(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """Uniform data and random scales."""
    draw = Draw(key)
    scales, zeros = _inputs(form, draw)
    y = _output(form, draw, draw.mantissa() * _spread(form, scales) * 2.0 ** -draw.integer(4, 8), scales, zeros)
    case = _built(form, _data(form, draw, zeros, ROWS_KEPT, y), scales, zeros, y)
    return None if case is None else _sized(form, case, size)


def exact_ties(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """Scales that are powers of two: results exactly on ties, of both signs."""
    draw = Draw(key)
    scales, zeros = _inputs(form, draw)
    scales = [2.0 ** -draw.integer(0, 2) for _ in scales]
    # sigmoid(0) = 1/2, and equal shares of 1/4, tie in few scales.
    steps = draw.integer(0, 1) if form.op in FUNCTIONS else draw.integer(4, 7)
    y = _output(form, draw, _power_of_two(_spread(form, scales)) * 2.0**-steps, scales, zeros)
    return _search(form, draw, left, size, [(scales, zeros, y)])


def near_ties(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """Scales with all their bits: results within float32's last bits of a tie."""
    draw = Draw(key)
    return _search(form, draw, left, size, _next_to_ties(form, draw))


def odd_divisors(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """Output scales that are odd multiples of the input's: exact ties that a rounded multiplier misses."""
    draw = Draw(key)
    scales, zeros = _inputs(form, draw)
    scales = [(2 * draw.integer(0, 3) + 1) * 2.0 ** -draw.integer(0, 2) for _ in scales]
    around = _spread(form, scales) * 2.0 ** -draw.integer(4, 6)
    odd = 2 * draw.integer(1, 8) + 1
    y = _output(form, draw, odd * _power_of_two(around / odd), scales, zeros)
    return _search(form, draw, left, size, [(scales, zeros, y)])


def overflow(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """Results of 2^31 and more, of both signs."""
    draw = Draw(key)
    scales, zeros = _inputs(form, draw)
    y = _output(form, draw, draw.mantissa() * _spread(form, scales) * 2.0 ** -draw.integer(32, 36), scales, zeros)
    return _search(form, draw, left, size, [(scales, zeros, y)])


def closest(form: Form, key: int, left: Sequence[Any], *, size: int = 0) -> Case | None:
    """The rows that are closest to ties, whatever the models say: a function that is computed otherwise shows there."""
    draw = Draw(key)
    for scales, zeros, y in _next_to_ties(form, draw):
        case = _built(form, _data(form, draw, zeros, ROWS_SEARCHED, y), scales, zeros, y)
        if case is not None:
            real = evaluate(case).result(family_of(form.op).model())
            distance = np.abs(real - np.rint(2 * real) / 2).reshape(len(real), -1).min(axis=1)
            return _sized(form, with_rows(case, np.argsort(distance, kind="stable")[:ROWS_KEPT]), size)
    return None


Scales = tuple[list[float], list[int], Element]


def _search(form: Form, draw: Draw, left: Sequence[Any], size: int, tried: Any) -> Case | None:
    """The first case on which the models left disagree, cut down to the rows where they do."""
    for scales, zeros, y in tried:
        arrays = _data(form, draw, zeros, ROWS_SEARCHED, y)
        case = _built(form, arrays, scales, zeros, y)
        kept = None if case is None else narrowed(case, left, FEW if form.elements == "few" else ROWS_KEPT)
        if kept is not None:
            return _sized(form, kept, size)
    return None


def _built(
    form: Form, arrays: Sequence[Array], scales: Sequence[float], zeros: Sequence[int], y: Element
) -> Case | None:
    try:
        return build(form, arrays, scales, zeros, y)
    except InvalidCase:
        return None


def _sized(form: Form, case: Case, size: int) -> Case:
    """As many rows as the form asks for: whole vectors, or fewer than one; the first of them where `size` is 1."""
    n = case.inputs[0].array.shape[row_axis(case)]
    if form.elements == "blocks":
        return with_rows(case, np.resize(np.arange(1 if size else n), BLOCK * (1 if size else -(-n // BLOCK))))
    return with_rows(case, np.arange(1 if size else min(n, FEW if form.elements == "few" else n)))


def _inputs(form: Form, draw: Draw) -> tuple[list[float], list[int]]:
    """Scales and zero points of the inputs."""
    low, _ = INTEGER_RANGE[form.dtype]
    n = 2 if form.op in ("add", "mul", "concat") else 1
    scale = 2.0**-4 if form.op in FUNCTIONS else 1.0
    n = 1 if form.op == "concat" and not form.rescaled else n
    zeros = [(low + 128, low + 127, low + 101, low + 77)[draw.integer(0, 3)] for _ in range(n)]
    return [scale * draw.mantissa() * 2.0 ** -draw.integer(0, 1) for _ in range(n)], zeros


OF_ONE_NUMBER = ("sigmoid", "tanh", "elu", "hardsigmoid", "hardswish")
FUNCTIONS = (*OF_ONE_NUMBER, "softmax")


def _spread(form: Form, scales: Sequence[float]) -> float:
    """About the largest result, as a real number."""
    match form.op:
        case "mul":
            return 2.0**13 * scales[0] * scales[1]
        case "sigmoid" | "tanh" | "hardsigmoid" | "softmax":
            return 1.0
        case "elu" | "hardswish":
            return 4.0
        case "quantize":
            return 256.0
        case _:
            return 256.0 * max(scales)


def _output(form: Form, draw: Draw, scale: float, scales: Sequence[float], zeros: Sequence[int]) -> Element:
    low, high = INTEGER_RANGE[form.dtype]
    if form.op == "dequantize":
        return "float32"
    if not form.rescaled:
        return QType.per_tensor(form.dtype, float32(scales[0]), zeros[0])
    if form.op == "softmax":
        return QType.per_tensor(form.dtype, float32(scale), low + 3 * draw.integer(0, 1))
    zero = (low + 127, low + 128, low + 101, 0, low, high)[draw.integer(0, 5)]
    return QType.per_tensor(form.dtype, float32(scale), zero)


def _next_to_ties(form: Form, draw: Draw) -> Iterator[Scales]:
    """Scales, the output's chosen so that some result is a few of float32's steps from a multiple of 1/2."""
    for _ in range(SCALES_SEARCHED):
        scales, zeros = _inputs(form, draw)
        around = _spread(form, scales) * 2.0 ** -draw.integer(5, 7) * draw.mantissa()
        n = draw.integer(3, 200)
        if form.op in ("avg_pool", "global_avg_pool"):
            around = n * scales[0] / (draw.integer(1, 120) / 2)
        elif form.op == "add" and draw.integer(0, 2):
            scales = [scales[0], scales[0] * 2.0 ** -draw.integer(0, 1)]  # many pairs have the same sum
            around = n * scales[0] / (draw.integer(1, 240) / 2)
        elif form.op == "mul" and draw.integer(0, 2):
            around = 60 * draw.integer(1, 40) * scales[0] * scales[1] / (draw.integer(1, 240) / 2)
        elif form.op in OF_ONE_NUMBER:
            around = abs(_value(form, n, scales[0])) / (draw.integer(1, 240) / 2) or around
        elif form.op in ("requantize", "relu", "clamp", "leaky_relu", "concat"):
            around = n * scales[0] / (draw.integer(1, 240) / 2)
        nudged = np.float32(around).view(np.int32) + draw.integer(-2, 2)
        yield scales, zeros, _output(form, draw, float(np.int32(nudged).view(np.float32)), scales, zeros)


def _value(form: Form, n: int, scale: float) -> float:
    """The operator's exact value at ``n - 128`` steps of a scale."""
    op = _operator(form.op, float32(scale), (1,))
    assert isinstance(op, ExactOperator)
    x = Operand.point(TensorType((1,), QType.per_tensor("uint8", float32(scale), 128)), np.array([n], dtype=np.uint8))
    return float(op.image([x], QType.per_tensor("uint8", 1.0, 0)).lower.approx[0])


def _power_of_two(x: float) -> float:
    return float(2.0 ** np.round(np.log2(x)))


def _data(form: Form, draw: Draw, zeros: Sequence[int], rows: int, y: Element) -> list[Array]:
    low, high = INTEGER_RANGE[form.dtype]
    match form.op:
        case "add" | "mul":
            return [draw.integers(rows, low, high) for _ in zeros]
        case "concat":
            return [_every(draw, low, high, min(rows, 256))[:, None] for _ in zeros]
        case "avg_pool":
            height, width = KERNELS[draw.integer(0, len(KERNELS) - 1)]
            return [_images(draw, low, high, min(rows, 512), (height, width + 1))]
        case "global_avg_pool":
            return [_images(draw, low, high, min(rows, 512), KERNELS[draw.integer(0, len(KERNELS) - 1)])]
        case "softmax":
            rows = min(rows, 64)
            x = draw.integers(rows, low, high)[:, None] + draw.integers(rows * 4, -40, 40).reshape(-1, 4)
            x[: rows // 8] = x[: rows // 8, :1]
            return [np.clip(x, low, high)]
        case "quantize":
            assert isinstance(y, QType)
            steps = draw.integers(rows, -300, 300) / 2 * y.scale[0] * 2.0 ** (24 * (y.scale[0] < 2.0**-20))
            nudged = steps.astype(np.float32).view(np.int32) + draw.integers(rows, -2, 2).astype(np.int32)
            return [np.where(steps == 0, 0, nudged.view(np.float32))]
        case _:
            return [_every(draw, low, high, min(rows, 256))]


def _every(draw: Draw, low: int, high: int, rows: int) -> Ints:
    """All integers, in any order."""
    order = np.argsort(draw.words(high - low + 1), kind="stable")[:rows]
    return low + np.array(order, dtype=np.int64)


def _images(draw: Draw, low: int, high: int, rows: int, shape: tuple[int, int]) -> Ints:
    """Channels whose means are spread over the whole range."""
    n = shape[0] * shape[1]
    centers = draw.integers(rows, low, high)
    values: Ints = np.clip(centers[:, None] + draw.integers(rows * n, -9, 9).reshape(rows, n), low, high)
    return values.reshape(1, rows, *shape)


PROBES: tuple[Probe, ...] = (
    probe(general, "rounding multiplier operands zero_point output values exponentials"),
    probe(exact_ties, "rounding zero_point operands multiplier output clamp"),
    probe(near_ties, "rounding zero_point operands multiplier output values exponentials", confirmations=4),
    probe(odd_divisors, "multiplier operands output zero_point rounding"),
    probe(overflow, "clamp"),
)
FUNCTION_PROBES: tuple[Probe, ...] = (
    *PROBES,
    probe(closest, "rounding zero_point output values exponentials", confirmations=150),
)
"""Of functions that kernels approximate: no model may be left by luck."""
