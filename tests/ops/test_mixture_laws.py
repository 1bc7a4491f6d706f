"""Laws of moe, and the power of its bounds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from one_node import LAW
from random_cases import random_case

from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.ir.network import Case, Constant
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor
from qfuzz.oracle.check import judge
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.reduce.edit import replace

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 10**6)


def drawn(seed: int) -> tuple[Case, Any]:
    """A case with tokens whose router values differ, and its operator."""
    case = random_case("moe", seed)
    router = case.inputs[1].array
    assume(router.size > 0 and all(len(set(row)) == len(row) for row in router.tolist()))
    return case, case.network.nodes[0].op


def run(case: Case, router: Array | None = None, mixing: Array | None = None, **changes: Any) -> Array:
    """The output, with another router, other mixing weights, or other attributes."""
    (node,) = case.network.nodes
    constants = case.network.constants
    if mixing is not None:
        constants = (replace(constants[0], data=Tensor(mixing.astype(np.float32))), *constants[1:])
    network = replace(case.network, constants=constants, nodes=(replace(node, op=replace(node.op, **changes)),))
    inputs = case.inputs if router is None else (case.inputs[0], Tensor(router.astype(np.float32)))
    return exact_outputs(Case(network, inputs))["y"]


@LAW
@given(seed=seeds)
def test_no_router_counts_where_all_experts_are_selected(seed: int) -> None:
    case, _ = drawn(seed)
    router = case.inputs[1].array
    every = router.shape[1]
    assert np.array_equal(run(case, top=every), run(case, -router, top=every))


@LAW
@given(seed=seeds)
def test_one_expert_has_the_whole_weight(seed: int) -> None:
    case, op = drawn(seed)
    assume(op.normalized)
    mixing = case.arrays["c0"]
    assert np.array_equal(run(case, top=1), run(case, top=1, mixing=np.ones_like(mixing), normalized=False))


@LAW
@given(seed=seeds, exponent=st.integers(-4, 4))
def test_outputs_are_proportional_to_the_weights_or_do_not_change(seed: int, exponent: int) -> None:
    case, op = drawn(seed)
    factor = np.float32(2.0**exponent)
    mixing = case.arrays["c0"] * factor
    assume(not op.normalized or mixing.min() >= 2.0**-10)
    expected = run(case) if op.normalized else run(case) * factor
    assert np.array_equal(run(case, mixing=mixing), expected)


@LAW
@given(seed=seeds)
def test_only_the_order_of_router_values_counts(seed: int) -> None:
    case, _ = drawn(seed)
    order = np.argsort(np.argsort(case.inputs[1].array, axis=1), axis=1)
    assert np.array_equal(run(case, order), run(case))


def _reordered(c: Constant, order: Array) -> Constant:
    q = c.type.element
    if isinstance(q, QType) and q.axis == 0:
        q = QType(q.dtype, tuple(q.scale[i] for i in order), tuple(q.zero_point[i] for i in order), 0)
    data = c.data.array[:, order] if c.name == "c0" else c.data.array[order]
    return replace(c, type=replace(c.type, element=q), data=Tensor(np.ascontiguousarray(data)))


@LAW
@given(seed=seeds)
def test_experts_have_no_order(seed: int) -> None:
    case, _ = drawn(seed)
    router = case.inputs[1].array
    order = np.arange(router.shape[1])[::-1]
    network = replace(case.network, constants=tuple(_reordered(c, order) for c in case.network.constants))
    other = Case(network, (case.inputs[0], Tensor(np.ascontiguousarray(router[:, order]))))
    a, b = run(other), run(case)
    assert np.allclose(a, b, rtol=1e-6, atol=1e-6 * float(np.abs(b).max() + 1e-30))


def _kernel(case: Case, fault: str = "") -> Array:
    """A float32 kernel, with one fault."""
    (node,) = case.network.nodes
    op: Any = node.op
    x, router, mixing, w1, w2, *biases = (case.arrays[name] for name in node.inputs)
    reals = []
    for name, w in zip(node.inputs[3:5], (w1, w2), strict=True):
        q = case.network.types[name].qtype
        shape = (-1, 1, 1) if q.axis == 0 else (1, -1, 1)
        centered = w.astype(np.float32) - np.array(q.zero_point, dtype=np.float32).reshape(shape)
        if fault == "weight off by one":
            centered = np.where(centered == centered.max(), centered - 1, centered)
        reals.append(centered * np.array(q.scale, dtype=np.float32).reshape(shape))
    y = np.zeros_like(x)
    for n in range(len(x)):
        order = np.argsort(router[n] if fault == "the least of them" else -router[n], kind="stable")[: op.top]
        total = mixing[n, order].sum(dtype=np.float32) if op.normalized and fault != "no sum" else np.float32(1)
        for e in order:
            z = reals[0][e] @ x[n] + (biases[0][e] if biases and fault != "no bias" else np.float32(0))
            if op.activation == "swiglu":
                g, v = (z[0::2], z[1::2]) if fault != "halves" else (z[: len(z) // 2], z[len(z) // 2 :])
                if op.limit is not None and fault != "no limit":
                    limit = np.float32(op.limit)
                    g, v = np.minimum(g, limit), np.clip(v, -limit, limit)
                z = g / (1 + np.exp(-np.float32(op.alpha) * g)) * (v + np.float32(op.beta))
            elif op.activation == "silu":
                z = z / (1 + np.exp(-z))
            elif op.activation == "relu" and fault != "no relu":
                z = np.maximum(z, 0)
            part = reals[1][e] @ z + (biases[1][e] if biases else np.float32(0))
            y[n] = y[n] + mixing[n, e] / total * part
    return y


def _outside(case: Case, y: Array) -> bool:
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["moe"])
    return not bool(((allowed.lo <= y) & (y <= allowed.hi)).all())


def _cases(n: int) -> list[Case]:
    return [c for c in (random_case("moe", seed) for seed in range(n)) if c.inputs[0].array.size]


def test_a_float32_kernel_is_admissible() -> None:
    with np.errstate(over="ignore"):
        for case in _cases(300):
            assert not _outside(case, _kernel(case)), case


def test_any_of_equal_experts_is_admissible() -> None:
    for case in _cases(100):
        if getattr(case.network.nodes[0].op, "alpha", 1.0) < 0:
            continue  # the simple kernel of this file overflows
        equal = Case(case.network, (case.inputs[0], Tensor(np.zeros_like(case.inputs[1].array))))
        tokens, experts = equal.inputs[1].array.shape
        for shift in range(experts):
            chosen = np.roll(np.arange(experts), shift)[None].repeat(tokens, axis=0)
            picked = _kernel(Case(case.network, (case.inputs[0], Tensor(chosen.astype(np.float32)))))
            assert not _outside(equal, picked)


def test_nothing_is_said_where_float32_overflows() -> None:
    case = next(c for c in _cases(20) if c.inputs[0].array.any())
    case = Case(case.network, (Tensor(np.full_like(case.inputs[0].array, 3e38)), *case.inputs[1:]))
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["moe"])
    counts, bad = judge(np.full(allowed.lo.shape, np.nan, dtype=np.float32), allowed)
    assert (counts.violation, len(bad)) == (0, 0)


FAULTS = {
    "no bias": lambda c, op: "c3" in c.arrays,
    "weight off by one": lambda c, op: True,
    "the least of them": lambda c, op: op.top < c.arrays["c0"].shape[1],
    "no sum": lambda c, op: op.normalized,
    "halves": lambda c, op: op.activation == "swiglu" and c.arrays["c2"].shape[2] > 1,
    "no limit": lambda c, op: op.activation == "swiglu" and op.limit == 0.5,
    "no relu": lambda c, op: op.activation == "relu",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_outside(fault: str) -> None:
    """Where it can show: in a third of the cases at least."""
    cases = [c for c in _cases(240) if FAULTS[fault](c, c.network.nodes[0].op)]
    with np.errstate(over="ignore"):
        found = sum(_outside(c, _kernel(c, fault)) for c in cases)
    print(f"{fault}: {found} of {len(cases)}")
    assert found >= len(cases) / 3
