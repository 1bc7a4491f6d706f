"""A model that torchao's PT2E flow really converted, where torchao is installed."""

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: its models cannot be audited")
pytest.importorskip("torchao", reason="torchao is not installed: there is no PT2E flow in torch itself")

import torch
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from qfuzz.audit.layer import Layer, Uncovered, judge
from qfuzz.audit.torch_layers import layers_of_module

pytestmark = pytest.mark.filterwarnings("ignore")


class Small(nn.Module):
    """A convolution with relu, a depthwise one with relu6, a pool, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(), nn.MaxPool2d(2))
        self.last = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Any) -> Any:
        return self.last(torch.flatten(self.second(self.first(x)), 1))


def test_a_converted_model_is_judged_layer_by_layer() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    configuration = x86.get_default_x86_inductor_quantization_config()
    quantizer = x86.X86InductorQuantizer().set_global(configuration)
    prepared = prepare_pt2e(torch.export.export(Small().eval(), (x,)).module(), quantizer)
    prepared(x)
    captured = list(layers_of_module(convert_pt2e(prepared), x))
    layers = [c for c in captured if isinstance(c, Layer)]
    found = [(layer.name, layer.case.network.nodes[0].op.name) for layer in layers]
    assert found[1:4] == [("first.0", "conv"), ("second.0", "conv"), ("second.2", "max_pool")]
    assert found[0][1] == "quantize"
    assert sum(judge(layer).violation for layer in layers) == 0
    (listed,) = [c for c in captured if isinstance(c, Uncovered)]
    assert listed.name == "last" and "stays float32" in listed.reason
