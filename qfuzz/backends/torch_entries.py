"""Other operators of torch that are said to compute the same as those which networks are lowered to. Pure.

``aten``: functions for tensors of any kind. ``second``: `_quantized::`, under which kernels are registered once more.
``sparse``: linear layers whose weights are packed in blocks, of which those of zeros are left out
(`torch.ao.nn.sparse.quantized`), for any weight.
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
    more
        Arguments that it has behind those of the call.
    kept
        How many of the call's arguments it takes, where those are fewer.
    """

    target: str
    more: tuple[Arg, ...] = ()
    kept: int | None = None

    def call(self, call: Call) -> Call:
        """The call of this target."""
        return call._replace(target=self.target, args=(*call.args[: self.kept], *self.more))


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
_SECOND |= {
    f"{name}.out": Instead(f"torch.ops.quantized.{name}_out") for name in ("add", "add_relu", "mul", "mul_relu")
}
_SPARSE = {
    "linear": Instead("torch.ops.sparse.qlinear"),
    "linear_relu": Instead("torch.ops.sparse.qlinear_relu"),
    "linear_dynamic": Instead("torch.ops.sparse.qlinear_dynamic", kept=2),
    "linear_prepack": Instead("torch.ops.sparse.qlinear_prepack", _BLOCKS),
}
_ATEN = {f"max_pool{d}d": Instead(f"torch.max_pool{d}d") for d in (1, 2)}
ENTRIES: Mapping[str, Mapping[str, Instead]] = MappingProxyType(
    {
        form: MappingProxyType({f"torch.ops.quantized.{name}": instead for name, instead in table.items()})
        for form, table in (("aten", _ATEN), ("second", _SECOND), ("sparse", _SPARSE))
    }
)
"""Form to the target of a call to what takes its place."""


def said_by(network: Network, prepare: list[Call], run: list[Call]) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """The calls, by the operators that the network's form names; what others read too stays as it is."""
    instead = ENTRIES.get(network.form("entry"), {})
    named = {call.out for call in (*prepare, *run) if call.target in instead}
    needed = {a.value for c in (*prepare, *run) if c.target not in instead for a in c.args if a.kind == "variable"}

    def said(call: Call) -> Call:
        if call.target not in instead or (call.target == _PACKS and call.out in needed):
            return call
        if any(a.value in needed & named for a in call.args[1:] if a.kind == "variable"):
            return call
        return instead[call.target].call(call)

    return tuple(map(said, prepare)), tuple(map(said, run))


def refused_entry(engine: str, network: Network, node: Node) -> str:
    """Why `engine` has no kernel for `node` under the name that the network's form names; the texts are torch's."""
    op: Any = node.op
    if network.form("entry") != "sparse" or op.name not in _SPARSE_KERNELS:
        return ""
    x, weight = (network.types[name] for name in node.inputs[:2])
    if not (op.name == "linear" and x.is_quantized and isinstance(node.element, QType)) and not _is_plain_dynamic(op):
        return ""
    has, refusal = _SPARSE_KERNELS[op.name]
    if engine != has:
        return f"block-sparse: {refusal} (aten/src/ATen/native/ao_sparse/quantized/cpu)"
    if engine == "fbgemm" and any(weight.qtype.zero_point):
        return "block-sparse: zero point(s) should be 0 for the weight tensor of ao::sparse::qlinear op"
    return ""


def _is_plain_dynamic(op: Any) -> bool:
    """Of block-sparse dynamic layers, none has a fused relu: torch asserts so."""
    return op.name == "dynamic_linear" and not op.relu


_SPARSE_KERNELS = {
    "linear": ("fbgemm", "Static quantized sparse linear unimplemented on QNNPACK"),
    "dynamic_linear": ("qnnpack", "Didn't find engine for operation ao::sparse::qlinear_dynamic"),
}
"""Operator to the engine that has it for block-sparse weights, and how others refuse it."""

_PACKS = "torch.ops.quantized.linear_prepack"
