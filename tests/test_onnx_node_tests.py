"""The ONNX backend node tests, as shipped in the `onnx` package, hold for the exact reference.

A test on quantized data becomes a `Case`, whose reference outputs must equal the expected ones. A test on float data is
put to an operator's image at scale 1 and zero point 0, where output units are real numbers; its expected float32 values
must lie among those that float32 arithmetic may give. What cannot be said is skipped with the reason.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from qfuzz.exact.reals import FilterCount
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType, QuantizedDType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Elu, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger
from qfuzz.ops.dynamic import DynamicQuantize, Output
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.normalization import InstanceNorm, LayerNorm
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Dequantize, Quantize
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
from qfuzz.ops.reduction import Amax, Amin, Mean
from qfuzz.ops.repetition import GatherElements, Tile
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.semantics import ExactOperator, Image, Operand
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.table import UnaryOperator
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.reference import exact_outputs

onnx_node = pytest.importorskip("onnx.backend.test.case.node")
onnx = pytest.importorskip("onnx")

Array = np.ndarray[Any, Any]

REAL = QType.per_tensor("uint8", 1.0, 0)
FLOAT32 = Contract(
    terms="real",
    k=8,
    tie="any",
    source="ONNX computes its expected outputs with NumPy, in float32 or better",
    accumulates_float=True,
    function_ulps=4.0,
)
FUNCTION_BODY = Contract(terms="real", k=3, tie="half_even", source="the function body of DynamicQuantizeLinear")
DECIMALS = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 4}
"""Tests whose data and expected values are both printed to so many decimals in ONNX's source."""


class CannotSay(Exception):
    """The test means something that no network here can express; the message is the reason."""


class NodeTest:
    """One node test: attributes and arrays."""

    def __init__(self, test: Any) -> None:
        (node,) = test.model.graph.node
        self.name: str = test.name
        self.op_type: str = node.op_type
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs, outputs = test.data_sets[0]
        arrays = iter(inputs)
        self.inputs: list[Array | None] = [np.asarray(next(arrays)) if name else None for name in node.input]
        self.outputs = [np.asarray(o) for o in outputs]
        self.expected = self.outputs[0]

    def get(self, attribute: str, default: Any) -> Any:
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else value

    def input(self, position: int) -> Array:
        value = self.optional(position)
        assert value is not None
        return value

    def optional(self, position: int) -> Array | None:
        return self.inputs[position] if position < len(self.inputs) else None


Check = Callable[[], None]


# The two ways to check.


def equals(
    op: Operator,
    activations: Sequence[tuple[Array, Element]],
    out: Element,
    expected: Array,
    constants: Sequence[tuple[Array, Element]] = (),
) -> Check:
    """The reference of a one-node case gives `expected`."""
    inputs = [Input(f"x{i}", TensorType(a.shape, e)) for i, (a, e) in enumerate(activations)]
    fixed = [Constant(f"c{i}", TensorType(a.shape, e), Tensor(a)) for i, (a, e) in enumerate(constants)]
    names = (*(v.name for v in inputs), *(c.name for c in fixed))
    network = Network(tuple(inputs), tuple(fixed), (Node("y", op, names, out),), ("y",))
    case = Case(network, tuple(Tensor(a) for a, _ in activations))

    def check() -> None:
        got = exact_outputs(case)["y"]
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)

    return check


def real_image(op: ExactOperator, *operands: Array) -> Image:
    """The image of `op` on real numbers; nothing between it and them but scale 1."""
    points = [Operand.point(TensorType(a.shape, REAL), a) for a in operands]
    if isinstance(op, UnaryOperator):
        return op.table(points[0], REAL)
    op.infer([p.type for p in points], REAL)
    return op.image(points, REAL)


def bounds(image: Image, expected: Array, decimals: int | None = None) -> Check:
    """`expected`, float32, is among what float32 arithmetic may make of `image`."""

    def check() -> None:
        s = admissible(image, FLOAT32, "float32", FilterCount())
        printed = 0.0 if decimals is None else 10.0**-decimals
        assert s.lo.shape == expected.shape
        y = expected.astype(np.float64)
        assert ((s.lo - printed <= y) & (y <= s.hi + printed)).all()

    return check


