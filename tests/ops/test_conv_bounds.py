"""A convolution that asks for more memory than any sane case is refused when it is made."""

import numpy as np
import pytest

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Constant, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.convolution import unit_conv


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"strides": (2**40,), "padding": (2**40, 2**40)}, "strides: .* needs 1 values in 1"),
        ({"strides": (2**24,), "padding": (2**24, 2**24)}, "elements; at most"),
        ({"padding": (2**23, 2**22), "kernel": 2**6}, "reads .* elements; at most"),
        ({"dilations": (2**70,)}, "dilations: "),
    ],
)
def test_a_window_beyond_any_case_is_refused(attributes: dict[str, object], message: str) -> None:
    attributes = dict(attributes)
    kernel = attributes.pop("kernel", 1)
    assert isinstance(kernel, int)
    x, w = QType.per_tensor("uint8", 1.0, 0), QType.per_tensor("int8", 1.0, 0)
    shape = (1, 1, kernel)
    weight = Constant("w", TensorType(shape, w), Tensor(np.ones(shape, dtype=np.int8)))
    node = Node("y", unit_conv(1, **attributes), ("x", "w"), x)
    with pytest.raises(InvalidCase, match=f"conv 'y': .*{message}"):
        Network((Input("x", TensorType((1, 1, 8), x)),), (weight,), (node,), ("y",))
