"""The drawing side of kernels that are whole layers: attention, lstm, embed_layer_norm, moe."""

import math

import numpy as np

from qfuzz.ir.qtype import Element, QType, QuantizedDType, float32
from qfuzz.ops.attention import Attention
from qfuzz.ops.embedding import MAX_SCALE, MIN_SCALE, EmbedLayerNorm
from qfuzz.ops.lstm import Lstm
from qfuzz.ops.mixture import Moe
from qfuzz.strategies import fill
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.fill import Array
from qfuzz.strategies.qtypes import draw_zero_point

MAX_LENGTH = 33
"""Of an attended sequence: the work grows with its cube."""
HEAD_SIZES = (1, 2, 3, 4, 7, 8, 9, 16)
FILTER_VALUES = (-10000.0, -3.4028234663852886e38 * 2.0**-30, -1.0, 0.0, 3.0)


def fits_attention(b: Builder) -> bool:
    """Whether the current value is a batch of sequences whose scale leaves room for products of scores."""
    shape = b.type.shape
    return len(shape) == 3 and 0 not in shape[1:] and shape[1] <= MAX_LENGTH and shape[2] <= 512


def draw_attention(b: Builder) -> None:
    """An attention node, which ends a branch in float32: what follows reads its input."""
    d = b.d
    source, common = b.current, b.flavour.common
    batch, length, features = b.type.shape
    room = MAX_VALUE_ELEMENTS // (max(batch, 1) * length)
    heads = d.integer(1, 3)
    head = d.pick([h for h in HEAD_SIZES if h * heads <= max(room, 1)] or [1])
    if head * heads > max(room, 1):
        heads = 1
    hidden = heads * head
    # Scores of a few units: keys are told apart, and none takes all.
    spread = b.qtype.scale[0] * 64 * 64 * math.sqrt(features)
    weight, q_w = weight_columns(b, (features, 3 * hidden), d.pick((1.0, 4.0, 0.25, 16.0)) / spread)
    unit = b.qtype.scale[0] * max(q_w.scale)
    bias = biases(b, 3 * hidden, unit, 64 * 64)
    inputs: tuple[str, ...] = (source, weight, bias)
    mask = d.integer(0, 7)
    if mask >= 3:
        inputs = (*inputs, b.add_constant("m", "int32", _mask(b, mask - 3, batch, length)))
    attributes = d.integer(0, 15)
    op = Attention(
        num_heads=heads,
        unidirectional=d.rarely(3),
        mask_filter_value=float32(d.pick(FILTER_VALUES)) if not common and mask >= 3 else -10000.0,
        scale={13: 0.5, 14: float32(-0.3), 15: 0.0}.get(attributes) if not common else None,
    )
    b.add_node(op, inputs, "float32")
    b.current = source


def weight_columns(b: Builder, shape: tuple[int, int], around: float) -> tuple[str, QType]:
    """A weight [rows, columns], quantized per tensor or per column, and its type."""
    d = b.d
    common = b.flavour.common
    kind = d.integer(0, 15)
    dtype: QuantizedDType = "uint8" if kind in (4, 5, 12, 13) else "int8"
    low = 0 if dtype == "uint8" else -128
    zero_point = d.pick((low + 128, low, low + 255, low + 129)) if kind >= 12 and not common else max(low, 0)
    scale = b.scale(around, 2)
    style = d.pick((fill.UNIFORM, fill.UNIFORM, fill.EXTREMES, fill.NARROW, fill.EDGES))
    data = fill.quantized(d.key(), style, shape, dtype, zero_point)
    q = QType.per_tensor(dtype, scale, zero_point)
    if kind in (1, 3, 5, 13) and shape[1] > 1:
        steps = fill.below(fill.words(d.key(), shape[1]), 5)
        scales = tuple(float32(scale * 2.0 ** int(s - 2)) for s in steps)
        zero_points = (zero_point,) * shape[1]
        if kind == 13 and not common:
            zero_points = tuple(int(z) + low for z in fill.below(fill.words(d.key(), shape[1]), 256))
        q = QType(dtype, scales, zero_points, 1)
    return b.add_constant("w", q, data), q


def biases(b: Builder, n: int, unit: float, largest: int) -> str:
    """A float32 bias of small multiples of `unit`, and of numbers between them."""
    d = b.d
    integers = fill.biases(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), n, largest)
    between = d.pick((0.0, 0.25))
    floats = np.where(integers == 0, 0.0, integers + between) * unit
    element: Element = "float32"
    return b.add_constant("b", element, floats.astype(np.float32))


