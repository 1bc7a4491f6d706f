"""The catalogue: a model is a combination of independent choices. The default choices are the exact arithmetic.

Every model computes one node from stored integers. What it does differently from the exact arithmetic is one choice
here and one branch below; real kernels that are published to work so are named beside the choice.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount, Reals
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.activation import Clamp
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.pooling import AvgPool
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.ops.softmax import Softmax

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One precise arithmetic. Each field is a choice; its first alternative is the exact one.

    Attributes
    ----------
    products
        ``int16_pairs``: products of uint8 and int8 are summed in adjacent pairs that saturate to int16 (x86 vpmaddubsw:
        FBGEMM acc16, oneDNN, MLAS without VNNI); ``int16_pairs_channels_last`` takes the pairs along channels.
    padding
        Whether padding is a real 0, or a stored 0.
    zero_points
        ``swapped``: the input's is subtracted from the weight and the other way round.
    channel_scale
        ``next``: the weight scale of the following channel.
    bias
        ``unscaled``: an int32 bias is added to the requantized value.
    tail
        ``dropped``: the last input channel is not summed where channels are no multiple of 8.
    multiplier
        ``bfloat16``: rounded to 8 significant bits.
    rounding
        Of the real result.
    zero_point
        ``before_rounding``: added to the real result (PyTorch's quantize_per_tensor, oneDNN).
    clamp
        ``before_zero_point``: the storage range is applied first, and the sum wraps.
    relu
        ``at_zero``: a fused relu clips stored integers at 0.
    divisor
        Of an average: ``kernel``: of every window, whatever of it is padding or hangs over (QNNPACK's q8avgpool, ONNX
        Runtime's QLinearAveragePool).
    reciprocal
        Of a softmax's output scale: ``floored``: the whole part of it (ONNX Runtime's QLinearSoftmax).
    limits
        Of a clamp: ``dropped``: it is not computed (ONNX Runtime's ClipQuantFusion, for tiny scales).
    """

    products: Literal["exact", "int16_pairs", "int16_pairs_channels_last"] = "exact"
    padding: Literal["real_zero", "stored_zero"] = "real_zero"
    zero_points: Literal["own", "swapped"] = "own"
    channel_scale: Literal["own", "next"] = "own"
    bias: Literal["accumulator", "unscaled"] = "accumulator"
    tail: Literal["summed", "dropped"] = "summed"
    multiplier: Literal["exact", "bfloat16"] = "exact"
    rounding: Literal["half_even", "half_away", "half_up", "truncation"] = "half_even"
    zero_point: Literal["after_rounding", "before_rounding"] = "after_rounding"
    clamp: Literal["after_zero_point", "before_zero_point"] = "after_zero_point"
    relu: Literal["at_zero_point", "at_zero"] = "at_zero_point"
    divisor: Literal["window", "kernel"] = "window"
    reciprocal: Literal["exact", "floored"] = "exact"
    limits: Literal["applied", "dropped"] = "applied"


EXACT = Model()

MODELS: dict[str, Model] = {
    "truncation": Model(rounding="truncation"),
    "half-away": Model(rounding="half_away"),
    "ties-up": Model(rounding="half_up"),
    "zero-point-before-rounding": Model(zero_point="before_rounding"),
    "pads-with-stored-zero": Model(padding="stored_zero"),
    "swapped-zero-points": Model(zero_points="swapped"),
    "scale-of-next-channel": Model(channel_scale="next"),
    "unscaled-bias": Model(bias="unscaled"),
    "int16-pair-saturation": Model(products="int16_pairs"),
    "int16-pair-saturation-channels-last": Model(products="int16_pairs_channels_last"),
    "last-channel-dropped": Model(tail="dropped"),
    "clamp-before-zero-point": Model(clamp="before_zero_point"),
    "relu-at-stored-zero": Model(relu="at_zero"),
    "bfloat16-multiplier": Model(multiplier="bfloat16"),
}
"""Single departures from the exact arithmetic, by the name that findings give as their cause."""

KERNEL_MODELS: dict[str, Model] = {
    "divided-by-whole-kernel": Model(divisor="kernel"),
    "floored-reciprocal": Model(reciprocal="floored"),
    "clamp-dropped": Model(limits="dropped"),
}
"""Departures of single kernels. They explain findings; the planted faults are those that any kernel may have."""

_OF_CONTRACTIONS = ("products", "padding", "zero_points", "channel_scale", "bias", "tail", "multiplier")


def differs_on(model: Model, node: Node) -> bool:
    """Whether the model's departure can show on this kind of node at all."""
    departures = [f for f in model.__struct_fields__ if getattr(model, f) != getattr(EXACT, f)]
    contraction = isinstance(node.op, Conv | Linear)
    if not isinstance(node.element, QType):
        return False
    own: dict[str, type] = {"divisor": AvgPool, "reciprocal": Softmax, "limits": Clamp}
    if any(f in own and not isinstance(node.op, own[f]) for f in departures):
        return False
    return all(contraction or f not in _OF_CONTRACTIONS for f in departures)


