"""Laws of dynamic_nbits_linear: next to dynamic_linear, and to a kernel in float32 as torch has it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW

from qfuzz.backends.torch_export_contracts import EXPORT_CONTRACTS
from qfuzz.exact.floating import FORMATS, nearest
from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType, Real
from qfuzz.ir.tensor import DTYPES, TensorType
from qfuzz.ops.dynamic import DynamicLinear
from qfuzz.ops.dynamic_nbits import DynamicNbitsLinear
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.check import judge
from qfuzz.strategies import fill

Array = np.ndarray[Any, Any]
Operands = list[tuple[Array, Element]]
KERNEL = EXPORT_CONTRACTS["dynamic_nbits_linear"]
f32 = np.float32


def _set(operands: Operands, contract: Contract = KERNEL, op: ExactOperator | None = None) -> Admissible:
    points = [Operand.point(TensorType(a.shape, e), a) for a, e in operands]
    real: Any = operands[0][1]
    return admissible((op or DynamicNbitsLinear()).image(points, real), contract, real, FilterCount())


def quantized_row(row: Array) -> tuple[Array, int, np.float32]:
    """Stored integers, zero point and scale as ref_dyn_quant_matmul_4bit_* computes them in float32."""
    low, high = np.minimum(row.min(), f32(0)), np.maximum(row.max(), f32(0))
    per_step = f32(1) if low == high else f32(255) / (high - low)
    below, above = low * per_step, high * per_step
    from_low = (f32(-128) + below) + (f32(127) + above) > 0
    zero = int(np.rint(np.clip(f32(-128) - below if from_low else f32(127) - above, f32(-128), f32(127))))
    steps = row * per_step
    away = np.copysign(np.floor(np.abs(steps.astype(np.float64)) + 0.5), steps).astype(np.int64)
    return np.clip(away + zero, -128, 127), zero, f32(1) / per_step


def kernel(x: Array, w: Array, scales: Array, bias: Array) -> Array:
    """The float32 results; `scales` [channels, groups]."""
    out = np.zeros((len(x), len(w)), f32)
    groups = w.astype(np.int64).reshape(len(w), scales.shape[1], -1)
    for i, row in enumerate(x):
        stored, zero, scale = quantized_row(row)
        acc = np.einsum("gk,cgk->cg", (stored - zero).reshape(groups.shape[1:]), groups).astype(f32)
        total = np.zeros(len(w), f32)
        for g in range(scales.shape[1]):
            total = total + acc[:, g] * scales[:, g]
        out[i] = total * scale + bias
    return out


@st.composite
def layers(draw: st.DrawFn, kinds: tuple[int, ...] = tuple(range(fill.N_RANGES))) -> tuple[Array, Array, Array, Array]:
    """x, each row of a range of its own, weight, scales [channels, groups], bias."""
    group = draw(st.sampled_from([0, 32]))
    features = group * draw(st.integers(1, 3)) or draw(st.sampled_from([1, 2, 3, 8, 17]))
    key, kind = draw(st.integers(1, 2**60)), draw(st.sampled_from(kinds))
    exponent = draw(st.sampled_from([0, 0, 0, 3, -7, 60, -100]))
    x = np.array([fill.ranged(key + i, kind, (features,), 2.0**exponent) for i in range(draw(st.integers(1, 4)))])
    w = fill.quantized(draw(st.integers(1, 2**60)), fill.UNIFORM, (draw(st.integers(1, 4)), features), "int4", 0)
    count = len(w) * (features // group if group else 1)
    scales = (1 + fill.below(fill.words(key, count), 2**20) * 2.0**-20).astype(f32).reshape(len(w), -1)
    bias = np.array([0.0, 1.5, -3e-3, 100.0], f32)[: len(w)] * f32(2.0**exponent * draw(st.integers(0, 1)))
    return x, w, scales, bias


def _operands(x: Array, w: Array, scales: Array, bias: Array, real: Real = "float32") -> Operands:
    n_groups, flat = scales.shape[1], tuple(map(float, scales.ravel()))
    axis, block = (1, w.shape[1] // n_groups) if n_groups > 1 or w.shape[1] == 32 else (0, 0)
    q = QType("int4", flat, (0,) * len(flat), axis, block)
    return [(x.astype(DTYPES[real]), real), (w, q), (bias, "float32")]


@LAW
@given(layer=layers())
def test_a_row_is_a_dynamic_linear_of_its_own(layer: tuple[Array, Array, Array, Array]) -> None:
    x, w, scales, bias = layer
    if scales.shape[1] > 1:
        return
    got = _set(_operands(*layer)).exact
    assert got is not None
    q = QType("int8", tuple(map(float, scales.ravel())), (0,) * len(w), 0)
    for row, y in zip(x, got, strict=True):
        alone = _set([(row[None], "float32"), (w.astype(np.int8), q), (bias, "float32")], op=DynamicLinear())
        assert alone.exact is not None and np.array_equal(alone.exact[0], y)


@LAW
@given(layer=layers())
def test_the_kernel_in_float32_is_admissible(layer: tuple[Array, Array, Array, Array]) -> None:
    assert judge(kernel(*layer), _set(_operands(*layer)))[0].violation == 0


@LAW
@given(layer=layers())
def test_of_bfloat16_its_result_rounded_is(layer: tuple[Array, Array, Array, Array]) -> None:
    x, w, scales, bias = layer
    if scales.shape[1] > 1 or w.shape[1] == 32:
        return
    x = x.astype(DTYPES["bfloat16"]).astype(f32)
    got = nearest(kernel(x, w, scales, bias).astype(np.float64), FORMATS["bfloat16"]).astype(DTYPES["bfloat16"])
    assert judge(got.astype(np.float64), _set(_operands(x, w, scales, bias, "bfloat16")))[0].violation == 0


@LAW
@given(layer=layers((fill.NEAR_TIES, fill.BOTH_SIGNS)))
def test_groups_of_one_scale_are_a_channel(layer: tuple[Array, Array, Array, Array]) -> None:
    x, w, scales, bias = layer
    one = np.broadcast_to(scales[:, :1], scales.shape)
    grouped, whole = (_set(_operands(x, w, s, bias)).exact for s in (one, scales[:, :1]))
    assert grouped is not None and whole is not None and np.array_equal(grouped, whole)


@LAW
@given(layer=layers((fill.EXACT_SCALE, fill.BOTH_SIGNS)))
def test_a_step_more_is_a_violation(layer: tuple[Array, Array, Array, Array]) -> None:
    """Of rows without ties, whose scale is exact: a weight that is off by one, where it counts."""
    x, w, scales, bias = layer
    if w.shape[1] > 17 or bias.any():
        return
    stored, zero, _ = quantized_row(x[0])
    wrong = w.astype(np.int64)
    wrong[:, 0] += np.where(wrong[:, 0] == 7, -1, 1)
    allowed = _set(_operands(x, w, scales, bias))
    told = allowed.lo[0] * (1 + 2.0**-18) >= allowed.hi[0]
    counts = judge(kernel(x[:1], wrong, scales, bias), Admissible(allowed.lo[:1], allowed.hi[:1], None))[0]
    if told.all() and stored[0] != zero and np.ptp(x[0]) > 0:
        assert counts.violation == len(w)


def test_the_kernel_reaches_what_fewer_roundings_do_not() -> None:
    """So that the contract's k counts: a scale of one rounding, or none after it, does not hold."""
    found = {3: 0, 5: 0}
    for key in range(1, 200):
        x = np.array([fill.ranged(key, fill.NEAR_TIES, (17,), 1.0)])
        w = fill.quantized(key, fill.UNIFORM, (4, 17), "int4", 0)
        scales = (1 + fill.below(fill.words(key, 4), 2**20) * 2.0**-20).astype(f32).reshape(4, 1)
        bias = np.zeros(4, f32)
        for k in found:
            less = Contract(terms="accumulator", k=k, tie="any", source="test")
            found[k] += judge(kernel(x, w, scales, bias), _set(_operands(x, w, scales, bias), less))[0].violation
    print(found)
    assert found[3] > 0


