"""Laws of weight_only_linear and embedding, and of what a kernel with int8 activations may return."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract, contract_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType, float32
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType, blocks_of, laid_out
from qfuzz.ops.quantization import Dequantize
from qfuzz.ops.semantics import Operand
from qfuzz.ops.weight_only import WEIGHT_DTYPES, Embedding, WeightOnlyLinear
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.reference import exact_outputs
from qfuzz.reduce.edit import take

FLOAT32 = Contract(terms="real", k=1, tie="half_even", source="test")
INT8 = Contract(terms="affine", k=4, tie="half_even", activation_block=16, source="test")


def _linear(x: Array, w: Array, q: QType, bias: Array | None = None) -> Case:
    constants = [Constant("w", TensorType(w.shape, q), Tensor(w.astype(DTYPES[q.dtype])))]
    if bias is not None:
        constants.append(Constant("b", TensorType(bias.shape, "float32"), Tensor(bias.astype(np.float32))))
    node = Node("y", WeightOnlyLinear(), ("x", *(c.name for c in constants)), "float32")
    fed = Input("x", TensorType(x.shape, "float32"))
    return Case(Network((fed,), tuple(constants), (node,), ("y",)), (Tensor(x.astype(np.float32)),))


def _embedding(table: Array, q: QType, at: Array, axis: int = 0) -> Array:
    constants = (
        Constant("t", TensorType(table.shape, q), Tensor(table.astype(DTYPES[q.dtype]))),
        Constant("i", TensorType(at.shape, "int64"), Tensor(at.astype(np.int64))),
    )
    node = Node("y", Embedding(axis=axis), ("t", "i"), "float32")
    return exact_outputs(Case(Network((), constants, (node,), ("y",)), ()))["y"]


def _dequantized(a: Array, q: QType) -> Array:
    fed = Input("x", TensorType(a.shape, q))
    network = Network((fed,), (), (Node("y", Dequantize(), ("x",), "float32"),), ("y",))
    return exact_outputs(Case(network, (Tensor(a.astype(DTYPES[q.dtype])),)))["y"]


@st.composite
def weights(draw: st.DrawFn, k: int | None = None) -> tuple[Array, QType]:
    """A small weight with its type, in each granularity."""
    dtype: Any = draw(st.sampled_from(WEIGHT_DTYPES))
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 40)) if k is None else k
    axis = draw(st.sampled_from((None, 0, 1)))
    block = draw(st.sampled_from((1, 2, 16, 32))) if axis == 1 else 0
    count = 1 if axis is None else n * -(-k // block) if block else n
    low, high = INTEGER_RANGE[dtype]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scales = tuple(float32(float(s)) for s in np.exp2(rng.uniform(-6, 6, count)))
    zero_points = tuple(int(z) for z in rng.integers(low, high + 1, count))
    return rng.integers(low, high + 1, (n, k)), QType(dtype, scales, zero_points, axis, block)


@st.composite
def reals(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """float32 numbers of magnitudes around 1, some of them 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.normal(size=shape) * np.exp2(rng.integers(-4, 5, shape))
    return np.where(rng.random(shape) < 0.2, 0.0, x).astype(np.float32)


