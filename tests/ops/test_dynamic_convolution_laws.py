"""Laws of dynamic convolutions: next to the layers of quantized data, and to dynamic_linear."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic import Chooser, DynamicLinear, DynamicQuantize
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.semantics import ExactOperator, Operand
from qfuzz.oracle.admissible import admissible
from qfuzz.strategies import fill

Array = np.ndarray[Any, Any]
EXACT = Contract(terms="exact", k=0, tie="half_even", source="test")
Q_W = QType.per_tensor("int8", 0.5, 0)


def _of(op: ExactOperator, x: Array, w: Array, q: QType = Q_W) -> Array:
    operands: list[tuple[Array, Element]] = [(x, "float32"), (w, q)]
    points = [Operand.point(TensorType(a.shape, e), a) for a, e in operands]
    exact = admissible(op.image(points, "float32"), EXACT, "float32", FilterCount()).exact
    assert exact is not None
    return exact


def _conv(spatial: int, **attributes: Any) -> DynamicConv:
    plain = {"strides": (1,) * spatial, "padding": (0,) * (2 * spatial), "dilations": (1,) * spatial}
    return DynamicConv(**(plain | attributes))


def _transposed(spatial: int, **attributes: Any) -> DynamicConvTranspose:
    plain = {"strides": (1,) * spatial, "padding": (0,) * (2 * spatial), "dilations": (1,) * spatial}
    return DynamicConvTranspose(**(plain | {"output_padding": (0,) * spatial} | attributes))


data = st.builds(
    lambda key, kind: fill.ranged(key, kind, (2, 4, 5), 1.0),
    st.integers(1, 2**60),
    st.sampled_from(range(fill.N_RANGES)),
)
choosers = st.sampled_from(("onnx", "torch"))


@LAW
@given(x=data, key=st.integers(1, 2**60), chosen_as=choosers)
def test_a_kernel_of_one_is_a_linear_layer_of_channels(x: Array, key: int, chosen_as: Chooser) -> None:
    w = fill.quantized(key, fill.UNIFORM, (3, 4), "int8", 0)
    linear = _of(DynamicLinear(chosen_as=chosen_as), np.ascontiguousarray(x.transpose(0, 2, 1)), w).transpose(0, 2, 1)
    assert np.array_equal(_of(_conv(1, chosen_as=chosen_as), x, w.reshape(3, 4, 1)), linear)
    transposed = np.ascontiguousarray(w.T).reshape(4, 3, 1)
    assert np.array_equal(_of(_transposed(1, chosen_as=chosen_as), x, transposed), linear)


@LAW
@given(x=data, key=st.integers(1, 2**60), padding=st.integers(0, 2), groups=st.sampled_from((1, 2, 4)))
def test_it_is_the_convolution_of_what_dynamic_quantize_gives(x: Array, key: int, padding: int, groups: int) -> None:
    y, zero = (apply(DynamicQuantize(output=o), [(x, "float32")], "uint8") for o in ("y", "zero_point"))
    centered = y.astype(np.float64) - float(zero)
    span = max(float(x.max()), 0.0) - min(float(x.min()), 0.0)
    w = fill.quantized(key, fill.UNIFORM, (4, 4 // groups, 3), "int8", 0)
    got = _of(_conv(1, padding=(padding, padding), groups=groups), x, w)
    padded = np.pad(centered, ((0, 0), (0, 0), (padding, padding)))
    for m in range(4):
        first = m * groups // 4 * (4 // groups)
        parts = padded[:, first : first + 4 // groups]
        acc = sum((parts[..., k : k + got.shape[2]] * w[m, :, k, None]).sum(axis=1) for k in range(3))
        assert np.allclose(got[:, m], acc * (span / 255 * 0.5), rtol=1e-6, atol=0)


@LAW
@given(x=data, key=st.integers(1, 2**60))
def test_groups_share_the_scales_of_a_transposed_weight(x: Array, key: int) -> None:
    w = fill.quantized(key, fill.UNIFORM, (4, 3, 2), "int8", 0)
    scales = (0.5, 2.0, 0.0625)
    got = _of(_transposed(1, groups=2), x, w, QType("int8", scales, (0, 0, 0), 1))
    plain = _of(_transposed(1, groups=2), x, w, QType.per_tensor("int8", 1.0, 0))
    assert np.array_equal(got, plain * np.array(scales * 2)[:, None])


def test_types_are_checked() -> None:
    x, w = TensorType((1, 2, 4), "float32"), TensorType((3, 2, 2), Q_W)
    assert _conv(1).infer([x, w], "float32") == (1, 3, 3)
    assert _transposed(1).infer([x, TensorType((2, 3, 2), Q_W)], "float32") == (1, 3, 5)
    with pytest.raises(InvalidCase, match="x: needs float32 elements"):
        _conv(1).infer([TensorType((1, 2, 4), Q_W), w], "float32")
    with pytest.raises(InvalidCase, match="its quantization is a node of its own"):
        _conv(1).infer([x, w], QType.per_tensor("uint8", 1.0, 0))
    with pytest.raises(InvalidCase, match="divides the range by 255"):
        _conv(1, reduce_range=True).infer([x, w], "float32")
