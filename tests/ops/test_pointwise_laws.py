"""Laws of layers with what follows them: an activation alone, a sum with nothing, a layer as it is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, qtypes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.activation import Clamp, Hardswish, LeakyRelu, Relu, Tanh
from qfuzz.ops.convolution import unit_conv
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.linear import Linear
from qfuzz.ops.pointwise import ConvAdd, ConvPointwise, LinearAdd, LinearPointwise
from qfuzz.ops.quantization import Requantize
from qfuzz.oracle.reference import exact_outputs

Array = np.ndarray[Any, Any]
ALONE: dict[str, Operator] = {
    "none": Requantize(),
    "relu": Relu(),
    "hardtanh": Clamp(min=-1.0, max=2.0),
    "leaky_relu": LeakyRelu(negative_slope=0.25),
    "hardswish": Hardswish(),
    "tanh": Tanh(),
    "gelu": Gelu(),
    "gelu_tanh": Gelu(approximate="tanh"),
}
EYE = np.eye(3, dtype=np.int8)


def layer(op: Operator, x: tuple[Array, QType], weight: Array, out: Element, *others: tuple[Array, QType]) -> Array:
    """The correctly rounded output of one node, whose weight has scale 1."""
    fed = [x, *others]
    inputs = tuple(Input(f"x{i}", TensorType(a.shape, q)) for i, (a, q) in enumerate(fed))
    q_w = QType.per_tensor("int8", 1.0, 0)
    constant = Constant("w", TensorType(weight.shape, q_w), Tensor(weight))
    node = Node("y", op, ("x0", "w", *(v.name for v in inputs[1:])), out)
    feeds = tuple(Tensor(a.astype(q.dtype)) for a, q in fed)
    return exact_outputs(Case(Network(inputs, (constant,), (node,), ("y",)), feeds))["y"]


@pytest.mark.parametrize("activation", ALONE)
@given(data=st.data())
@LAW
def test_after_a_layer_that_changes_nothing_an_activation_is_itself(activation: Any, data: st.DataObject) -> None:
    q, out = data.draw(qtypes()), data.draw(qtypes())
    x = data.draw(stored(q, (2, 3)))
    op = LinearPointwise(activation=activation, negative_slope=0.25, min=-1.0, max=2.0)
    assert np.array_equal(layer(op, (x, q), EYE, out), apply(ALONE[activation], [(x, q)], out))


@given(data=st.data())
@LAW
def test_swish_is_least_left_of_zero(data: st.DataObject) -> None:
    q = data.draw(qtypes())
    x = data.draw(stored(q, (4, 3)))
    real = layer(LinearPointwise(activation="swish"), (x, q), EYE, "float32")
    assert (real >= np.float32(-0.27846456)).all()
    stands_for = (x.astype(np.float64) - q.zero_point[0]) * q.scale[0]
    assert np.array_equal(np.sign(real[np.abs(real) > 1e-30]), np.sign(stands_for[np.abs(real) > 1e-30]))


@pytest.mark.parametrize("relu", [False, True])
@given(data=st.data())
@LAW
def test_a_sum_with_zero_is_the_layer(relu: bool, data: st.DataObject) -> None:
    q, other, out = (data.draw(qtypes()) for _ in range(3))
    x = data.draw(stored(q, (2, 3)))
    weight = data.draw(stored(QType.per_tensor("int8", 1.0, 0), (4, 3)))
    nothing = np.full((2, 4), other.zero_point[0])
    added = layer(LinearAdd(relu=relu), (x, q), weight, out, (nothing, other))
    assert np.array_equal(added, layer(Linear(relu=relu), (x, q), weight, out))


@given(data=st.data())
@LAW
def test_convolutions_of_one_pixel_are_products(data: st.DataObject) -> None:
    q, other, out = (data.draw(qtypes()) for _ in range(3))
    x, added = data.draw(stored(q, (2, 3))), data.draw(stored(other, (2, 4)))
    weight = data.draw(stored(QType.per_tensor("int8", 1.0, 0), (4, 3)))
    windows: Any = {name: getattr(unit_conv(1), name) for name in ("strides", "padding", "dilations")}
    pixel = (x[..., None], q)
    followed = layer(ConvPointwise(**windows, activation="hardswish"), pixel, weight[..., None], out)
    assert np.array_equal(followed[..., 0], layer(LinearPointwise(activation="hardswish"), (x, q), weight, out))
    summed = layer(ConvAdd(**windows), pixel, weight[..., None], out, (added[..., None], other))
    assert np.array_equal(summed[..., 0], layer(LinearAdd(), (x, q), weight, out, (added, other)))


@pytest.mark.parametrize(
    ("op", "others", "reason"),
    [
        (LinearPointwise(activation="hardtanh", min=1.0, max=0.0), (), "min is at most max"),
        (LinearPointwise(activation="leaky_relu", negative_slope=0.1), (), "needs a finite float32"),
        (LinearAdd(), ((2, 2),), r"other: shape \(2, 2\)"),
    ],
)
def test_what_is_no_layer_is_refused(op: Operator, others: tuple[tuple[int, ...], ...], reason: str) -> None:
    q = QType.per_tensor("uint8", 1.0, 0)
    x = np.zeros((2, 3), np.uint8)
    with pytest.raises(InvalidCase, match=reason):
        layer(op, (x, q), EYE, q, *((np.zeros(shape, np.uint8), q) for shape in others))
