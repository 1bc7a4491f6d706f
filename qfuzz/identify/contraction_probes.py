"""Cases on which models of a convolution or linear layer must differ: one generator for each thing that they may do.

Each is a pure function of a form and a key. Those that depend on ties search a few thousand accumulators for the rows
on which the models still left disagree, and keep only these: a small case that splits much.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.family import Form
from qfuzz.arithmetic.float32 import bfloat16
from qfuzz.exact.rounding import Ints
from qfuzz.identify.draw import Draw
from qfuzz.identify.probe import Probe, probe
from qfuzz.identify.rows import narrowed
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.convolution import Conv, unit_conv
from qfuzz.ops.linear import Linear

N_CHANNELS = 4
SIZE = 64
"""Products that a directed case sums, but one. With 1, a case may be the smallest that tells two models apart."""


def build(
    form: Form,
    x: Ints,
    w: Ints,
    *,
    x_zero: int,
    scale_x: float,
    scale_w: Sequence[float],
    y: QType,
    bias: Array | None = None,
    conv: Conv | None = None,
) -> Case:
    """A case of one node.

    `x` [rows, K] and `w` [channels, K] become an image of K channels, its rows the pixels of one column, where `form`
    is a convolution, unless `conv` is given with data of its own rank.
    """
    if form.op == "conv" and conv is None:
        x, w, conv = x.T[None, :, :, None], np.expand_dims(w, (2, 3)), unit_conv(2)
    x_element = QType.per_tensor(form.dtype, float32(scale_x), x_zero)
    scales = [float32(s) for s in scale_w]
    w_zero = 0 if form.symmetric else 1
    w = w + w_zero
    w_element: Element
    if len(scales) == 1:
        w_element = QType.per_tensor("int8", scales[0], w_zero)
    else:
        w_element = QType("int8", tuple(scales), (w_zero,) * len(scales), 0)
    constants = [Constant("w", TensorType(w.shape, w_element), Tensor(w.astype(np.int8)))]
    if form.bias != "none":
        values = np.zeros(w.shape[0]) if bias is None else np.broadcast_to(bias, (w.shape[0],))
        kind = np.float32 if form.bias == "float32" else np.int32
        constants.append(Constant("b", TensorType((w.shape[0],), form.bias), Tensor(values.astype(kind))))
    operator = conv if conv is not None else Linear()
    node = Node("y", operator, ("x", *(c.name for c in constants)), y)
    network = Network((Input("x", TensorType(x.shape, x_element)),), tuple(constants), (node,), ("y",))
    return Case(network, (Tensor(np.ascontiguousarray(x.astype(form.dtype))),))


def general(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Uniform data, odd zero points, and padding: what gross departures cannot pass."""
    draw = Draw(key)
    low, high = INTEGER_RANGE[form.dtype]
    zero, mid = low + draw.integer(60, 100), low + 101 + 2 * draw.integer(0, 20)
    channels = 3 if size > 1 else 1
    scale_w = [draw.mantissa() for _ in range(channels if form.per_channel else 1)]
    scale_x = draw.mantissa()
    if size > 1:
        x_shape, w_shape, conv = _layer(form, (8, 12), (2, _ODD, 5, 6), (_ODD, 3, 2), padding=1)
    else:
        x_shape, w_shape, conv = _layer(form, (1, 3), (1, 1, 1, 1), (1, 2, 2), padding=1)
    x = draw.integers(math.prod(x_shape), low, high).reshape(x_shape)
    w = draw.integers(channels * math.prod(w_shape), -50, 50).reshape(channels, *w_shape)
    both = scale_x * float(np.mean(scale_w))
    spread = 75 * 30 * math.sqrt(math.prod(w_shape))  # of the accumulators
    y = QType.per_tensor(form.dtype, float32(both * spread / 60 * draw.mantissa()), mid)
    bias = _bias(form, draw, [scale_x * s for s in scale_w], 4000, channels)
    return build(form, x, w, x_zero=zero, scale_x=scale_x, scale_w=scale_w, y=y, bias=bias, conv=conv)


