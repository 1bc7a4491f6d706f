"""Weights that FBGEMM's older layers make of reals: those that the reals are next to, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfuzz.backends.torch_int8_weights import quantizes_back
from qfuzz.ir.network import Constant, Input, Network, Node
from qfuzz.ir.qtype import QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.dynamic import DynamicLinear

torch = pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")


def network(weight: np.ndarray, scale: float, zero_point: int) -> Network:
    q = QType.per_tensor("int8", scale, zero_point)
    x = Input("x", TensorType((1, weight.shape[1]), "float32"))
    w = Constant("w", TensorType(weight.shape, q), Tensor(weight))
    return Network((x,), (w,), (Node("y", DynamicLinear(chosen_as="torch"), ("x", "w"), "float32"),), ("y",))


@pytest.mark.filterwarnings("ignore:fbgemm")
@given(st.integers(0, 2**32 - 1), st.floats(2.0**-13, 2.0**20).map(float32), st.integers(-128, 127))
def test_a_weight_with_both_ends_becomes_itself(seed: int, scale: float, zero_point: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (int(rng.integers(1, 5)), int(rng.integers(2, 9))), dtype=np.int8)
    weight[0, 0], weight[-1, -1] = -128, 127
    if not quantizes_back(network(weight, scale, zero_point), ("w",)):
        return
    centered = weight.astype(np.int32) - zero_point
    off = (weight.astype(np.float32) % 3 - 1) * np.float32(0.375)
    reals = torch.from_numpy(centered.astype(np.float32) + off) * scale
    got, sums, s, z = torch.fbgemm_linear_quantize_weight(reals)
    assert (s, z) == (scale, zero_point)
    np.testing.assert_array_equal(got.numpy(), weight)
    np.testing.assert_array_equal(sums.numpy(), centered.sum(axis=1))


@pytest.mark.parametrize("zero_point", [0, -128, 127, 5])
def test_powers_of_two_do_so_and_a_weight_without_an_end_does_not(zero_point: int) -> None:
    weight = np.array([[-128, 3], [0, 127]], dtype=np.int8)
    assert all(quantizes_back(network(weight, 2.0**e, zero_point), ("w",)) for e in range(-13, 20))
    assert not quantizes_back(network(weight, 2.0**-14, zero_point), ("w",)), "a scale is at least 6.1e-5"
    assert not quantizes_back(network(np.clip(weight, -127, 127), 0.5, zero_point), ("w",))