def compute(model: Model, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> Array:
    """The node's output under `model`.

    Parameters
    ----------
    types, arrays
        Of all inputs of the node, constants included.
    """
    element = node.element
    if not isinstance(element, QType):
        return _exact_float(node, types, arrays)
    added = np.zeros((), dtype=np.int64)
    if isinstance(node.op, Conv | Linear) and any(getattr(model, f) != getattr(EXACT, f) for f in _OF_CONTRACTIONS):
        r, added = _contraction(model, node.op, types, arrays, element)
        rounded = _rounded_float(model, r, element.zero_point[0])
    else:
        operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
        assert isinstance(node.op, ExactOperator)
        rounded = _rounded(model, node.op.image(operands, element).lower, element.zero_point[0])
    return _stored(model, rounded + added, element, relu=bool(getattr(node.op, "relu", False)))


def kernel_explains(model: Model, node: Node, types: Sequence[TensorType], arrays: Sequence[Array], got: Array) -> bool:
    """Whether one of `KERNEL_MODELS` gives `got`. Those kernels compute in float32, so both sides of a tie will do."""
    if not isinstance(node.element, QType) or not differs_on(model, node):
        return False
    real = _kernel_real(model, node, types, arrays)
    slack = 1e-4 * (1 + np.abs(real))
    zero_point = node.element.zero_point[0]
    low, high = (
        np.clip(np.rint(np.clip(v, -1e6, 1e6)) + zero_point, node.element.qmin, node.element.qmax)
        for v in (real - slack, real + slack)
    )
    return bool(((low <= got) & (got <= high)).all())


def _kernel_real(model: Model, node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> Floats:
    """The real results, in output units, of one of `KERNEL_MODELS`."""
    op: Any = Requantize() if model.limits == "dropped" else node.op
    operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
    real: Floats = op.image(operands, node.element).lower.approx
    if model.divisor == "kernel":
        shape = op.infer(types, node.element)
        divisors = np.broadcast_to(op.divisors(types[0].shape[2:], shape[2:]), shape)
        return np.asarray(real * divisors / math.prod(op.kernel))
    if model.reciprocal == "floored":
        assert isinstance(node.element, QType)
        scale = node.element.scale[0]
        return np.asarray(real * (math.floor(1 / scale) * scale))
    return real


def _exact_float(node: Node, types: Sequence[TensorType], arrays: Sequence[Array]) -> Array:
    operands = [Operand.point(t, a) for t, a in zip(types, arrays, strict=True)]
    assert isinstance(node.op, ExactOperator)
    return node.op.image(operands, node.element).lower.approx.astype(np.float32)


def _rounded(model: Model, r: Reals, zero_point: int) -> npt.NDArray[np.int64]:
    """Integers without the zero point, decided exactly where the model rounds to nearest."""
    down, up = r.nearest(FilterCount())
    match model.rounding:
        case "truncation":
            # Toward zero; numbers that float64 cannot tell from an integer are taken as that integer.
            nearest = np.rint(r.approx)
            whole = np.abs(r.approx - nearest) <= r.error
            return np.where(whole, nearest, np.trunc(r.approx)).astype(np.int64)
        case "half_away":
            return np.where(r.approx >= 0, up, down)
        case "half_up":
            return up
        case "half_even":
            shift = zero_point if model.zero_point == "before_rounding" else 0
            return np.where((down + shift) % 2 == 0, down, up)


def _rounded_float(model: Model, r: Floats, zero_point: int) -> npt.NDArray[np.int64]:
    reals = Reals(r, np.zeros_like(r), lambda i, bits: (Fraction(float(r.flat[i])),) * 2)
    return _rounded(model, reals, zero_point)


def _stored(model: Model, q: npt.NDArray[np.int64], element: QType, *, relu: bool) -> Array:
    (zero_point,) = element.zero_point
    if model.clamp == "before_zero_point":
        wrapped = np.clip(q, element.qmin, element.qmax) + zero_point - element.qmin
        return (wrapped % 256 + element.qmin).astype(element.dtype)
    floor = element.qmin
    if relu:
        floor = max(floor, 0 if model.relu == "at_zero" else zero_point)
    return np.clip(q + zero_point, floor, element.qmax).astype(element.dtype)


def _contraction(
    model: Model, op: Conv | Linear, types: Sequence[TensorType], arrays: Sequence[Array], element: QType
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Real results in output units, and integers that are added after rounding."""
    q_x, q_w = types[0].qtype, types[1].qtype
    x, w = arrays[0].astype(np.int64), arrays[1].astype(np.int64)
    channels = w.shape[0]
    (zero_x,) = q_x.zero_point
    zero_w = np.broadcast_to(np.array(q_w.zero_point, dtype=np.int64), (channels,))
    subtracted_x: Any = zero_x
    if model.zero_points == "swapped":
        subtracted_x, zero_w = int(zero_w[0]), np.full(channels, zero_x)
    pad = 0 if model.padding == "stored_zero" else zero_x
    columns, shape = _columns(op, x, w, pad)
    filters = w.reshape(channels, -1)
    if model.tail == "dropped":
        per_group = w.shape[1]
        if per_group % 8 and per_group > 1:
            keep = np.ones(w.shape[1:], dtype=bool)
            keep[-1] = False
            columns, filters = columns[..., keep.ravel()], filters[:, keep.ravel()]
    acc = _accumulate(model, columns, filters, subtracted_x, zero_w, w.shape)
    scales = np.broadcast_to(np.array(q_w.scale), (channels,))
    if model.channel_scale == "next":
        scales = np.roll(scales, -1)
    multiplier = q_x.scale[0] * scales / element.scale[0]
    if model.multiplier == "bfloat16":
        mantissa, exponent = np.frexp(multiplier)
        multiplier = np.ldexp(np.rint(mantissa * 256.0) / 256.0, exponent)
    bias = np.zeros(channels)
    added = np.zeros(channels, dtype=np.int64)
    if len(arrays) > 2:
        if types[2].element == "float32":
            bias = arrays[2].astype(np.float64) / element.scale[0]
        elif model.bias == "unscaled":
            added = arrays[2].astype(np.int64)
        else:
            acc = acc + arrays[2].astype(np.int64)
    r = acc * multiplier + bias
    axis_last = isinstance(op, Linear)
    if axis_last:
        return r.reshape(shape), added
    moved = np.moveaxis(r.reshape(shape[0], *shape[2:], channels), -1, 1)
    return np.ascontiguousarray(moved), added.reshape((-1,) + (1,) * (len(shape) - 2))


def _columns(
    op: Conv | Linear, x: npt.NDArray[np.int64], w: npt.NDArray[np.int64], pad: int
) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    """Stored inputs of each output element [rows, channels, K] (one row for all channels of a group), and the shape."""
    channels = w.shape[0]
    if isinstance(op, Linear):
        rows = x.reshape(math.prod(x.shape[:-1]), 1, x.shape[-1])
        return rows, (*x.shape[:-1], channels)
    spatial = x.ndim - 2
    kernel = w.shape[2:]
    pads = [(0, 0), (0, 0), *((op.padding[i], op.padding[spatial + i]) for i in range(spatial))]
    padded = np.pad(x, pads, constant_values=pad)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(op.dilations, kernel, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
    windows = windows[
        (
            slice(None),
            slice(None),
            *(slice(None, None, s) for s in op.strides),
            *(slice(None, None, d) for d in op.dilations),
        )
    ]
    out = windows.shape[2 : 2 + spatial]
    # [N, C, *out, *kernel] -> [N, *out, G, C/G, *kernel]
    moved = np.moveaxis(windows, 1, 1 + spatial)
    grouped = moved.reshape(x.shape[0] * math.prod(out), op.groups, math.prod(w.shape[1:]))
    per_channel = np.repeat(grouped, channels // op.groups, axis=1) if op.groups > 1 else grouped
    return per_channel, (x.shape[0], channels, *out)


def _accumulate(
    model: Model,
    columns: npt.NDArray[np.int64],
    filters: npt.NDArray[np.int64],
    zero_x: int,
    zero_w: npt.NDArray[np.int64],
    weight_shape: tuple[int, ...],
) -> npt.NDArray[np.int64]:
    """Accumulators [rows, channels]."""
    if model.products == "exact":
        return np.asarray(((columns - zero_x) * (filters - zero_w[:, None])).sum(axis=-1))
    # Kernels multiply stored integers and correct for the zero points afterwards; int8 ones are shifted to uint8.
    shift = 128 if columns.size and columns.min() < 0 else 0
    products = (columns + shift) * filters
    if model.products == "int16_pairs_channels_last" and len(weight_shape) > 2:
        taps = math.prod(weight_shape[2:])
        order = np.arange(filters.shape[1]).reshape(-1, taps).T.ravel()
        products = products[..., order]
    if products.shape[-1] % 2:
        products = np.concatenate([products, np.zeros((*products.shape[:-1], 1), dtype=np.int64)], axis=-1)
    pairs = np.clip(
        products.reshape(*products.shape[:-1], products.shape[-1] // 2, 2).sum(axis=-1), -(2**15), 2**15 - 1
    ).sum(axis=-1)
    sums_x, sums_w = columns.sum(axis=-1), filters.sum(axis=-1)
    n = filters.shape[1]
    corrected: npt.NDArray[np.int64] = pairs - (zero_x + shift) * sums_w - zero_w * sums_x + n * zero_x * zero_w
    return corrected
