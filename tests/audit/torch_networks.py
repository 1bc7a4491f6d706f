"""ResNet-18 and MobileNetV2 in shape, with random weights, quantized by eager PTQ; `build_*` are for `qfuzz audit`."""

from typing import Any

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, fuse_modules, get_default_qconfig, prepare


def _conv_bn(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1, *, relu: bool = True
) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), *([nn.ReLU()] if relu else []))


class _Residual(nn.Module):
    """The basic block of ResNet-18."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv_bn(n_in, n_out, 3, stride), _conv_bn(n_out, n_out, 3, relu=False))
        same = stride == 1 and n_in == n_out
        self.shortcut = nn.Identity() if same else _conv_bn(n_in, n_out, 1, stride, relu=False)
        self.sum = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Any) -> Any:
        return self.sum.add_relu(self.body(x), self.shortcut(x))


class _Inverted(nn.Module):
    """The inverted residual of MobileNetV2."""

    def __init__(self, n_in: int, n_out: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = n_in * widening
        widen = [] if widening == 1 else [_conv_bn(n_in, wide, 1)]
        self.body = nn.Sequential(*widen, _conv_bn(wide, wide, 3, stride, wide), _conv_bn(wide, n_out, 1, relu=False))
        self.is_residual = stride == 1 and n_in == n_out
        self.sum = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        return self.sum.add(x, y) if self.is_residual else y


class Classifier(nn.Module):
    """Features, their mean over the image, and a linear layer; float at both ends."""

    def __init__(self, features: nn.Sequential, n_features: int) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(n_features, 1000)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.features(self.quant(x)))
        return self.dequant(self.classifier(torch.flatten(x, 1)))


def resnet18() -> Classifier:
    """Unquantized."""
    layers: list[nn.Module] = [_conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    n = 64
    for n_out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(_Residual(n, n_out, stride))
        n = n_out
    return Classifier(nn.Sequential(*layers), n)


def mobilenet_v2() -> Classifier:
    """Unquantized."""
    layers: list[nn.Module] = [_conv_bn(3, 32, 3, 2)]
    n = 32
    for widening, n_out, repeats, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(repeats):
            layers.append(_Inverted(n, n_out, stride if i == 0 else 1, widening))
            n = n_out
    return Classifier(nn.Sequential(*layers, _conv_bn(n, 1280, 1)), 1280)


def eager_ptq(model: Classifier, engine: str, size: int) -> Classifier:
    """`model` fused, calibrated on random images, and converted for `engine`."""
    torch.backends.quantized.engine = engine
    model.eval()
    for module in list(model.modules()):
        if type(module) is nn.Sequential and isinstance(module[0], nn.Conv2d):
            fuse_modules(module, [[str(i) for i in range(len(module))]], inplace=True)
    model.qconfig = get_default_qconfig(engine)
    prepared = prepare(model)
    prepared(torch.randn(2, 3, size, size))
    return convert(prepared)


def build_resnet18(size: int = 224) -> tuple[nn.Module, Any]:
    """For ``qfuzz audit torch_networks.py:build_resnet18``."""
    torch.manual_seed(0)
    return eager_ptq(resnet18(), "fbgemm", size), torch.randn(1, 3, size, size)


def build_mobilenet_v2(size: int = 224) -> tuple[nn.Module, Any]:
    """For ``qfuzz audit torch_networks.py:build_mobilenet_v2``."""
    torch.manual_seed(0)
    return eager_ptq(mobilenet_v2(), "qnnpack", size), torch.randn(1, 3, size, size)


def pt2e(model: Classifier, size: int) -> tuple[nn.Module, Any]:
    """`model` exported, calibrated on a random image, and converted by torchao's PT2E flow."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    x = torch.randn(1, 3, size, size)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model.eval(), (x,)).module(), quantizer)
    prepared(x)
    return convert_pt2e(prepared), x


def build_resnet18_pt2e(size: int = 224) -> tuple[nn.Module, Any]:
    """For ``qfuzz audit torch_networks.py:build_resnet18_pt2e``."""
    torch.manual_seed(0)
    return pt2e(resnet18(), size)


def build_mobilenet_v2_pt2e(size: int = 224) -> tuple[nn.Module, Any]:
    """For ``qfuzz audit torch_networks.py:build_mobilenet_v2_pt2e``."""
    torch.manual_seed(0)
    return pt2e(mobilenet_v2(), size)
