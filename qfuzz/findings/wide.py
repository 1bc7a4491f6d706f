"""What signatures say of int32 activations: whether kernels that compute in int32 leave it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.ir.network import Case, Node
from qfuzz.ir.qtype import INTEGER_RANGE, QType
from qfuzz.ops.elementwise import Mul
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.reduction import Mean
from qfuzz.ops.scalar import AddScalar
from qfuzz.oracle.reference import exact_outputs

Numbers = npt.NDArray[np.float64]

_HIGH = INTEGER_RANGE["int32"][1]


def wide_form(case: Case, node: Node) -> set[str]:
    """``beyond int32``: distances from zero points, products or sums of them, or what is stored before it saturates."""
    if not any(isinstance(t.element, QType) and t.dtype == "int32" for t in case.network.input_types(node)):
        return set()
    inner = exact_outputs(case) if any(n.name in node.inputs for n in case.network.nodes) else {}
    known = [_stored(case, name, inner) for name in node.inputs]
    wide = [k for k in known if k is not None and k[0].dtype == "int32"]
    if not wide or not all(a.size for _, a in wide):
        return set()
    reached = max(float(np.abs(_distance(*k)).max()) for k in wide)
    if isinstance(node.op, Mean | AvgPool | GlobalAvgPool | AdaptiveAvgPool):
        reached = max(reached, float(np.float32(max(float(a.max()) for _, a in wide))))  # converted with no more care
    if all(k is not None for k in known):
        reached = max(reached, _reached(case, node, [k for k in known if k is not None]))
    # What a kernel hands on may be off by what float32 rounds, a part in 2^24 for each step.
    return {"beyond int32"} if reached > _HIGH * (1 - 2.0**-20 if inner else 1) else set()


def _stored(case: Case, name: str, inner: Mapping[str, npt.NDArray[Any]]) -> tuple[QType, Numbers] | None:
    tensor = case.feeds.get(name) or case.network.constant_data.get(name)
    q = case.network.types[name].element
    if not isinstance(q, QType) or not q.is_per_tensor:
        return None
    return q, (inner[name] if tensor is None else tensor.array).astype(np.float64)


def _distance(q: QType, stored: Numbers) -> Numbers:
    return stored - q.zero_point[0]


def _reached(case: Case, node: Node, known: list[tuple[QType, Numbers]]) -> float:
    """The largest integer that the kernels of some operators hold, or give before they saturate."""
    op: Any = node.op
    q_x, x = known[0]
    n = _distance(q_x, x)
    unit = q_x.scale[0]
    match op:
        case Mul():
            n, unit = n * _distance(*known[1]), unit * known[1][0].scale[0]
        case Prelu():
            q_w = known[1][0]
            slopes = float(np.abs(_distance(*known[1])).max(initial=0.0))
            n, unit = n * max(slopes, 1 / q_w.scale[0]), unit * q_w.scale[0]
        case AddScalar():
            n = n + op.steps(q_x)
        case AvgPool() | GlobalAvgPool() | AdaptiveAvgPool():
            count = math.prod(op.kernel if isinstance(op, AvgPool) else x.shape[2:])
            n, unit = n * count, unit / (getattr(op, "divisor_override", 0) or count)
        case _:
            return 0.0
    q_y = node.element
    assert isinstance(q_y, QType)
    given = np.abs(n * (unit / q_y.scale[0])) + abs(q_y.zero_point[0])
    return float(max(np.abs(n).max(initial=0.0), given.max(initial=0.0)))
