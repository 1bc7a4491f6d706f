"""scaled_mm on plain float8 tensors: `torch.nn.functional.scaled_mm`, and `torch._scaled_mm`, which is older. Pure.

Only the older one has a scale of the output, by which its kernels for the CPU divide (ScaledBlas.cpp).
"""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, Call, literal, torch_name, variable
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import QType, dtype_of

RECIPES = {None: "TensorWise", 0: "RowWise"}
"""Axis of the scales to their recipe, a `torch.nn.functional.ScalingType`."""


def _scaled_mm(b: Builder, node: Node) -> None:
    q_y, dtype = node.element, dtype_of(node.element)
    scaled = isinstance(q_y, QType) and q_y.scale != (1.0,)
    older = scaled or b.network.form("entry") == "older"
    out = b.network.form("calls") == "out"
    axis = b.type(node, 0).qtype.axis
    factors = [b.x(node), _weight(b, node)]
    scales = [_scales(b, node, position) for position in range(2)]
    bias = _plain(b, node.inputs[2]) if len(node.inputs) == 3 else literal(None)
    default = dtype if out else b.type(node, 0).dtype if older else "bfloat16"
    omitted = b.network.form("call") == "overload" and dtype == default
    given: dict[str, Arg] = {"out": _given(b, node)} if out else {}
    if older:
        if isinstance(q_y, QType) and (scaled or b.network.form("call") == "tensor"):
            given["scale_result"] = b.number(f"{node.name}_scale", q_y.scale[0], "float32")
        if not omitted:
            given["out_dtype"] = torch_name(f"torch.{dtype}")
        target, args, given["bias"] = "torch._scaled_mm", scales, bias
    elif out:
        said = literal(None) if omitted else torch_name(f"torch.{dtype}")
        lists = [a for s in scales for a in (_one(s), literal([0 if axis is None else 1]), literal([0]))]
        target, args = "torch.ops.aten._scaled_mm_v2.out", [*lists, bias, said]
    else:
        recipe = torch_name(f"torch.nn.functional.ScalingType.{RECIPES[axis]}")
        if not omitted:
            given["output_dtype"] = torch_name(f"torch.{dtype}")
        if b.network.form("call") == "aten":
            given["contraction_dim"] = literal([1, 0])
        target, args = "torch.nn.functional.scaled_mm", [a for s in scales for a in (s, recipe)]
        given["bias"] = bias
    b.run.append(Call(node.name, target, (*factors, *args), tuple(given.items())))


def _one(arg: Arg) -> Arg:
    """A list of one variable."""
    return Arg("variables", (arg.value,))


def _given(b: Builder, node: Node) -> Arg:
    name = b.fresh(f"{node.name}_given")
    shape = literal(list(b.network.types[node.name].shape))
    b.call(name, "torch.empty", shape, dtype=torch_name(f"torch.{dtype_of(node.element)}"))
    return variable(name)


def _plain(b: Builder, name: str) -> Arg:
    """A constant; of types that NumPy has not, its bits are viewed as such."""
    array, dtype = b.constant(name), b.network.types[name].dtype
    if dtype in ("float32", "float16"):
        return array
    return b.prepare_call(b.fresh(f"{name}_bits"), ".view", array, torch_name(f"torch.{dtype}"))


def _weight(b: Builder, node: Node) -> Arg:
    """[K, N]: columns lie together, as kernels of GPUs want it, or rows do."""
    weight = b.prepare_call(b.fresh(f"{node.name}_weight"), ".t", _plain(b, node.inputs[1]))
    if b.network.form("call") != "swapped":
        return weight
    return b.prepare_call(b.fresh(f"{node.name}_rows"), ".contiguous", weight)


def _scales(b: Builder, node: Node, position: int) -> Arg:
    """One scale, or a column of them for rows, and a row for columns."""
    q, name = b.type(node, position).qtype, f"{node.name}_scale{position}"
    if q.axis is None and b.network.form("parameters") == "scalar":
        return b.number(name, q.scale[0], "float32")
    numbers = b.numbers(name, q.scale, "float32")
    if q.axis is None:
        return numbers
    shape = literal([1, -1] if position else [-1, 1])
    return b.prepare_call(b.fresh(f"{name}_laid_out"), ".reshape", numbers, shape)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"scaled_mm": _scaled_mm})
