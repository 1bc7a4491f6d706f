"""ONNX nodes of operators that move, select or interpolate, on float32 values (QDQ) or on stored integers (QOperator).

Either form says them the same way: `Form` adds what stands before and after. Nodes that take parts of one value by the
same split are one ONNX Split, as in the networks that people write; a part that no node takes has a name all the same.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from qfuzz.backends.onnx_builder import NONE, Attributes, Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.argmax import Argmax
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.rearrangement import DepthToSpace, Expand, Gather, SpaceToDepth, Split, Squeeze, Unsqueeze
from qfuzz.ops.reduction import Amax, Amin
from qfuzz.ops.repetition import GatherElements, Tile

Read: TypeAlias = Callable[[Builder, Node], str]
"""The value that the ONNX operator reads, for a node that this form has a kernel for."""
Finish: TypeAlias = Callable[[Builder, Node, str], None]
"""Makes of the ONNX operator's result what the node gives."""


def lowerings(read: Read, finish: Finish | None, read_whole: Read) -> Mapping[str, Lowering]:
    """The lowerings of one form.

    Parameters
    ----------
    finish
        None where the ONNX operator gives the node's value itself.
    read_whole
        As `read`, for a node that gives no element of its input.
    """

    def through(say: Callable[[Builder, Any], tuple[str, list[str], Attributes]]) -> Lowering:
        def lowering(b: Builder, node: Node) -> None:
            op_type, more, attributes = say(b, node.op)
            x = read(b, node)
            out = node.name if finish is None else f"{node.name}/float"
            b.emit(op_type, [x, *more], out, attributes)
            if finish is not None:
                finish(b, node, out)

        return lowering

    def split(b: Builder, node: Node) -> None:
        part = _part(b, node, read(b, node), named=finish is None)
        if finish is not None:
            finish(b, node, part)

    def argmax(b: Builder, node: Node) -> None:
        op: Any = node.op
        assert isinstance(op, Argmax)
        if op.smallest:
            raise Unsupported("smallest: ONNX Runtime leaves ArgMin between QDQ pairs as it is")
        attributes = {"axis": op.axis, "keepdims": op.keepdims, "select_last_index": op.select_last_index}
        b.emit("ArgMax", [read_whole(b, node)], node.name, attributes)

    return MappingProxyType(
        {
            "split": split,
            "squeeze": through(_squeeze),
            "unsqueeze": through(_unsqueeze),
            "expand": through(_expand),
            "gather": through(_gather),
            "depth_to_space": through(_depth_to_space),
            "space_to_depth": through(_space_to_depth),
            "argmax": argmax,
            "interpolate": through(_interpolate),
            "tile": through(_tile),
            "gather_elements": through(_gather_elements),
            "amax": through(_extreme),
            "amin": through(_extreme),
        }
    )


def _part(b: Builder, node: Node, x: str, *, named: bool) -> str:
    """The node's part; the first node of a split emits all of them. `named`: parts have the names of their nodes."""
    op: Any = node.op
    assert isinstance(op, Split)

    def is_part(other: Node) -> bool:
        o = other.op
        return (
            isinstance(o, Split)
            and other.inputs == node.inputs
            and (o.axis, o.sizes, o.counted) == (op.axis, op.sizes, op.counted)
        )

    together = [n for n in b.network.nodes if is_part(n)]
    takers = {getattr(n.op, "index"): n.name for n in reversed(together)}  # noqa: B009  the first of each index
    suffix = "" if named else "/float"
    parts = [takers[i] + suffix if i in takers else f"{together[0].name}/part/{i}" for i in range(len(op.sizes))]
    if node is together[0]:
        sizes = [] if op.counted else [b.integers(*op.sizes)]
        b.emit_all("Split", [x, *sizes], parts, {"axis": op.axis} | ({"num_outputs": len(parts)} if op.counted else {}))
    part = parts[op.index]
    return b.emit("Identity", [part], node.name) if named and part != node.name else part


def _squeeze(b: Builder, op: Squeeze) -> tuple[str, list[str], Attributes]:
    return "Squeeze", [b.integers(*op.axes)] if op.axes else [], NONE


def _unsqueeze(b: Builder, op: Unsqueeze) -> tuple[str, list[str], Attributes]:
    return "Unsqueeze", [b.integers(*op.axes)], NONE


def _expand(b: Builder, op: Expand) -> tuple[str, list[str], Attributes]:
    return "Expand", [b.integers(*op.shape)], NONE


def _gather(b: Builder, op: Gather) -> tuple[str, list[str], Attributes]:
    indices = np.array(op.indices, dtype=op.index_dtype).reshape(op.indices_shape)
    return "Gather", [b.shared(indices)], {"axis": op.axis}


def _depth_to_space(b: Builder, op: DepthToSpace) -> tuple[str, list[str], Attributes]:
    return "DepthToSpace", [], {"blocksize": op.blocksize, "mode": op.mode}


def _space_to_depth(b: Builder, op: SpaceToDepth) -> tuple[str, list[str], Attributes]:
    if op.mode != "DCR":
        raise Unsupported(f"mode: {op.mode}; ONNX's SpaceToDepth has block positions in the slow part only")
    return "SpaceToDepth", [], {"blocksize": op.blocksize}


def _tile(b: Builder, op: Tile) -> tuple[str, list[str], Attributes]:
    return "Tile", [b.integers(*op.repeats)], NONE


def _gather_elements(b: Builder, op: GatherElements) -> tuple[str, list[str], Attributes]:
    indices = np.array(op.indices, dtype=op.index_dtype).reshape(op.indices_shape)
    return "GatherElements", [b.shared(indices)], {"axis": op.axis}


def _extreme(b: Builder, op: Amax | Amin) -> tuple[str, list[str], Attributes]:
    noop = {"noop_with_empty_axes": True} if op.noop_with_empty_axes else NONE
    axes = [b.integers(*op.axes)] if op.axes else []
    return "ReduceMax" if isinstance(op, Amax) else "ReduceMin", axes, {"keepdims": op.keepdims, **noop}


def _interpolate(b: Builder, op: Interpolate) -> tuple[str, list[str], Attributes]:
    attributes: dict[str, Any] = {"mode": op.mode, "coordinate_transformation_mode": op.coordinates}
    if op.axes:
        attributes["axes"] = op.axes
    if op.mode == "nearest":
        attributes["nearest_mode"] = op.nearest_mode
    if op.mode == "cubic":
        attributes["cubic_coeff_a"] = op.cubic_coeff_a
    if op.exclude_outside:
        attributes["exclude_outside"] = True
    if op.antialias:
        attributes["antialias"] = True
    if op.aspect != "stretch":
        attributes["keep_aspect_ratio_policy"] = op.aspect
    if op.scales:
        return "Resize", ["", b.shared(np.array(op.scales, dtype=np.float32))], attributes
    return "Resize", ["", "", b.integers(*op.sizes)], attributes
