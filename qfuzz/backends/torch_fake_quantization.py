"""fake_quantize as torch's calls: per tensor and per channel, each in the forms that it has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import float32
from qfuzz.ops.dynamic_range import SMALL_SCALE_THRESHOLD
from qfuzz.ops.fake_quantization import FakeQuantize


def _fake_quantize(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, FakeQuantize)
    ends = literal(op.quant_min), literal(op.quant_max)
    said, x = b.network.form("fake_quantizer"), b.x(node)
    scale, zero_point = (b.network.constant_data[name].array for name in node.inputs[1:])
    per_tensor = scale.ndim == 0
    granularity = "per_tensor" if per_tensor else "per_channel"
    axis = () if per_tensor else (literal(op.axis),)
    match said:
        case "learnable":
            one = b.numbers(f"{node.name}_scale", tuple(scale.reshape(-1).tolist()), "float32")
            point = b.numbers(f"{node.name}_zero_point", tuple(zero_point.reshape(-1).tolist()), "float32")
            kernel = f"torch._fake_quantize_learnable_{granularity}_affine"
            b.call(node.name, kernel, x, one, point, *axis, *ends, literal(1.0))
        case "mask":
            out = f"{node.name}, {b.fresh(f'{node.name}_mask')}"
            given = _numbers(scale, zero_point) if per_tensor else _tensors(b, node)
            b.call(out, f"torch.ops.aten.fake_quantize_{granularity}_affine_cachemask", x, *given, *axis, *ends)
        case "observed":
            _observed(b, node, op)
        case "float_zero_points" if not per_tensor:
            point = b.numbers(f"{node.name}_zero_point", tuple(zero_point.tolist()), "float32")
            b.call(
                node.name,
                "torch.fake_quantize_per_channel_affine",
                x,
                b.constant(node.inputs[1]),
                point,
                *axis,
                *ends,
            )
        case _:
            given = _tensors(b, node) if said == "tensors" or not per_tensor else _numbers(scale, zero_point)
            b.call(node.name, f"torch.fake_quantize_{granularity}_affine", x, *given, *axis, *ends)


def _observed(b: Builder, node: Node, op: FakeQuantize) -> None:
    """The range that stands for scale and zero point, as an observer that is off has kept it."""
    scale, zero_point = (b.network.constant_data[name].array.reshape(-1).tolist() for name in node.inputs[1:])
    low, high = op.quant_min, op.quant_max
    ends = [((low - z) * s, (high - z) * s) for s, z in zip(scale, zero_point, strict=True)]
    if low == high or min(scale) < SMALL_SCALE_THRESHOLD or any(float32(v) != v for pair in ends for v in pair):
        raise Unsupported("scale: no range of float32 numbers stands for it, or it is below SMALL_SCALE_THRESHOLD")
    per_row = bool(b.type(node, 1).shape)
    if per_row and op.axis:
        raise Unsupported(f"axis: {op.axis}; FakeQuant in fused_moving_avg_obs_fake_quant is only supported on axis 0")
    off, on = (b.number(f"{node.name}_{name}", value, "int64") for name, value in (("off", 0), ("on", 1)))
    least = b.numbers(f"{node.name}_min", tuple(pair[0] for pair in ends), "float32")
    most = b.numbers(f"{node.name}_max", tuple(pair[1] for pair in ends), "float32")
    buffers = (
        b.numbers(f"{node.name}_s", (1.0,) * len(scale), "float32"),
        b.numbers(f"{node.name}_z", (0,) * len(scale), "int32"),
    )
    settings = [literal(v) for v in (0.01, low, high, 0, per_row, False)]
    b.call(node.name, "torch.fused_moving_avg_obs_fake_quant", b.x(node), off, on, least, most, *buffers, *settings)


def _numbers(scale: Any, zero_point: Any) -> tuple[Arg, Arg]:
    return literal(float(scale)), literal(int(zero_point))


def _tensors(b: Builder, node: Node) -> tuple[Arg, Arg]:
    return b.constant(node.inputs[1]), b.constant(node.inputs[2])


def _decomposed(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, FakeQuantize)
    if not b.type(node, 1).shape:
        raise Unsupported("scale: one for all; quantized_decomposed has fake_quant_per_channel only")
    ends = literal(op.quant_min), literal(op.quant_max)
    fake = "torch.ops.quantized_decomposed.fake_quant_per_channel"
    b.call(node.name, fake, b.x(node), *_tensors(b, node), literal(op.axis), *ends)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"fake_quantize": _fake_quantize})
DECOMPOSED: Mapping[str, Lowering] = MappingProxyType({"fake_quantize": _decomposed})
