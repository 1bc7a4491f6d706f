"""Pools as torch's eager quantized kernels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, symmetric
from qfuzz.backends.torch_calls import literal
from qfuzz.backends.torch_kernels import keep_qparams
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, MaxPool


def _max_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MaxPool)
    keep_qparams(b, node)
    settings = (op.kernel, op.strides, half_kernel(op.kernel, op.padding, op.dilations), op.dilations)
    spatial = len(op.kernel)
    if spatial == 3 and b.network.form("calls") == "unbatched" and b.type(node, 0).shape[0] == 1:
        raise Unsupported("x: without a batch; 'Expecting the input tensor of rank 5.' (quantized/cpu/Pooling.cpp)")
    # Two names of one kernel, of which the second is for quantized modules, and not in 3-d.
    documented = spatial == 3 or max(op.dilations) == 1
    target = f"torch.{'quantized_' if documented else 'ops.quantized.'}max_pool{spatial}d"
    b.call(node.name, target, b.x(node), *(literal(list(s)) for s in settings), literal(op.ceil_mode))


def _avg_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AvgPool)
    keep_qparams(b, node)
    settings = (op.kernel, op.strides, half_kernel(op.kernel, op.padding))
    flags = [literal(op.ceil_mode), literal(op.count_include_pad)]
    if op.divisor_override:
        if len(op.kernel) == 1:
            raise Unsupported("divisor_override: torch's avg_pool1d has none")
        flags.append(literal(op.divisor_override))
    target = f"torch.nn.functional.avg_pool{len(op.kernel)}d"
    b.call(node.name, target, b.x(node), *(literal(list(s)) for s in settings), *flags)


def half_kernel(kernel: tuple[int, ...], padding: tuple[int, ...], dilations: tuple[int, ...] = (1, 1, 1)) -> list[int]:
    """Symmetric padding of at most half the dilated kernel, as torch's pools take it."""
    sides = symmetric(padding)
    for side, size, dilation in zip(sides, kernel, dilations, strict=False):
        if side > (dilation * (size - 1) + 1) // 2:
            raise Unsupported(f"padding {side}: torch's pools pad at most half of the effective kernel size")
    return sides


def _global_avg_pool(b: Builder, node: Node) -> None:
    keep_qparams(b, node)
    spatial = len(b.type(node, 0).shape) - 2
    b.call(node.name, f"torch.nn.functional.adaptive_avg_pool{spatial}d", b.x(node), literal([1] * spatial))


def _adaptive_avg_pool(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AdaptiveAvgPool)
    keep_qparams(b, node)
    size = list(op.output_size)
    b.call(node.name, f"torch.nn.functional.adaptive_avg_pool{len(size)}d", b.x(node), literal(size))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "max_pool": _max_pool,
        "avg_pool": _avg_pool,
        "global_avg_pool": _global_avg_pool,
        "adaptive_avg_pool": _adaptive_avg_pool,
    }
)
