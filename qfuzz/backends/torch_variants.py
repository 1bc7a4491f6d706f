"""In-place and ``out=`` variants of torch's calls. Pure: nothing here imports torch.

A variant takes the place of a call where it is said to compute the same. In-place calls work on a copy, so that what
others read stays as it was. A given output is a fresh tensor with the scale and zero point that the call asked for,
which lies in memory as inputs do; what it holds afterwards is the value, whatever the call returns. Pools take a batch
of one without its first dimension, too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from qfuzz.backends.torch_builder import Builder, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, Call, literal, torch_name, variable
from qfuzz.backends.torch_kernels import WITH_INT32
from qfuzz.backends.torch_memory import given
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType

Variant: TypeAlias = Callable[[Builder, Node, Call], tuple[Call, ...] | None]
"""The calls that stand for one call of a node, or None where it has no such variant."""


_SCALAR_KERNELS = ("add_scalar", "add_scalar_relu", "mul_scalar", "mul_scalar_relu")


def say_calls(b: Builder, table: Mapping[str, Mapping[str, Variant]]) -> None:
    """Put the variants of `table` that the network's form asks for in the place of calls."""
    variants = table.get(b.network.form("calls"), {})
    nodes = {n.name: n for n in b.network.nodes}
    said: list[Call] = []
    for call in b.run:
        node, variant = nodes.get(call.out), variants.get(call.target)
        said += (variant and node and variant(b, node, call)) or (call,)
    b.run = said


