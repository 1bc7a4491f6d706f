"""Movement and selection as torch's eager quantized kernels, which mostly are those of other tensors."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, literal, variables
from qfuzz.backends.torch_kernels import keep_qparams, qtype_out, same_dtype
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.ops.movement import Concat, Flatten, Pad, Reshape, Slice, Transpose
from qfuzz.ops.ordering import Sort, Topk
from qfuzz.ops.rearrangement import DepthToSpace, Expand, Gather, SpaceToDepth, Split, Squeeze, Unsqueeze
from qfuzz.ops.repetition import Tile
from qfuzz.ops.views import ChannelShuffle, Flip, ReflectionPad, Unfold


def _concat(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Concat)
    q = qtype_out(node)
    same_dtype(b, node, q)
    if not op.relu and all(b.type(node, i).element == q for i in range(len(node.inputs))):
        b.call(node.name, "torch.cat", variables(node.inputs), literal(op.axis))
        return
    kernel = "torch.ops.quantized.cat_relu" if op.relu else "torch.ops.quantized.cat"
    b.call(node.name, kernel, variables(node.inputs), literal(op.axis), scale_of(q), zero_point_of(q))


def _reshape(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Reshape)
    b.call(node.name, ".reshape", b.x(node), literal(list(op.shape)))


def _flatten(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Flatten)
    b.call(node.name, "torch.flatten", b.x(node), literal(op.start_axis))


def _transpose(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Transpose)
    b.call(node.name, ".permute", b.x(node), literal(list(op.perm)))


def _slice(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Slice)
    limits = (op.axis, op.start, op.stop, op.step)
    b.call(node.name, "torch.ops.aten.slice.Tensor", b.x(node), *(literal(v) for v in limits))


MOVES: Mapping[str, Lowering] = MappingProxyType(
    {"reshape": _reshape, "flatten": _flatten, "transpose": _transpose, "slice": _slice}
)
"""Operator name to the call that is the same for quantized tensors and for plain integers."""


def moved(keeps: Lowering) -> dict[str, Lowering]:
    """The lowerings of `MOVES` for a dialect where `keeps` refuses an output of another type than the input's."""

    def keeping(move: Lowering) -> Lowering:
        def lowering(b: Builder, node: Node) -> None:
            keeps(b, node)
            move(b, node)

        return lowering

    return {name: keeping(move) for name, move in MOVES.items()}


def _pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Pad | ConstantPad)
    keep_qparams(b, node)
    value = op.value if isinstance(op, ConstantPad) else 0.0
    b.call(
        node.name,
        "torch.nn.functional.pad",
        b.x(node),
        literal(_sides(op.padding)),
        literal("constant"),
        literal(value),
    )


def _sides(padding: tuple[int, ...]) -> list[int]:
    """Padding as `pad` takes it: before and after the last dimension first."""
    n = len(padding) // 2
    return [side for i in reversed(range(n)) for side in (padding[i], padding[n + i])]


def _reflection_pad(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ReflectionPad)
    keep_qparams(b, node)
    if len(op.padding) > 4 and op.mode == "reflect":
        raise Unsupported("padding: torch registers reflection_pad1d and reflection_pad2d for quantized tensors")
    b.call(node.name, "torch.nn.functional.pad", b.x(node), literal(_sides(op.padding)), literal(op.mode))


def _split(b: Builder, node: Node) -> None:
    """The call that gives all the parts; those that are not the node's have names of their own."""
    op: Any = node.op
    assert isinstance(op, Split)
    keep_qparams(b, node)
    parts = [node.name if i == op.index else b.fresh(f"{node.name}_part{i}") for i in range(len(op.sizes))]
    if op.counted and min(op.sizes) > 0:
        target, cut = "torch.chunk", literal(len(op.sizes))
    else:
        target, cut = "torch.split", literal(list(op.sizes))
    b.call(_several(*parts), target, b.x(node), cut, literal(op.axis))


def _several(*names: str) -> str:
    """The variables of a call that returns several values."""
    return ", ".join(names) if len(names) > 1 else f"{names[0]},"


def _squeeze(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Squeeze)
    keep_qparams(b, node)
    b.call(node.name, ".squeeze", b.x(node), *([literal(op.axes)] if op.axes else []))


def _unsqueeze(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Unsqueeze)
    keep_qparams(b, node)
    if len(op.axes) != 1:
        raise Unsupported(f"axes: {op.axes}; torch's unsqueeze puts in one dimension")
    b.call(node.name, ".unsqueeze", b.x(node), literal(op.axes[0]))


def _expand(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Expand)
    keep_qparams(b, node)
    b.call(node.name, ".expand", b.x(node), literal(list(op.shape_of(b.type(node, 0).shape))))


def _gather(b: Builder, node: Node) -> None:
    """`select` for one index, `index_select` for several, and `x[rows, indices]` for what that does not take."""
    op: Any = node.op
    assert isinstance(op, Gather)
    keep_qparams(b, node)
    shape = b.type(node, 0).shape
    axis = op.axis % len(shape)
    if op.indices_shape == ():
        b.call(node.name, ".select", b.x(node), literal(op.axis), literal(op.indices[0]))
        return
    name = f"{node.name}_indices"
    if len(op.indices_shape) == 1 and min(op.indices, default=0) >= 0:
        taken = b.numbers(name, op.indices, op.index_dtype)
        b.call(node.name, "torch.index_select", b.x(node), literal(op.axis), taken)
        return
    behind = len(op.indices_shape)
    leading = [
        _indices(b, f"{node.name}_rows{d}", tuple(range(n)), "int64", (n,) + (1,) * (axis - d - 1 + behind))
        for d, n in enumerate(shape[:axis])
    ]
    taken = _indices(b, name, op.indices, op.index_dtype, op.indices_shape)
    names = tuple(str(a.value) for a in (*leading, taken))
    b.call(node.name, "torch.ops.aten.index.Tensor", b.x(node), variables(names))


