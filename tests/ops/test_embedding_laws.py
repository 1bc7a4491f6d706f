"""Laws of embed_layer_norm, and the power of its bounds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from one_node import LAW
from random_cases import random_case

from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.reduce.edit import replace

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 10**6)


def drawn(seed: int) -> Case:
    """A case with words to embed."""
    case = random_case("embed_layer_norm", seed)
    assume(output(case).size > 0)
    return case


def output(case: Case) -> Array:
    """The correctly rounded output."""
    return exact_outputs(case)["y"]


def reals(case: Case) -> list[Array]:
    """Inputs as real numbers: words, word ids, positions, gamma, beta, and maybe segment ids and segments."""
    values = []
    for name in case.network.nodes[0].inputs:
        q = case.network.types[name].element
        a = case.arrays[name]
        values.append((a.astype(np.float64) - q.zero_point[0]) * q.scale[0] if isinstance(q, QType) else a)
    return values


def with_constant(case: Case, name: str, array: Array) -> Case:
    """`case` with other data of a constant."""
    constants = tuple(
        Constant(c.name, TensorType(array.shape, c.type.element), Tensor(array)) if c.name == name else c
        for c in case.network.constants
    )
    return Case(replace(case.network, constants=constants), case.inputs)


@LAW
@given(seed=seeds)
def test_the_mean_is_beta_where_gamma_is_one_for_all(seed: int) -> None:
    case = drawn(seed)
    gamma = case.arrays["c2"]
    case = with_constant(case, "c2", np.full_like(gamma, gamma[0]))
    y, beta, g = output(case), reals(case)[4], reals(case)[3]
    room = 1e-5 * (np.abs(g).max() * np.sqrt(g.size) + np.abs(beta).max())
    assert np.allclose((y - beta).mean(axis=-1), 0.0, atol=room)


@LAW
@given(seed=seeds)
def test_no_feature_is_farther_than_the_root_of_their_number(seed: int) -> None:
    case = drawn(seed)
    y, beta, gamma = output(case), reals(case)[4], reals(case)[3]
    assert (np.abs(y - beta) <= np.abs(gamma) * np.sqrt(gamma.size) * (1 + 1e-6) + 1e-6 * np.abs(beta) + 1e-30).all()


@LAW
@given(seed=seeds)
def test_a_gamma_of_0_leaves_beta(seed: int) -> None:
    case = drawn(seed)
    q: Any = case.network.types["c2"].element
    flat = with_constant(case, "c2", np.full_like(case.arrays["c2"], q.zero_point[0]))
    beta = reals(case)[4].astype(np.float32)
    assert np.array_equal(output(flat), np.broadcast_to(beta, output(flat).shape))


@LAW
@given(seed=seeds, data=st.data())
def test_a_word_depends_on_its_own_ids_only(seed: int, data: st.DataObject) -> None:
    case = drawn(seed)
    ids = case.arrays["c0"].copy()
    ids[0, 0] = data.draw(st.integers(0, case.inputs[0].array.shape[0] - 1))
    a, b = output(case), output(with_constant(case, "c0", ids))
    assert np.array_equal(a.reshape(-1, a.shape[-1])[1:], b.reshape(-1, b.shape[-1])[1:])


def _kernel(case: Case, fault: str = "") -> Array:
    """A float32 kernel, with one fault."""
    words, ids, positions, gamma, beta, *more = (
        a.astype(np.float32) if a.dtype == np.float64 else a for a in reals(case)
    )
    op: Any = case.network.nodes[0].op
    if fault == "the next position":
        positions = np.roll(positions, -1, axis=0)
    e = words[ids] + positions[: ids.shape[1]]
    if more and fault != "no segments":
        e = e + more[1][more[0]]
    n = np.float32(gamma.size)
    mean = e[..., ::-1].sum(axis=-1, keepdims=True, dtype=np.float32) / n
    a = e - mean
    divisor = n - 1 if fault == "variance of a sample" else n
    root = np.sqrt((a * a).sum(axis=-1, keepdims=True, dtype=np.float32) / divisor + np.float32(op.epsilon))
    if fault == "no epsilon":
        root = np.sqrt((a * a).sum(axis=-1, keepdims=True, dtype=np.float32) / n)
    scaled = a / root * (np.float32(1) if fault == "no gamma" else gamma)
    return scaled if fault == "no beta" else scaled + beta


def _outside(case: Case, y: Array) -> bool:
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["embed_layer_norm"])
    return not bool(((allowed.lo <= y) & (y <= allowed.hi)).all())


def _cases(n: int) -> list[Case]:
    return [c for c in (random_case("embed_layer_norm", seed) for seed in range(n)) if c.arrays["c0"].size]


def test_a_float32_kernel_is_admissible() -> None:
    for case in _cases(300):
        assert not _outside(case, _kernel(case)), case


def _features(case: Case) -> bool:
    return case.inputs[0].array.shape[1] > 1


def _small(case: Case) -> bool:
    """Whether epsilon counts."""
    op: Any = case.network.nodes[0].op
    return _features(case) and op.epsilon == 1.0 and case.network.inputs[0].type.qtype.scale[0] < 2.0


FAULTS = {
    "no segments": lambda c: "c4" in c.arrays and _features(c),
    "the next position": lambda c: c.arrays["c1"].shape[0] > 1 and _features(c),
    "variance of a sample": _features,
    "no epsilon": _small,
    "no gamma": _features,
    "no beta": lambda c: True,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_outside(fault: str) -> None:
    """Where it can show: in half of the cases, for words are often the same."""
    cases = [c for c in _cases(240) if FAULTS[fault](c)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = sum(_outside(c, _kernel(c, fault)) for c in cases)
    print(f"{fault}: {found} of {len(cases)}")
    assert found >= len(cases) / 2


def test_ids_are_within_their_tables() -> None:
    case = _cases(20)[0]
    with pytest.raises(InvalidCase, match=r"word ids: .*; the table has 0\.\."):
        with_constant(case, "c0", np.full_like(case.arrays["c0"], case.inputs[0].array.shape[0]))
