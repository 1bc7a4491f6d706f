"""The audit of eager PyTorch models: every operator on every engine, users' modules, names, what is not judged."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: its models cannot be audited")

import torch
import torch.ao.nn.quantized as nnq
from torch import nn
from torch_models import ENGINES, SAMPLES, Block, Calls, OffByOne, OffByOneAdd, Q, conv2d, quantized, question

import qfuzz
from qfuzz.audit.layer import Captured, Layer, Uncovered, judge
from qfuzz.audit.torch_layers import layers_of_module
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.protocols import NotSupported

pytestmark = pytest.mark.filterwarnings("ignore")  # that quantized dtypes are deprecated


@pytest.fixture(params=ENGINES)
def engine(request: Any) -> Iterator[str]:
    name = str(request.param)
    if name not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this torch has no engine {name}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    yield name
    torch.backends.quantized.engine = before


def judged(captured: list[Captured]) -> list[Layer]:
    return [layer for layer in captured if isinstance(layer, Layer)]


def violations(captured: list[Captured]) -> dict[str, int]:
    return {layer.name: judge(layer).violation for layer in judged(captured)}


def test_the_model_of_the_question(engine: str) -> None:
    model, x = question(engine)
    quant, conv, dequant = judged(list(layers_of_module(model, x)))
    assert [layer.name for layer in (quant, conv, dequant)] == ["quant", "conv", "dequant"]
    (node,) = conv.case.network.nodes
    assert (node.op.name, node.op.relu) == ("conv", True)
    assert conv.kernel.startswith("quantized::conv2d_relu.new [")
    assert [judge(layer).violation for layer in (quant, conv, dequant)] == [0, 0, 0]
    assert judge(conv).elements == 4 * 4 * 4


@pytest.mark.parametrize("name", SAMPLES)
def test_every_operator_is_judged_and_right(engine: str, name: str) -> None:
    sample = SAMPLES[name]
    captured = list(layers_of_module(Calls(sample.function), quantized(*sample.shape)))
    assert tuple(layer.case.network.nodes[0].op.name for layer in judged(captured)) == sample.ops
    assert not [c for c in captured if isinstance(c, Uncovered)]
    assert sum(violations(captured).values()) == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_the_named_backend_runs_the_case_alike(engine: str, name: str) -> None:
    sample, n_run = SAMPLES[name], 0
    for layer in judged(list(layers_of_module(Calls(sample.function), quantized(*sample.shape)))):
        assert layer.spec is not None
        backend = qfuzz.backend(layer.spec)
        if isinstance(backend.supports(layer.case.network), NotSupported) or "channels_last" in layer.kernel:
            continue
        program = backend.compile(layer.case.network)
        got = program.run({n: np.array(t.array) for n, t in layer.case.feeds.items()})["y"]
        np.testing.assert_array_equal(got, layer.got)
        n_run += 1
    if not n_run:
        assert name in ("conv2d_channels_last", "clamp")  # in another layout; with bounds that are no 0 and 6


def test_the_kernel_says_whose_packed_weights_ran(engine: str) -> None:
    """Whatever the engine is by then: packed weights keep the kernels that they were packed for."""
    packed = Q.linear_prepack(_ones(3, 8), None)
    family = {"x86": "fbgemm"}.get(engine, engine)
    torch.backends.quantized.engine = "fbgemm"
    captured = list(layers_of_module(Calls(lambda x: Q.linear(x, packed, 1.0, 9)), quantized(2, 8)))
    (layer,) = judged(captured)
    assert layer.kernel.split(" ", 1)[1].strip("[]").split(",")[0] == family
    assert layer.spec == f"torch-{family}"


def _ones(*shape: int) -> Any:
    return torch._make_per_tensor_quantized_tensor(torch.ones(shape, dtype=torch.int8), 0.5, 0)


def test_values_are_logical_whatever_the_memory_format(engine: str) -> None:
    x = quantized(2, 8, 7, 6)
    plain = judged(list(layers_of_module(Calls(conv2d), x)))[-1]
    last = judged(list(layers_of_module(Calls(conv2d), x.contiguous(memory_format=torch.channels_last))))[-1]
    assert plain.case == last.case
    assert "channels_last" in last.kernel and "channels_last" not in plain.kernel
    np.testing.assert_array_equal(plain.got, last.got)


def test_an_operator_in_place_is_judged_on_what_it_received() -> None:
    x = quantized(40)
    stored = x.int_repr().numpy().copy()
    (layer,) = judged(list(layers_of_module(Calls(torch.relu_), x)))
    np.testing.assert_array_equal(layer.case.inputs[0].array, stored)
    assert (layer.got != stored).any()


# A user's own code


@pytest.mark.parametrize(
    ("conv", "functional", "guilty"),
    [(OffByOne, nnq.QFunctional, "conv"), (nnq.Conv2d, OffByOneAdd, "skip")],
)
def test_a_module_that_returns_one_more_is_a_violation(conv: Any, functional: Any, guilty: str) -> None:
    captured = list(layers_of_module(Block(conv, functional), quantized(2, 3, 5, 5)))
    accused = {c.name.split("#")[0] for c in judged(captured) if judge(c).violation}
    assert accused == {guilty}
    (layer,) = [c for c in judged(captured) if judge(c).violation]
    assert "OffByOne" in layer.kernel and " in place of quantized::" in layer.kernel


def test_a_hook_that_changes_the_result_is_a_violation_and_one_that_looks_is_none() -> None:
    model, x = Block(), quantized(2, 3, 5, 5)
    model.conv.register_forward_hook(lambda module, inputs, output: None)
    assert sum(violations(list(layers_of_module(model, x))).values()) == 0
    model.conv.register_forward_hook(
        lambda module, inputs, y: torch._make_per_tensor_quantized_tensor(
            y.int_repr() - 1, y.q_scale(), y.q_zero_point()
        )
    )
    (accused,) = [c for c in judged(list(layers_of_module(model, x))) if judge(c).violation]
    assert accused.kernel.startswith("a forward hook in place of quantized::conv2d.new")


def test_a_kernel_that_was_replaced_is_judged_by_what_it_returns() -> None:
    def one_more(a: Any, b: Any, scale: float, zero_point: int) -> Any:
        y = torch.quantize_per_tensor(a.dequantize() + b.dequantize(), scale, zero_point, torch.quint8)
        return torch._make_per_tensor_quantized_tensor(y.int_repr() + 1, scale, zero_point)

    with torch.library._scoped_library("quantized", "IMPL") as library:
        library.impl("add", one_more, "QuantizedCPU")
        found = violations(list(layers_of_module(Block(), quantized(2, 3, 5, 5))))
    assert found["conv"] == 0 and found["skip"] > 0


def test_a_module_that_computes_the_same_with_floats_is_not_accused() -> None:
    class ByFloats(nnq.Conv2d):
        def forward(self, x: Any) -> Any:
            y = nn.functional.conv2d(x.dequantize(), self.weight().dequantize(), self.bias())
            return torch.quantize_per_tensor(y, self.scale, self.zero_point, torch.quint8)

    captured = list(layers_of_module(Block(ByFloats), quantized(2, 3, 5, 5)))
    assert sum(violations(captured).values()) == 0
    assert any("convolution" in c.kernel for c in captured if isinstance(c, Uncovered))


def test_a_module_that_returns_floats_promises_no_integers() -> None:
    class Dequantized(nnq.Conv2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x).dequantize() * 2

    model = nn.Sequential(Block(Dequantized).conv)
    assert sum(violations(list(layers_of_module(model, quantized(2, 3, 5, 5)))).values()) == 0


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_a_model_may_choose_its_own_grad_mode(mode: Any) -> None:
    block = Block()

    def forward(x: Any) -> Any:
        with mode():
            return block(x)

    assert len(judged(list(layers_of_module(Calls(forward), quantized(2, 3, 5, 5))))) == 2


def test_a_divisor_is_read() -> None:
    pool = Calls(lambda x: nn.functional.avg_pool2d(x, (2, 3), divisor_override=5))
    (layer,) = judged(list(layers_of_module(pool, quantized(2, 8, 7, 6))))
    assert layer.case.network.nodes[0].op.divisor_override == 5


# What is not judged is listed


@pytest.mark.parametrize(
    ("function", "operator", "why"),
    [
        (lambda x: nn.functional.interpolate(x, scale_factor=2), "aten::upsample_nearest2d", "no such operator"),
        (lambda x: Q.add_scalar(x, 0.5), "quantized::add_scalar", "no such operator"),
        (lambda x: x.mean(1), "aten::mean.dim", "a mean over dimensions [1]"),
        (lambda x: nn.functional.pad(x, (1, 1), value=2.0), "aten::constant_pad_nd", "padded with 2.0"),
        (lambda x: x[:1].expand(4, 8, 7, 6), "aten::expand", "elements are repeated"),
        (lambda x: x.int_repr(), "aten::int_repr", "reads the stored integers"),
        (lambda x: x.dequantize().exp(), "aten::exp", "not quantized"),
        (
            lambda x: torch.quantize_per_tensor(x.dequantize(), 1.0, 0, torch.qint32),
            "aten::quantize_per_tensor",
            "qint32",
        ),
        (
            lambda x: Q.linear_dynamic(x.dequantize(), Q.linear_prepack(_ones(3, 6), None)),
            "quantized::linear_dynamic",
            "chosen while it runs",
        ),
        (
            lambda x: Q.batch_norm2d(x, *(torch.ones(8),) * 4, 1e-5, 0.1, 3),
            "quantized::batch_norm2d",
            "no such operator",
        ),
    ],
)
def test_what_is_not_judged_is_listed_with_a_reason(function: Any, operator: str, why: str) -> None:
    captured = list(layers_of_module(Calls(function), quantized(2, 8, 7, 6)))
    (listed,) = [c for c in captured if isinstance(c, Uncovered) and c.kernel == operator]
    assert why in listed.reason


def test_a_float_model_has_no_judged_layer() -> None:
    captured = list(layers_of_module(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.ones(1, 3)))
    assert [c.name for c in captured] == ["0", "1"] and not judged(captured)


# Names, and the model itself


def test_names_are_those_of_modules_and_repeated_ones_are_numbered() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block()])
            self.again = nnq.ReLU6()

        def forward(self, x: Any) -> Any:
            x = self.again(self.again(self.blocks[0](x)))
            return torch.relu(x)

    names = [c.name for c in layers_of_module(Outer(), quantized(2, 3, 5, 5))]
    assert names == ["blocks.0.conv", "blocks.0.skip", "again", "again#2", "relu"]


def test_the_model_is_left_as_it_was_even_where_it_raises() -> None:
    model = Block()
    for x in (quantized(2, 3, 5, 5), quantized(2, 2, 5, 5)):
        try:
            list(layers_of_module(model, x))
        except InvalidCase as e:
            assert x.shape[1] == 2 and "does not run on these inputs" in str(e) and "\n" not in str(e)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert "add" not in vars(model.skip)


def test_a_scripted_model_is_seen_too() -> None:
    x = quantized(2, 3, 5, 5)
    scripted = torch.jit.trace(Block(), x)
    captured = judged(list(layers_of_module(scripted, x)))
    assert [layer.case.network.nodes[0].op.name for layer in captured] == ["conv", "add"]
    assert sum(violations(captured).values()) == 0


@pytest.mark.skipif("qnnpack" not in torch.backends.quantized.supported_engines, reason="this torch has no qnnpack")
@pytest.mark.parametrize(
    ("function", "dtype", "whose"),
    [
        (torch.relu, torch.quint8, "qnnpack"),
        (torch.relu, torch.qint8, "native"),
        (Q.relu6, torch.quint8, "qnnpack"),
        (lambda x: Q.add(x, x, 0.2, 3), torch.quint8, "qnnpack"),
        (lambda x: Q.mul(x, x, 0.2, 3), torch.quint8, "native"),
        (lambda x: nn.functional.max_pool2d(x, 2), torch.quint8, "qnnpack"),
        (lambda x: nn.functional.max_pool2d(x, 2, ceil_mode=True), torch.quint8, "native"),
        (lambda x: Q.softmax(x, -1, 1 / 256, 0), torch.quint8, "qnnpack"),
        (lambda x: Q.softmax(x, -1, 1 / 128, 0), torch.quint8, "native"),
    ],
)
def test_qnnpack_is_named_where_it_would_refuse_a_scalar_or_an_unbatched_image(
    function: Any, dtype: Any, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")
    (layer,) = judged(list(layers_of_module(Calls(function), quantized(2, 4, 6, 6, dtype=dtype))))
    assert layer.kernel.endswith(f"[{whose}]")
    shape = (4, 6, 6) if "pool" in layer.kernel else ()
    if "softmax" in layer.kernel:
        return  # takes both
    try:
        function(quantized(*shape, dtype=dtype))
        refused = False
    except RuntimeError as e:
        refused = "qnnpack" in str(e)
    assert refused == (whose == "qnnpack")
