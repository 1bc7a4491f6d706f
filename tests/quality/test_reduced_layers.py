"""What is seldom drawn of layers shrinks away where a bug does not need it."""

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops.linear import Linear
from qfuzz.oracle.reference import exact_outputs
from qfuzz.reduce.saying_nothing import byte_weights, plain_biases

U8 = QType.per_tensor("uint8", 0.5, 3)


def _case() -> Case:
    weight = QType("int4", (0.25, 0.5), (1, 1), 0)
    bias = QType("int8", (0.125, 1.0), (4, -5), 0)
    constants = (
        Constant("w", TensorType((2, 2), weight), Tensor(np.array([[7, -8], [3, 1]], dtype=DTYPES["int4"]))),
        Constant("b", TensorType((2,), bias), Tensor(np.array([12, 20], dtype=np.int8))),
    )
    node = Node("y", Linear(), ("x", "w", "b"), QType.per_tensor("uint8", 1.0, 100))
    network = Network((Input("x", TensorType((1, 2), U8)),), constants, (node,), ("y",))
    return Case(network, (Tensor(np.array([[9, 200]], dtype=np.uint8)),))


def test_a_bias_with_scales_becomes_counts_of_the_accumulator() -> None:
    case = _case()
    (candidate,) = plain_biases(case)
    simpler = candidate()
    assert simpler.network.types["b"].element == "int32"
    assert simpler.network.constant_data["b"].array.tolist() == [8, 100]
    assert np.array_equal(exact_outputs(simpler)["y"], exact_outputs(case)["y"])
    assert list(plain_biases(simpler)) == []


def test_weights_of_other_widths_become_bytes() -> None:
    case = _case()
    (candidate,) = byte_weights(case)
    simpler = candidate()
    assert simpler.network.types["w"].qtype == QType("int8", (0.25, 0.5), (0, 0), 0)
    assert np.array_equal(exact_outputs(simpler)["y"], exact_outputs(case)["y"])
    assert list(byte_weights(simpler)) == []
