"""Laws of lstm, and the power of its bounds: wrong kernels are outside, float32 kernels are inside."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from one_node import LAW
from random_cases import random_case

from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.exact.arithmetic_model import NONE
from qfuzz.ir.network import Case, Constant, Network
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.dynamically import quantized
from qfuzz.oracle.check import judge
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.reduce.edit import replace

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 10**6)


def run(case: Case, x: Array | None = None, part: int | None = None, **changes: Any) -> Array:
    """The output of a case of lstm with changed attributes, on another input, or with one direction's constants."""
    network = case.network
    (node,) = network.nodes
    constants = network.constants
    if part is not None:
        constants = tuple(_part(c, part) for c in constants)
    node = replace(node, op=replace(node.op, **changes))
    inputs = case.inputs if x is None else (Tensor(np.ascontiguousarray(x)),)
    return exact_outputs(Case(Network(network.inputs, constants, (node,), network.outputs), inputs))[node.name]


def _part(c: Constant, j: int) -> Constant:
    q = c.type.element
    if isinstance(q, QType) and q.axis == 0:
        q = QType.per_tensor(q.dtype, q.scale[j], q.zero_point[j])
    data = np.ascontiguousarray(c.data.array[j : j + 1])
    return Constant(c.name, TensorType(data.shape, q), Tensor(data))


def drawn(seed: int) -> tuple[Case, Any]:
    """A case with a batch, and its operator."""
    case = random_case("lstm", seed)
    assume(case.inputs[0].array.size > 0)
    return case, case.network.nodes[0].op


@LAW
@given(seed=seeds)
def test_reverse_is_forward_on_the_reversed_sequence(seed: int) -> None:
    case, op = drawn(seed)
    assume(op.direction != "bidirectional")
    x = case.inputs[0].array
    backward = run(case, direction="reverse", output="y")
    assert np.array_equal(backward[::-1], run(case, x[::-1], direction="forward", output="y"))


@LAW
@given(seed=seeds, output=st.sampled_from(("y", "y_h", "y_c")))
def test_bidirectional_is_both(seed: int, output: str) -> None:
    case, op = drawn(seed)
    assume(op.direction == "bidirectional")
    one = run(case, part=0, direction="forward", output=output)
    other = run(case, part=1, direction="reverse", output=output)
    axis = 1 if output == "y" else 0
    assert np.array_equal(run(case, output=output), np.concatenate([one, other], axis=axis))


@LAW
@given(seed=seeds)
def test_the_last_hidden_state_is_that_of_the_last_step(seed: int) -> None:
    case, op = drawn(seed)
    y, last = run(case, output="y"), run(case, output="y_h")
    for j in range(y.shape[1]):
        backward = op.direction == "reverse" or j == 1
        assert np.array_equal(y[0 if backward else -1, j], last[j])


@LAW
@given(seed=seeds)
def test_hidden_states_stay_within_1_and_cells_grow_by_1(seed: int) -> None:
    case, _ = drawn(seed)
    assert (np.abs(run(case, output="y")) <= 1.0).all()
    length = case.inputs[0].array.shape[0]
    initial = np.abs(case.arrays["c4"]).max() if "c4" in case.arrays else 0.0
    assert (np.abs(run(case, output="y_c")) <= (initial + length) * (1 + 1e-6)).all()


@LAW
@given(seed=seeds, exponent=st.integers(-8, 8))
def test_only_the_product_of_input_and_weight_scale_counts(seed: int, exponent: int) -> None:
    """Dynamic quantization takes any power of two out of the input."""
    case, op = drawn(seed)
    constants = list(case.network.constants)
    w = constants[0]
    q = w.type.qtype
    scaled = replace(q, scale=tuple(s * 2.0**exponent for s in q.scale))
    constants[0] = Constant(w.name, TensorType(w.type.shape, scaled), w.data)
    network = replace(case.network, constants=tuple(constants))
    x = (case.inputs[0].array * np.float32(2.0**-exponent)).astype(np.float32)
    assert np.array_equal(exact_outputs(Case(network, (Tensor(x),)))["y"], run(case))
    assert op.name == "lstm"


@LAW
@given(x=st.lists(st.integers(-1000, 1000), min_size=1, max_size=9), unit=st.integers(-9, 9))
def test_what_is_quantized_dynamically_is_off_by_half_a_step_and_keeps_0(x: list[int], unit: int) -> None:
    values = np.array(x, dtype=np.float64) * 2.0**unit
    (lo, hi), (scale, _) = quantized((values, values), NONE)
    assert np.array_equal(lo, hi)
    assert (np.abs(lo * scale - values) <= scale * (1.0 + 1e-9)).all(), "half a step, and half of one of the zero point"
    assert (lo[values == 0.0] == 0).all()


