"""Every form of the operators that multiply and sum is drawn. Fixed seeds: these are facts, not chances."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.semantics import is_power_of_two
from qfuzz.strategies.generate import cases_of

Form = Callable[[Network, Node], Any]


@cache
def drawn(op: str) -> tuple[tuple[Network, Node], ...]:
    """Nodes of an operator, with their networks."""
    cases = (c for shard in range(10) for c in cases_of(77, shard, ops=(op,), max_nodes=2))
    return tuple((c.network, n) for c in cases for n in c.network.nodes if n.op.name == op)


def shape(position: int) -> Callable[[Network, Node], tuple[int, ...]]:
    return lambda network, n: network.types[n.inputs[position]].shape


def attribute(name: str) -> Form:
    return lambda network, n: any(v) if isinstance(v := getattr(n.op, name), tuple) else v


def beyond(name: str) -> Form:
    """An attribute of windows above 1."""
    return lambda network, n: max(v) > 1 if isinstance(v := getattr(n.op, name), tuple) else v > 1


def uneven(network: Network, n: Node) -> bool:
    padding: tuple[int, ...] = n.op.padding  # type: ignore[attr-defined]
    return padding[: len(padding) // 2] != padding[len(padding) // 2 :]


def per_channel(network: Network, n: Node) -> bool:
    return network.types[n.inputs[1]].qtype.axis is not None


def own_zero_points(network: Network, n: Node) -> bool:
    return len(set(network.types[n.inputs[1]].qtype.zero_point)) > 1


def mixed(network: Network, n: Node) -> bool:
    return [network.types[i].dtype for i in n.inputs[:2]] == ["uint8", "int8"]


def broadcasts(network: Network, n: Node) -> bool:
    a, b = (network.types[i].shape[:-2] for i in n.inputs)
    return a != b and bool(a) and bool(b)


def own_bias(network: Network, n: Node) -> QType | None:
    """The type of a bias with scales of its own."""
    q = network.types[n.inputs[2]].element if len(n.inputs) > 2 else None
    return q if isinstance(q, QType) else None


def has_own_bias(network: Network, n: Node, dtype: str) -> bool:
    q = own_bias(network, n)
    return q is not None and q.dtype == dtype


def distances(network: Network, n: Node) -> list[float]:
    """How far the first scale of such a bias is off scale_x * scale_w, relatively."""
    q = own_bias(network, n)
    if q is None or not network.types[n.inputs[0]].is_quantized:
        return []
    unit = float32(network.types[n.inputs[0]].qtype.scale[0] * network.types[n.inputs[1]].qtype.scale[0])
    return [q.scale[0] / unit - 1]


WINDOWS: dict[str, Form] = {
    "strides": beyond("strides"),
    "dilations": beyond("dilations"),
    "padding": attribute("padding"),
    "uneven": uneven,
    "groups": beyond("groups"),
    "depthwise": lambda network, n: n.op.groups == shape(0)(network, n)[1] > 1,  # type: ignore[attr-defined]
    "per channel": per_channel,
    "1-d": lambda network, n: len(shape(0)(network, n)) == 3,
    "2-d": lambda network, n: len(shape(0)(network, n)) == 4,
}
BIASES: dict[str, Form] = {
    dtype: lambda network, n, dtype=dtype: len(n.inputs) == 3 and network.types[n.inputs[2]].dtype == dtype
    for dtype in ("int32", "float32")
}
OWN_BIASES: dict[str, Form] = {
    f"{dtype} bias with a scale": lambda network, n, dtype=dtype: has_own_bias(network, n, dtype)
    for dtype in ("int32", "int8", "uint8")
} | {
    "scales of a bias per channel": lambda network, n: (
        own_bias(network, n) is not None and own_bias(network, n).axis == 0
    ),  # type: ignore[union-attr]
    "scale of scale_x * scale_w": lambda network, n: 0.0 in distances(network, n),
    "scale within 1 %": lambda network, n: any(0 < abs(d) < 0.01 for d in distances(network, n)),
    "scale powers of two apart": lambda network, n: any(
        abs(d) >= 1 and is_power_of_two(1 + d) for d in distances(network, n)
    ),
    "scale of any kind": lambda network, n: any(
        abs(d) > 0.02 and not is_power_of_two(1 + d) for d in distances(network, n)
    ),
}
OTHER_WEIGHTS: dict[str, Form] = {
    f"{dtype} weight": lambda network, n, dtype=dtype: network.types[n.inputs[1]].dtype == dtype
    for dtype in ("int2", "uint2", "int4", "uint4", "int16", "uint16")
}
SHARED: dict[str, Form] = {
    name: lambda network, n, i=i: (
        len(n.inputs) > i and any(n.inputs[i] in o.inputs for o in network.nodes if o.name != n.name)
    )
    for i, name in ((1, "shared weight"), (2, "shared bias"))
}
REALS: dict[str, Form] = {
    "float32 to quantized": lambda network, n: (
        network.types[n.inputs[0]].element == "float32" and network.types[n.name].is_quantized
    ),
    "float32 to float32": lambda network, n: (
        network.types[n.inputs[0]].element == network.types[n.name].element == "float32"
    ),
}
VOLUMES: dict[str, Form] = {"3-d": lambda network, n: len(shape(0)(network, n)) == 5}
SUMS: dict[str, Form] = {"omits zeros": attribute("omits_zeros")}
MATRICES: dict[str, Form] = {
    "stack by matrix": lambda network, n: len(shape(0)(network, n)) > 2 == len(shape(1)(network, n)),
    "stack by stack": lambda network, n: min(len(shape(i)(network, n)) for i in (0, 1)) > 2,
    "broadcast": broadcasts,
    "vector on the left": lambda network, n: len(shape(0)(network, n)) == 1,
    "vector on the right": lambda network, n: len(shape(1)(network, n)) == 1,
    "square": lambda network, n: n.inputs[0] == n.inputs[1],
    "uint8 by int8": mixed,
}
FORMS: dict[str, dict[str, Form]] = {
    "conv": WINDOWS | BIASES | OWN_BIASES | OTHER_WEIGHTS | SHARED | REALS | VOLUMES | {"relu": attribute("relu")},
    "conv_transpose": WINDOWS
    | BIASES
    | OWN_BIASES
    | OTHER_WEIGHTS
    | SHARED
    | REALS
    | VOLUMES
    | {f: attribute(f) for f in ("relu", "output_padding", "says_sizes")}
    | {"sizes of padding": lambda network, n: n.op.says_sizes and uneven(network, n)},  # type: ignore[attr-defined]
    "conv_integer": WINDOWS | VOLUMES | SUMS | {"own zero points": own_zero_points},
    "linear_integer": SUMS | {"own zero points": own_zero_points, "per channel": per_channel, "uint8 by int8": mixed},
    "matmul": MATRICES | {"relu": attribute("relu")},
    "matmul_integer": MATRICES | SUMS,
    "linear": BIASES
    | OWN_BIASES
    | OTHER_WEIGHTS
    | SHARED
    | {
        "alpha": lambda network, n: n.op.alpha != 1.0,  # type: ignore[attr-defined]
        "beta": lambda network, n: n.op.beta not in (0.0, 1.0) and len(n.inputs) > 2,  # type: ignore[attr-defined]
        "no bias by factor": lambda network, n: n.op.beta == 0.0 and len(n.inputs) > 2,  # type: ignore[attr-defined]
        "one factor for both": lambda network, n: n.op.alpha == n.op.beta != 1.0,  # type: ignore[attr-defined]
    },
}


@pytest.mark.parametrize(("op", "form"), [(op, form) for op, forms in FORMS.items() for form in forms])
def test_every_form_is_drawn(op: str, form: str) -> None:
    assert any(FORMS[op][form](network, n) for network, n in drawn(op))


@pytest.mark.parametrize("op", FORMS)
def test_hardly_any_is_rejected(op: str) -> None:
    counts = [cases_of(78, shard, ops=(op,)).counts for shard in range(2)]
    assert sum(c.rejected for c in counts) < 0.01 * sum(c.draws for c in counts)
