"""Interpolation as torch's eager quantized kernels: of images and volumes, at regular places or at those of a grid."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal
from qfuzz.backends.torch_kernels import keep_qparams
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.grid import GridSample
from qfuzz.ops.interpolation import Interpolate

_MODES: Mapping[tuple[str, str, str], tuple[str, bool | None]] = MappingProxyType(
    {
        ("nearest", "asymmetric", "floor"): ("nearest", None),
        ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
        ("linear", "half_pixel", "round_prefer_floor"): ("bilinear", False),
        ("linear", "align_corners", "round_prefer_floor"): ("bilinear", True),
    }
)
"""Mode, coordinates and nearest mode, to torch's mode and align_corners."""

_RANKS = {"nearest": (4, 5), "nearest-exact": (4, 5), "bilinear": (4,)}
"""Ranks with kernels on quantized tensors: upsample_nearest1d, upsample_linear1d, upsample_trilinear3d have none."""


def _interpolate(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Interpolate)
    keep_qparams(b, node)
    shape = b.type(node, 0).shape
    way = _MODES.get((op.mode, op.coordinates, op.nearest_mode))
    if way is None or op.antialias or op.exclude_outside or op.aspect != "stretch":
        raise Unsupported(
            f"mode: {op.mode} with {op.coordinates} and {op.nearest_mode}; torch has no kernel on quantized tensors"
        )
    mode, align_corners = way
    if len(shape) not in _RANKS[mode]:
        raise Unsupported(f"x: shape {shape}; torch registers mode {mode} of rank {_RANKS[mode]} for quantized tensors")
    if len(shape) == 5 and 0 in shape:
        raise Unsupported(f"x: shape {shape}; 'Non-empty 5D data tensor expected' (UpSampleNearest3d.cpp)")
    samplings = op.samplings(shape)
    if any(s.out == 0 for s in samplings[2:]):
        raise Unsupported("sizes: 'Input and output sizes should be greater than 0' (native/UpSample.h)")
    if any(s.scale != 1 for s in samplings[:2]):
        raise Unsupported("scales: torch resizes spatial dimensions, not the batch nor channels")
    size: Arg = literal([s.out for s in samplings[2:]])
    factor: Arg = literal(None)
    if op.scales:
        size, factor = literal(None), literal([float(s.scale) for s in samplings[2:]])
    corners = {} if align_corners is None else {"align_corners": literal(align_corners)}
    b.call(node.name, "torch.nn.functional.interpolate", b.x(node), size, factor, literal(mode), **corners)


def _grid_sample(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, GridSample)
    keep_qparams(b, node)
    x = b.type(node, 0)
    if x.dtype != "uint8":
        raise Unsupported(f"x: {x.dtype}; grid_sampler_2d reads and gives quint8 (native/GridSampler.cpp)")
    settings = (literal("bilinear"), literal(op.padding_mode), literal(op.align_corners))
    b.call(node.name, "torch.nn.functional.grid_sample", b.x(node), b.constant(node.inputs[1]), *settings)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"interpolate": _interpolate, "grid_sample": _grid_sample})