def _kernel(case: Case, fault: str = "") -> Array:
    """A float32 kernel that quantizes the whole batch together, with one fault."""
    (node,) = case.network.nodes
    op: Any = node.op
    x, w, r, *rest = (case.arrays[name] for name in node.inputs)
    q_w, q_r = (case.network.types[name].qtype for name in node.inputs[1:3])
    given_ = dict(zip(("bias", "h", "c", "p"), rest, strict=False))
    if fault == "weight off by one":
        w = np.where(w == w.max(), w - 1, w)
    one, half = np.float32(1), np.float32(0.5)

    def dynamic(v: Array) -> tuple[Array, np.float32]:
        low, high = min(v.min(), np.float32(0)), max(v.max(), np.float32(0))
        scale = (high - low) / np.float32(255) if high > low else one
        zero_point = np.rint(np.clip(-low / scale, 0, 255))
        return np.clip(np.rint(v / scale), -zero_point, 255 - zero_point).astype(np.int64), scale

    def sigmoid(v: Array) -> Array:
        return half + half * np.tanh(v * half)

    def clipped(v: Array) -> Array:
        return v if op.clip is None else np.clip(v, -np.float32(op.clip), np.float32(op.clip))

    layers = []
    hidden, batch = r.shape[1], x.shape[1]
    for j in range(op.n_directions):
        backward = op.direction == "reverse" or j == 1
        h, c = (given_[n][j] if n in given_ else np.zeros((batch, hidden), np.float32) for n in "hc")
        bias = given_["bias"][j] if "bias" in given_ and fault != "no bias" else np.zeros(8 * hidden, np.float32)
        p = (
            given_["p"][j].reshape(3, hidden)
            if "p" in given_ and fault != "no peepholes"
            else np.zeros((3, hidden), np.float32)
        )
        (w_j, s_w), (r_j, s_r) = (
            (
                a[j].astype(np.int64) - np.array(q.zero_point)[j if q.axis == 0 else slice(None)],
                np.array(q.scale, np.float32)[j if q.axis == 0 else slice(None)],
            )
            for a, q in ((w, q_w), (r, q_r))
        )
        x_q, scale_x = dynamic(x)
        from_x = (x_q @ w_j).astype(np.float32) * (scale_x * s_w)
        ys = []
        for t in reversed(range(x.shape[0])) if backward else range(x.shape[0]):
            h_q, scale_h = dynamic(h)
            z = from_x[t] + (h_q @ r_j).astype(np.float32) * (scale_h * s_r)
            if fault == "state not quantized":
                z = from_x[t] + h @ (r_j.astype(np.float32) * s_r)
            z = z + (bias[: 4 * hidden] + bias[4 * hidden :])
            blocks = [z[:, k * hidden : (k + 1) * hidden] for k in range(4)]
            if fault == "gates in another order":
                blocks = [blocks[0], blocks[2], blocks[1], blocks[3]]
            i = sigmoid(clipped(blocks[0] + p[0] * c))
            f = one - i if op.input_forget and fault != "own forget gate" else sigmoid(clipped(blocks[2] + p[2] * c))
            c = (f * c + i * np.tanh(clipped(blocks[3]))).astype(np.float32)
            h = (sigmoid(clipped(blocks[1] + p[1] * c)) * np.tanh(clipped(c))).astype(np.float32)
            ys.append(h)
        layers.append(np.stack(ys[::-1] if backward else ys) if op.output == "y" else h if op.output == "y_h" else c)
    return np.stack(layers, axis=1 if op.output == "y" else 0)


def _outside(case: Case, y: Array) -> bool:
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["lstm"])
    return not bool(((allowed.lo <= y) & (y <= allowed.hi)).all())


def _cases(n: int) -> list[Case]:
    return [c for c in (random_case("lstm", seed) for seed in range(n)) if c.inputs[0].array.size]


def test_a_float32_kernel_is_admissible() -> None:
    for case in _cases(300):
        assert not _outside(case, _kernel(case)), case


def test_nothing_is_said_where_float32_overflows() -> None:
    case = next(c for c in _cases(20) if c.inputs[0].array.any())
    case = Case(case.network, (Tensor(np.full_like(case.inputs[0].array, 3e38)), *case.inputs[1:]))
    (node,) = case.network.nodes
    received = [case.feeds[i].array if i in case.feeds else None for i in node.inputs]
    allowed = Reference(case).node(node, received, contracts_of("qoperator", "all")["lstm"])
    counts, bad = judge(np.full(allowed.lo.shape, np.nan, dtype=np.float32), allowed)
    assert (counts.violation, len(bad)) == (0, 0)


FAULTS = {
    "no bias": lambda c: "c2" in c.arrays,
    "no peepholes": lambda c: "c5" in c.arrays,
    "weight off by one": lambda c: True,
    "gates in another order": lambda c: True,
    "own forget gate": lambda c: c.network.nodes[0].op.input_forget,
    "state not quantized": lambda c: c.inputs[0].array.shape[0] > 1,
}


@pytest.mark.parametrize("alone", [True, False], ids=["one row", "more rows"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_outside(fault: str, alone: bool) -> None:
    """Where it can show, mostly, but that nothing tells a row of several from one that was quantized otherwise."""
    batches = [c for c in _cases(240) if FAULTS[fault](c) and (c.inputs[0].array.shape[1] == 1) == alone]
    found = sum(_outside(c, _kernel(c, fault)) for c in batches)
    print(f"{fault}, {'one row' if alone else 'more rows'}: {found} of {len(batches)}")
    assert found >= len(batches) / (3 if alone else 8)
