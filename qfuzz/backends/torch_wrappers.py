"""linear as a layer on reals that quantizes on its way: older names for it, which are calls of the same kernels.

They take the reals that x and the weight stand for, and give those that the output stands for: a float32 scale times an
integer of 9 bits, rounded, is quantized to that integer again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable
from qfuzz.backends.torch_kernels import qtype_in, qtype_out
from qfuzz.ir.network import Node

_INTERNAL = "torch.ops._quantized"

WRAPPERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "wrapped": ("", f"{_INTERNAL}.wrapped_quantized_linear"),
        "wrapped_packed": (
            f"{_INTERNAL}._wrapped_linear_prepack",
            f"{_INTERNAL}._wrapped_quantized_linear_prepacked",
        ),
        "aten": ("torch._wrapped_linear_prepack", "torch._wrapped_quantized_linear_prepacked"),
    }
)
"""Form to what packs the weight, if anything does, and to the layer."""


def wraps(b: Builder, node: Node) -> bool:
    """Whether they take the node: uint8 by int8, a scale for all channels, and no relu."""
    op: Any = node.op
    q_x, q_w, q_y = qtype_in(b, node), qtype_in(b, node, 1), qtype_out(node)
    dtypes = (q_x.dtype, q_w.dtype, q_y.dtype) == ("uint8", "int8", "uint8")
    return dtypes and q_w.is_per_tensor and not op.relu


def given_bias(b: Builder, node: Node, bias: Arg) -> Arg:
    """A bias where a call asks for one: zeros where the node has none."""
    if len(node.inputs) == 3:
        return bias
    return b.prepare_call(b.fresh(f"{node.name}_bias"), "torch.zeros", literal([b.type(node, 1).shape[0]]))


def linear_of_reals(b: Builder, node: Node, weight: Arg, bias: Arg) -> None:
    """The calls of the form that the network has."""
    prepack, kernel = WRAPPERS[b.network.form("entry")]
    q_x, q_w, q_y = qtype_in(b, node), qtype_in(b, node, 1), qtype_out(node)
    n_channels = b.type(node, 1).shape[0]
    reals = b.prepare_call(b.fresh(f"{node.name}_weight_reals"), ".dequantize", weight)

    def numbers(name: str, scale: float, zero_point: int) -> list[Arg]:
        return [
            b.prepare_call(b.fresh(f"{node.name}_{name}_{part}"), "torch.tensor", literal(value))
            for part, value in (("scale", scale), ("zero_point", zero_point))
        ]

    weights = [reals, *numbers("weight", q_w.scale[0], q_w.zero_point[0]), given_bias(b, node, bias)]
    if prepack:
        weights = [b.prepare_call(b.fresh(f"{node.name}_packed"), prepack, *weights)]
    x = [dequantized(b, node), *numbers("x", q_x.scale[0], q_x.zero_point[0])]
    out = [*numbers("y", q_y.scale[0], q_y.zero_point[0]), literal(n_channels)]
    y = b.fresh(f"{node.name}_reals")
    b.call(y, kernel, *x, *weights, *out)
    b.call(
        node.name,
        "torch.quantize_per_tensor",
        variable(y),
        scale_of(q_y),
        zero_point_of(q_y),
        torch_name("torch.quint8"),
    )


def dequantized(b: Builder, node: Node) -> Arg:
    """The reals that x stands for."""
    name = b.fresh(f"{node.name}_x")
    b.call(name, ".dequantize", b.x(node))
    return variable(name)