def floats(t: NodeTest, *arrays: Array) -> None:
    """Raise unless all is float32."""
    for a in (*arrays, t.expected):
        if a.dtype != np.float32:
            raise CannotSay(f"data of {a.dtype}")


def qtype(scale: Array, zero_point: Array | None, default: QuantizedDType = "uint8") -> QType:
    """A type as ONNX gives it: arrays of scales and zero points, one or one per channel of axis 0."""
    dtype = default if zero_point is None else zero_point.dtype.name
    if dtype not in ("uint8", "int8"):
        raise CannotSay(f"{dtype} storage")
    scales = tuple(float(np.float32(s)) for s in scale.ravel())
    points = (0,) * len(scales) if zero_point is None else tuple(int(z) for z in zero_point.ravel())
    return QType(dtype, scales, points, None if len(scales) == 1 else 0)  # type: ignore[arg-type]


# One function for each ONNX operator: NodeTest -> checks.


def _qlinear_conv(t: NodeTest) -> Iterator[Check]:
    x, weight = t.input(0), t.input(3)
    q_x, q_w, q_y = (qtype(t.input(i), t.input(i + 1)) for i in (1, 4, 6))
    bias = t.optional(8)
    constants: list[tuple[Array, Element]] = [(weight, q_w)]
    if bias is not None:
        constants.append((bias, "int32"))
    yield equals(_conv_op(t, x.shape, weight.shape), [(x, q_x)], q_y, t.expected, constants)


def _conv(t: NodeTest) -> Iterator[Check]:
    x, weight = t.input(0), t.input(1)
    floats(t, x, weight)
    yield bounds(real_image(_conv_op(t, x.shape, weight.shape), x, weight), t.expected)