def _in_place(target: str, more: int = 0, *, flag: bool = False) -> Variant:
    """`target` on a copy, with `more` of the call's other arguments, and with True where it takes a `flag` for that."""

    def calls(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
        kept = call.args[1 : 1 + more]
        if b.network.types[node.name] != b.type(node, 0) or literal(None) in kept:
            return None  # what it writes into has the input's shape, scale and zero point; and bounds are numbers
        copy = b.fresh(f"{node.name}_copy")
        flags = (literal(True),) if flag else ()
        work = Call(node.name, target, (variable(copy), *kept, *flags), call.kwargs)
        return Call(copy, ".clone", call.args[:1]), work

    return calls


def _set_item(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
    """One entry set as Python sets it; several, by index_put_ on a copy."""
    op: Any = node.op
    if len(op.indices) != 1 or b.network.types[node.name] != b.type(node, 0):
        return _in_place(".index_put_", 2)(b, node, call)
    contiguous = (("memory_format", torch_name("torch.contiguous_format")),)  # torch takes no others there
    done = b.fresh(f"{node.name}_done")
    return (
        Call(node.name, ".clone", call.args[:1], contiguous),
        Call(done, ".__setitem__", (variable(node.name), literal(op.indices[0]), literal(op.value))),
    )


def _into(
    b: Builder, node: Node, call: Call, made: Call, *, memory: str = "", keyword: str = "out"
) -> tuple[Call, ...]:
    """`call` with a tensor to write into, which `made` makes: that is the value, not what is returned."""
    told = (*call.kwargs, (keyword, variable(node.name)))
    returned = b.fresh(f"{node.name}_returned")
    return (*given(b, made, b.network.types[node.name], memory), call._replace(out=returned, kwargs=told))


def _out(target: str, operands: int) -> Variant:
    """`target` with the first `operands` arguments of the call, and a quantized tensor to write into."""

    def calls(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
        q = node.element
        if not isinstance(q, QType) or q.dtype not in WITH_INT32 or not q.is_per_tensor:
            return None
        named: tuple[tuple[str, Arg], ...] = (
            ("scale", scale_of(q)),
            ("zero_point", zero_point_of(q)),
            ("dtype", torch_name(f"torch.{WITH_INT32[q.dtype]}")),
        )
        written = Call(node.name, target, call.args[:operands], call.kwargs)
        return _into(b, node, written, Call(node.name, "torch._empty_affine_quantized", (), named))

    return calls


def _plain_out(target: str, dtype: str, *, memory: str = "", keyword: str = "out") -> Variant:
    """`target` with the arguments of the call, and a plain tensor to write into."""

    def calls(b: Builder, node: Node, call: Call) -> tuple[Call, ...]:
        made = Call(node.name, "torch.empty", (), (("dtype", torch_name(f"torch.{dtype}")),))
        return _into(b, node, call._replace(target=target), made, memory=memory, keyword=keyword)

    return calls


def _binary_out(kernel: str) -> Variant:
    """As `_out`, of two tensors, or of a tensor and a number; that of a number and a tensor has none."""
    tensors, scalar = (_out(f"torch.ops.quantized.{kernel}.{overload}", 2) for overload in ("out", "Scalar_out"))

    def calls(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
        first, second = (a.kind for a in call.args[:2])
        return None if first == "literal" else (scalar if second == "literal" else tensors)(b, node, call)

    return calls


def _reflected(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
    """Reflection padding of one or two dimensions into a given tensor."""
    sides, mode = call.args[1].value, call.args[2]
    if mode != literal("reflect") or len(sides) > 4:
        return None
    return _out(f"torch.ops.aten.reflection_pad{len(sides) // 2}d.out", 2)(b, node, call)


def _unbatched(b: Builder, node: Node, call: Call) -> tuple[Call, ...] | None:
    """The call on the only element of a batch, which becomes one again."""
    if b.type(node, 0).shape[0] != 1:
        return None
    alone, result = (b.fresh(f"{node.name}_{what}") for what in ("alone", "of_one"))
    return (
        Call(alone, ".squeeze", (*call.args[:1], literal(0))),
        call._replace(out=result, args=(variable(alone), *call.args[1:])),
        Call(node.name, ".unsqueeze", (variable(result), literal(0))),
    )


RELATIONS = ("eq", "ne", "ge", "gt", "le", "lt")
"""Comparisons, as torch names them."""

VARIANTS: Mapping[str, Mapping[str, Variant]] = MappingProxyType(
    {
        "in_place": {
            "torch.relu": _in_place(".relu_"),
            "torch.ops.quantized.relu6": _in_place("torch.ops.quantized.relu6", flag=True),
            "torch.ops.quantized.leaky_relu": _in_place("torch.ops.aten.leaky_relu_", 1),
            "torch.clamp": _in_place("torch.ops.aten.hardtanh_", 2),
            "torch.nn.functional.hardtanh": _in_place("torch.ops.aten.hardtanh_", 2),
            "torch.nn.functional.leaky_relu": _in_place("torch.ops.aten.leaky_relu_", 1),
            "torch.nn.functional.gelu": _in_place("torch.ops.aten.gelu_"),
            ".masked_fill": _in_place(".masked_fill_", 2),
            ".index_put": _set_item,
        },
        "out": {
            **{f"torch.ops.quantized.{k}": _binary_out(k) for k in ("add", "add_relu", "mul", "mul_relu")},
            **{f"torch.ops.quantized.{k}": _out(f"torch.ops.quantized.{k}_out", 2) for k in _SCALAR_KERNELS},
            **{f"torch.{relation}": _plain_out(f"torch.{relation}", "bool") for relation in RELATIONS},
            "torch.ops.quantized.cat": _out("torch.ops.quantized.cat_out", 2),
            "torch.ops.quantized.cat_relu": _out("torch.ops.quantized.cat_relu_out", 2),
            "torch.cat": _out("torch.ops.aten.cat.out", 2),
            "torch.index_select": _out("torch.ops.aten.index_select.out", 3),
            "torch.max": _out("torch.ops.aten.max.unary_out", 1),
            "torch.min": _out("torch.ops.aten.min.unary_out", 1),
            "torch.mean": _out("torch.ops.aten.mean.out", 3),
            "torch.std": _out("torch.ops.aten.std.correction_out", 2),
            "torch.nn.functional.pad": _reflected,
            "torch.nn.functional.hardtanh": _out("torch.ops.aten.hardtanh.out", 3),
            "torch.nn.functional.leaky_relu": _out("torch.ops.aten.leaky_relu.out", 2),
            "torch.ops.quantized.leaky_relu": _out("torch.ops.aten.leaky_relu.out", 2),
            "torch.nn.functional.hardsigmoid": _out("torch.ops.aten.hardsigmoid.out", 1),
            "torch.nn.functional.adaptive_avg_pool3d": _out("torch.ops.aten.adaptive_avg_pool3d.out", 2),
            **{
                f"torch.{k}": _plain_out(f"torch.ops.aten.{k}.out", "float32", keyword="output")
                for k in ("fbgemm_linear_fp16_weight", "fbgemm_linear_fp16_weight_fp32_activation")
            },
        },
        "unbatched": {
            **{f"torch.nn.functional.{kind}avg_pool{d}d": _unbatched for kind in ("", "adaptive_") for d in (1, 2, 3)},
            **{f"torch.quantized_max_pool{d}d": _unbatched for d in (1, 2, 3)},
            **{f"torch.ops.quantized.max_pool{d}d": _unbatched for d in (1, 2)},
        },
    }
)
"""Form to the target of a call to its variant, for quantized tensors."""

EXPORTED: Mapping[str, Mapping[str, Variant]] = MappingProxyType(
    {"out": {"torch._int_mm": _plain_out("torch._int_mm", "int32", memory="contiguous")}}
)
"""The same for plain integers. 'int_mm_out_cpu: Expected result to be contiguous' (LinearAlgebra.cpp)."""
