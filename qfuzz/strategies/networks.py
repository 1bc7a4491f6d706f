"""networks() and cases(): shape-first, valid by construction, every draw shrinking towards one small node."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis.strategies import SearchStrategy

from qfuzz.backends.torch_int32 import OF_QINT32
from qfuzz.exact.floating import FORMATS
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.forms import CHOICES, forms_from
from qfuzz.ir.network import Case, Input, Network
from qfuzz.ir.qtype import BYTES, QType, QuantizedDType, integer_range
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.ops.quantization import Quantize
from qfuzz.strategies import fake, fill, granular, layer_forms, weight_only
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder, Flavour, RealRange
from qfuzz.strategies.directed import direct
from qfuzz.strategies.draw import Draw, strategy_of
from qfuzz.strategies.families import DRAWINGS, selected_ops
from qfuzz.strategies.invalid import draw_invalid
from qfuzz.strategies.qtypes import draw_zero_point

BATCHES = (1, 8, 8, 8, 8, 8, 8, 8, 8, 2, 3, 0)
DIMS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9)
WEIGHTS = {"conv": 4, "linear": 3, "add": 2}
"""Operators that are drawn more often than once where all are."""

WIDE_AND_NARROW: tuple[QuantizedDType, ...] = (
    *("uint16", "int16", "int16", "uint4", "int4", "uint2", "int2"),
    *("int32", "int32"),
)
"""Types of activations of which few kernels are: none on stored integers, but PyTorch's eager ones on int32."""

HOW_MANY_FORMS = (0, 0, 0, 1, 1, 2, 3, 4)

_OWN_FORMS = (*weight_only.FORMS, *granular.FORMS, *layer_forms.FORMS, *fake.FORMS, "call")
"""Dimensions of form that operators draw themselves."""

GENERAL_FORMS = tuple(c for c in CHOICES if c[0] not in _OWN_FORMS)
"""Those that are drawn for every network; others are drawn with the operators that they are about."""

UNUSUAL = (
    *("requantize", "sub", "div", "minimum", "maximum", "where", "gelu", "layer_norm", "instance_norm", "mean"),
    *("split", "squeeze", "unsqueeze", "expand", "gather", "depth_to_space", "space_to_depth", "argmax", "interpolate"),
    *("matmul", "conv_transpose", "conv_integer", "linear_integer", "matmul_integer"),
    *("dynamic_conv", "dynamic_conv_transpose"),
    *("dynamic_quantize", "dynamic_linear", "linear_fp16", "attention", "lstm", "embed_layer_norm", "moe"),
    *("weight_only_linear", "dynamic_nbits_linear", "embedding", "embedding_bag", "embedding_rows", "recurrent"),
    *("tile", "gather_elements", "amax", "amin"),
    *("adaptive_avg_pool", "concat_relu", "flip", "channel_shuffle", "unfold", "reflection_pad", "sort", "topk"),
    *("masked_fill", "index_put", "constant_pad", "grid_sample"),
    *("linear_pointwise", "conv_pointwise", "linear_add", "conv_add"),
    *("batch_norm", "group_norm", "celu", "threshold", "prelu", "std"),
    *("fake_quantize", "choose_qparams"),
    *("add_scalar", "mul_scalar", "compare", "compare_scalar", "scaled_mm"),
)
"""Operators that few backends have: cases of common forms leave them out."""

OF_BYTES = ("conv_integer", "linear_integer", "matmul_integer")
"""Operators that have kernels on bytes only."""

OF_INT32 = OF_QINT32
"""Operators that are drawn with int32 activations: those of which PyTorch has kernels, and that stay exact."""

ENDING = (
    "dynamic_quantize",
    "dynamic_linear",
    "dynamic_conv",
    "dynamic_conv_transpose",
    "linear_fp16",
    "fake_quantize",
    "choose_qparams",
)
"""Operators on float32 whose results nothing reads."""

OWN_INPUT = ("quantize", *ENDING)
"""Operators on float32, which connecting nodes do not give: they bring inputs of their own."""