def saturating_pairs(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Large inputs and weights, so that adjacent products leave int16, in several channels and taps."""
    draw = Draw(key)
    low, high = INTEGER_RANGE[form.dtype]
    if size == 1:
        return _two_products(form, draw)
    channels = 3
    odd = draw.integer(0, 1)  # an odd number of channels tells whether pairs cross taps
    depth = 4 - odd
    x_shape, w_shape, conv = _layer(form, (4, 16 - odd), (2, depth, 4, 4), (depth, 2, 2), padding=0)
    n, size = channels * math.prod(w_shape), math.prod(x_shape)
    w = np.where(draw.integers(n, 0, 3) == 0, -1, 1) * draw.integers(n, 90, 126)
    x = np.where(draw.integers(size, 0, 2) == 0, low, draw.integers(size, high - 40, high)).reshape(x_shape)
    w = w.reshape(channels, *w_shape)
    scale = draw.mantissa()
    y = QType.per_tensor(form.dtype, float32(scale * 2500), low + 101)
    return build(form, x, w, x_zero=low, scale_x=scale, scale_w=[1.0], y=y, conv=conv)


def _two_products(form: Form, draw: Draw) -> Case:
    low, high = INTEGER_RANGE[form.dtype]
    x, w = draw.integers(2, high - 60, high)[None, :], draw.integers(2, 90, 126)[None, :]
    y = QType.per_tensor(form.dtype, float32(draw.mantissa() * 200), low + 101)
    return build(form, x, w, x_zero=low, scale_x=1.0, scale_w=[1.0], y=y)


def long_sums(form: Form, key: int, left: Sequence[Contraction]) -> Case | None:
    """Sums of integers that pass 2^24 and come back: float32 has lost some of them."""
    if not any(m.accumulator == "float32_sequential" for m in left) or _any_dequantized(left):
        return None
    draw = Draw(key)
    low, high = INTEGER_RANGE[form.dtype]
    half, rows, channels = 4096, 3, 2
    # Two products of at most 255 * 62 stay within int16, and 2048 pairs of at least 2 * 205 * 51 pass 2^25.
    w_half = draw.integers(channels * half, 51, 62).reshape(channels, half)
    x_half = np.tile(draw.integers(half, high - 50, high), (rows, 1))
    x_back = x_half.copy()
    x_back[:, :4] -= draw.integers(rows * 4, 0, 1).reshape(rows, 4)
    x, w = np.concatenate([x_half, x_back], axis=1), np.concatenate([w_half, -w_half], axis=1)
    scale = draw.mantissa()
    y = QType.per_tensor(form.dtype, float32(scale * 4), low + 101)
    return build(form, x, w, x_zero=low, scale_x=scale, scale_w=[1.0], y=y)


def cancelling_products(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Products of integers whose sum is 0, by factors that differ: dequantized to float32 they leave a rest."""
    if len({m.operands for m in left} | {m.accumulator for m in left}) == 1:
        return None
    draw = Draw(key)
    low, _ = INTEGER_RANGE[form.dtype]
    rows, pairs = (12, 24) if size > 1 else (1, 2)
    middle = low + 128
    # x = i*j by w = k, and x = i*k by w = -j.
    i = draw.integers(rows * pairs, -9, 9).reshape(rows, pairs)
    j, k = draw.integers(pairs, 3, 13), draw.integers(pairs, 3, 13)
    order = np.argsort(draw.words(2 * pairs), kind="stable")
    x = np.concatenate([i * j, i * k], axis=1)[:, order]
    w = np.concatenate([k, -j])[order]
    w = np.stack([w, -w])
    scale_x, scale_w = draw.mantissa(), draw.mantissa()
    y = QType.per_tensor(form.dtype, float32(scale_x * scale_w * 2.0 ** -(11 + draw.integer(0, 6))), low + 101)
    return build(form, x + middle, w, x_zero=middle, scale_x=scale_x, scale_w=[scale_w], y=y)


def exact_ties(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Multipliers that are powers of two: results exactly on ties, of both signs."""
    draw = Draw(key)
    scale_x, scale_w = 2.0 ** -draw.integer(0, 6), [2.0 ** -draw.integer(0, 3) for _ in range(_scales(form, size))]
    both = scale_x * scale_w[0]
    return _directed(
        form, draw, left, size, scale_x, scale_w, both * 2.0 ** draw.integer(2, 11 if size > 1 else 6), bias_steps=0
    )


def odd_divisors(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Output scales that are odd integers: exact ties that only exact arithmetic, or a lucky rounding, sees."""
    draw = Draw(key)
    for _ in range(4):
        scale_w = [(2 * draw.integer(0, 4) + 1) * 2.0 ** -draw.integer(1, 2) for _ in range(_scales(form, size))]
        odd = 2 * draw.integer(1, 500) + 1
        zero_y = 0 if draw.integer(0, 2) else None  # where adding the zero point rounds nothing away
        case = _directed(form, draw, left, size, 0.5, scale_w, float(odd), bias_steps=0, zero_y=zero_y)
        if case is not None:
            return case
    return None


def near_ties(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Scales with all their bits: results within float32's last bits of a tie."""
    draw = Draw(key)
    for _ in range(4):
        scale_x, scale_w = _inexact_inverse(draw), [_inexact_inverse(draw) for _ in range(_scales(form, size))]
        if draw.integer(0, 2) == 0:
            scale_x = draw.mantissa()
        scale_y = draw.mantissa() * 2.0 ** draw.integer(9, 11) * size / SIZE  # most accumulators in range
        case = _directed(form, draw, left, size, scale_x, scale_w, scale_y, bias_steps=draw.integer(0, 1) * 100)
        if case is not None:
            return case
    return None


def cancelling_bias(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """A bias that nearly cancels the accumulator, both far beyond the output range: their roundings show."""
    if form.bias == "none":
        return None
    draw = Draw(key)
    scale_x, scale_w = draw.mantissa(), [draw.mantissa() for _ in range(_scales(form, size))]
    scale_y = draw.mantissa() * 2.0 ** -draw.integer(-4, 8)
    return _directed(
        form, draw, left, size, scale_x, scale_w, scale_y, bias_steps=draw.integer(10_000, 250_000) * size // SIZE
    )


def huge_cancellation(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Accumulator and bias cancel exactly, times a multiplier so large that a float64's last bit is an output step."""
    if form.bias == "none":
        return None
    draw = Draw(key)
    channels = _scales(form, size)
    # acc of 12 bits times s_x * s_w of 11 bits is a float32: then the bias cancels it to the last bit.
    scale_x, scale_w = 2.0 ** -draw.integer(0, 3), [1 + draw.integer(1, 2**10) * 2.0**-10 for _ in range(channels)]
    acc = np.array([2 * (2 * draw.integer(500, 1000) + 1)])
    both = np.array([scale_x * s for s in scale_w])
    power = (24 if draw.integer(0, 1) else 53) + draw.integer(-1, 3) - 12
    y = QType.per_tensor(form.dtype, float32(draw.mantissa() * 2.0**-power), INTEGER_RANGE[form.dtype][0] + 101)
    bias = -acc[0] * both if form.bias == "float32" else np.full(channels, -acc[0])
    rows = np.concatenate([acc, acc + 2, acc - 2])
    return _with_accumulators(form, size, rows, scale_x, scale_w, y, np.asarray(bias))


def long_accumulators(form: Form, key: int, left: Sequence[Contraction]) -> Case | None:
    """Accumulators beyond 2^24 that an opposite bias brings back: a float32 has lost their last bits."""
    if form.bias == "none" or _any_dequantized(left):
        return None
    draw = Draw(key)
    low, high = INTEGER_RANGE[form.dtype]
    n, rows = 4096, 6
    w = 2 * draw.integers(n, 26, 31)[None, :]  # even, so that weights without their last bit are the same
    x = np.tile(draw.integers(n, high - 50, high), (rows, 1))
    x[:, 0] = draw.integers(rows, high - 9, high)
    scale = 2.0 ** -draw.integer(0, 4)
    acc = int((x[0] - low) @ w[0])
    y = QType.per_tensor(form.dtype, float32(scale * 4), low + 101)
    bias = np.array([-acc + draw.integer(0, 9)]) * (scale if form.bias == "float32" else 1)
    return build(form, x, w, x_zero=low, scale_x=scale, scale_w=[1.0], y=y, bias=bias)


def overflow(form: Form, key: int, left: Sequence[Contraction], *, size: int = SIZE) -> Case | None:
    """Results of 2^31 and more, of both signs."""
    draw = Draw(key)
    low, _ = INTEGER_RANGE[form.dtype]
    scale_y = draw.mantissa() * 2.0 ** -draw.integer(20, 24)
    accs = draw.integers(6, 1_600 * size, 1_700 * size) * 2
    y = QType.per_tensor(form.dtype, float32(scale_y), low + 101)
    return _with_accumulators(form, size, np.concatenate([accs, -accs]), 1.0, [1.0], y, None)


PROBES: tuple[Probe, ...] = (
    probe(general, "padding products operands rounding multiplier"),
    probe(saturating_pairs, "products"),
    probe(cancelling_products, "operands accumulator multiplier bias"),
    probe(long_sums, "accumulator", sized=False),
    probe(exact_ties, "rounding zero_point multiplier bias"),
    probe(near_ties, "multiplier scales bias zero_point rounding accumulator"),
    probe(long_accumulators, "bias accumulator", sized=False),
    probe(cancelling_bias, "bias multiplier scales accumulator"),
    probe(overflow, "clamp"),
    probe(odd_divisors, "multiplier zero_point rounding"),
    probe(huge_cancellation, "bias multiplier"),
)
"""In the order in which they are first tried."""


def _layer(
    form: Form, linear: tuple[int, ...], images: tuple[int, ...], filters: tuple[int, ...], *, padding: int
) -> tuple[tuple[int, ...], tuple[int, ...], Conv | None]:
    """Shapes of the input and of one filter, and the convolution, if it is one."""
    if form.op == "linear":
        return linear, linear[1:], None
    return images, filters, unit_conv(2, padding=(padding,) * 4)


_ODD = 17
"""Channels of an image: no multiple of a vector's length, so that no kernel groups its float32 sums by it."""


def _any_dequantized(left: Sequence[Contraction]) -> bool:
    """Sums of more than 128 products are cut into panels by float32 kernels, in ways that the catalogue leaves open."""
    return any(m.operands == "dequantized" for m in left)


def _inexact_inverse(draw: Draw) -> float:
    """A mantissa that inverting twice in float32 changes."""
    one = np.float32(1)
    while True:
        m = np.float32(draw.mantissa())
        if one / (one / m) != m:
            return float(m)


def _scales(form: Form, size: int) -> int:
    """How many scales weights have."""
    return N_CHANNELS if form.per_channel and size > 1 else 1


def _bias(form: Form, draw: Draw, both: Sequence[float], largest: int, channels: int) -> Array | None:
    if form.bias == "none":
        return None
    steps = draw.integers(channels, -largest, largest)
    return steps if form.bias == "int32" else steps * np.resize(both, channels) * draw.mantissa()


_LARGEST = 62
"""Two inputs of 255 by this weight, or by one more, stay within int16: saturating models reach what is meant."""


def _with_accumulators(
    form: Form, n: int, accs: Ints, scale_x: float, scale_w: Sequence[float], y: QType, bias: Array | None
) -> Case:
    """A case whose rows of `n` + 1 numbers have exactly these even accumulators, in every channel, without the bias."""
    low, _ = INTEGER_RANGE[form.dtype]
    zero = low + 128
    coarse, fine = np.divmod(accs, _LARGEST)
    base, rest = np.divmod(coarse, n)
    x = base[:, None] + (np.arange(n)[None, :] < rest[:, None])
    x = np.concatenate([x, (fine // 2)[:, None]], axis=1) + zero
    # At least two channels: float32 kernels sum the products of a single one in an order of its own.
    channels = max(2, len(scale_w)) if n > 1 else len(scale_w)
    w = np.tile(np.array([_LARGEST] * n + [2]), (channels, 1))
    return build(form, x, w, x_zero=zero, scale_x=scale_x, scale_w=scale_w, y=y, bias=bias)


def _reach(n: int) -> int:
    """Largest accumulator of `_with_accumulators`."""
    return 120 * _LARGEST * n


def _directed(
    form: Form,
    draw: Draw,
    left: Sequence[Contraction],
    size: int,
    scale_x: float,
    scale_w: Sequence[float],
    scale_y: float,
    *,
    bias_steps: int,
    zero_y: int | None = None,
) -> Case | None:
    """Rows on which the models left disagree, of those with results next to ties."""
    low, high = INTEGER_RANGE[form.dtype]
    coarse = _coarse(left, draw)
    if zero_y is None:
        zero_y = (low + 127, low + 128, low + 101, 0, low, high)[draw.integer(0, 5)]
    y = QType.per_tensor(form.dtype, float32(scale_y), zero_y)
    both = np.array([float32(scale_x) * float32(s) for s in scale_w])
    bias: Array | None = None
    offsets = np.zeros(len(scale_w))
    if form.bias != "none":
        steps = np.full(len(scale_w), bias_steps) - draw.integers(len(scale_w), 0, bias_steps // 8)
        steps = steps * (1 if draw.integer(0, 1) else -1)
        exact = steps + (draw.integers(len(scale_w), 0, 2**20) / 2.0**20 if bias_steps else 0.0)
        bias = steps if form.bias == "int32" else (exact * both).astype(np.float32)
        offsets = steps * both if form.bias == "int32" else bias.astype(np.float64)
    reach = _reach(size)
    accs = np.arange(-reach, reach + 1, 2)
    picked: list[Ints] = []
    for s, offset in zip(both, offsets, strict=True):
        r = accs * coarse(s / y.scale[0]) + offset / y.scale[0]
        inside = np.flatnonzero((r > y.qmin - zero_y - 2) & (r < y.qmax - zero_y + 2))
        # From a multiple of 1/2: what rounds to nearest parts at odd ones, truncation at even ones.
        distance = np.abs(r[inside] - np.rint(2 * r[inside]) / 2)
        n = min(len(inside), 512)
        # A shuffle far below float32's last bit, and above float64's: exact ties do not crowd out what just misses one.
        distance = distance + draw.integers(len(inside), 0, 2**20) * 2.0**-60
        picked.append(accs[inside[np.argpartition(distance, n - 1)[:n]]] if n else accs[:0])
    rows = np.unique(np.concatenate(picked))
    if len(rows) == 0:
        return None
    try:
        case = _with_accumulators(form, size, rows, scale_x, scale_w, y, bias)
    except InvalidCase:
        return None
    return narrowed(case, left)


def _coarse(left: Sequence[Contraction], draw: Draw) -> Callable[[float], float]:
    """The multiplier as one of the models left has it, as far as float64 sees a difference from the real one."""
    match left[draw.integer(0, len(left) - 1)].multiplier:
        case "bfloat16":
            return lambda m: float(bfloat16(np.array(m)))
        case "fixed16":
            return lambda m: float(np.ldexp(np.rint(np.frexp(m)[0] * 2.0**15) / 2.0**15, np.frexp(m)[1]))
        case _:
            return lambda m: m
