"""What QNNPACK documents that it refuses: a network outside these limits is `Unsupported`, with QNNPACK's own reason.

QNNPACK states its reason on stderr, where torch's error says only that the operator could not be created; so each limit
is a condition on the node here, and a test provokes every one of them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType


class Limit(NamedTuple):
    """Operators that an engine refuses, when, in its own words, and where it says so."""

    engine: str
    ops: tuple[str, ...]
    applies: Callable[[Network, Node], bool]
    reason: str
    source: str


def limit_of(engine: str, network: Network, node: Node) -> Limit | None:
    """The limit that `node` is outside of, if any."""
    for limit in LIMITS:
        if limit.engine == engine and node.op.name in limit.ops and limit.applies(network, node):
            return limit
    return None


def _takes_uint8(network: Network, node: Node) -> bool:
    """QNNPACK kernels are for quint8; others run torch's own."""
    return network.input_types(node)[0].dtype == "uint8"


def _one_shape(network: Network, node: Node) -> bool:
    """Torch leaves broadcasting to its own kernel."""
    shapes = {t.shape for t in network.input_types(node)}
    return len(shapes) == 1 and _takes_uint8(network, node)


def _scalar(network: Network, node: Node) -> bool:
    return _takes_uint8(network, node) and network.types[node.inputs[0]].shape == ()


def _no_channels(network: Network, node: Node) -> bool:
    shape = network.types[node.inputs[0]].shape
    return _takes_uint8(network, node) and shape != () and math.prod(shape[1:]) == 0


def _no_quotient(network: Network, node: Node) -> bool:
    """Where channels are numel() / size(0): an empty batch is no refusal there, but a division by 0."""
    return _no_channels(network, node) and network.types[node.inputs[0]].shape[0] > 0


def _add_scalar(network: Network, node: Node) -> bool:
    return _one_shape(network, node) and _scalar(network, node)


def _add_no_channels(network: Network, node: Node) -> bool:
    return _one_shape(network, node) and _no_quotient(network, node)


def _window_of_one(network: Network, node: Node) -> bool:
    op: Any = node.op
    own_kernel = len(op.kernel) > 2 or (op.name == "max_pool" and op.ceil_mode)
    return _takes_uint8(network, node) and math.prod(op.kernel) == 1 and not own_kernel


def _unbatched_pool(network: Network, node: Node) -> bool:
    """A batch of one without its first dimension: what QNNPACK has no kernel for is pooled by torch's own."""
    op: Any = node.op
    shape = network.types[node.inputs[0]].shape
    if network.form("calls") != "unbatched" or shape[0] != 1 or len(shape) > 4 or not _takes_uint8(network, node):
        return False
    if op.name in ("max_pool", "avg_pool"):
        return not op.ceil_mode
    pooled = network.types[node.name].shape[2:]
    return pooled != shape[2:] and all(n and size % n == 0 for size, n in zip(shape[2:], pooled, strict=True))


def _volume(network: Network, node: Node) -> bool:
    op: Any = node.op
    return len(op.kernel) == 3


def _add_ratio(network: Network, node: Node) -> bool:
    q_y = node.element
    if not isinstance(q_y, QType) or not _one_shape(network, node):
        return False
    ratios = [t.qtype.scale[0] / q_y.scale[0] for t in network.input_types(node)]
    return not all(2.0**-14 <= r < 2.0**8 for r in ratios)


def _add_relu_range(network: Network, node: Node) -> bool:
    op: Any = node.op
    q_y = node.element
    return bool(op.relu) and isinstance(q_y, QType) and q_y.zero_point[0] == q_y.qmax and _one_shape(network, node)


_PRODUCTS = ("relu", "clamp", "sigmoid", "tanh")
"""Channels are the product of all sizes but the first."""
_QUOTIENTS = ("hardsigmoid", "hardswish")
"""Channels are numel() / size(0)."""
_POOLS = ("max_pool", "avg_pool", "global_avg_pool", "adaptive_avg_pool")
_POINTWISE = (*_PRODUCTS, *_QUOTIENTS)
_CREATE = "aten/src/ATen/native/quantized/cpu/qnnpack/src"

LIMITS: tuple[Limit, ...] = (
    Limit("qnnpack", _POINTWISE, _scalar, "Got empty input tensor", "TORCH_CHECK(ndimension() > 0) in qnnpack_*()"),
    Limit("qnnpack", ("add",), _add_scalar, "Got empty input tensor", "TORCH_CHECK(ndimension() > 0) in qnnpack_add()"),
    Limit("qnnpack", _PRODUCTS, _no_channels, "number of channels must be non-zero", f"{_CREATE}/*.c"),
    Limit("qnnpack", _QUOTIENTS, _no_quotient, "number of channels must be non-zero", f"{_CREATE}/*.c"),
    Limit("qnnpack", ("add",), _add_no_channels, "number of channels must be non-zero", f"{_CREATE}/add.c"),
    Limit("qnnpack", ("add",), _add_ratio, "scale ratio must be in [2**-14, 2**8) range", f"{_CREATE}/add.c"),
    Limit("qnnpack", ("add",), _add_relu_range, "range min must be below range max", f"{_CREATE}/add.c"),
    Limit("qnnpack", _POOLS, _unbatched_pool, "Expected input to be 4-dimensional", "TORCH_CHECK in qnnpack_*pool2d()"),
    Limit("qnnpack", ("max_pool",), _volume, "doesn't support of quantized_max_pool3d", "aten Pooling.cpp"),
    Limit("qnnpack", ("max_pool",), _window_of_one, "1x1 pooling is meaningless", f"{_CREATE}/max-pooling.c"),
    Limit("qnnpack", ("avg_pool",), _window_of_one, "1x1 pooling is meaningless", f"{_CREATE}/average-pooling.c"),
)
"""Documented refusals, first match wins."""