FLOAT_ONLY = ("tanh", "elu", "hardsigmoid", "hardswish")
"""Operators without a kernel on stored integers in ONNX Runtime, whose other operators want cases without them."""

CONNECTING = ("relu", "add")
"""Operators drawn between the selected ones where networks are longer."""


def networks(*, ops: Sequence[str] = (), max_nodes: int = 4, min_nodes: int = 1) -> SearchStrategy[Network]:
    """Quantized networks.

    Parameters
    ----------
    ops
        Shell globs over operator names; every network holds one that matches. All operators where empty.
    max_nodes, min_nodes
        Bounds of the number of nodes.
    """
    return _strategy(ops, min_nodes, max_nodes).map(lambda case: case.network)


def cases(
    *, ops: Sequence[str] = (), max_nodes: int = 4, min_nodes: int = 1, invalid: float = 0.0
) -> SearchStrategy[Case]:
    """Networks with concrete inputs, mostly a batch of 8.

    Parameters
    ----------
    ops, max_nodes, min_nodes
        Those of `networks`.
    invalid
        The share of near-legal cases: one node, and a form that changes one argument to what is to be refused.
    """
    return _strategy(ops, min_nodes, max_nodes, invalid)


def _strategy(ops: Sequence[str], min_nodes: int, max_nodes: int, invalid: float = 0.0) -> SearchStrategy[Case]:
    build = case_builder(ops, min_nodes, max_nodes, invalid)
    return strategy_of(build, f"cases(ops={ops!r}, max_nodes={max_nodes})")


def case_builder(ops: Sequence[str], min_nodes: int, max_nodes: int, invalid: float = 0.0) -> Callable[[Draw], Case]:
    """The function that draws the cases of `cases` with these parameters."""
    if not 0 <= invalid <= 1:
        raise InvalidCase(f"invalid: {invalid}; a share is in 0..1")
    if not 1 <= min_nodes <= max_nodes:
        raise InvalidCase(f"networks: min_nodes {min_nodes}, max_nodes {max_nodes}; needs 1 <= min_nodes <= max_nodes")
    patterns = tuple([ops] if isinstance(ops, str) else ops)
    selected = selected_ops(patterns)
    if not patterns:
        selected = tuple(n for n in selected for _ in range(WEIGHTS.get(n, 1)))

    def build(d: Draw) -> Case:
        try:
            if invalid and _percentile(d) >= 100 * (1 - invalid):
                return draw_invalid(d, selected, _alone)
            return draw_case(d, selected, min_nodes, max_nodes, filtered=bool(patterns))
        except InvalidCase:
            d.reject()

    return build


def _percentile(d: Draw) -> float:
    """From 0 to 99.99, each hundredth as often; of a longer range, Hypothesis draws some more often."""
    return d.integer(0, 99) + d.integer(0, 99) / 100


def _alone(d: Draw, selected: Sequence[str]) -> Case:
    return draw_case(d, selected, 1, 1, filtered=True)