def _indices(b: Builder, name: str, values: tuple[int, ...], dtype: str, shape: tuple[int, ...]) -> Arg:
    flat = b.numbers(f"{name}_flat", values, dtype)
    return b.prepare_call(b.fresh(name), ".reshape", flat, literal(list(shape)))


def _tile(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Tile)
    keep_qparams(b, node)
    b.call(node.name, "torch.tile", b.x(node), literal(list(op.repeats)))


def _pixels(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, DepthToSpace | SpaceToDepth)
    keep_qparams(b, node)
    if op.mode != "CRD":
        raise Unsupported(f"mode: {op.mode}; torch's pixel_shuffle has block positions in the channel's fast part")
    target = "torch.pixel_shuffle" if isinstance(op, DepthToSpace) else "torch.pixel_unshuffle"
    b.call(node.name, target, b.x(node), literal(op.blocksize))


def _flip(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Flip)
    keep_qparams(b, node)
    b.call(node.name, "torch.flip", b.x(node), literal(list(op.axes)))


def _channel_shuffle(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ChannelShuffle)
    keep_qparams(b, node)
    x = b.type(node, 0)
    if len(x.shape) != 4:
        raise Unsupported(f"x: shape {x.shape}; 'channel_shuffle expects 4D input' (ChannelShuffle.cpp)")
    if x.dtype != "uint8":
        raise Unsupported(f"x: {x.dtype}; 'Quantized channel shuffle works only on QUInt8' (ChannelShuffle.cpp)")
    b.call(node.name, "torch.channel_shuffle", b.x(node), literal(op.groups))


def _unfold(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Unfold)
    keep_qparams(b, node)
    b.call(node.name, ".unfold", b.x(node), *(literal(v) for v in (op.axis, op.size, op.step)))


def _sort(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Sort)
    settings = {"stable": literal(True), "dim": literal(op.axis), "descending": literal(op.descending)}
    b.call(_values_or_places(b, node), "torch.sort", b.x(node), **settings)


def _topk(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Topk)
    settings = (literal(op.k), literal(op.axis), literal(op.largest), literal(True))
    b.call(_values_or_places(b, node), "torch.topk", b.x(node), *settings)


def _values_or_places(b: Builder, node: Node) -> str:
    """The variables of a call that returns elements and their indices, of which the node is one."""
    if node.element == "int64":
        return _several(b.fresh(f"{node.name}_values"), node.name)
    keep_qparams(b, node)
    return _several(node.name, b.fresh(f"{node.name}_indices"))


def _extreme(b: Builder, node: Node) -> None:
    """The largest or smallest of one dimension, or of all elements."""
    op: Any = node.op
    keep_qparams(b, node)
    target = f"torch.{op.name.removeprefix('a')}"
    rank = len(b.type(node, 0).shape)
    if len(op.axes) == 1:
        names = _several(node.name, b.fresh(f"{node.name}_indices"))
        b.call(names, target, b.x(node), literal(op.axes[0]), literal(op.keepdims))
    elif len(op.reduced(rank)) == rank and not op.keepdims:
        b.call(node.name, target, b.x(node))
    else:
        raise Unsupported(f"axes: {op.axes}; {target} reduces one dimension, or all; amax and amin have no kernel")


def _argmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    if op.select_last_index:
        raise Unsupported("select_last_index: torch.max returns 'the indices of the first maximal value'")
    names = _several(b.fresh(f"{node.name}_values"), node.name)
    target = "torch.min" if op.smallest else "torch.max"
    b.call(names, target, b.x(node), literal(op.axis), literal(op.keepdims))


def _masked_fill(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MaskedFill)
    keep_qparams(b, node)
    mask = node.inputs[1]
    if mask in b.network.constant_data:
        b.call(
            node.name, ".masked_fill", b.x(node), b.constant(mask), b.number(f"{node.name}_value", op.value, "float32")
        )
    else:
        b.call(node.name, ".masked_fill", b.x(node), b.x(node, 1), literal(op.value))


def _index_put(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, IndexPut)
    keep_qparams(b, node)
    taken = b.numbers(f"{node.name}_indices", op.indices, "int64")
    b.call(
        node.name,
        ".index_put",
        b.x(node),
        variables((str(taken.value),)),
        b.number(f"{node.name}_value", op.value, "float32"),
    )


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "concat": _concat,
        "concat_relu": _concat,
        **moved(keep_qparams),
        "pad": _pad,
        "constant_pad": _pad,
        "reflection_pad": _reflection_pad,
        "split": _split,
        "squeeze": _squeeze,
        "unsqueeze": _unsqueeze,
        "expand": _expand,
        "gather": _gather,
        "tile": _tile,
        "depth_to_space": _pixels,
        "space_to_depth": _pixels,
        "flip": _flip,
        "channel_shuffle": _channel_shuffle,
        "unfold": _unfold,
        "sort": _sort,
        "topk": _topk,
        "amax": _extreme,
        "amin": _extreme,
        "argmax": _argmax,
        "masked_fill": _masked_fill,
        "index_put": _index_put,
    }
)
