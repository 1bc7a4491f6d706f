"""A few cases by hand, whose right outputs are plain."""

import numpy as np

from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Reshape
from qfuzz.ops.quantization import Dequantize

Q = QType.per_tensor("uint8", 0.5, 3)


def add_case() -> Case:
    """[0, 3, 100, 250] + [9, 3, 30, 255]: 6, 3, 127, 255 under equal types (q + q' - zp, saturated)."""
    kind = TensorType((4,), Q)
    network = Network((Input("a", kind), Input("b", kind)), (), (Node("y", Add(), ("a", "b"), Q),), ("y",))
    data = ([0, 3, 100, 250], [9, 3, 30, 255])
    return Case(network, tuple(Tensor(np.array(d, dtype=np.uint8)) for d in data))


def linear_case() -> Case:
    """A linear layer of 2 x 3 by 3 with a bias, and a reshape after it: two nodes, a constant of each kind."""
    weight = QType("int8", (0.25, 0.125), (0, 0), 0)
    network = Network(
        inputs=(Input("x", TensorType((2, 3), Q)),),
        constants=(
            Constant("w", TensorType((2, 3), weight), Tensor(np.array([[1, -2, 3], [4, 5, -128]], dtype=np.int8))),
            Constant("b", TensorType((2,), "int32"), Tensor(np.array([7, -9], dtype=np.int32))),
        ),
        nodes=(Node("h", Linear(relu=True), ("x", "w", "b"), Q), Node("y", Reshape(shape=(4,)), ("h",), Q)),
        outputs=("y",),
    )
    return Case(network, (Tensor(np.array([[3, 9, 255], [0, 1, 2]], dtype=np.uint8)),))


def conv_case() -> Case:
    """A padded 2 x 2 convolution of one image."""
    network = Network(
        inputs=(Input("x", TensorType((1, 1, 2, 2), Q)),),
        constants=(
            Constant(
                "w",
                TensorType((1, 1, 2, 2), QType.per_tensor("int8", 0.5, 0)),
                Tensor(np.array([[[[1, 2], [3, 4]]]], dtype=np.int8)),
            ),
        ),
        nodes=(
            Node("h", Conv(strides=(1, 1), padding=(1, 0, 0, 1), dilations=(1, 1)), ("x", "w"), Q),
            Node("y", Dequantize(), ("h",), "float32"),
        ),
        outputs=("y",),
    )
    return Case(network, (Tensor(np.array([[[[1, 50], [100, 255]]]], dtype=np.uint8)),))


def all_cases() -> dict[str, Case]:
    """By name."""
    return {"add": add_case(), "linear": linear_case(), "conv": conv_case()}
