"""Networks of real shape, on small images: every layer is judged, none is accused, and a planted fault is found."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: its models cannot be audited")

import torch
from torch_networks import build_mobilenet_v2, build_resnet18

from qfuzz.audit.layer import Layer, judge
from qfuzz.audit.torch_layers import layers_of_module

pytestmark = pytest.mark.filterwarnings("ignore")  # that quantized dtypes are deprecated
SIZE = 64


@pytest.fixture(autouse=True)
def engine_as_before() -> Iterator[None]:
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before


def needs(engine: str) -> None:
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this torch has no engine {engine}")


@pytest.mark.parametrize(
    ("build", "engine", "n_layers"), [(build_resnet18, "fbgemm", 34), (build_mobilenet_v2, "qnnpack", 67)]
)
def test_every_layer_is_judged_and_none_is_accused(build: Any, engine: str, n_layers: int) -> None:
    needs(engine)
    captured = list(layers_of_module(*build(SIZE)))
    layers = [c for c in captured if isinstance(c, Layer)]
    assert len(captured) == len(layers) == n_layers
    assert len({layer.name for layer in layers}) == n_layers
    reports = [judge(layer) for layer in layers]
    assert [r.name for r in reports if r.violation] == []
    assert sum(r.elements for r in reports) > 100_000


def test_one_wrong_channel_deep_inside_is_found() -> None:
    needs("qnnpack")
    model, x = build_mobilenet_v2(SIZE)
    guilty = "features.9.body.1.0"

    def wrong(module: Any, inputs: Any, y: Any) -> Any:
        stored = y.int_repr().contiguous()
        stored[0, 7, 0, 0] += 1
        return torch._make_per_tensor_quantized_tensor(stored, y.q_scale(), y.q_zero_point())

    model.get_submodule(guilty).register_forward_hook(wrong)
    reports = [judge(c) for c in layers_of_module(model, x) if isinstance(c, Layer)]
    (accused,) = [r for r in reports if r.violation]
    assert accused.name.split("#")[0] == guilty and accused.violation == 1
    assert accused.violating == ((0, 7, 0, 0),)