def _conv_op(t: NodeTest, shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> Conv:
    n = len(shape) - 2
    strides, dilations = _ints(t, "strides", n), _ints(t, "dilations", n)
    padding = _padding(t, shape[2:], weight_shape[2:], strides, dilations)
    return Conv(strides=strides, padding=padding, dilations=dilations, groups=t.get("group", 1))


def _ints(t: NodeTest, attribute: str, n: int) -> tuple[int, ...]:
    return tuple(int(v) for v in t.get(attribute, (1,) * n))


def _padding(
    t: NodeTest, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...]:
    """`pads`, or what `auto_pad` means by the specification of Conv and the pools."""
    n = len(sizes)
    mode = t.get("auto_pad", "NOTSET")
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(int(p) for p in t.get("pads", (0,) * 2 * n))
    before, after = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / s) - 1) * s + d * (k - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return (*before, *after)


def _qlinear_matmul(t: NodeTest) -> Iterator[Check]:
    q_a, q_b, q_y = (qtype(t.input(i), t.input(i + 1)) for i in (1, 4, 6))
    a, b = t.input(0), t.input(3)
    yield equals(MatMul(), [(a, q_a), (b, q_b)], q_y, t.expected)
    for x, w, y in _matrices(a, b, t.expected):
        yield equals(Linear(), [(x, q_a)], q_y, y, [(np.ascontiguousarray(w.T), q_b)])


def _matmul(t: NodeTest) -> Iterator[Check]:
    a, b = t.input(0), t.input(1)
    floats(t, a, b)
    yield bounds(real_image(MatMul(), a, b), t.expected)
    for x, w, y in _matrices(a, b, t.expected):
        yield bounds(real_image(Linear(), x, w.T), y)


def _matrices(a: Array, b: Array, y: Array) -> Iterator[tuple[Array, Array, Array]]:
    """The matrix products of a batched one, none for vectors; linear has one weight matrix."""
    if min(a.ndim, b.ndim) < 2:
        return
    batch = y.shape[:-2]
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    for i in np.ndindex(*batch):
        yield a[i], b[i], y[i]


def _matmul_integer(t: NodeTest) -> Iterator[Check]:
    a, b = t.input(0), t.input(1)
    q_a, q_b = _integers(a, t.optional(2)), _integers(b, t.optional(3), axis=1)
    weight = _integers(b, t.optional(3), axis=0)
    if q_b.axis is None:
        yield equals(MatMulInteger(), [(a, q_a), (b, q_b)], "int32", t.expected)
    for x, w, y in _matrices(a, b, t.expected):
        yield equals(LinearInteger(), [(x, q_a)], "int32", y, [(np.ascontiguousarray(w.T), weight)])


def _conv_integer(t: NodeTest) -> Iterator[Check]:
    x, weight = t.input(0), t.input(1)
    q_x, q_w = _integers(x, t.optional(2)), _integers(weight, t.optional(3))
    conv = _conv_op(t, x.shape, weight.shape)
    op = ConvInteger(strides=conv.strides, padding=conv.padding, dilations=conv.dilations, groups=conv.groups)
    yield equals(op, [(x, q_x)], "int32", t.expected, [(weight, q_w)])


def _integers(stored: Array, zero_point: Array | None, axis: int = 0) -> QType:
    """The type of integers that have no scale, with one zero point or one for each index of `axis`."""
    points = (0,) if zero_point is None else tuple(int(z) for z in zero_point.ravel())
    return QType(stored.dtype.name, (1.0,) * len(points), points, axis if len(points) > 1 else None)


def _conv_transpose(t: NodeTest) -> Iterator[Check]:
    x, weight, bias = t.input(0), t.input(1), t.optional(2)
    floats(t, x, weight)
    n, kernel = x.ndim - 2, weight.shape[2:]
    strides, dilations = _ints(t, "strides", n), _ints(t, "dilations", n)
    more = tuple(int(v) for v in t.get("output_padding", (0,) * n))
    mode, sizes = t.get("auto_pad", "NOTSET"), t.get("output_shape", None)
    padding = tuple(int(p) for p in t.get("pads", (0,) * 2 * n))
    if sizes is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = sizes if sizes is not None else [d * s for d, s in zip(x.shape[2:], strides, strict=True)]
        full = [
            s * (d - 1) + m + r * (k - 1) + 1
            for d, s, m, r, k in zip(x.shape[2:], strides, more, dilations, kernel, strict=True)
        ]
        total = [f - int(size) for f, size in zip(full, sizes, strict=True)]
        less, rest = [p // 2 for p in total], [p - p // 2 for p in total]
        padding = (*less, *rest) if mode == "SAME_UPPER" else (*rest, *less)
    beyond = [max(-p, 0) for p in padding]
    if any(beyond):  # sizes said beyond the whole result: by the test that does it, what is added is at the far end
        assert not any(beyond[:n])
        more, padding = tuple(m + b for m, b in zip(more, beyond[n:], strict=True)), tuple(max(p, 0) for p in padding)
    op = ConvTranspose(
        strides=strides,
        padding=padding,
        dilations=dilations,
        output_padding=more,
        groups=t.get("group", 1),
        says_sizes=sizes is not None and mode != "SAME_UPPER" and not any(beyond),
    )
    operands = [Operand.point(TensorType(v.shape, REAL), v) for v in (x, weight)]
    if bias is not None:
        operands.append(Operand.point(TensorType(bias.shape, "float32"), bias))
    op.infer([o.type for o in operands], REAL)
    yield bounds(op.image(operands, REAL), t.expected)


def _gemm(t: NodeTest) -> Iterator[Check]:
    a, b, c = t.input(0), t.input(1), t.optional(2)
    floats(t, a, b)
    alpha, beta = _float32(t.get("alpha", 1.0)), _float32(t.get("beta", 1.0))
    a, b = (a.T if t.get("transA", 0) else a), (b if t.get("transB", 0) else b.T)
    operands = [Operand.point(TensorType(v.shape, REAL), v) for v in (a, b)]
    if c is not None:
        if c.ndim == 2 and c.shape[0] != 1:
            raise CannotSay("a matrix bias; linear has one bias for each output channel")
        bias = np.broadcast_to(c.ravel(), (b.shape[0],))
        operands.append(Operand.point(TensorType(bias.shape, "float32"), bias))
    op = Linear(alpha=alpha, beta=beta)
    op.infer([o.type for o in operands], REAL)
    yield bounds(op.image(operands, REAL), t.expected)


def _quantize(t: NodeTest) -> Iterator[Check]:
    for i, q in _slices(t, t.input(0).shape, t.expected.dtype.name):
        yield equals(Quantize(), [(t.input(0)[i], "float32")], q, t.expected[i])


def _dequantize(t: NodeTest) -> Iterator[Check]:
    if t.expected.dtype != np.float32:
        raise CannotSay(f"{t.expected.dtype} result")
    for i, q in _slices(t, t.input(0).shape, t.input(0).dtype.name):
        yield equals(Dequantize(), [(t.input(0)[i], q)], "float32", t.expected[i])


def _dynamic_quantize(t: NodeTest) -> Iterator[Check]:
    """All three outputs, which come from a scale that is rounded to float32: next to a tie, that decides."""
    x = t.input(0)
    outputs: tuple[Output, ...] = ("y", "scale", "zero_point")
    for output, expected in zip(outputs, t.outputs, strict=True):
        op = DynamicQuantize(output=output)
        element: Element = "float32" if output == "scale" else "uint8"
        assert expected.dtype.name == element
        image = op.image([Operand.point(TensorType(x.shape, "float32"), x)], element)
        yield _within(admissible(image, FUNCTION_BODY, element, FilterCount()), expected)


def _within(s: Admissible, expected: Array) -> Check:
    def check() -> None:
        assert s.lo.shape == expected.shape
        assert ((s.lo <= expected) & (expected <= s.hi)).all()
        assert (s.hi.astype(np.float64) - s.lo <= 1).all()

    return check


def _slices(t: NodeTest, shape: tuple[int, ...], dtype: str) -> Iterator[tuple[Any, QType]]:
    """Parts of a tensor that each have one scale, for activations are quantized per tensor."""
    if dtype not in ("uint8", "int8"):
        raise CannotSay(f"{dtype} storage")
    scale, zero_point = t.input(1), t.optional(2)
    if scale.dtype != np.float32:
        raise CannotSay(f"{scale.dtype} scale")
    if t.get("block_size", 0):
        raise CannotSay("blocked quantization")
    if scale.ndim == 0:
        yield (slice(None),), qtype(scale, zero_point, dtype)  # type: ignore[arg-type]
        return
    axis = t.get("axis", 1) % len(shape)
    for i in range(shape[axis]):
        q = qtype(scale[i : i + 1], None if zero_point is None else zero_point[i : i + 1], dtype)  # type: ignore[arg-type]
        yield ((slice(None),) * axis + (slice(i, i + 1),)), q


def _arithmetic(op: ExactOperator, wide: Callable[[Array, Array], Array]) -> Callable[[NodeTest], Iterator[Check]]:
    def translate(t: NodeTest) -> Iterator[Check]:
        a, b = t.input(0), t.input(1)
        if t.expected.dtype.name in ("uint8", "int8"):
            if not np.array_equal(wide(a.astype(np.int64), b.astype(np.int64)), t.expected):
                raise CannotSay("integers that wrap; quantized results saturate")
            q = qtype(np.ones(()), np.zeros((), t.expected.dtype))
            yield equals(op, [(a, q), (b, q)], q, t.expected)
            return
        floats(t, a, b)
        yield bounds(real_image(op, a, b), t.expected)

    return translate


def _div(t: NodeTest) -> Iterator[Check]:
    a, b = t.input(0), t.input(1)
    if t.expected.dtype != np.float32:
        raise CannotSay(f"{t.expected.dtype} data: Div of integers truncates, a quotient of quantized numbers does not")
    yield bounds(real_image(Div(), a, b), t.expected)


def _extreme(op: ExactOperator) -> Callable[[NodeTest], Iterator[Check]]:
    def translate(t: NodeTest) -> Iterator[Check]:
        arrays = [t.input(i) for i in range(len(t.inputs))]
        if t.expected.dtype.name in ("uint8", "int8"):
            q = qtype(np.ones(()), np.zeros((), t.expected.dtype))
            yield equals(op, [(a, q) for a in arrays], q, t.expected)
            return
        floats(t, *arrays)
        yield bounds(real_image(op, *arrays), t.expected)

    return translate


def _where(t: NodeTest) -> Iterator[Check]:
    condition, x, y = (t.input(i) for i in range(3))
    floats(t, x, y)
    points = [Operand.point(TensorType(a.shape, REAL), a) for a in (x, y)]
    points.append(Operand.point(TensorType(condition.shape, "bool"), condition))
    Where().infer([p.type for p in points], REAL)
    yield bounds(Where().image(points, REAL), t.expected)


def _unary(make: Callable[[NodeTest], ExactOperator]) -> Callable[[NodeTest], Iterator[Check]]:
    def translate(t: NodeTest) -> Iterator[Check]:
        floats(t, t.input(0))
        yield bounds(real_image(make(t), t.input(0)), t.expected)

    return translate


def _clip(t: NodeTest) -> Iterator[Check]:
    x, low, high = t.input(0), t.optional(1), t.optional(2)
    op = Clamp(
        min=-FLOAT32_MAX if low is None else float(low),
        max=FLOAT32_MAX if high is None else float(high),
    )
    if op.min > op.max:
        raise CannotSay("min above max; clamp rules it out")
    if x.dtype == np.int8:
        q = QType.per_tensor("int8", 1.0, 0)
        yield equals(op, [(x, q)], q, t.expected)
        return
    floats(t, x)
    yield bounds(real_image(op, x), t.expected)


def _hardsigmoid(t: NodeTest) -> Iterator[Check]:
    raise CannotSay(f"alpha {t.get('alpha', 0.2)}; hardsigmoid has 1/6")
    yield


def _max_pool(t: NodeTest) -> Iterator[Check]:
    x = t.input(0)
    n = x.ndim - 2
    kernel, strides, dilations = (_ints(t, a, n) for a in ("kernel_shape", "strides", "dilations"))
    op = MaxPool(
        kernel=kernel,
        strides=strides,
        padding=_padding(t, x.shape[2:], kernel, strides, dilations),
        dilations=dilations,
        ceil_mode=bool(t.get("ceil_mode", 0)),
    )
    if x.dtype.name in ("uint8", "int8"):
        q = qtype(np.ones(()), np.zeros((), x.dtype))
        yield equals(op, [(x, q)], q, t.expected)
        return
    floats(t, x)
    yield bounds(real_image(op, x), t.expected)


def _avg_pool(t: NodeTest) -> Iterator[Check]:
    x = t.input(0)
    floats(t, x)
    n = x.ndim - 2
    kernel, strides, ones = _ints(t, "kernel_shape", n), _ints(t, "strides", n), (1,) * n
    if _ints(t, "dilations", n) != ones:
        raise CannotSay("dilations; avg_pool has none")
    op = AvgPool(
        kernel=kernel,
        strides=strides,
        padding=_padding(t, x.shape[2:], kernel, strides, ones),
        ceil_mode=bool(t.get("ceil_mode", 0)),
        count_include_pad=bool(t.get("count_include_pad", 0)),
    )
    yield bounds(real_image(op, x), t.expected, DECIMALS.get(t.name))


def _concat(t: NodeTest) -> Iterator[Check]:
    arrays = [t.input(i) for i in range(len(t.inputs))]
    floats(t, *arrays)
    yield bounds(real_image(Concat(axis=t.get("axis", 0) % t.expected.ndim), *arrays), t.expected)


def _transpose(t: NodeTest) -> ExactOperator:
    return Transpose(perm=tuple(t.get("perm", range(t.expected.ndim)[::-1])))


def _flatten(t: NodeTest) -> ExactOperator:
    axis = t.get("axis", 1)
    if axis % t.input(0).ndim != 1:
        raise CannotSay(f"axis {axis}; flatten keeps the dimensions before it, as torch does, so ONNX's is axis 1")
    return Flatten(start_axis=1)


def _slice(t: NodeTest) -> Iterator[Check]:
    x = t.input(0)
    floats(t, x)
    starts, ends = t.input(1).tolist(), t.input(2).tolist()
    axes, steps = t.optional(3), t.optional(4)
    image = None
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = i if axes is None else int(axes[i]) % x.ndim
        step = 1 if steps is None else int(steps[i])
        if step < 0:
            raise CannotSay("a negative step")
        start, stop, step = slice(start, end, step).indices(x.shape[axis])
        image = real_image(Slice(axis=axis, start=start, stop=max(start, stop), step=step), x)
        x = image.lower.approx
    assert image is not None
    yield bounds(image, t.expected)


def _pad(t: NodeTest) -> Iterator[Check]:
    x, pads, value, axes = t.input(0), t.input(1).tolist(), t.optional(2), t.optional(3)
    if t.get("mode", "constant") != "constant":
        raise CannotSay(f"mode {t.get('mode', '')}; pad pads with zeros")
    floats(t, x)
    named = list(range(x.ndim)) if axes is None else [int(a) % x.ndim for a in axes]
    padding = [0] * (2 * x.ndim)
    for i, axis in enumerate(named):
        padding[axis], padding[x.ndim + axis] = pads[i], pads[len(named) + i]
    # Padding only moves values: give every value of x a number from 1 on, and what is padded with the number 0.
    constant = np.float32(0.0 if value is None else value)
    known = [v for v in np.unique(x) if v != constant]

    def coded(a: Array) -> Floats:
        return np.where(a == constant, 0.0, np.searchsorted(known, a) + 1.0)

    yield bounds(real_image(Pad(padding=tuple(padding)), coded(x)), coded(t.expected).astype(np.float32))


def _softmax(t: NodeTest) -> ExactOperator:
    return Softmax(axis=t.get("axis", -1) % t.expected.ndim)


def _layer_norm(t: NodeTest) -> Iterator[Check]:
    """The first output; networks have no node for the mean and the deviation."""
    epsilon = _float32(t.get("epsilon", 1e-5))
    yield _normalized(LayerNorm(axis=t.get("axis", -1) % t.expected.ndim, epsilon=epsilon), t)


def _instance_norm(t: NodeTest) -> Iterator[Check]:
    yield _normalized(InstanceNorm(epsilon=_float32(t.get("epsilon", 1e-5))), t)


def _normalized(op: ExactOperator, t: NodeTest) -> Check:
    x, parameters = t.input(0), [a for a in (t.input(1), t.optional(2)) if a is not None]
    floats(t, x, *parameters)
    operands = [Operand.point(TensorType(x.shape, REAL), x)]
    operands += [Operand.point(TensorType(a.shape, "float32"), a) for a in parameters]
    op.infer([o.type for o in operands], REAL)
    return bounds(op.image(operands, REAL), t.expected)


def _mean(t: NodeTest) -> Iterator[Check]:
    x, axes = t.input(0), t.optional(1)
    floats(t, x)
    op = Mean(
        axes=() if axes is None else tuple(sorted(int(a) % x.ndim for a in axes)),
        keepdims=bool(t.get("keepdims", 1)),
        noop_with_empty_axes=bool(t.get("noop_with_empty_axes", 0)),
    )
    yield bounds(real_image(op, x), t.expected)


def _moved(t: NodeTest, op: ExactOperator) -> Iterator[Check]:
    """Integers are stored ones here; of floats, the image at scale 1."""
    x = t.input(0)
    if x.dtype.name in ("uint8", "int8"):
        q = qtype(np.ones(()), np.zeros((), x.dtype))
        yield equals(op, [(x, q)], q, t.expected)
        return
    if x.dtype not in (np.float32, np.int64):
        raise CannotSay(f"data of {x.dtype}")
    # An int64 here is a small number, which float32 holds.
    yield bounds(real_image(op, x.astype(np.float32)), t.expected.astype(np.float32))


def _split(t: NodeTest) -> Iterator[Check]:
    x = t.input(0)
    axis, given = t.get("axis", 0), t.optional(1)
    n = t.get("num_outputs", len(t.outputs))
    sizes = tuple(int(s) for s in given) if given is not None else equal_parts(x.shape[axis], n)
    assert sizes is not None
    for i, part in enumerate(t.outputs):
        op = Split(axis=axis, sizes=sizes, index=i, counted="num_outputs" in t.attributes)
        image = real_image(op, x)
        yield bounds(image, part)


def _space_to_depth(t: NodeTest) -> Iterator[Check]:
    if t.get("mode", "DCR") != "DCR":
        raise CannotSay(f"mode {t.get('mode', '')}, an attribute of opset 28; models here are of opset 22")
    yield from _moved(t, SpaceToDepth(blocksize=t.get("blocksize", 1)))


def _axes(t: NodeTest) -> tuple[int, ...]:
    given = t.optional(1)
    return () if given is None else tuple(int(a) for a in given)


def _gather(t: NodeTest) -> Iterator[Check]:
    indices = t.input(1)
    if indices.dtype.name not in ("int64", "int32"):
        raise CannotSay(f"indices of {indices.dtype}")
    op = Gather(
        axis=t.get("axis", 0),
        indices=tuple(int(i) for i in indices.ravel()),
        indices_shape=indices.shape,
        index_dtype=indices.dtype.name,  # type: ignore[arg-type]
    )
    yield from _moved(t, op)


def _argmax(t: NodeTest) -> Iterator[Check]:
    x = t.input(0)
    if x.dtype != np.float32:
        raise CannotSay(f"data of {x.dtype}")
    # Only the order of values counts: give each its rank, which a stored integer holds.
    ranks = np.searchsorted(np.unique(x), x).astype(np.uint8)
    last = bool(t.get("select_last_index", 0))
    op = Argmax(axis=t.get("axis", 0), keepdims=bool(t.get("keepdims", 1)), select_last_index=last)
    assert len(np.unique(x)) <= 256
    yield equals(op, [(ranks, qtype(np.ones(()), np.zeros((), np.uint8)))], "int64", t.expected)


def _gather_elements(t: NodeTest) -> Iterator[Check]:
    indices = t.input(1)
    op = GatherElements(
        axis=t.get("axis", 0),
        indices=tuple(int(i) for i in indices.ravel()),
        indices_shape=indices.shape,
        index_dtype=indices.dtype.name,  # type: ignore[arg-type]
    )
    yield from _moved(t, op)


def _reduced(kind: type[Amax | Amin]) -> Callable[[NodeTest], Iterator[Check]]:
    def translation(t: NodeTest) -> Iterator[Check]:
        if t.input(0).dtype == np.bool_:
            raise CannotSay("data of bool")
        op = kind(
            axes=_axes(t),
            keepdims=bool(t.get("keepdims", 1)),
            noop_with_empty_axes=bool(t.get("noop_with_empty_axes", 0)),
        )
        yield from _moved(t, op)

    return translation


def _resize(t: NodeTest) -> Iterator[Check]:
    x, scales, sizes = t.input(0), t.optional(2), t.optional(3)
    coordinates = t.get("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        raise CannotSay("a region of interest; interpolate takes the whole tensor")
    floats(t, x)
    op = Interpolate(
        scales=() if scales is None else tuple(float(s) for s in scales),
        sizes=() if sizes is None else tuple(int(s) for s in sizes),
        axes=tuple(t.get("axes", ())),
        mode=t.get("mode", "nearest"),
        coordinates=coordinates,
        nearest_mode=t.get("nearest_mode", "round_prefer_floor"),
        cubic_coeff_a=_float32(t.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(t.get("exclude_outside", 0)),
        antialias=bool(t.get("antialias", 0)),
        aspect=t.get("keep_aspect_ratio_policy", "stretch"),
    )
    yield bounds(real_image(op, x), t.expected)


def _float32(value: float) -> float:
    return float(np.float32(value))


TRANSLATIONS: dict[str, Callable[[NodeTest], Iterator[Check]]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "QLinearConv": _qlinear_conv,
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "QLinearMatMul": _qlinear_matmul,
    "MatMulInteger": _matmul_integer,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _arithmetic(Add(), np.add),
    "Mul": _arithmetic(Mul(), np.multiply),
    "Relu": _unary(lambda t: Relu()),
    "Clip": _clip,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _unary(lambda t: GlobalAvgPool()),
    "Concat": _concat,
    "Reshape": _unary(lambda t: Reshape(shape=t.expected.shape)),
    "Transpose": _unary(_transpose),
    "Slice": _slice,
    "Pad": _pad,
    "Flatten": _unary(_flatten),
    "Sigmoid": _unary(lambda t: Sigmoid()),
    "Tanh": _unary(lambda t: Tanh()),
    "LeakyRelu": _unary(lambda t: LeakyRelu(negative_slope=_float32(t.get("alpha", 0.01)))),
    "Elu": _unary(lambda t: Elu(alpha=_float32(t.get("alpha", 1.0)))),
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _unary(lambda t: Hardswish()),
    "Softmax": _unary(_softmax),
    "Sub": _arithmetic(Sub(), np.subtract),
    "Div": _div,
    "Min": _extreme(Minimum()),
    "Max": _extreme(Maximum()),
    "Where": _where,
    "Gelu": _unary(lambda t: Gelu(approximate=t.get("approximate", "none"))),
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "ReduceMean": _mean,
    "Split": _split,
    "Squeeze": lambda t: _moved(t, Squeeze(axes=_axes(t))),
    "Unsqueeze": lambda t: _moved(t, Unsqueeze(axes=_axes(t))),
    "Expand": lambda t: _moved(t, Expand(shape=tuple(int(d) for d in t.input(1)))),
    "Gather": _gather,
    "DepthToSpace": lambda t: _moved(t, DepthToSpace(blocksize=t.get("blocksize", 1), mode=t.get("mode", "DCR"))),
    "SpaceToDepth": _space_to_depth,
    "ArgMax": _argmax,
    "Resize": _resize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Tile": lambda t: _moved(t, Tile(repeats=tuple(int(r) for r in t.input(1)))),
    "GatherElements": _gather_elements,
    "ReduceMax": _reduced(Amax),
    "ReduceMin": _reduced(Amin),
}
LEAST_RUN = 200
"""How many node tests can be said here, at the least."""


def _collect() -> list[NodeTest]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX divides by zero while it makes the data of other operators
        tests = onnx_node.collect_testcases(None)
    nodes = [(t, t.model.graph.node) for t in tests]
    return [NodeTest(t) for t, n in nodes if len(n) == 1 and n[0].op_type in TRANSLATIONS and not n[0].domain]


def _checks(test: NodeTest) -> list[Check]:
    try:
        return list(TRANSLATIONS[test.op_type](test))
    except InvalidCase as e:
        raise CannotSay(f"not a network here: {e}") from e


NODE_TESTS = _collect()


@pytest.mark.parametrize("test", NODE_TESTS, ids=lambda t: t.name)
def test_onnx_node_test_holds(test: NodeTest) -> None:
    try:
        checks = _checks(test)
    except CannotSay as e:
        pytest.skip(f"{test.op_type}: {e}")
    assert checks
    for check in checks:
        check()


def test_enough_node_tests_ran() -> None:
    said: dict[str, int] = dict.fromkeys(TRANSLATIONS, 0)
    for test in NODE_TESTS:
        try:
            said[test.op_type] += bool(_checks(test))
        except CannotSay:
            continue
    assert sum(said.values()) >= LEAST_RUN, said
    assert [op for op, n in said.items() if not n] == ["HardSigmoid"]
