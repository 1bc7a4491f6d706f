"""Weights as FBGEMM's older layers and cells take them: packed without a type, which is told beside. Pure.

They take integers, or make them of reals (`entry=unpacked`) with the scale and zero point that the range asks for
(`fbgemm_linear_quantize_weight`). Those are given reals that are rounded to the weight.
"""

from typing import Any

from qfuzz.backends.torch_builder import Builder
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import INTEGER_RANGE, float32
from qfuzz.ops.dynamic_range import SMALL_SCALE_THRESHOLD


def quantizes_back(network: Network, names: tuple[str, ...]) -> bool:
    """Whether `reals_of` these weights have their ranges, and so become them.

    The scale is chosen in float64, of float32 ends; divided by it, all are within 2^-14 of where they were put.
    """
    return all(_has_both_ends(network, name) for name in names)


def _has_both_ends(network: Network, name: str) -> bool:
    weight = network.types[name]
    if weight.dtype != "int8" or not weight.qtype.is_per_tensor or not weight.n_elements:
        return False
    (scale,), (zero_point,) = weight.qtype.scale, weight.qtype.zero_point
    ends = INTEGER_RANGE["int8"]
    low, high = (float32(scale * (end - zero_point)) for end in ends)
    data = network.constant_data[name].array
    chosen = float32((high - low) / 255)
    return (int(data.min()), int(data.max())) == ends and scale == chosen > 2 * SMALL_SCALE_THRESHOLD


def weights_of(node: Node) -> tuple[str, ...]:
    """Names of the weights of a recurrent node."""
    op: Any = node.op
    return tuple(node.inputs[1 + 4 * i + j] for i in range(op.n_cells) for j in (0, 1))


def is_given_as_reals(network: Network, names: tuple[str, ...]) -> bool:
    """Whether the network's form gives these weights so."""
    return network.form("entry") == "unpacked" and quantizes_back(network, names)


def reals_of(b: Builder, node: Node, position: int) -> Arg:
    """Reals that are rounded to a weight: some as it says, such as both ends, and others 3/8 of a step off."""
    (scale,), (zero_point,) = b.type(node, position).qtype.scale, b.type(node, position).qtype.zero_point
    name, off = (b.fresh(f"{node.name}_{part}{position}") for part in ("reals", "off"))
    b.prepare_call(name, ".to", b.constant(node.inputs[position]), torch_name("torch.float32"))
    b.prepare_call(off, "torch.remainder", variable(name), literal(3))
    b.prepare_call(off, "torch.sub", variable(off), literal(1))
    b.prepare_call(name, "torch.add", variable(name), variable(off), alpha=literal(0.375))
    b.prepare_call(name, "torch.sub", variable(name), literal(zero_point))
    return b.prepare_call(name, "torch.mul", variable(name), literal(scale))


def int8_weight(b: Builder, node: Node, position: int = 1) -> list[Arg]:
    """The weight, packed; the sums of its rows, of q - zero_point; scale and zero point."""
    t = b.type(node, position)
    if is_given_as_reals(b.network, (node.inputs[position],)):
        weight, offsets, scale, zero_point = (b.fresh(f"{node.name}_{part}{position}") for part in "woSz")
        made = ", ".join((weight, offsets, scale, zero_point))
        b.prepare_call(made, "torch.fbgemm_linear_quantize_weight", reals_of(b, node, position))
        told = [variable(name) for name in (weight, offsets, scale, zero_point)]
    else:
        array = b.constant(node.inputs[position])
        dtype = torch_name("torch.int32")
        sums = b.prepare_call(b.fresh(f"{node.name}_sums"), "torch.sum", array, literal(1), dtype=dtype)
        away = literal(t.qtype.zero_point[0] * t.shape[1])
        offsets_ = b.prepare_call(b.fresh(f"{node.name}_offsets"), "torch.sub", sums, away)
        told = [array, offsets_, literal(t.qtype.scale[0]), literal(t.qtype.zero_point[0])]
    packed = b.prepare_call(b.fresh(f"{node.name}_packed"), "torch.fbgemm_pack_quantized_matrix", told[0])
    return [told[0], packed, *told[1:]]
