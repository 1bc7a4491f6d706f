"""The drawing side of add, mul, requantize, and of all unary functions and softmax."""

import math
from collections.abc import Callable

from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import INTEGER_RANGE, QType, QuantizedDType, float32
from qfuzz.ops.activation import Celu, Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.scalar import AddScalar, MulScalar
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.threshold import Threshold
from qfuzz.strategies import fill
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.qtypes import draw_zero_point


def partner(b: Builder) -> str:
    """Another operand: the value itself, an earlier one of its shape, or a new input, now and then broadcast."""
    d = b.d
    shape = b.type.shape
    relation, kind = divmod(d.integer(0, 23), 6)
    earlier = [n for n, t in b.types.items() if t.shape == shape and t.element == b.type.element and n != b.current]
    if kind == 1:
        return b.current
    if kind == 2 and earlier:
        return d.pick(earlier)
    if kind == 5 and not b.flavour.common and shape:
        shape = broadcasting(b, shape)
    q = b.qtype
    far = relation == 3 and not b.flavour.common
    scale = q.scale[0] if relation == 1 else b.scale(q.scale[0], 12 if far else 3)
    dtype: QuantizedDType = q.dtype
    if kind == 4 and not b.flavour.common and dtype != "int32" and d.rarely(3):
        dtype = "int8" if dtype == "uint8" else "uint8"
    return b.add_input(shape, QType.per_tensor(dtype, scale, draw_zero_point(d, dtype)))