def _mask(b: Builder, form: int, batch: int, length: int) -> Array:
    """Ends; ends and starts; keys; or scores, mostly not masked."""
    d = b.d
    key = d.key()
    if form in (0, 1):
        n = batch * (1 + form)
        values = fill.below(fill.words(key, n), length + 1)
        values = (
            np.where(np.arange(n) < batch, length - values, values)
            if key
            else np.where(np.arange(n) < batch, length, 0)
        )
        return values.astype(np.int32)
    shape = (batch, length) if form in (2, 3) else (batch, length, length)
    n = math.prod(shape)
    kept = fill.below(fill.words(key, n), 4) > 0 if key else np.ones(n)
    return kept.astype(np.int32).reshape(shape)


def draw_lstm(b: Builder) -> None:
    """An lstm node on a new float32 input, which ends a branch: what follows reads what was there before."""
    d = b.d
    source, common = b.current, b.flavour.common
    direction = "forward" if common else d.pick(("forward", "reverse", "bidirectional"))
    n = 2 if direction == "bidirectional" else 1
    length, batch = d.integer(1, 3), d.pick((1, 1, 1, 2, 3) if common else (1, 1, 2, 3, 0))
    features, hidden = d.pick((1, 2, 3, 4, 5, 8, 9, 17)), d.pick((1, 2, 3, 4, 5, 8))
    x = b.add_input((length, batch, features), "float32")
    spread = d.pick((1.0, 0.25, 8.0))
    dtype: QuantizedDType = "int8" if d.integer(0, 3) < 3 else "uint8"
    weights = [
        _gates(b, "w", dtype, (n, features, 4 * hidden), spread / (128 * 64 * math.sqrt(features))),
        _gates(b, "r", dtype, (n, hidden, 4 * hidden), 4 * spread / (64 * math.sqrt(hidden))),
    ]
    shapes = [("b", (n, 8 * hidden)), ("h", (n, batch, hidden)), ("c", (n, batch, hidden)), ("p", (n, 3 * hidden))]
    rest = []
    for name, shape in shapes[: d.pick((0, 1, 1, 3, 3, 4, 2))]:
        integers = fill.biases(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), math.prod(shape), 256)
        rest.append(b.add_constant(name, "float32", (integers / 200).astype(np.float32).reshape(shape)))
    clip = None if common or not d.rarely(4) else d.pick((1.0, 0.5, 4.0))
    op = Lstm(direction=direction, input_forget=d.rarely(4), clip=clip, output=d.pick(("y", "y", "y_h", "y_c")))  # type: ignore[arg-type]
    b.add_node(op, (x, *weights, *rest), "float32")
    b.current = source


def _gates(b: Builder, name: str, dtype: QuantizedDType, shape: tuple[int, int, int], around: float) -> str:
    """Weights of gates: one scale, or one for each column, or for each of two directions."""
    d = b.d
    kind = d.integer(0, 7)
    low = 0 if dtype == "uint8" else -128
    zero_point = low + 128 if kind > 5 or b.flavour.common else d.pick((low + 128, low + 129, low, low + 255))
    scale = b.scale(around, 1)
    data = fill.quantized(d.key(), d.pick((fill.UNIFORM, fill.EXTREMES, fill.NARROW)), shape, dtype, zero_point)
    q = QType.per_tensor(dtype, scale, zero_point)
    if kind in (1, 3, 5):
        axis = 2 if shape[0] == 1 else 0
        steps = fill.below(fill.words(d.key(), shape[axis]), 3)
        scales = tuple(float32(scale * 2.0 ** int(s - 1)) for s in steps)
        q = QType(dtype, scales, (zero_point,) * shape[axis], axis)
    return b.add_constant(name, q, data)


def fits_embed_layer_norm(b: Builder) -> bool:
    """Whether the current value is a table of words."""
    shape = b.type.shape
    return len(shape) == 2 and shape[1] > 0 and MIN_SCALE * 8 <= b.qtype.scale[0] <= MAX_SCALE / 8


