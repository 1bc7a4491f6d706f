"""Small quantized models for the audit's tests: the one of the question, and one call of each operator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.ao.nn.quantized as nnq
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes as unseen

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
Q = torch.ops.quantized


def quantized(*shape: int, scale: float = 0.1, zero_point: int = 30, dtype: Any = torch.quint8, seed: int = 0) -> Any:
    """Random activations, some of them saturated."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 6
    return torch.quantize_per_tensor(values, scale, zero_point, dtype)


def question(engine: str) -> tuple[nn.Module, Any]:
    """QuantStub, Conv2d(1, 1, 1), ReLU, DeQuantStub: fused, prepared, calibrated, converted."""

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = torch.ao.quantization.QuantStub()
            self.conv = nn.Conv2d(1, 1, 1)
            self.relu = nn.ReLU()
            self.dequant = torch.ao.quantization.DeQuantStub()

        def forward(self, x: Any) -> Any:
            return self.dequant(self.relu(self.conv(self.quant(x))))

    torch.backends.quantized.engine = engine
    model = M().eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    prepared = torch.ao.quantization.prepare(torch.ao.quantization.fuse_modules(model, [["conv", "relu"]]))
    x = torch.randn(4, 1, 4, 4)
    prepared(x)
    return torch.ao.quantization.convert(prepared), x