def broadcasting(b: Builder, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with `shape`, which has a dimension: a size of 1, fewer dimensions, none, or one more."""
    form, axis = divmod(b.d.integer(0, 4 * len(shape) - 1), len(shape))
    match form:
        case 0:
            return (*shape[:axis], 1, *shape[axis + 1 :])
        case 1:
            return shape[axis + 1 :]
        case 2:
            return tuple(1 if d >= axis else n for d, n in enumerate(shape))
        case _:
            fits = 3 * math.prod(shape) <= MAX_VALUE_ELEMENTS
            if fits and shape[axis] == 1:
                return (*shape[:axis], 3, *shape[axis + 1 :])
            return (2, *shape) if fits and len(shape) < 4 else shape[axis:]


def draw_add(b: Builder) -> None:
    """An add node."""
    other = partner(b)
    relu = b.d.rarely(5) and not b.flavour.common
    scales = b.qtype.scale[0], b.types[other].qtype.scale[0]
    element = b.output(max(scales) * 1.5, unit=min(scales))
    if b.d.rarely(8):
        b.forms.append(("entry", "second"))
    b.add_node(Add(relu=relu), (b.current, other), _plain_dtype(b, element))


def fits_mul(b: Builder) -> bool:
    """Whether products of scales stay well within float32: chains of products square theirs again and again."""
    return len(b.type.shape) >= 1 and 2.0**-40 <= b.qtype.scale[0] <= 2.0**40


def draw_mul(b: Builder) -> None:
    """A mul node."""
    other = partner(b)
    relu = b.d.rarely(5) and not b.flavour.common
    unit = b.qtype.scale[0] * b.types[other].qtype.scale[0]
    element = b.output(unit * 64, spread=3, unit=unit)
    b.add_node(Mul(relu=relu), (b.current, other), _plain_dtype(b, element))


def draw_add_scalar(b: Builder) -> None:
    """An add_scalar node: few or many steps, half steps, any number; beyond the range on either side."""
    d = b.d
    b.choose_call()
    q = b.qtype
    width = min(q.qmax - q.qmin + 1, 2**18)
    steps = d.pick((d.integer(-9, 9), d.integer(-9, 9) + 0.5, d.integer(-3, 3) * width, d.integer(-300, 300) / 7, 0))
    _add_scalar(b, AddScalar(other=float32(steps * q.scale[0]), relu=d.rarely(3)))


def draw_mul_scalar(b: Builder) -> None:
    """A mul_scalar node: by small numbers of either sign, by 0, by any."""
    d = b.d
    b.choose_call()
    other = d.pick(
        (1.0, 2.0, 0.5, 0.0, -1.0, -3.0, float32(d.integer(-300, 300) / 7), float32(d.integer(1, 99) / 1000))
    )
    _add_scalar(b, MulScalar(other=other, relu=d.rarely(3)))


def _add_scalar(b: Builder, op: AddScalar | MulScalar) -> None:
    """A node whose output mostly has the type that PyTorch derives; torch's calls write into a tensor now and then."""
    if b.d.rarely(4):
        b.forms.append(("calls", "out"))
    derived = op.derived(b.qtype).qtype(b.qtype)
    element = b.output(derived.scale[0], unit=derived.scale[0]) if b.d.rarely(6) else derived
    b.add_node(op, (b.current,), element)


def _plain_dtype(b: Builder, q: QType) -> QType:
    """`q` with the dtype of the current value where the case keeps to common forms."""
    return b.qtype if q.dtype != b.qtype.dtype and b.flavour.common else q


def draw_requantize(b: Builder) -> None:
    """A requantize node; between the dtypes, too."""
    element = b.qtype if b.d.rarely(6) else b.output(b.qtype.scale[0], spread=4, unit=b.qtype.scale[0])
    if not b.flavour.common and b.d.rarely(3):
        other = "int8" if element.dtype == "uint8" else "uint8"
        element = QType.per_tensor(other, element.scale[0], draw_zero_point(b.d, other))  # type: ignore[arg-type]
    b.add_node(Requantize(), (b.current,), element)


def draw_relu(b: Builder) -> None:
    """A relu node."""
    b.add_node(Relu(), (b.current,), b.same_or_output(b.qtype.scale[0]))


def draw_clamp(b: Builder) -> None:
    """A clamp node: relu6 first, then bounds on and between representable numbers."""
    d = b.d
    b.choose_call()
    s = b.qtype.scale[0]
    kind = d.integer(0, 5)
    if kind == 0 or (kind == 1 and not b.flavour.integer):
        low, high = 0.0, 6.0
    elif kind < 4:  # on stored integers, even after rounding to float32
        low, high = sorted((-s * 2.0 ** d.integer(0, 7), s * 2.0 ** d.integer(0, 7)))
    else:
        low, high = sorted((d.integer(-100, 100) * s * (0.5 if kind == 4 else 1.0), d.integer(-100, 100) * s))
    b.add_node(Clamp(min=float32(low), max=float32(high)), (b.current,), b.same_or_output(s))


def draw_leaky_relu(b: Builder) -> None:
    """A leaky_relu node."""
    b.choose_call()
    slope = float32(b.d.pick((0.5, 0.01, 0.25, 0.1, 1.5, 0.3)))
    s = b.qtype.scale[0]
    element = b.qtype if b.d.rarely(4) else b.output(s, unit=s)
    b.add_node(LeakyRelu(negative_slope=slope), (b.current,), element)


def draw_elu(b: Builder) -> None:
    """An elu node."""
    alpha = float32(b.d.pick((1.0, 1.0, 0.5, 1.6732632)))
    op = Elu(alpha=alpha)
    if not b.flavour.common and b.d.rarely(3):
        factors = (1.0507009873554805, 0.5, 2.0)
        op = Elu(alpha=alpha, scale=float32(b.d.pick(factors)), input_scale=b.d.pick((1.0, 0.5, 2.0, float32(0.3))))
    b.add_node(op, (b.current,), b.output(b.qtype.scale[0]))


def draw_celu(b: Builder) -> None:
    """A celu node."""
    alpha = float32(b.d.pick((1.0, 0.5, 1.6732632, 3.0, 0.1)))
    b.add_node(Celu(alpha=alpha), (b.current,), b.output(b.qtype.scale[0]))


def draw_threshold(b: Builder) -> None:
    """A threshold node: on and between representable numbers, on the zero point, and beyond the range."""
    d = b.d
    b.choose_call()
    q = b.qtype
    steps = d.pick((0.0, d.integer(q.qmin, q.qmax) - q.zero_point[0], d.integer(-40, 40) / 2, 2.0 * q.qmax))
    value = d.pick((0.0, 1.0, d.integer(-40, 40) / 2, float(q.qmin - q.zero_point[0])))
    op = Threshold(threshold=float32(steps * q.scale[0]), value=float32(value * q.scale[0]))
    b.add_node(op, (b.current,), b.same_or_output(q.scale[0]))


def draw_prelu(b: Builder) -> None:
    """A prelu node, with one slope, or one for each channel; 1 is mostly one of the slopes that its type can say."""
    d = b.d
    b.choose_call()
    shape = b.type.shape
    channels = shape[1] if len(shape) > 1 else 1
    n = channels if channels and d.integer(0, 1) else 1
    dtype: QuantizedDType = b.qtype.dtype if b.qtype.dtype in ("uint8", "int32") else "int8"
    if not b.flavour.common and dtype != "int32" and d.rarely(6):
        dtype = "int8" if dtype == "uint8" else "uint8"
    zero_point = draw_zero_point(d, dtype)
    scale = 2.0**-6 if d.integer(0, 3) < 3 else b.scale(2.0**-6, 3)
    q = QType.per_tensor(dtype, scale, min(zero_point, INTEGER_RANGE[dtype][1] - 64))
    data = fill.quantized(d.key(), d.pick((fill.UNIFORM, fill.NARROW, fill.EDGES)), (n,), dtype, q.zero_point[0])
    slope = b.add_constant("w", q, data)
    s = b.qtype.scale[0]
    element = b.qtype if d.rarely(3) else b.output(s, unit=s * scale)
    b.add_node(Prelu(), (b.current, slope), element)


def draw_hardswish(b: Builder) -> None:
    """A hardswish node."""
    b.add_node(Hardswish(), (b.current,), b.output(b.qtype.scale[0]))


def _bounded(op: Operator, least: int) -> Callable[[Builder], None]:
    """A function whose values lie in `least`..1: kernels often have one output type only, which is drawn mostly."""

    def draw(b: Builder) -> None:
        q = b.qtype
        steps = q.qmax - q.qmin + 1
        scale = (1 - least) / steps
        if b.flavour.common or b.d.integer(0, 3) < 3:
            middle = least < 0 or q.dtype == "int32"
            element = QType.per_tensor(q.dtype, scale, q.qmin + steps // 2 if middle else q.qmin)
        else:
            element = b.output(scale, spread=3)
        b.add_node(op, (b.current,), element)

    return draw


_draw_sigmoid = _bounded(Sigmoid(), 0)
draw_hardsigmoid = _bounded(Hardsigmoid(), 0)
draw_tanh = _bounded(Tanh(), -1)


def draw_sigmoid(b: Builder) -> None:
    """A sigmoid node."""
    b.choose_call()
    _draw_sigmoid(b)


def fits_softmax(b: Builder) -> bool:
    """Whether every dimension is short enough: bounds for uncertain inputs take the square of the length."""
    return len(b.type.shape) >= 1 and max(b.type.shape) <= 129


def draw_softmax(b: Builder) -> None:
    """A softmax node, along the last axis or, less often, another."""
    rank = len(b.type.shape)
    axis = rank - 1 if b.flavour.common else b.d.integer(0, rank - 1)
    _bounded(Softmax(axis=axis), 0)(b)
