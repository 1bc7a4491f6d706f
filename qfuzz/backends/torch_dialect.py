"""Networks as calls of torch's eager quantized kernels, on quantized tensors. Pure: nothing here imports torch.

Every lowering is the one call that a user of `torch.ao.nn.quantized` makes. Where a kernel has only a special form (it
keeps its input's qparams, it takes quint8 only), every other form is `Unsupported`: nothing is emulated.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from qfuzz.backends import torch_elementwise, torch_layers, torch_movement, torch_norms, torch_pools
from qfuzz.backends.torch_builder import Builder, Lowering, lower, once, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Array, CallList, Declared, torch_name, variable
from qfuzz.backends.torch_forms import refused_form
from qfuzz.backends.torch_kernels import QUANTIZED
from qfuzz.backends.torch_limits import limit_of
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        name: lowering
        for family in (torch_layers, torch_elementwise, torch_pools, torch_movement, torch_norms)
        for name, lowering in family.LOWERINGS.items()
    }
)
"""Operator name to the function that writes its calls, or says why there are none."""


def lower_eager(network: Network, engine: str, *, channels_last: bool = False) -> CallList:
    """The network as eager calls for `engine`.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return once(network, ("torch", engine, channels_last), lambda: _lowered(network, engine, channels_last))


def _lowered(network: Network, engine: str, channels_last: bool) -> CallList:
    """The calls that all engines share, unless this engine takes a node less."""
    for node in network.nodes:
        limit = limit_of(engine, network, node)
        if limit:
            raise Unsupported(f"{node.op.name} {node.name!r}: {limit.reason} ({limit.source})")
    common = network.once(("torch", channels_last), lambda: _common(network, channels_last))
    for node in network.nodes[: common.n_lowered + 1]:
        reason = refused_form(engine, network, node)
        if reason:
            raise Unsupported(f"{node.op.name} {node.name!r}: {reason}")
    if isinstance(common.calls, str):
        raise Unsupported(common.calls)
    return common.calls._replace(engine=engine)


class _Common(NamedTuple):
    """What all engines share: the calls, or why the node after the first `n_lowered` has none."""

    calls: CallList | str
    n_lowered: int


def _common(network: Network, channels_last: bool) -> _Common:
    b = Builder(network, channels_last=channels_last)
    try:
        return _Common(lower(b, LOWERINGS, _feed, _declare), b.n_lowered)
    except Unsupported as e:
        return _Common(str(e), b.n_lowered)


def _feed(b: Builder, name: str, type_: TensorType) -> None:
    q = type_.element
    if not isinstance(q, QType):
        b.inputs.append(Array(name, name))
        return
    array = b.fresh(f"{name}_array")
    b.inputs.append(Array(array, name))
    b.call(name, "torch._make_per_tensor_quantized_tensor", variable(array), scale_of(q), zero_point_of(q))
    if b.channels_last and len(type_.shape) == 4:
        b.call(name, ".contiguous", variable(name), memory_format=torch_name("torch.channels_last"))


def _declare(node: Node) -> Declared:
    q = node.element
    if isinstance(q, QType):
        return Declared(node.name, node.name, QUANTIZED[q.dtype], q.scale[0], q.zero_point[0])
    return Declared(node.name, node.name, str(q))