class Calls(nn.Module):
    """A model whose forward is `function`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def _numbers(*shape: int, seed: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weight(*shape: int, seed: int = 1) -> Any:
    """Symmetric per-channel weights of at most 60: no two products leave 16 bits, on any CPU."""
    scales = torch.rand(shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.02 + 0.01
    zeros = torch.zeros(shape[0], dtype=torch.int64)
    values = (torch.arange(torch.Size(shape).numel()).reshape(shape) * 37 % 121 - 60).to(torch.int8)
    return torch._make_per_channel_quantized_tensor(values, scales.float().double(), zeros, 0)


def conv2d(x: Any, *, relu: bool = False, bias: bool = True) -> Any:
    """A convolution with strides, padding and dilation."""
    with unseen():
        packed = Q.conv2d_prepack(weight(8, 8, 3, 2), _numbers(8, seed=2) if bias else None, [2, 1], [1, 1], [1, 2], 1)
    return (Q.conv2d_relu.new if relu else Q.conv2d.new)(x, packed, 0.9, 77)


def conv1d(x: Any, *, relu: bool = False) -> Any:
    """A 1-d convolution in groups."""
    with unseen():
        packed = Q.conv1d_prepack(weight(8, 4, 3), _numbers(8, seed=2), [2], [1], [1], 2)
    return (Q.conv1d_relu if relu else Q.conv1d)(x, packed, 0.9, 77)


def linear(x: Any, *, relu: bool = False) -> Any:
    """A matrix product."""
    with unseen():
        packed = Q.linear_prepack(weight(5, 8), _numbers(5, seed=2))
    return (Q.linear_relu if relu else Q.linear)(x, packed, 0.9, 77)


class Sample(NamedTuple):
    """A call, what it is given, and the operators that its layers are."""

    function: Callable[..., Any]
    shape: tuple[int, ...]
    ops: tuple[str, ...]


IMAGE, SEQUENCE, ROWS = (2, 8, 7, 6), (2, 8, 9), (2, 3, 8)

SAMPLES: dict[str, Sample] = {
    "conv2d": Sample(conv2d, IMAGE, ("conv",)),
    "conv2d_no_bias": Sample(lambda x: conv2d(x, bias=False), IMAGE, ("conv",)),
    "conv2d_relu": Sample(lambda x: conv2d(x, relu=True), IMAGE, ("conv",)),
    "conv2d_channels_last": Sample(
        lambda x: conv2d(x.contiguous(memory_format=torch.channels_last)), IMAGE, ("reshape", "conv")
    ),
    "conv1d": Sample(conv1d, SEQUENCE, ("conv",)),
    "conv1d_relu": Sample(lambda x: conv1d(x, relu=True), SEQUENCE, ("conv",)),
    "linear": Sample(linear, ROWS, ("linear",)),
    "linear_relu": Sample(lambda x: linear(x, relu=True), ROWS, ("linear",)),
    "add": Sample(lambda x: Q.add(x, x, 0.3, 5), IMAGE, ("add",)),
    "add_broadcast": Sample(lambda x: Q.add(x, x[:1], 0.3, 5), IMAGE, ("slice", "add")),
    "add_relu": Sample(lambda x: Q.add_relu(x, x, 0.3, 5), IMAGE, ("add",)),
    "mul": Sample(lambda x: Q.mul(x, x, 2.0, 5), IMAGE, ("mul",)),
    "mul_relu": Sample(lambda x: Q.mul_relu(x, x, 2.0, 5), IMAGE, ("mul",)),
    "cat": Sample(lambda x: Q.cat([x, x], 1, 0.2, 5), IMAGE, ("concat",)),
    "cat_of_eleven": Sample(lambda x: torch.cat([x] * 11, -1), IMAGE, ("concat", "concat")),
    "stack": Sample(lambda x: torch.stack([x, x], -1), IMAGE, ("concat",)),
    "relu": Sample(torch.relu, IMAGE, ("relu",)),
    "relu_in_place": Sample(torch.relu_, IMAGE, ("relu",)),
    "relu6": Sample(Q.relu6, IMAGE, ("clamp",)),
    "hardtanh": Sample(lambda x: F.hardtanh(x, -0.5, 1.3), IMAGE, ("clamp",)),
    "hardtanh_in_place": Sample(lambda x: F.hardtanh(x, -0.5, 1.3, inplace=True), IMAGE, ("clamp",)),
    "clamp": Sample(lambda x: torch.clamp(x, -1.0, 2.0), IMAGE, ("clamp",)),
    "leaky_relu": Sample(lambda x: Q.leaky_relu(x, 0.1, False, 0.2, 9), IMAGE, ("leaky_relu",)),
    "leaky_relu_own_qparams": Sample(lambda x: F.leaky_relu(x, 0.1), IMAGE, ("leaky_relu",)),
    "elu": Sample(lambda x: Q.elu(x, 0.1, 20, 0.75), IMAGE, ("elu",)),
    "hardswish": Sample(lambda x: Q.hardswish(x, 0.1, 9), IMAGE, ("hardswish",)),
    "hardsigmoid": Sample(F.hardsigmoid, IMAGE, ("hardsigmoid",)),
    "sigmoid": Sample(torch.sigmoid, IMAGE, ("sigmoid",)),
    "sigmoid_asked": Sample(lambda x: Q.sigmoid(x, 1 / 256, 0), IMAGE, ("sigmoid",)),
    "tanh": Sample(torch.tanh, IMAGE, ("tanh",)),
    "softmax": Sample(lambda x: Q.softmax(x, -1, 1 / 256, 0), IMAGE, ("softmax",)),
    "max_pool2d": Sample(lambda x: F.max_pool2d(x, (3, 2), stride=(2, 1), padding=(1, 0)), IMAGE, ("max_pool",)),
    "max_pool1d": Sample(lambda x: F.max_pool1d(x, 2, ceil_mode=True), SEQUENCE, ("max_pool",)),
    "avg_pool2d": Sample(lambda x: F.avg_pool2d(x, (2, 3)), IMAGE, ("avg_pool",)),
    "avg_pool1d": Sample(lambda x: F.avg_pool1d(x, 3, 2), SEQUENCE, ("reshape", "avg_pool", "reshape")),
    "adaptive_avg_pool2d": Sample(lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE, ("global_avg_pool",)),
    "adaptive_avg_pool2d_of_more": Sample(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGE, ("adaptive_avg_pool",)),
    "mean": Sample(lambda x: x.mean([2, 3]), IMAGE, ("global_avg_pool",)),
    "mean_kept": Sample(lambda x: x.mean([-1, -2], keepdim=True), IMAGE, ("global_avg_pool",)),
    "flatten": Sample(lambda x: torch.flatten(x, 1), IMAGE, ("reshape",)),
    "squeeze": Sample(lambda x: x.unsqueeze(0).squeeze(0), IMAGE, ("reshape", "reshape")),
    "permute": Sample(lambda x: x.permute(0, 2, 3, 1).reshape(2, -1), IMAGE, ("transpose", "reshape", "reshape")),
    "transpose": Sample(lambda x: x.transpose(1, -1), IMAGE, ("transpose",)),
    "slice": Sample(lambda x: x[:, 1:6:2], IMAGE, ("slice",)),
    "select": Sample(lambda x: x[1], IMAGE, ("slice",)),
    "chunk": Sample(lambda x: x.chunk(2, 1)[1], IMAGE, ("slice", "slice")),
    "pad": Sample(lambda x: F.pad(x, (1, 2, 0, 1)), IMAGE, ("pad",)),
    "dequantize": Sample(lambda x: x.dequantize(), IMAGE, ("dequantize",)),
    "quantize": Sample(
        lambda x: torch.quantize_per_tensor(x.dequantize(), 0.23, 4, torch.qint8), IMAGE, ("dequantize", "quantize")
    ),
}
"""One call of every operator that the audit covers."""


class OffByOne(nnq.Conv2d):
    """A quantized convolution whose author made a mistake."""

    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        return torch._make_per_tensor_quantized_tensor(y.int_repr() + 1, y.q_scale(), y.q_zero_point())


class OffByOneAdd(nnq.QFunctional):
    """The same mistake in an addition."""

    def add(self, x: Any, y: Any) -> Any:
        r = super().add(x, y)
        return torch._make_per_tensor_quantized_tensor(r.int_repr() + 1, r.q_scale(), r.q_zero_point())


class Block(nn.Module):
    """A convolution, and an addition of its result to itself."""

    def __init__(
        self, conv: type[nnq.Conv2d] = nnq.Conv2d, functional: type[nnq.QFunctional] = nnq.QFunctional
    ) -> None:
        super().__init__()
        self.conv = conv(3, 4, 1)
        self.conv.set_weight_bias(weight(4, 3, 1, 1), torch.zeros(4))
        self.conv.scale, self.conv.zero_point = 1.0, 100
        self.skip = functional()
        self.skip.scale, self.skip.zero_point = 2.0, 90

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return self.skip.add(y, y)
