"""Other operators of torch that are said to compute the same as those which networks are lowered to. Pure.

``second``: `_quantized::`, where kernels have a second name. ``older``: what scripts of older releases call, with
arguments that the packed weight has already, and that are ignored. ``sparse``: linear layers with block-sparse weights
(`torch.ao.nn.sparse.quantized`), of any weight.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from qfuzz.backends.torch_calls import Arg, Call, literal
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType


class Instead(NamedTuple):
    """A target that takes the place of another.

    Attributes
    ----------
    target
        Its name.
    inserted
        Arguments that it has more, in front of the last `before`.
    kept
        How many of the call's arguments it takes, where those are fewer.
    """

    target: str
    inserted: tuple[Arg, ...] = ()
    before: int = 0
    kept: int | None = None

    def call(self, call: Call) -> Call:
        """The call of this target."""
        args = call.args[: self.kept]
        end = len(args) - self.before
        return call._replace(target=self.target, args=(*args[:end], *self.inserted, *args[end:]))


def _settings(dimensions: int) -> tuple[Arg, ...]:
    """Strides, padding, dilation and groups, as the plainest convolution has them."""
    return (*(literal([value] * dimensions) for value in (1, 0, 1)), literal(1))


_BLOCKS = (literal(1), literal(4))
"""Sizes of a block: one that FBGEMM and QNNPACK both have."""

_SECOND = {
    **{
        f"{name}{overload}": Instead(f"torch.ops._quantized.{name}")
        for name, overload in (
            ("add", ""),
            ("conv2d", ".new"),
            ("conv2d_relu", ".new"),
            ("conv2d_prepack", ""),
            ("conv3d_prepack", ""),
            *((f"conv_transpose{d}d", "") for d in (1, 2)),
            *((f"conv_transpose{d}d_prepack", "") for d in (1, 2, 3)),
            ("linear", ""),
            ("linear_dynamic", ""),
            ("linear_prepack", ""),
            ("linear_prepack_fp16", ""),
        )
    }
}
_OLDER = {
    **{
        f"conv{d}d{relu}.new": Instead(f"torch.ops.quantized.conv{d}d{relu}.default", _settings(d), before=2)
        for d in (2, 3)
        for relu in ("", "_relu")
    },
    "conv2d_prepack": Instead("torch.ops.quantized.conv_prepack"),
}
_SPARSE = {
    "linear": Instead("torch.ops.sparse.qlinear"),
    "linear_relu": Instead("torch.ops.sparse.qlinear_relu"),
    "linear_dynamic": Instead("torch.ops.sparse.qlinear_dynamic", kept=2),
    "linear_prepack": Instead("torch.ops.sparse.qlinear_prepack", _BLOCKS),
}
INTERFACES: Mapping[str, Mapping[str, Instead]] = MappingProxyType(
    {
        form: MappingProxyType({f"torch.ops.quantized.{name}": instead for name, instead in table.items()})
        for form, table in (("second", _SECOND), ("older", _OLDER), ("sparse", _SPARSE))
    }
)
"""Form to the target of a call to what takes its place."""


def said_by(network: Network, calls: list[Call]) -> list[Call]:
    """The calls, by the operators that the network's form names."""
    instead = INTERFACES.get(network.form("interface"), {})
    return [instead[call.target].call(call) if call.target in instead else call for call in calls]


_SPARSE_KERNELS = {
    "linear": ("fbgemm", "Static quantized sparse linear unimplemented on QNNPACK"),
    "dynamic_linear": ("qnnpack", "Didn't find engine for operation ao::sparse::qlinear_dynamic"),
}
"""Operator to the engine that has it for block-sparse weights, and how others refuse it."""


def refused_interface(engine: str, network: Network, node: Node) -> str:
    """Why `engine` has no kernel for `node` of the interface that the network's form names; the texts are torch's."""
    op: Any = node.op
    if network.form("interface") != "sparse" or op.name not in _SPARSE_KERNELS:
        return ""
    has, refusal = _SPARSE_KERNELS[op.name]
    weight = network.types[node.inputs[1]].element
    if engine != has:
        return f"block-sparse: {refusal} (aten/src/ATen/native/ao_sparse/quantized/cpu)"
    if engine == "fbgemm" and isinstance(weight, QType) and any(weight.zero_point):
        return "block-sparse: zero point(s) should be 0 for the weight tensor of ao::sparse::qlinear op"
    if op.name == "dynamic_linear" and op.relu:
        return "block-sparse: dynamic linear with fused relu is not yet supported on qnnpack backend"
    return ""
