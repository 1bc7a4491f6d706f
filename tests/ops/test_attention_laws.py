"""Laws of attention, and the power of its bounds: wrong kernels are outside, float32 in any order is inside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from one_node import LAW
from random_cases import random_case

from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.attention import Attention
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.reduce.edit import replace

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 10**6)
ROUNDING = 1e-5


def attended(case: Case, op: Operator | None = None, x: Array | None = None, mask: Array | None = None) -> Array:
    """The output of a case of attention, with another operator, input or mask."""
    network = case.network
    (node,) = network.nodes
    inputs = case.inputs if x is None else (Tensor(x),)
    constants, names = network.constants, node.inputs
    if mask is not None:
        constants = (*constants[:2], Constant("m", TensorType(mask.shape, "int32"), Tensor(mask.astype(np.int32))))
        names = (*names[:3], "m")
    node = Node(node.name, op or node.op, names, node.element)
    return exact_outputs(Case(Network(network.inputs, constants, (node,), network.outputs), inputs))[node.name]


def parts(seed: int) -> tuple[Case, Attention, Array]:
    """A case with a batch, its operator and its input."""
    case = random_case("attention", seed)
    op: Any = case.network.nodes[0].op
    x = case.inputs[0].array
    assume(x.shape[0] > 0)
    return case, op, x


def values(case: Case) -> Array:
    """V: [batch, length, hidden]."""
    x, w, b = (case.arrays[name] for name in case.network.nodes[0].inputs[:3])
    q_x, q_w = (case.network.types[name].qtype for name in case.network.nodes[0].inputs[:2])
    real = (x.astype(np.float64) - q_x.zero_point[0]) * q_x.scale[0]
    projected = real @ ((w.astype(np.float64) - np.array(q_w.zero_point)) * np.array(q_w.scale)) + b
    return np.asarray(projected[..., b.size // 3 * 2 :])


def close(a: Array, b: Array, case: Case) -> bool:
    """Equal but for the final roundings, and those of scores of this size."""
    return bool(np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * float(np.abs(values(case)).max() + 1e-30)))


@LAW
@given(seed=seeds)
def test_outputs_are_means_of_values(seed: int) -> None:
    case, _, _ = parts(seed)
    v, y = values(case), attended(case)
    room = ROUNDING * np.abs(v).max()
    assert (y >= v.min(axis=1, keepdims=True) - room).all()
    assert (y <= v.max(axis=1, keepdims=True) + room).all()


@LAW
@given(seed=seeds)
def test_a_scale_of_0_gives_the_mean(seed: int) -> None:
    case, op, x = parts(seed)
    every = np.ones(x.shape[:2])
    y = attended(case, replace(op, scale=0.0, unidirectional=False), mask=every)
    assert close(y, np.broadcast_to(values(case).mean(axis=1, keepdims=True), y.shape), case)


@LAW
@given(seed=seeds, order=st.randoms(use_true_random=False))
def test_tokens_have_no_order_without_a_mask(seed: int, order: Any) -> None:
    case, op, x = parts(seed)
    op, every = replace(op, unidirectional=False), np.ones(x.shape[:2])
    permutation = order.sample(range(x.shape[1]), x.shape[1])
    y = attended(case, op, mask=every)
    assert np.array_equal(attended(case, op, x[:, permutation], every), y[:, permutation])


@LAW
@given(seed=seeds)
def test_no_token_sees_a_later_one_where_it_is_unidirectional(seed: int) -> None:
    case, op, x = parts(seed)
    other = x.copy()
    other[:, -1] = np.bitwise_xor(other[:, -1], 85)
    causal = replace(op, unidirectional=True)
    assert np.array_equal(attended(case, causal)[:, :-1], attended(case, causal, other)[:, :-1])


@LAW
@given(seed=seeds)
def test_masking_all_keys_masks_none(seed: int) -> None:
    case, op, x = parts(seed)
    shifted = attended(case, replace(op, mask_filter_value=-1.0), mask=np.zeros(x.shape[:2]))
    assert np.array_equal(shifted, attended(case, op, mask=np.ones(x.shape[:2])))


@LAW
@given(seed=seeds, data=st.data())
def test_the_forms_of_a_mask_say_the_same(seed: int, data: st.DataObject) -> None:
    case, _, x = parts(seed)
    batch, length = x.shape[:2]
    bounds = st.lists(st.integers(0, length), min_size=batch, max_size=batch)
    ends, starts = np.array(data.draw(bounds)), np.array(data.draw(bounds))
    keys = np.arange(length)
    kept = (keys < ends[:, None]) & (keys >= starts[:, None])
    flat = attended(case, mask=np.concatenate([ends, starts]))
    assert np.array_equal(flat, attended(case, mask=kept))
    assert np.array_equal(flat, attended(case, mask=np.repeat(kept[:, None], length, axis=1)))
    assert np.array_equal(attended(case, mask=ends), attended(case, mask=keys < ends[:, None]))


def _kernel(case: Case, fault: str = "") -> Array:
    """A float32 kernel, sums in descending order of tokens and features, with one fault."""
    x, w, b = (case.arrays[name] for name in case.network.nodes[0].inputs[:3])
    q_x, q_w = (case.network.types[name].qtype for name in case.network.nodes[0].inputs[:2])
    op: Any = case.network.nodes[0].op
    batch, length, _ = x.shape
    n, head = op.num_heads, b.size // 3 // op.num_heads
    if fault == "weight off by one":
        w = np.where(w == w.max(), w - 1, w)
    acc = (x.astype(np.int64) - q_x.zero_point[0]) @ (w.astype(np.int64) - np.array(q_w.zero_point))
    p = acc.astype(np.float32) * (np.array(q_w.scale, np.float32) * np.float32(q_x.scale[0]))
    p = p if fault == "no bias" else p + b
    q, k, v = (p[..., i * n * head : (i + 1) * n * head].reshape(batch, length, n, head) for i in range(3))
    if fault == "q for k":
        q, k = q, q
    scale = np.float32(1 / np.sqrt(np.float32(1 if fault == "no scale" else head))) if op.scale is None else op.scale
    scores = np.zeros((batch, n, length, length), dtype=np.float32)
    for d in reversed(range(head)):
        scores = scores + q[..., d].transpose(0, 2, 1)[..., None] * k[..., d].transpose(0, 2, 1)[:, :, None]
    scores = scores * np.float32(scale)
    if len(case.network.nodes[0].inputs) > 3 and fault != "no mask":
        mask = case.arrays[case.network.nodes[0].inputs[3]]
        added = np.where(op.filtered(mask, batch, length), np.float32(op.mask_filter_value), np.float32(0))
        scores = scores + added[:, None]
    if op.unidirectional and fault != "sees all":
        scores = np.where(op.attended(length), scores, np.finfo(np.float32).min)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total = np.zeros((*e.shape[:-1], 1), dtype=np.float32)
    y = np.zeros((batch, n, length, head), dtype=np.float32)
    for t in reversed(range(length)):
        total = total + e[..., t : t + 1]
    e = e * (np.float32(1) / total)
    for t in reversed(range(length)):
        y = y + e[..., t : t + 1] * v[:, t][:, :, None]
    return y.transpose(0, 2, 1, 3).reshape(batch, length, n * head)


def _outside(case: Case, y: Array) -> bool:
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["attention"])
    return not bool(((allowed.lo <= y) & (y <= allowed.hi)).all())


def test_float32_in_another_order_is_admissible() -> None:
    for seed in range(300):
        case = random_case("attention", seed)
        assert not _outside(case, _kernel(case)), seed


def _any(case: Case) -> bool:
    return True


def _scaled(case: Case) -> bool:
    """Whether scores are divided by the root of a head size other than 1."""
    op: Any = case.network.nodes[0].op
    return op.scale is None and case.arrays["c1"].size // 3 > op.num_heads


FAULTS: dict[str, Callable[[Case], bool]] = {
    "no bias": lambda c: bool(c.arrays["c1"].any()),
    "weight off by one": _any,
    "q for k": _any,
    "no scale": _scaled,
    "no mask": lambda c: len(c.network.nodes[0].inputs) > 3 and not bool(c.arrays["c2"].all()),
    "sees all": lambda c: bool(getattr(c.network.nodes[0].op, "unidirectional", False)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_outside(fault: str) -> None:
    """Where the case lets it show at all: at least in a quarter of those that have what it is about."""
    cases = [c for c in (random_case("attention", seed) for seed in range(120)) if FAULTS[fault](c)]
    found = sum(_outside(c, _kernel(c, fault)) for c in cases)
    print(f"{fault}: {found} of {len(cases)}")
    assert found >= len(cases) / 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": 2}, "num_heads: 2; needs a divisor of the hidden size 1"),
        ({"mask_filter_value": 0.1}, "mask_filter_value: 0.1; needs a float32"),
        ({"scale": 2.0**101}, "scale: .*; needs a float32 of magnitude"),
    ],
)
def test_attributes_are_checked(change: dict[str, Any], words: str) -> None:
    q = QType.per_tensor("uint8", 1.0, 0)
    types = [TensorType((1, 1, 1), q), TensorType((1, 3), q), TensorType((3,), "float32")]
    with pytest.raises(InvalidCase, match=words):
        replace(Attention(num_heads=1), **change).infer(types, "float32")