@LAW
@given(data=st.data())
def test_twice_the_input_is_twice_the_result(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    x = data.draw(reals((3, w.shape[1])))
    y = exact_outputs(_linear(x, w, q))["y"]
    assert np.array_equal(exact_outputs(_linear(2 * x, w, q))["y"], 2 * y)


@LAW
@given(data=st.data())
def test_the_order_of_products_does_not_matter(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    x = data.draw(reals((2, w.shape[1])))
    if q.axis == 1:
        q = QType(q.dtype, q.scale[: len(w)], q.zero_point[: len(w)], 0)
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(w.shape[1])
    y = exact_outputs(_linear(x, w, q))["y"]
    assert np.array_equal(exact_outputs(_linear(x[:, order], w[:, order], q))["y"], y)


@LAW
@given(data=st.data())
def test_the_unit_vectors_give_the_dequantized_weight_and_the_bias_is_added(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    dequantized = _dequantized(w, q)
    assert np.array_equal(exact_outputs(_linear(np.eye(w.shape[1]), w, q))["y"], dequantized.T)
    bias = data.draw(reals((len(w),)))
    assert np.array_equal(exact_outputs(_linear(np.zeros((1, w.shape[1])), w, q, bias))["y"][0], bias)


@LAW
@given(data=st.data())
def test_blocks_of_one_scale_are_per_tensor(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    plain = QType(q.dtype, q.scale[:1], q.zero_point[:1])
    n = int(np.prod(blocks_of(QType(q.dtype, (1.0,), (0,), 1, 16), w.shape)))
    blocked = QType(q.dtype, q.scale[:1] * n, q.zero_point[:1] * n, 1, 16)
    x = data.draw(reals((2, w.shape[1])))
    assert np.array_equal(exact_outputs(_linear(x, w, plain))["y"], exact_outputs(_linear(x, w, blocked))["y"])


@LAW
@given(data=st.data())
def test_signed_weights_are_unsigned_ones_moved(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    other: Any = q.dtype[1:] if q.dtype.startswith("u") else f"u{q.dtype}"
    moved = INTEGER_RANGE[other][0] - q.qmin
    q_other = msgspec.structs.replace(q, dtype=other, zero_point=tuple(z + moved for z in q.zero_point))
    x = data.draw(reals((2, w.shape[1])))
    a, b = _linear(x, w, q), _linear(x, w + moved, q_other)
    assert np.array_equal(exact_outputs(a)["y"], exact_outputs(b)["y"])
    for contract in (FLOAT32, INT8):  # what kernels that store unsigned integers may return is the same, too
        assert np.array_equal(_admissible(a, contract).lo, _admissible(b, contract).lo)


def _admissible(case: Case, contract: Contract) -> Admissible:
    network = case.network
    (node,) = network.nodes
    operands = [Operand.point(network.types[i], case.arrays[i]) for i in node.inputs]
    assert isinstance(node.op, WeightOnlyLinear)
    return admissible(node.op.image(operands, "float32"), contract, "float32", FilterCount())


def _holds(y: Array, allowed: Admissible) -> bool:
    return bool(((y >= allowed.lo) & (y <= allowed.hi)).all())


@LAW
@given(data=st.data())
def test_sums_in_float32_are_admitted_in_any_order(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    x, bias = data.draw(reals((2, w.shape[1]))), data.draw(reals((len(w),)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scales = laid_out(q, q.scale, w.shape).astype(np.float32)
    dequantized = (w - laid_out(q, q.zero_point, w.shape)).astype(np.float32) * scales
    allowed = _admissible(_linear(x, w, q, bias), FLOAT32)
    for _ in range(5):
        order = rng.permutation(w.shape[1])
        y = np.tile(bias, (2, 1)) if rng.random() < 0.5 else np.zeros((2, len(w)), np.float32)
        first = y.any()
        for k in order:
            y = y + x[:, [k]] * dequantized[:, k]
        assert _holds(y if first else y + bias, allowed)


@LAW
@given(data=st.data())
def test_zero_points_taken_apart_are_affine(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    x = data.draw(reals((2, w.shape[1])))
    scales, zero_points = (laid_out(q, v, w.shape).astype(np.float32) for v in (q.scale, q.zero_point))
    dequantized = (w - q.qmin).astype(np.float32) * scales + -scales * (zero_points - np.float32(q.qmin))
    contract = msgspec.structs.replace(FLOAT32, terms="affine", k=2)
    assert _holds(x @ dequantized.T, _admissible(_linear(x, w, q), contract))


def test_zero_points_taken_apart_are_not_real() -> None:
    q, x = QType.per_tensor("uint8", float32(1 / 3), 254), np.ones((1, 1))
    scale = np.float32(q.scale[0])
    y = np.array([[np.float32(255) * scale + -scale * np.float32(254)]])
    case = _linear(x, np.array([[255]]), q)
    assert not _holds(y, _admissible(case, FLOAT32))
    assert _holds(y, _admissible(case, msgspec.structs.replace(FLOAT32, terms="affine", k=2)))


def test_float16_weights_are_not_admitted() -> None:
    """A contract that admits everything would pass the law above."""
    accused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, w = rng.normal(size=(2, 40)).astype(np.float32), rng.integers(0, 16, (3, 40))
        q = QType.per_tensor("uint4", float32(1 / 3), 7)
        dequantized = ((w - 7) * np.float32(q.scale[0])).astype(np.float16).astype(np.float32)
        accused += not _holds(x @ dequantized.T, _admissible(_linear(x, w, q), FLOAT32))
    assert accused == 20


def _int8_kernel(x: Array, w: Array, q: QType, block: int, steps: float = 127.0) -> Array:
    """Rows of `x` in blocks of int8, with the sums of zero points apart, as MLAS does it; all in float32."""
    f = np.float32
    n, k = w.shape
    y = np.zeros((len(x), n), dtype=np.float32)
    scales = np.broadcast_to(laid_out(q, q.scale, w.shape), w.shape)
    zero_points = np.broadcast_to(laid_out(q, q.zero_point, w.shape), w.shape)
    for start in range(0, k, block):
        part = slice(start, min(start + block, k))
        largest = np.abs(x[:, part]).max(axis=1)
        scale = largest / f(steps)
        inverse = np.where(largest > 0, f(steps) / np.where(largest > 0, largest, f(1)), f(0))
        stored = np.rint(x[:, part] * inverse[:, None]).astype(np.int64)
        s_w, z_w = scales[:, start].astype(np.float32), (zero_points[:, start] - q.qmin).astype(np.float32)
        dot = (stored @ (w[:, part] - q.qmin).T).astype(np.float32)
        y = y + dot * (scale[:, None] * s_w)
        y = y + (scale * stored.sum(axis=1).astype(np.float32))[:, None] * (-s_w * z_w)
    return y


@LAW
@given(data=st.data())
def test_a_kernel_with_int8_activations_is_admitted(data: st.DataObject) -> None:
    w, q = data.draw(weights())
    block = q.block if q.axis == 1 else 16
    contract = msgspec.structs.replace(INT8, activation_block=block)
    x = data.draw(reals((3, w.shape[1])))
    assert _holds(_int8_kernel(x, w, q, block), _admissible(_linear(x, w, q), contract))


def test_activations_of_fewer_steps_are_not_admitted() -> None:
    """Each product is off by up to half a step of 127; of 31 steps half of one is four times that."""
    accused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, w = rng.normal(size=(4, 1)), rng.integers(0, 16, (3, 1))
        x = np.concatenate([x, np.ones((4, 1))], axis=1).astype(np.float32)
        w, q = np.concatenate([w, np.full((3, 1), 8)], axis=1), QType.per_tensor("uint4", 1.0, 8)
        allowed = _admissible(_linear(x, w, q), INT8)
        assert _holds(_int8_kernel(x, w, q, 16), allowed)
        accused += not _holds(_int8_kernel(x, w, q, 16, steps=31.0), allowed)
    assert accused > 15


@LAW
@given(data=st.data())
def test_embedding_of_all_rows_dequantizes_the_table(data: st.DataObject) -> None:
    table, q = data.draw(weights())
    assert np.array_equal(_embedding(table, q, np.arange(len(table))), _dequantized(table, q))
    axis, size = data.draw(st.sampled_from(((0, len(table)), (1, table.shape[1]))))
    at = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))).reshape(-1, 1)
    whole = _dequantized(table, q)
    assert np.array_equal(_embedding(table, q, at, axis), np.take(whole, at, axis=axis))


@LAW
@given(data=st.data())
def test_reduction_keeps_the_scales_of_what_it_keeps(data: st.DataObject) -> None:
    w, q = data.draw(weights(k=32))
    x = data.draw(reals((2, 32)))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(w) - 1), min_size=1))))
    blocks = np.concatenate([np.arange(b * 16, b * 16 + 16) for b in data.draw(st.sampled_from(((0,), (1,), (0, 1))))])
    if q.block not in (0, 16):
        q = QType(q.dtype, q.scale[:1] * 2 * len(w), q.zero_point[:1] * 2 * len(w), 1, 16)
    cut = take(_linear(x, w, q), {("w", 0): rows, ("w", 1): blocks, ("x", 1): blocks})
    kept = cut.network.constants[0]
    assert np.array_equal(
        _dequantized(kept.data.array.astype(np.int64), kept.type.qtype), _dequantized(w, q)[np.ix_(rows, blocks)]
    )


def test_forms_choose_contracts() -> None:
    a, b, c = (msgspec.structs.replace(FLOAT32, source=s) for s in "abc")
    table = {"op": FLOAT32, "op?x=1": a, "op?y=2": b, "op?x=1&y=2": c}
    assert contract_of(table, "op", (), INT8) is FLOAT32
    assert contract_of(table, "other", ("x=1",), INT8) is INT8
    assert contract_of(table, "op", ("x=1",), INT8) is a
    assert contract_of(table, "op", ("w=0", "y=2"), INT8) is b
    assert contract_of(table, "op", ("x=1", "y=2", "z=3"), INT8) is c
    assert contract_of(table, "op", ("x=2", "z=3"), INT8) is FLOAT32


U4 = QType.per_tensor("uint4", 1.0, 8)


@pytest.mark.parametrize(
    ("x", "w", "message"),
    [
        (
            ((2, 3), "float32"),
            ((4, 3), QType("uint4", (1.0,) * 3, (0,) * 3, 1)),
            "scales on axis 1; they are per tensor",
        ),
        (((2, 3), "float32"), ((4, 3), QType.per_tensor("uint16", 1.0, 0)), "weight: uint16; needs quantized elements"),
        (((2, 3), "float32"), ((4, 2), U4), r"weight: shape \(4, 2\); needs \[N, 3\]"),
        (((2, 3), U4), ((4, 3), U4), "weight_only_linear takes reals and gives the same"),
        (((3,), "float32"), ((4, 3), U4), "of rank 2 or more"),
        (((2, 3), "float32"), ((4, 3), QType.per_tensor("uint4", 2.0**126, 8)), "overflow float32"),
    ],
)
def test_what_is_no_linear_says_why(
    x: tuple[tuple[int, ...], Element], w: tuple[tuple[int, ...], QType], message: str
) -> None:
    with pytest.raises(InvalidCase, match=message):
        WeightOnlyLinear().infer([TensorType(*x), TensorType(*w)], "float32")


def test_indices_are_within_the_table() -> None:
    with pytest.raises(InvalidCase, match=r"indices: 3\.\.3; needs -3\.\.2"):
        _embedding(np.zeros((3, 2)), U4, np.array([3]))
    with pytest.raises(InvalidCase, match=r"axis: 2; needs 0\.\.1"):
        _embedding(np.zeros((3, 2)), U4, np.array([0]), axis=2)