def draw_case(d: Draw, selected: Sequence[str], min_nodes: int, max_nodes: int, *, filtered: bool) -> Case:
    """One case; every choice is drawn from `d`."""
    flavour = _flavour(d)
    n_nodes = min(max(d.pick((1, 2, 3, 3, 4, 3)), min_nodes), max_nodes)
    if max_nodes > 4 and d.integer(0, 1):
        n_nodes = d.integer(min_nodes, max_nodes)
    menu = tuple(selected) if filtered else _menu(flavour, selected, alone=n_nodes == 1)
    quantized_first = d.rarely(12) and not filtered and n_nodes > 1
    first = d.pick(menu)
    if not _takes(first, flavour.dtype):
        flavour = replace(flavour, dtype="uint8")
    b = Builder(d, flavour)
    b.most_nodes = n_nodes
    alone = first in OWN_INPUT and (first not in ENDING or n_nodes == 1)
    _begin(b, first, alone)
    if quantized_first and b.inputs:
        _quantize_first(b)
    # A quantize node reads float32, which no connecting node gives: it comes first.
    target = d.integer(0, n_nodes - 1) if filtered and first != "quantize" else 0
    if target == 0:
        with d.part():
            DRAWINGS[first].draw(b)
    if filtered:
        menu = tuple(dict.fromkeys((*selected, *CONNECTING)))
    while len(b.nodes) < n_nodes:
        with d.part():
            is_target = target > 0 and len(b.nodes) == target
            name = first if is_target else d.pick(menu)
            only_connects = filtered and len(b.nodes) < target and name not in CONNECTING
            DRAWINGS["relu" if only_connects or not _follows(b, name, asked_for=is_target) else name].draw(b)
    network = b.network(_forms(d, b.forms))
    key, style = (
        d.key(),
        d.pick((fill.UNIFORM, fill.UNIFORM, fill.UNIFORM, fill.MIXED, fill.EDGES, fill.EXTREMES, fill.NARROW)),
    )
    inputs = []
    for i, v in enumerate(network.inputs):
        own_key = key + i if key else 0
        if v.name in b.ranges:
            inputs.append(_ranged(own_key, b.ranges[v.name], v.type))
        else:
            inputs.append(_filled(own_key, style, v.type, _step(network, v.name)))
    edits = d.integer(0, 3)
    for _ in range(edits if edits < 3 and inputs else 0):
        _edit(d, inputs[0], network.inputs[0], network)
    case = Case(network, tuple(Tensor(a) for a in inputs))
    return direct(case, key) if key and inputs and d.integer(0, 1) else case


def _takes(name: str, dtype: str) -> bool:
    """Whether an operator is drawn with activations of a type."""
    return dtype in BYTES or (name in OF_INT32 if dtype == "int32" else name not in OF_BYTES)


def _follows(b: Builder, name: str, *, asked_for: bool) -> bool:
    """Whether a node of the operator can be next, and is worth it."""
    if name == "quantize" or not DRAWINGS[name].fits(b):
        return False
    if name in ENDING and not _is_read(b):
        return False
    if not _takes(name, b.type.dtype):
        return False
    return asked_for or (DRAWINGS[name].worthwhile(b) and b.type.n_elements <= MAX_VALUE_ELEMENTS)


