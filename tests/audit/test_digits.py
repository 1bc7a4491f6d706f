"""A classifier of scikit-learn's digits, trained here, quantized in three ways, and audited in all three."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: there are no digits to train on")
pytest.importorskip("torch", reason="torch is not installed: the classifier is trained with it")

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.ao import quantization

import qfuzz

pytestmark = pytest.mark.filterwarnings("ignore")  # that quantized dtypes are deprecated
CALIBRATION = 64


class Digits(nn.Module):
    """One convolution with relu, a pool, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.linear = nn.Linear(16 * 16, 10)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.relu(self.conv(self.quant(x))))
        return self.dequant(self.linear(torch.flatten(x, 1)))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images, 0..1, and what they show."""
    data = load_digits()
    return torch.from_numpy(data.images.astype(np.float32) / 16)[:, None], torch.from_numpy(data.target)


@cache
def trained() -> Digits:
    torch.manual_seed(0)
    model, (x, y) = Digits(), digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1500]), y[:1500]).backward()
        optimizer.step()
    return model.eval()


def is_good(predicted: torch.Tensor) -> bool:
    """Whether held-out images are read."""
    return float((predicted.argmax(1) == digits()[1][1500:]).float().mean()) > 0.85


def test_quantized_eagerly() -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no engine fbgemm")
    x, _ = digits()
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        model = quantization.fuse_modules(trained(), [["conv", "relu"]])
        model.qconfig = quantization.get_default_qconfig("fbgemm")
        prepared = quantization.prepare(model)
        prepared(x[:CALIBRATION])
        converted = quantization.convert(prepared)
        assert is_good(converted(x[1500:]))
        audit = qfuzz.audit(converted, x[:CALIBRATION])
    finally:
        torch.backends.quantized.engine = before
    operators = [layer.op for layer in audit.layers if layer.op != "reshape"]
    assert operators == ["quantize", "conv", "max_pool", "linear", "dequantize"]
    judged(audit, "fbgemm")


def test_quantized_by_pt2e() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: there is no PT2E flow in torch itself")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    x, _ = digits()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    batch = torch.export.Dim("batch")
    exported = torch.export.export(trained(), (x[:CALIBRATION],), dynamic_shapes=({0: batch},))
    prepared = prepare_pt2e(exported.module(), quantizer)
    prepared(x[:CALIBRATION])
    converted = convert_pt2e(prepared)
    assert is_good(converted(x[1500:]))
    audit = qfuzz.audit(converted, x[:CALIBRATION])
    assert {"conv", "max_pool"} <= {layer.op for layer in audit.layers}
    judged(audit, "on dequantized float32")


def test_quantized_statically_for_onnx_runtime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its models cannot be audited")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: its models cannot be audited")
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    weights = {k: onnx.numpy_helper.from_array(v.numpy(), k) for k, v in trained().state_dict().items()}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "linear.weight", "linear.bias"], ["y"], transB=1),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
        for n, s in (("x", ["n", 1, 8, 8]), ("y", ["n", 10]))
    ]
    graph = onnx.helper.make_graph(nodes, "digits", ends[:1], ends[1:], list(weights.values()))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "float.onnx")
    images = digits()[0].numpy()

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"x": images[:CALIBRATION]}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    for quant_format in (QuantFormat.QDQ, QuantFormat.QOperator):
        path = tmp_path / f"{quant_format}.onnx"
        quantize_static(tmp_path / "float.onnx", path, Calibration(), quant_format=quant_format, per_channel=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert is_good(torch.from_numpy(session.run(None, {"x": images[1500:]})[0]))
        audit = qfuzz.audit(path, {"x": images[:CALIBRATION]})
        assert {"conv", "max_pool", "linear"} <= {layer.op for layer in audit.layers}
        judged(audit, "")


def judged(audit: qfuzz.Audit, kernel: str) -> None:
    """No layer is accused; saturation in 16 bits alone would be, on a CPU that has no VNNI."""
    for layer in audit.layers:
        assert not layer.violation or layer.saturating_pairs, layer
        assert layer.exact + layer.admissible + layer.violation == layer.elements > 0
        if layer.op == "conv":
            assert kernel in layer.kernel
            assert layer.pairs > 0
            assert layer.weights or "float32" in kernel, "the models tell how weights were used"
