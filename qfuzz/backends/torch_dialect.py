"""Networks as calls of torch's eager quantized kernels, on quantized tensors. Pure: nothing here imports torch.

Every lowering is the one call that a user of `torch.ao.nn.quantized` makes. Where a kernel has only a special form (it
keeps its input's qparams, it takes quint8 only), every other form is `Unsupported`: nothing is emulated.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from qfuzz.backends import (
    torch_dynamic,
    torch_elementwise,
    torch_embedding,
    torch_fake_quantization,
    torch_interpolation,
    torch_layers,
    torch_movement,
    torch_norms,
    torch_pools,
    torch_qparams,
    torch_quantization,
    torch_recurrent,
)
from qfuzz.backends.torch_builder import Builder, Lowering, lower, once
from qfuzz.backends.torch_calls import CallList
from qfuzz.backends.torch_entries import refused_entry, said_by
from qfuzz.backends.torch_forms import refused_form
from qfuzz.backends.torch_int32 import OF_QINT32
from qfuzz.backends.torch_limits import limit_of
from qfuzz.backends.torch_quantization import declared, feed
from qfuzz.backends.torch_variants import VARIANTS, say_calls
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        name: lowering
        for family in (
            torch_layers,
            torch_dynamic,
            torch_quantization,
            torch_fake_quantization,
            torch_qparams,
            torch_elementwise,
            torch_embedding,
            torch_pools,
            torch_interpolation,
            torch_movement,
            torch_norms,
            torch_recurrent,
        )
        for name, lowering in family.LOWERINGS.items()
    }
)
"""Operator name to the function that writes its calls, or says why there are none."""


def lower_eager(network: Network, engine: str, memory: str = "") -> CallList:
    """The network as eager calls for `engine`.

    Parameters
    ----------
    memory
        How inputs lie in memory; empty for what the network's form says.

    Raises
    ------
    Unsupported
        Naming the node and why there is no kernel for it.
    """
    return once(network, ("torch", engine, memory), lambda: _lowered(network, engine, memory))


def _lowered(network: Network, engine: str, memory: str) -> CallList:
    """The calls that all engines share, unless this engine takes a node less."""
    for node in network.nodes:
        limit = limit_of(engine, network, node)
        if limit:
            raise Unsupported(f"{node.op.name} {node.name!r}: {limit.reason} ({limit.source})")
    common = network.once(("torch", memory), lambda: _common(network, memory))
    for node in network.nodes[: common.n_lowered + 1]:
        reason = refused_form(engine, network, node) or refused_entry(engine, network, node)
        if reason:
            raise Unsupported(f"{node.op.name} {node.name!r}: {reason}")
    if isinstance(common.calls, str):
        raise Unsupported(common.calls)
    return common.calls._replace(engine=engine)


class _Common(NamedTuple):
    """What all engines share: the calls, or why the node after the first `n_lowered` has none."""

    calls: CallList | str
    n_lowered: int


def _common(network: Network, memory: str) -> _Common:
    b = Builder(network, memory)
    try:
        calls = lower(b, LOWERINGS, feed, lambda node: declared(network, node), of_int32=OF_QINT32)
    except Unsupported as e:
        return _Common(str(e), b.n_lowered)
    say_calls(b, VARIANTS)
    prepare, run = said_by(network, b.prepare, b.run)
    return _Common(calls._replace(prepare=prepare, run=run), b.n_lowered)
