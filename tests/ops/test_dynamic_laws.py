"""Laws of dynamic_quantize and dynamic_linear: of the exact values, and of what is admissible next to them."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of

from qfuzz.arithmetic.cause import cause_of
from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.dynamic import DynamicLinear, DynamicQuantize, Output
from qfuzz.ops.linear import Linear
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.check import check_one, judge
from qfuzz.oracle.reference import Reference, exact_outputs
from qfuzz.reduce.driver import reduce_case
from qfuzz.strategies import fill

Array = np.ndarray[Any, Any]
KERNEL = Contract(terms="real", k=3, tie="half_even", source="test")
LINEAR_KERNEL = Contract(terms="accumulator", k=6, tie="half_even", source="test")


def _quantize(x: Array, output: Output = "y") -> Array:
    return apply(DynamicQuantize(output=output), [(x, "float32")], "float32" if output == "scale" else "uint8")


def _allowed(x: Array, output: Output = "y", contract: Contract = KERNEL) -> Admissible:
    element: Element = "float32" if output == "scale" else "uint8"
    return _set(DynamicQuantize(output=output), [(x, "float32")], element, contract)


def _set(op: ExactOperator, operands: list[tuple[Array, Element]], out: Element, contract: Contract) -> Admissible:
    points = [Operand.point(TensorType(a.shape, e), a) for a, e in operands]
    return admissible(op.image(points, out), contract, out, FilterCount())


@st.composite
def data(draw: st.DrawFn, kinds: tuple[int, ...] = tuple(range(fill.N_RANGES))) -> Array:
    """float32 data of some kind of range."""
    shape = draw(st.sampled_from([(1,), (2,), (3, 4), (5, 17), (8, 64)]))
    exponent = draw(st.sampled_from([0, 0, 0, 3, -7, 60, -100]))
    return fill.ranged(draw(st.integers(0, 2**64 - 1)), draw(st.sampled_from(kinds)), shape, 2.0**exponent)


BODY = (np.float32(0), np.float32(255))


def function_body(x: Array) -> tuple[Array, np.float32, np.float32]:
    """y, scale and zero point as the function body of DynamicQuantizeLinear computes them in float32."""
    low, high = np.minimum(x.min(), BODY[0]), np.maximum(x.max(), BODY[0])
    scale = (high - low) / BODY[1] if high != low else np.float32(1)
    zero = np.rint(np.clip(BODY[0] - low / scale, *BODY))
    return np.clip(np.rint(x / scale) + zero, *BODY), scale, zero


@LAW
@given(x=data())
def test_zero_is_stored_as_the_zero_point(x: Array) -> None:
    x = np.append(x.ravel(), np.float32(0))
    assert _quantize(x)[-1] == _quantize(x, "zero_point")


@LAW
@given(x=data())
def test_it_is_monotone_and_fills_the_range(x: Array) -> None:
    y = _quantize(x).ravel().astype(int)
    assert (np.diff(y[np.argsort(x.ravel(), kind="stable")]) >= 0).all()
    if x.any() and x.min() <= 0 <= x.max():
        assert y.max() - y.min() in (254, 255)


@LAW
@given(x=data(), order=st.randoms(use_true_random=False))
def test_order_makes_no_difference(x: Array, order: Any) -> None:
    flat = x.ravel()
    moved = np.array(order.sample(range(flat.size), flat.size))
    assert np.array_equal(_quantize(flat[moved]), _quantize(flat)[moved])


@LAW
@given(x=data((fill.BOTH_SIGNS, fill.POSITIVE, fill.NEAR_TIES, fill.OFFSET)), exponent=st.integers(-10, 10))
def test_a_power_of_two_goes_to_the_scale(x: Array, exponent: int) -> None:
    larger = (x * np.float32(2.0**exponent)).astype(np.float32)
    assert np.array_equal(_quantize(larger), _quantize(x))
    assert _quantize(larger, "scale") == _quantize(x, "scale") * np.float32(2.0**exponent)


@LAW
@given(x=data())
def test_dequantized_data_are_within_half_a_step_and_what_saturation_costs(x: Array) -> None:
    """The zero point is off by half a step at most, so that saturation costs no more than that, too."""
    y, zero = _quantize(x).astype(int), int(_quantize(x, "zero_point"))
    values = [Fraction(float(v)) for v in x.ravel()]
    scale = (max(0, *values) - min(0, *values)) / 255
    for v, q in zip(values, y.ravel().tolist(), strict=True):
        assert abs(v - (q - zero) * scale) <= scale


@LAW
@given(x=data())
def test_the_function_body_in_float32_is_admissible(x: Array) -> None:
    y, scale, zero = function_body(x)
    for output, got in (("y", y.astype(np.uint8)), ("zero_point", zero.astype(np.uint8)), ("scale", scale)):
        counts, _ = judge(np.asarray(got), _allowed(x, output))  # type: ignore[arg-type]
        assert counts.violation == 0, output


@LAW
@given(x=data(), times=st.sampled_from([1.0, 3.0, 7.0]))
def test_a_kernel_with_a_reciprocal_needs_one_rounding_more(x: Array, times: float) -> None:
    x = (x * np.float32(times)).astype(np.float32)
    _, scale, zero = function_body(x)
    if not np.isfinite(1 / scale):
        return
    y = np.clip(np.rint(x * (np.float32(1) / scale)) + zero, *BODY).astype(np.uint8)
    contract = Contract(terms="real", k=4, tie="half_even", source="test")
    assert judge(y, _allowed(x, contract=contract))[0].violation == 0


def _half_away(v: Array) -> Array:
    return np.trunc(v + np.copysign(np.float32(0.5), v))


def _with(round_x: Callable[[Array], Array], round_zero: Callable[[Array], Array], levels: float = 255) -> Any:
    def kernel(x: Array) -> Array:
        low, high = np.minimum(x.min(), BODY[0]), np.maximum(x.max(), BODY[0])
        scale = (high - low) / np.float32(levels)
        zero = round_zero(np.clip(-low / scale, *BODY))
        return np.asarray(np.clip(round_x(x / scale) + zero, *BODY).astype(np.uint8))

    return kernel


def _adds_first(x: Array) -> Array:
    _, scale, zero = function_body(x)
    return np.asarray(np.clip(np.rint(x / scale + zero), *BODY).astype(np.uint8))


FAULTS: dict[str, Callable[[Array], Array]] = {
    "half away": _with(_half_away, np.rint),
    "truncation": _with(np.trunc, np.rint),
    "zero point truncated": _with(np.rint, np.trunc),
    "zero point half away": _with(np.rint, _half_away),
    "256 levels": _with(np.rint, np.rint, 256),
    "zero point added first": _adds_first,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen_where_arithmetic_is_exact(fault: str) -> None:
    seen, shape = 0, (8, 32)
    for key in range(1, 60):
        x = fill.ranged(key, fill.EXACT_SCALE, shape, 2.0 ** (key % 5 - 2))
        allowed = _allowed(x)
        assert allowed.lo is allowed.hi
        assert judge(_with(np.rint, np.rint)(x), allowed)[0].violation == 0
        seen += judge(FAULTS[fault](x), allowed)[0].violation > 0
    assert seen >= 5


def test_little_is_left_open_next_to_ties() -> None:
    """Of data a few ulps from a tie, most are; of others, those whose zero point is next to a tie."""
    for kind, least, most in ((fill.NEAR_TIES, 0.3, 1.0), (fill.OFFSET, 0.0, 0.001), (fill.POSITIVE, 0.0, 0.001)):
        sets = [_allowed(fill.ranged(key, kind, (64, 64), 1.0)) for key in range(1, 20)]
        share = np.mean([(s.hi.astype(int) - s.lo).mean() for s in sets])
        assert least <= share <= most, kind
        assert max((s.hi.astype(int) - s.lo).max() for s in sets) <= 2


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 0, 3)])
def test_nothing_but_zero_leaves_the_scale_to_the_kernel(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, dtype=np.float32)
    assert not _quantize(x).any() and _quantize(x, "zero_point") == 0
    assert _allowed(x).hi.max(initial=0) == 0 and _allowed(x, "zero_point").hi == 0
    scale = _allowed(x, "scale")
    assert (scale.lo, scale.hi) == (0.0, FLOAT32_MAX)
    assert judge(np.float32("nan").reshape(()), scale)[0].violation == 1


@pytest.mark.parametrize("x", [[-FLOAT32_MAX, FLOAT32_MAX], [2.0**-149, 0.0], [-(2.0**-141), 0.0]])
def test_where_float32_has_no_such_scale_anything_is_admissible(x: list[float]) -> None:
    values = np.array([x], dtype=np.float32)
    allowed = _allowed(values)
    assert (allowed.lo.min(), allowed.hi.max()) == (0, 255)
    w = QType.per_tensor("int8", 1.0, 0)
    operands: list[tuple[Array, Element]] = [(values, "float32"), (np.ones((1, 2), np.int8), w)]
    product = _set(DynamicLinear(), operands, "float32", LINEAR_KERNEL)
    for got in (np.nan, np.inf, -np.inf, 0.0):
        assert judge(np.array([[got]], dtype=np.float32), product)[0].violation == 0


def test_what_is_not_defined_is_none_of_what_reads_it_either() -> None:
    """Bounds of uncertain data may be infinite."""
    infinite = np.full((2, 3), np.inf)
    x = Operand(TensorType((2, 3), "float32"), -infinite, infinite)
    y = admissible(DynamicQuantize().image([x], "uint8"), KERNEL, "uint8", FilterCount())
    assert (y.lo == 0).all() and (y.hi == 255).all()
    w = Operand.point(TensorType((1, 3), QType.per_tensor("int8", 1.0, 0)), np.ones((1, 3), np.int8))
    product = admissible(DynamicLinear().image([x, w], "float32"), LINEAR_KERNEL, "float32", FilterCount())
    assert np.isneginf(product.lo).all() and np.isposinf(product.hi).all()


@st.composite
def weights(draw: st.DrawFn, features: int) -> tuple[Array, QType]:
    dtype = draw(st.sampled_from(("int8", "uint8")))
    m = draw(st.integers(1, 4))
    per_channel = draw(st.booleans())
    n = m if per_channel else 1
    q = QType(dtype, (0.5, 0.3125, 2.0, 0.0625)[:n], (0, 3, 100, 1)[:n], 0 if per_channel else None)
    return fill.quantized(draw(st.integers(1, 2**60)), fill.UNIFORM, (m, features), dtype, 0), q


@LAW
@given(given=st.data())
def test_dynamic_linear_is_linear_on_what_dynamic_quantize_gives(given: st.DataObject) -> None:
    x = given.draw(data((fill.EXACT_SCALE,)).filter(lambda a: a.ndim == 2 and a.any()))
    w, q_w = given.draw(weights(x.shape[-1]))
    y, scale, zero = (_quantize(x, o) for o in ("y", "scale", "zero_point"))
    q_x = QType.per_tensor("uint8", float(scale), int(zero))
    static = _set(Linear(), [(y, q_x), (w, q_w)], "float32", LINEAR_KERNEL)
    dynamic = _set(DynamicLinear(), [(x, "float32"), (w, q_w)], "float32", LINEAR_KERNEL)
    assert static.exact is not None and dynamic.exact is not None
    assert np.array_equal(static.exact, dynamic.exact)


def _integer_product(x: Array, w: Array, q_w: QType, bias: Array) -> tuple[Array, Array]:
    """The accumulators, and the float32 results of a kernel of six roundings."""
    y, scale, zero = function_body(x)
    zero_w = np.array(q_w.zero_point).reshape(-1, 1)
    acc = (y.astype(np.int64) - int(zero)) @ (w.astype(np.int64) - zero_w).T
    return acc, acc.astype(np.float32) * (scale * np.array(q_w.scale, dtype=np.float32)) + bias


@LAW
@given(given=st.data())
def test_a_float32_kernel_is_admissible_and_one_accumulator_off_is_not(given: st.DataObject) -> None:
    x = given.draw(data().filter(lambda a: a.ndim == 2))
    w, q_w = given.draw(weights(x.shape[-1]))
    bias = np.array([0.0, 1.5, -3e-3, 100.0], dtype=np.float32)[: w.shape[0]]
    acc, got = _integer_product(x, w, q_w, bias)
    operands: list[tuple[Array, Element]] = [(x, "float32"), (w, q_w), (bias, "float32")]
    allowed = _set(DynamicLinear(), operands, "float32", LINEAR_KERNEL)
    assert judge(got, allowed)[0].violation == 0
    known = _allowed(x)
    if not x.any() or known.lo is not known.hi:
        return
    _, scale, _ = function_body(x)
    off = ((acc + 1) * (float(scale) * np.array(q_w.scale)) + bias).astype(np.float32)
    near = np.abs(acc) * 2.0**-20 < 1  # an accumulator of 22 bits is not told from the next one
    tiny = float(scale) * min(q_w.scale) < np.abs(bias) * 2.0**-20
    _, bad = judge(off, allowed)
    assert {tuple(i) for i in bad.tolist()} >= {tuple(i) for i in np.argwhere(near & ~tiny).tolist()}


def test_data_of_zeros_give_the_bias() -> None:
    x, w = np.zeros((2, 3), np.float32), np.full((4, 3), 7, np.int8)
    bias = np.array([0.0, 1.1, -3e-30, 2e30], dtype=np.float32)
    operands: list[tuple[Array, Element]] = [(x, "float32"), (w, QType.per_tensor("int8", 0.1 + 0.4, 3)),
                                             (bias, "float32")]  # fmt: skip
    allowed = _set(DynamicLinear(), operands, "float32", LINEAR_KERNEL)
    assert np.array_equal(allowed.lo, np.broadcast_to(bias, (2, 4))) and np.array_equal(allowed.hi, allowed.lo)


@LAW
@given(given=st.data())
def test_linear_to_float32_is_what_requantizing_rounds(given: st.DataObject) -> None:
    q = QType.per_tensor("uint8", 0.25, given.draw(st.integers(0, 255)))
    x = fill.quantized(given.draw(st.integers(1, 2**60)), fill.UNIFORM, (3, 4), "uint8", 0)
    w, q_w = given.draw(weights(4))
    out = QType.per_tensor("int8", 8.0, 3)
    real = _set(Linear(), [(x, q), (w, q_w)], "float32", LINEAR_KERNEL).exact
    stored = _set(Linear(), [(x, q), (w, q_w)], out, LINEAR_KERNEL).exact
    assert real is not None and stored is not None
    assert np.array_equal(np.clip(np.rint(real / 8.0) + 3, -128, 127), stored)


def test_types_are_checked() -> None:
    q = QType.per_tensor("uint8", 1.0, 0)
    with pytest.raises(InvalidCase, match="dynamic_quantize 'y': x: needs float32 elements, got uint8"):
        network_of(DynamicQuantize(), [((2,), q)], "uint8")
    with pytest.raises(InvalidCase, match="output: uint8 elements; 'scale' is plain float32"):
        network_of(DynamicQuantize(output="scale"), [((2,), "float32")], "uint8")
    with pytest.raises(InvalidCase, match="output: uint8 elements; 'y' is plain uint8"):
        network_of(DynamicQuantize(), [((2,), "float32")], q)
    op = DynamicLinear()
    x, w = TensorType((2, 3), "float32"), TensorType((4, 3), QType.per_tensor("int8", 1.0, 0))
    assert op.infer([x, w], "float32") == (2, 4)
    for inputs, words in (
        ([TensorType((3,), "float32"), w], "rank 2 or more"),
        ([x, TensorType((4, 2), w.element)], r"needs \[M, 3\]"),
        ([x, TensorType((4, 3), QType("int8", (1.0,) * 3, (0,) * 3, 1))], "scales on axis 1"),
        ([x, w, TensorType((4,), "int32")], "bias: int32"),
        ([x, w, TensorType((3,), "float32")], "bias: float32 of shape"),
    ):
        with pytest.raises(InvalidCase, match=words):
            op.infer(inputs, "float32")
    with pytest.raises(InvalidCase, match="its quantization is a node of its own"):
        op.infer([x, w], q)


@pytest.mark.parametrize("op", ["dynamic_linear", "linear"])
def test_saturated_pairs_are_a_violation_with_their_cause(op: str) -> None:
    """As kernels without VNNI sum them: 211 * 71 + 171 * 107 = 33278 is beyond 16 bits."""
    w, x = np.array([[71, 107, 0]], dtype=np.int8), np.array([[211, 171, 255]], dtype=np.uint8)
    q = QType.per_tensor("uint8", 1.0, 0)
    dynamic = op == "dynamic_linear"
    fed = Input("x", TensorType(x.shape, "float32" if dynamic else q))
    weight = Constant("w", TensorType(w.shape, QType.per_tensor("int8", 0.5, 0)), Tensor(w))
    node = Node("y", DynamicLinear() if dynamic else Linear(), ("x", "w"), "float32")
    case = Case(Network((fed,), (weight,), (node,), ("y",)), (Tensor(x.astype(fed.type.dtype)),))
    (right,) = exact_outputs(case)["y"].ravel()
    backend = PlantedBackend("int16-pair-saturation")
    verdict = check_one(case, backend, Reference(case), explain=cause_of)
    assert right == 33278 / 2
    assert [(m.got, m.exact) for m in verdict.mismatches] == [(32767 / 2, right)]
    assert verdict.cause == "int16-pair-saturation"
    assert check_one(case, PlantedBackend(), Reference(case)).counts.exact == 1


@pytest.mark.parametrize("output", ["y", "scale", "zero_point"])
def test_wrong_outputs_are_reduced_to_little_data(output: Output) -> None:
    """Whatever follows the data in shape is cut with it; a scalar follows nothing."""
    x = fill.ranged(7, fill.POSITIVE, (3, 5), 1.0)
    element: Element = "float32" if output == "scale" else "uint8"
    network = network_of(DynamicQuantize(output=output), [(x.shape, "float32")], element)
    second = Input("x1", TensorType(x.shape, "float32"))
    nodes = (*network.nodes, Node("z", DynamicQuantize(output=output), ("x1",), element))
    case = Case(Network((*network.inputs, second), (), nodes, ("y", "z")), (Tensor(x), Tensor(x)))
    reduced = reduce_case(case, lambda c: any(t.array.any() for t in c.inputs))
    assert len(reduced.case.network.nodes) == 1
    assert reduced.case.n_elements == 1