def draw_embed_layer_norm(b: Builder) -> None:
    """An embed_layer_norm node on a table of words, which ends a branch in float32: what follows reads the table."""
    d = b.d
    source, q = b.current, b.qtype
    n_words, features = b.type.shape
    batch, length = d.pick((1, 2, 3) if b.flavour.common else (1, 2, 3, 0)), d.integer(1, 4)
    batch = batch if n_words else 0

    def ids(name: str, rows: int) -> str:
        values = fill.below(fill.words(d.key(), batch * length), rows)
        return b.add_constant(name, "int32", values.astype(np.int32).reshape(batch, length))

    def table(name: str, shape: tuple[int, ...], around: float) -> str:
        zero_point = draw_zero_point(d, q.dtype)
        data = fill.quantized(d.key(), d.pick((fill.UNIFORM, fill.EDGES, fill.NARROW)), shape, q.dtype, zero_point)
        return b.add_constant(name, QType.per_tensor(q.dtype, b.scale(around, 2), zero_point), data)

    inputs = [source, ids("i", n_words), table("p", (length + d.integer(0, 2), features), q.scale[0])]
    inputs += [table("g", (features,), 2.0**-6), table("e", (features,), 2.0**-6)]
    if d.integer(0, 1):
        n_segments = d.integer(1, 3)
        inputs += [ids("j", n_segments), table("s", (n_segments, features), q.scale[0])]
    epsilon = float32(1e-12) if b.flavour.common else float32(d.pick((1e-12, 1e-5, 1.0, 2.0**-40)))
    b.add_node(EmbedLayerNorm(epsilon=epsilon), tuple(inputs), "float32")
    b.current = source


def draw_moe(b: Builder) -> None:
    """A moe node on new float32 inputs, which ends a branch: what follows reads what was there before."""
    d = b.d
    source, common = b.current, b.flavour.common
    tokens, features = d.pick((1, 2, 3, 8) if common else (1, 2, 3, 8, 0)), d.pick((1, 2, 3, 4, 8, 9, 17))
    experts, inner = d.integer(1, 4), d.pick((1, 2, 3, 8))
    activation = d.pick(("identity", "relu", "silu", "swiglu", "swiglu"))
    rows = inner * (2 if activation == "swiglu" else 1)
    top = d.integer(1, min(experts, 2) if common else experts)
    normalized = d.rarely(3)
    x, router = b.add_input((tokens, features), "float32"), b.add_input((tokens, experts), "float32")
    n = tokens * experts
    mixing = fill.below(fill.words(d.key(), n), 200) + 1.0
    sign = fill.below(fill.words(d.key(), n), 8) > 0 if not common and not normalized else np.ones(n, dtype=bool)
    mixing = np.where(sign, mixing, -mixing) / d.pick((256.0, 200.0))
    inputs = [x, router, b.add_constant("m", "float32", mixing.astype(np.float32).reshape(tokens, experts))]
    inputs.append(_expert_weights(b, "v", (experts, rows, features), 2.0 / (64 * 64 * math.sqrt(features))))
    inputs.append(_expert_weights(b, "w", (experts, features, inner), 2.0 / (64 * math.sqrt(inner))))
    if d.integer(0, 1):
        for name, shape in (("b", (experts, rows)), ("c", (experts, features))):
            integers = fill.biases(d.key(), d.pick((fill.UNIFORM, fill.EDGES)), math.prod(shape), 256)
            inputs.append(b.add_constant(name, "float32", (integers / 200).astype(np.float32).reshape(shape)))
    swiglu = activation == "swiglu" and not common
    op = Moe(
        top=top,
        activation=activation,  # type: ignore[arg-type]
        normalized=normalized,
        alpha=float32(d.pick((1.0, 1.702, 0.5))) if swiglu else 1.0,
        beta=d.pick((0.0, 1.0, -0.5)) if swiglu else 0.0,
        limit=d.pick((None, 7.0, 0.5)) if swiglu else None,
    )
    b.add_node(op, tuple(inputs), "float32")
    b.current = source


def _expert_weights(b: Builder, name: str, shape: tuple[int, int, int], around: float) -> str:
    """uint8 weights of experts: one scale, or one for each expert, or for each row."""
    d = b.d
    kind = d.integer(0, 7)
    zero_point = 128 if kind > 3 or b.flavour.common else d.pick((128, 127, 0, 255))
    data = fill.quantized(d.key(), d.pick((fill.UNIFORM, fill.EXTREMES, fill.NARROW)), shape, "uint8", zero_point)
    scale = b.scale(around, 1)
    q = QType.per_tensor("uint8", scale, zero_point)
    if kind % 4 in (1, 2):
        axis = kind % 4 - 1
        steps = fill.below(fill.words(d.key(), shape[axis]), 3)
        q = QType("uint8", tuple(float32(scale * 2.0 ** int(s - 1)) for s in steps), (zero_point,) * shape[axis], axis)
    return b.add_constant(name, q, data)
