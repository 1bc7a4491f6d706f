"""Laws of layers whose scale is chosen as PyTorch chooses it: next to ONNX's, and to a float64 chooser by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic import DynamicLinear
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.check import judge
from qfuzz.strategies import fill

Array = np.ndarray[Any, Any]
TORCH = DynamicLinear(chosen_as="torch")
KERNEL = Contract(terms="accumulator", k=7, tie="either_even", source="test", adds_zero_point=True)
THRESHOLD = np.float32(6.1e-5)
Q_W = QType.per_tensor("int8", 0.5, 0)


def _allowed(op: DynamicLinear, x: Array, w: Array) -> Admissible:
    operands: list[tuple[Array, Element]] = [(x, "float32"), (w, Q_W)]
    points = [Operand.point(TensorType(a.shape, e), a) for a, e in operands]
    return admissible(op.image(points, "float32"), KERNEL, "float32", FilterCount())


def _linear(op: DynamicLinear, x: Array, w: Array) -> Array:
    exact = _allowed(op, x, w).exact
    assert exact is not None
    return exact


def chosen(x: Array, steps: int) -> tuple[np.float32, int]:
    """Scale and zero point as QuantUtils.h computes them, in float64 and float32."""
    low, high = min(x.min(initial=0), np.float32(0)), max(x.max(initial=0), np.float32(0))
    scale = (float(high) - float(low)) / steps
    if np.float32(scale) == 0 or np.isinf(np.float32(1) / np.float32(scale)):
        scale = 0.1
    if scale < THRESHOLD:
        if low == 0:
            high = THRESHOLD * np.float32(steps)
        elif high == 0:
            low = -THRESHOLD * np.float32(steps)
        else:
            low = np.float32(low * (THRESHOLD / np.float32(scale)))
        scale = float(THRESHOLD)
    return np.float32(scale), int(np.clip(np.rint(-float(low) / scale), 0, steps))


@st.composite
def data(draw: st.DrawFn, exponents: tuple[int, ...] = (0, 3, -7, -12, -16, -40, -100)) -> Array:
    kind = draw(st.sampled_from(range(fill.N_RANGES)))
    return fill.ranged(draw(st.integers(0, 2**64 - 1)), kind, (5, 17), 2.0 ** draw(st.sampled_from(exponents)))


@LAW
@given(x=data((0, 3, 7)), key=st.integers(1, 2**60))
def test_where_the_range_is_large_enough_it_is_onnx(x: Array, key: int) -> None:
    x[0, 0] = 1.0
    w = fill.quantized(key, fill.UNIFORM, (4, 17), "int8", 0)
    assert np.array_equal(_linear(TORCH, x, w), _linear(DynamicLinear(), x, w))


@LAW
@given(x=data((-16, -40, -100)))
def test_small_data_are_counted_in_the_smallest_scale(x: Array) -> None:
    x = np.clip(x, -(2.0**-8), 2.0**-8).astype(np.float32)  # 255 smallest scales are 0.0155...
    y = _linear(TORCH, x, 2 * np.eye(17, dtype=np.int8))
    assert np.array_equal(np.rint(y / THRESHOLD), y / THRESHOLD)
    assert (np.abs(y - x) <= THRESHOLD).all()


@LAW
@given(x=data(), key=st.integers(1, 2**60), reduce_range=st.booleans())
def test_a_kernel_written_as_torch_writes_it_is_admissible(x: Array, key: int, reduce_range: bool) -> None:
    w = fill.quantized(key, fill.UNIFORM, (4, 17), "int8", 0)
    scale, zero = chosen(x, 127 if reduce_range else 255)
    allowed = _allowed(DynamicLinear(chosen_as="torch", reduce_range=reduce_range), x, w)
    for first in (False, True):
        steps = x * (np.float32(1) / scale)
        stored = np.clip(np.rint(steps + np.float32(zero)) if first else np.rint(steps) + zero, 0, 255)
        acc = (stored.astype(np.int64) - zero) @ w.astype(np.int64).T
        assert judge(acc.astype(np.float32) * (scale * np.float32(0.5)), allowed)[0].violation == 0


@LAW
@given(x=data((0, 3)), key=st.integers(1, 2**60))
def test_a_reduced_range_has_half_the_steps(x: Array, key: int) -> None:
    """Data in 127ths of their range are stored exactly."""
    steps = np.rint(np.clip(x, -8, 8) * 7).astype(np.float32)
    steps[0, :2] = 0, 127
    steps = np.clip(steps, 0, 127)
    w = fill.quantized(key, fill.UNIFORM, (4, 17), "int8", 0)
    got = _linear(DynamicLinear(chosen_as="torch", reduce_range=True), steps, w)
    assert np.array_equal(got, steps @ (w.astype(np.float32) / 2).T)


@LAW
@given(x=data(), key=st.integers(1, 2**60))
def test_a_relu_cuts_what_is_below_zero(x: Array, key: int) -> None:
    w = fill.quantized(key, fill.UNIFORM, (4, 17), "int8", 0)
    assert np.array_equal(
        _linear(DynamicLinear(chosen_as="torch", relu=True), x, w), np.maximum(_linear(TORCH, x, w), 0)
    )


def test_onnx_has_no_reduced_range() -> None:
    types = [TensorType((2, 3), "float32"), TensorType((4, 3), Q_W)]
    with pytest.raises(InvalidCase, match="reduce_range: DynamicQuantizeLinear divides the range by 255"):
        DynamicLinear(reduce_range=True).infer(types, "float32")