def test_rows_of_zeros_give_the_bias_and_leave_the_others_alone() -> None:
    x = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]], f32)
    w, scales = np.full((2, 3), -7).astype(DTYPES["int4"]), np.ones((2, 1), f32)
    bias = np.array([1.1, -3e-30], f32)
    allowed, alone = (_set(_operands(a, w, scales, bias)) for a in (x, x[1:]))
    assert np.array_equal(allowed.lo[0], bias.astype(np.float64)) and np.array_equal(allowed.hi[0], allowed.lo[0])
    assert np.array_equal(allowed.lo[1], alone.lo[0]) and np.array_equal(allowed.hi[1], alone.hi[0])


def test_nothing_is_said_of_rows_whose_scale_is_no_normal_number() -> None:
    x = np.array([[1e-38, -1e-38], [3e38, -3e38], [1e-30, 0.0]], f32)
    w, scales = np.ones((1, 2)).astype(DTYPES["int4"]), np.ones((1, 1), f32)
    allowed = _set(_operands(x, w, scales, np.zeros(1, f32)))
    assert np.isinf(allowed.lo[:2]).all() and np.isfinite(allowed.lo[2]).all()


def test_no_rows_give_no_results() -> None:
    w, scales = np.ones((3, 32)).astype(DTYPES["int4"]), np.ones((3, 1), f32)
    assert _set(_operands(np.zeros((0, 32), f32), w, scales, np.zeros(3, f32))).lo.shape == (0, 3)


def test_types_are_checked() -> None:
    op, x = DynamicNbitsLinear(), TensorType((2, 64), "float32")
    half = TensorType((2, 64), "bfloat16")

    def weight(*, dtype: Any = "int4", zero: int = 0, axis: int | None = None, block: int = 0) -> TensorType:
        count = 3 * 64 // block if block else 3 if axis == 0 else 64 if axis == 1 else 1
        return TensorType((3, 64), QType(dtype, (1.0,) * count, (zero,) * count, axis, block))

    assert op.infer([x, weight(axis=1, block=32)], "float32") == (2, 3)
    assert op.infer([half, weight(axis=0), TensorType((3,), "float32")], "bfloat16") == (2, 3)
    for inputs, out, words in (
        ([x, weight()], "bfloat16", "needs float32 or bfloat16, and gives the same"),
        ([TensorType((2, 64), "float16"), weight()], "float16", "x, output: float16"),
        ([x, weight(dtype="int8")], "float32", "weight: int8"),
        ([x, weight(zero=1)], "float32", "needs int4 without zero points"),
        ([x, weight(axis=1)], "float32", "scales on axis 1"),
        ([x, weight(axis=1, block=16)], "float32", "groups of 16 of 64"),
        ([half, weight(axis=1, block=32)], "bfloat16", "and for float32"),
        ([x, weight(), TensorType((2,), "float32")], "float32", "bias: float32 of shape"),
    ):
        with pytest.raises(InvalidCase, match=words):
            op.infer(inputs, out)  # type: ignore[arg-type]
