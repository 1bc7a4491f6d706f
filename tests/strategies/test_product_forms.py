"""Every form of the operators that multiply and sum is drawn. Fixed seeds: these are facts, not chances."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from qfuzz.ir.network import Network, Node
from qfuzz.strategies.generate import cases_of

Form = Callable[[Network, Node], Any]


@cache
def drawn(op: str) -> tuple[tuple[Network, Node], ...]:
    """Nodes of an operator, with their networks."""
    cases = (c for shard in range(4) for c in cases_of(77, shard, ops=(op,), max_nodes=2))
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
    "conv": WINDOWS | BIASES | VOLUMES | {"relu": attribute("relu")},
    "conv_transpose": WINDOWS
    | BIASES
    | {f: attribute(f) for f in ("relu", "output_padding", "says_sizes")}
    | {"sizes of padding": lambda network, n: n.op.says_sizes and uneven(network, n)},  # type: ignore[attr-defined]
    "conv_integer": WINDOWS | VOLUMES | SUMS | {"own zero points": own_zero_points},
    "linear_integer": SUMS | {"own zero points": own_zero_points, "per channel": per_channel, "uint8 by int8": mixed},
    "matmul": MATRICES | {"relu": attribute("relu")},
    "matmul_integer": MATRICES | SUMS,
    "linear": {
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