def _forms(d: Draw, own: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Mostly one or two forms that are not the plain ones, so that any two of them meet; and an operator's own."""
    return forms_from([*(d.pick(GENERAL_FORMS) for _ in range(d.pick(HOW_MANY_FORMS))), *own])


def _quantize_first(b: Builder) -> None:
    """The first input as float32, quantized to the type that it was to have: what is drawn next is drawn as before."""
    (value,) = b.inputs
    if value.type.is_quantized:
        b.inputs.clear()
        b.add_node(Quantize(), (b.add_input(value.type.shape, "float32"),), value.type.element)


def _is_read(b: Builder) -> bool:
    """Whether a node reads the first input."""
    return any(b.inputs[0].name in n.inputs for n in b.nodes)


def _flavour(d: Draw) -> Flavour:
    kind = d.integer(0, 11)
    dtype: QuantizedDType = "int8" if kind in (5, 11) else "uint8"
    if kind >= 9:
        dtype = d.pick((*(dtype,) * 7, *WIDE_AND_NARROW))
    # Few backends take int32 at all: half of such cases keep to what their kernels take.
    common = kind < (11 if dtype == "int32" else 9)
    return Flavour(dyadic=kind % 3 == 0, integer=kind < 6, common=common, dtype=dtype)


def _menu(flavour: Flavour, selected: Sequence[str], *, alone: bool) -> tuple[str, ...]:
    """The operators of a case of this flavour.

    Quantize, which only a node on its own or the first can be, comes last, and only for the former: a longer network
    shrinks to a single node of the same place in the menu.
    """
    unusual: tuple[str, ...] = ("quantize",)
    if flavour.common:
        unusual += UNUSUAL + FLOAT_ONLY if flavour.integer else UNUSUAL
    return (*(name for name in selected if name not in unusual), *(("quantize",) if alone else ()))


def _begin(b: Builder, first: str, alone: bool) -> None:
    """The first graph input, of a rank that `first` can read; only a shape where it is `alone` and brings its own."""
    d = b.d
    rank = d.pick(DRAWINGS[first].ranks)
    rank = 4 if rank > 4 and b.flavour.common and d.integer(0, 1) else rank
    batch = d.pick(BATCHES)
    if rank == 2:
        shape: tuple[int, ...] = (batch, d.pick(DIMS))
    else:
        size = d.pick(SIZES if rank < 5 else SIZES[:4])
        sizes: tuple[int, ...] = (size,) if rank == 3 else (size, d.pick(SIZES) if d.rarely(3) else size)
        sizes = (d.pick(SIZES[:4]), *sizes) if rank == 5 else sizes
        room = MAX_VALUE_ELEMENTS // (max(batch, 1) * math.prod(sizes))
        shape = (batch, d.pick([c for c in DIMS if c <= max(1, min(room, 33))]), *sizes)
    shape = DRAWINGS[first].shaped(d, shape)
    if alone:
        b.types[""] = TensorType(shape, "float32")
        b.current = b.add_input(shape, "float32")
        del b.types[""]
        b.inputs.clear()
        return
    kind = d.integer(0, 15)
    if kind >= 14 and not b.flavour.common:
        scale = b.scale(2.0**-30 if kind == 14 else 2.0**30, 4)
    else:
        scale = b.scale(1.0 if kind < 5 else 2.0**-5, 3)
    b.current = b.add_input(shape, QType.per_tensor(b.flavour.dtype, scale, draw_zero_point(d, b.flavour.dtype)))


def _step(network: Network, name: str) -> float:
    """The step on which reals fed to the value `name` are rounded: their halves are ties."""
    node = next(n for n in network.nodes if name in n.inputs)
    if isinstance(node.op, FakeQuantize):
        return float(network.constant_data[node.inputs[1]].array.reshape(-1)[0])
    q = node.element
    return q.scale[0] if isinstance(q, QType) else 1.0


def _ranged(key: int, data: RealRange, type_: TensorType) -> fill.Array:
    shape = type_.shape
    if not (data.by_row and key):
        return fill.ranged(key, data.kind, shape, data.magnitude).astype(DTYPES[type_.dtype])
    keys = fill.words(key, math.prod(shape[:-1])).tolist()
    rows = [fill.ranged(own, data.kind, shape[-1:], data.magnitude) for own in keys]
    return np.array(rows, dtype=np.float32).reshape(shape).astype(DTYPES[type_.dtype])


def _filled(key: int, style: int, type_: TensorType, step: float) -> fill.Array:
    q = type_.element
    if isinstance(q, QType):
        if q.is_float:
            return fill.float8(key, style, type_.shape, q.dtype)
        return fill.quantized(key, style, type_.shape, q.dtype, q.zero_point[0])
    if q == "bool":
        return fill.conditions(key, type_.shape)
    return fill.reals(key, style, type_.shape, step, str(q))


def _edit(d: Draw, array: fill.Array, value: Input, network: Network) -> None:
    """One element set to an edge value: of reals, to one that has no finite quotient, where that is defined."""
    limits = integer_range(value.type.element)
    edges: tuple[float, ...]
    if array.size == 0:
        return
    if limits is None:
        if not all(n.op.takes_non_finite for n in network.consumers(value.name)):
            return
        largest = FORMATS[value.type.dtype].largest
        edges = (-0.0, largest, -largest, math.inf, -math.inf, math.nan)
    else:
        low, high = limits
        edges = (0, high, 1, high // 2 + 1) if low == 0 else (0, high, low, -1)
    flat = array.reshape(-1)
    flat[d.integer(0, min(flat.size, 256) - 1)] = d.pick(edges)
