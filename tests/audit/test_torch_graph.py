"""The audit of PT2E-converted graphs and exported programs: folding, clamps, and the lowered onednn kernels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed: its models cannot be audited")

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import nn

from qfuzz.audit.layer import Captured, Layer, Uncovered, judge
from qfuzz.audit.torch_folded import unclamped
from qfuzz.audit.torch_layers import layers_of_exported, layers_of_module
from qfuzz.ir.errors import InvalidCase

pytestmark = pytest.mark.filterwarnings("ignore")

D = torch.ops.quantized_decomposed
SCALE, ZERO_POINT = 0.0625, 17


def quantize(x: Any, scale: float = SCALE, zero_point: int = ZERO_POINT, low: int = 0, high: int = 255) -> Any:
    return D.quantize_per_tensor(x, scale, zero_point, low, high, torch.uint8)


def dequantize(x: Any, scale: float = SCALE, zero_point: int = ZERO_POINT) -> Any:
    return D.dequantize_per_tensor(x, scale, zero_point, 0, 255, torch.uint8)


def requantized(x: Any, **qparams: Any) -> Any:
    """What a quantizer puts between two operators."""
    return dequantize(quantize(x, **qparams), **{k: v for k, v in qparams.items() if k not in ("low", "high")})


class Weights(nn.Module):
    """Quantized weights of a layer, dequantized where they are used, as PT2E conversion leaves them."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("stored", torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8))
        self.register_buffer("scales", torch.rand(shape[0], generator=generator) * 0.01 + 0.002)
        self.register_buffer("zeros", torch.zeros(shape[0], dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(shape[0], generator=generator))

    def forward(self) -> Any:
        return D.dequantize_per_channel(self.stored, self.scales, self.zeros, 0, -127, 127, torch.int8)


class Converted(nn.Module):
    """A network as PT2E conversion leaves it: conv and relu, depthwise conv and relu6, pools, a sum, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = Weights(8, 3, 3, 3), Weights(8, 1, 3, 3), Weights(5, 8)

    def forward(self, x: Any) -> Any:
        f = nn.functional
        x = requantized(x)
        x = requantized(torch.relu(f.conv2d(x, self.first(), self.first.bias, padding=1)))
        y = requantized(f.relu6(f.conv2d(x, self.second(), self.second.bias, padding="same", groups=8)), scale=0.05)
        x = requantized(x + requantized(y))
        x = requantized(f.max_pool2d(x, 2))
        x = requantized(torch.flatten(f.adaptive_avg_pool2d(x, 1), 1), scale=0.03)
        return requantized(f.linear(x, self.last(), self.last.bias), scale=0.07, zero_point=120)


@pytest.fixture(scope="module")
def exported() -> Any:
    return torch.export.export(Converted(), (torch.randn(2, 3, 8, 8) * 3,))


def judged(captured: list[Captured]) -> list[Layer]:
    return [layer for layer in captured if isinstance(layer, Layer)]


def op_names(captured: list[Captured]) -> list[str]:
    return [layer.case.network.nodes[0].op.name for layer in judged(captured)]


def test_a_converted_graph_is_one_layer_for_each_quantized_operator(exported: Any) -> None:
    captured = list(layers_of_module(exported.module(), exported.example_inputs[0]))
    assert not [c for c in captured if isinstance(c, Uncovered)]
    assert op_names(captured) == [
        *("quantize", "conv", "conv", "requantize", "add", "max_pool", "global_avg_pool", "linear", "dequantize"),
    ]
    assert [judge(layer).violation for layer in judged(captured)] == [0] * 9
    kernels = {layer.kernel for layer in judged(captured)}
    assert "aten.conv2d.default, aten.relu.default on dequantized float32" in kernels
    assert "aten.conv2d.padding, aten.relu6.default on dequantized float32" in kernels
    (relu, *_) = [layer for layer in judged(captured) if "aten.relu.default" in layer.kernel]
    assert relu.case.network.nodes[0].op.relu
    assert {layer.spec for layer in judged(captured)} == {None}


def test_kernels_that_truncate_are_violations(exported: Any) -> None:
    """The whole graph, on a quantizing operator that rounds down."""

    def rounding_down(x: Any, scale: float, zero_point: int, low: int, high: int, dtype: Any) -> Any:
        return torch.clamp(torch.floor(x * (1.0 / scale)) + zero_point, low, high).to(dtype)

    with torch.library._scoped_library("quantized_decomposed", "IMPL") as library:
        library.impl("quantize_per_tensor", rounding_down, "CPU")
        captured = list(layers_of_module(exported.module(), exported.example_inputs[0]))
    wrong = {layer.case.network.nodes[0].op.name for layer in judged(captured) if judge(layer).violation}
    assert {"quantize", "conv", "global_avg_pool", "linear"} <= wrong
    assert "add" not in wrong  # of one scale: there is nothing to round


def graph_of(function: Any, *inputs: Any) -> list[Captured]:
    class Model(nn.Module):
        def forward(self, *args: Any) -> Any:
            return function(*args)

    return list(layers_of_module(torch.export.export(Model(), inputs).module(), inputs))


UNARY = {
    "relu": torch.relu,
    "clamp": lambda x: torch.clamp(x, -0.5, 1.25),
    "leaky_relu": lambda x: nn.functional.leaky_relu(x, 0.1),
    "elu": nn.functional.elu,
    "hardsigmoid": nn.functional.hardsigmoid,
    "hardswish": nn.functional.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, -1),
    "avg_pool": lambda x: nn.functional.avg_pool2d(x, 2, padding=1),
    "max_pool": lambda x: nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "global_avg_pool": lambda x: x.mean((2, 3)),
    "concat": lambda x: torch.cat([x, x], 1),
    "pad": lambda x: nn.functional.pad(x, (1, 2)),
    "mul": lambda x: x * x,
    "requantize": lambda x: x.permute(0, 2, 3, 1)[:, 1:].reshape(2, -1),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("scale", [2.0**-7, 0.013])
def test_every_operator_between_is_judged_and_right(name: str, scale: float) -> None:
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 4
    captured = graph_of(lambda x: quantize(UNARY[name](requantized(x)), scale, 101), x)
    assert op_names(captured) == ["quantize", name]
    assert [judge(layer).violation for layer in judged(captured)] == [0, 0]


def test_quantizing_into_part_of_the_range_is_judged_by_its_own_bounds() -> None:
    x = torch.linspace(-20, 20, 999)
    (right,) = judged(graph_of(lambda x: quantize(x, low=5, high=127), x))
    assert judge(right).violation == 0 and right.got.max() == 255  # bounds stand for what lies beyond
    (also,) = judged(graph_of(lambda x: quantize(x), x))
    np.testing.assert_array_equal(right.got, also.got)


def test_what_no_operator_of_qfuzz_says_is_listed() -> None:
    weights = Weights(4, 3, 1, 1)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = weights

        def forward(self, x: Any) -> Any:
            x = requantized(x)
            return quantize(nn.functional.conv2d(x, self.weights()) + x[:, :1]), torch.exp(x), x.exp().sum()

    x = torch.randn(2, 3, 4, 4)
    captured = list(layers_of_module(torch.export.export(Sum(), (x,)).module(), x))
    reasons = {c.kernel: c.reason for c in captured if isinstance(c, Uncovered)}
    fused = "aten.conv2d.default, aten.add.Tensor on dequantized float32"
    assert (
        reasons[fused]
        == "several operators run on float32 before the result is quantized; qfuzz has no operator of all"
    )
    assert "no such operator" in reasons["aten.exp.default on dequantized float32"]
    assert op_names(captured) == ["quantize"]


def test_a_result_that_stays_float_is_listed() -> None:
    captured = graph_of(lambda x: torch.relu(requantized(x)), torch.randn(5))
    (listed,) = [c for c in captured if isinstance(c, Uncovered)]
    assert listed.kernel == "aten.relu.default on dequantized float32" and "stays float32" in listed.reason


def test_a_dequantized_value_that_leaves_is_a_layer_whatever_else_reads_it() -> None:
    def both(x: Any) -> Any:
        x = requantized(x)
        return x, quantize(torch.relu(x)), x.flatten()

    captured = graph_of(both, torch.randn(2, 3))
    assert sorted(op_names(captured)) == ["dequantize", "dequantize", "quantize", "relu"]
    assert [judge(layer).violation for layer in judged(captured)] == [0] * 4


def test_names_are_those_of_the_modules_that_were_exported() -> None:
    class Inner(nn.Module):
        def forward(self, x: Any) -> Any:
            return quantize(torch.relu(requantized(x)))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(Inner())

        def forward(self, x: Any) -> Any:
            return self.block(x)

    x = torch.randn(4)
    names = [c.name for c in layers_of_module(torch.export.export(Outer(), (x,)).module(), x)]
    assert names == ["block.0.quantize_per_tensor", "block.0.relu"]


def test_a_graph_inside_of_a_module_is_found_and_left_as_it_was(exported: Any) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = exported.module()

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    model, (x,) = Wrapper(), exported.example_inputs[0]
    expected = model(x)
    captured = list(layers_of_module(model, x))
    assert len(judged(captured)) == 9 and all(c.name.startswith("inner.") for c in captured)
    assert "forward" not in vars(model.inner)
    assert torch.equal(model(x), expected)


@given(
    exact=st.lists(st.integers(0, 255), min_size=1, max_size=20),
    got=st.integers(0, 255),
    bounds=st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted),
)
def test_unclamped_tells_right_from_wrong(exact: list[int], got: int, bounds: list[int]) -> None:
    values, (least, most) = np.array(exact, dtype=np.uint8), bounds
    np.testing.assert_array_equal(unclamped(np.clip(values, least, most), values, least, most), values)
    wrong = np.full_like(values, got)
    judged_wrong = unclamped(wrong, values, least, most) != values
    np.testing.assert_array_equal(judged_wrong, wrong != np.clip(values, least, most))


# Exported programs


def test_an_exported_program_is_the_module_that_it_holds(exported: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(exported, path)
    from_file = list(layers_of_exported(path))
    from_module = list(layers_of_module(exported.module(), exported.example_inputs[0]))
    assert [(c.name, c.kernel) for c in from_file] == [(c.name, c.kernel) for c in from_module]
    for ours, theirs in zip(judged(from_file), judged(from_module), strict=True):
        assert ours.case == theirs.case
        np.testing.assert_array_equal(ours.got, theirs.got)
    from_program = list(layers_of_module(exported, exported.example_inputs[0]))
    assert [c.kernel for c in from_program] == [c.kernel for c in from_module]
    other = np.zeros((2, 3, 8, 8), dtype=np.float32)
    (first, *_) = judged(list(layers_of_exported(path, [other])))
    np.testing.assert_array_equal(first.case.inputs[0].array, other)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "missing", "checkpoint"])
def test_what_is_no_exported_program_is_one_clear_line(
    exported: Any, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt2"
    if damage == "checkpoint":
        torch.save({"weight": torch.zeros(3)}, path)
    elif damage != "missing":
        torch.export.save(exported, path)
        data = path.read_bytes()
        path.write_bytes({"truncated": data[: len(data) // 2], "foreign": b"no model", "empty": b""}[damage])
    with pytest.raises(InvalidCase) as error:
        list(layers_of_exported(path))
    assert "model.pt2" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("inputs", [[np.zeros((2, 3, 9, 9), np.float32)], [np.zeros((2, 3, 8, 8), np.float32)] * 2, []])
def test_inputs_that_do_not_fit_are_one_clear_line(exported: Any, tmp_path: Path, inputs: list[Any]) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(exported, path)
    with pytest.raises(InvalidCase, match="does not run on these inputs") as error:
        list(layers_of_exported(path, inputs))
    assert "\n" not in str(error.value)


# Lowered


@pytest.mark.skipif(
    "onednn" not in torch.backends.quantized.supported_engines, reason="this torch has no onednn kernels"
)
def test_lowered_kernels_are_judged() -> None:
    o = torch.ops.onednn
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 8, 6, 6), generator=generator, dtype=torch.uint8)
    kernel = torch.randint(-60, 61, (5, 8, 3, 3), generator=generator, dtype=torch.int8)
    matrix = torch.randint(-60, 61, (4, 6), generator=generator, dtype=torch.int8)
    scales, zeros = torch.full((5,), 0.02), torch.zeros(5, dtype=torch.int64)
    conv = o.qconv_prepack(kernel, scales, 0.1, 3, [1, 1], [1, 1], [1, 1], 1, None)
    linear = o.qlinear_prepack(matrix, None)

    class Lowered(nn.Module):
        def forward(self, x: Any) -> Any:
            post = (torch.uint8, "relu", [], "")
            y = o.qconv_pointwise(
                x, 0.1, 3, conv, scales, zeros, zeros.float(), [1, 1], [1, 1], [1, 1], 1, 5.0, 9, *post
            )
            rows = (x[:, 0, 0].contiguous(), 0.1, 3, linear, scales[:4], zeros[:4], None)
            z = o.qlinear_pointwise(*rows, 2.0, 100, torch.uint8, "none", [], "")
            return y, z, o.qlinear_pointwise(*rows, 1.0, 0, torch.float32, "gelu", [], "none")

    captured = list(layers_of_module(Lowered(), image))
    assert [(layer.kernel, layer.spec) for layer in judged(captured)] == [
        ("onednn::qconv_pointwise", "torch-export"),
        ("onednn::qlinear_pointwise", "torch-export"),
    ]
    assert [judge(layer).violation for layer in judged(captured)] == [0, 0]
    (listed,) = [c for c in captured if isinstance(c, Uncovered)]
    assert "gelu" in listed.reason
    assert judged(captured)[0].case.network.nodes[0].op.relu
