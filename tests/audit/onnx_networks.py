"""ResNet-18 and MobileNetV2 in shape, random weights, quantized by ``onnxruntime.quantization.quantize_static``."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SIZE = 224
CLASSES = 1000


class _Builder:
    """Nodes and weights of one network."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(0)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, n_in: int, n_out: int, kernel: int, stride: int = 1, group: int = 1, relu: str = "Relu"
    ) -> str:
        taps = n_in // group * kernel * kernel
        weight = self.random.normal(size=(n_out, n_in // group, kernel, kernel)) * np.sqrt(2 / taps)
        parameters = [self.constant(weight), self.constant(self.random.normal(size=n_out) * 0.1)]
        shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.node("Conv", [x, *parameters], group=group, **shape)
        if relu == "Clip":
            return self.node("Clip", [y, self.constant(0.0), self.constant(6.0)])
        return self.node(relu, [y]) if relu else y


def _resnet18(b: _Builder) -> tuple[str, int]:
    x = b.conv("x", 3, 64, 7, 2)
    x = b.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    n = 64
    for n_out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = b.conv(b.conv(x, n, n_out, 3, stride), n_out, n_out, 3, relu="")
        shortcut = x if n == n_out and stride == 1 else b.conv(x, n, n_out, 1, stride, relu="")
        x, n = b.node("Relu", [b.node("Add", [y, shortcut])]), n_out
    return x, n


def _mobilenet_v2(b: _Builder) -> tuple[str, int]:
    x, n = b.conv("x", 3, 32, 3, 2, relu="Clip"), 32
    for widening, n_out, repeats, first in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for stride in (first, *[1] * (repeats - 1)):
            wide = n * widening
            y = x if widening == 1 else b.conv(x, n, wide, 1, relu="Clip")
            y = b.conv(b.conv(y, wide, wide, 3, stride, wide, relu="Clip"), wide, n_out, 1, relu="")
            x, n = b.node("Add", [x, y]) if stride == 1 and n == n_out else y, n_out
    return b.conv(x, n, 1280, 1, relu="Clip"), 1280


class _OneImage(CalibrationDataReader):
    def __init__(self) -> None:
        image = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
        self.left = iter([{"x": image}])

    def get_next(self) -> Any:
        return next(self.left, None)


def quantized(name: str, quant_format: str, folder: Path) -> Path:
    """``resnet18`` or ``mobilenet_v2``, as ``QDQ`` or ``QOperator``."""
    b = _Builder()
    x, n = {"resnet18": _resnet18, "mobilenet_v2": _mobilenet_v2}[name](b)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    weight, bias = b.constant(b.random.normal(size=(n, CLASSES)) * 0.05), b.constant(np.zeros(CLASSES))
    y = b.node("Gemm", [x, weight, bias])
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, shape)
        for end, shape in (("x", [1, 3, SIZE, SIZE]), (y, [1, CLASSES]))
    ]
    graph = helper.make_graph(b.nodes, name, ends[:1], ends[1:], b.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    before, after = folder / f"{name}.onnx", folder / f"{name}_{quant_format}.onnx"
    onnx.save(model, before)
    quantize_static(
        before,
        after,
        _OneImage(),
        quant_format=QuantFormat[quant_format],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return after
