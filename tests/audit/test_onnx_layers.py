"""ONNX models audited on ONNX Runtime: every kernel that ran is judged; a wrong one is accused; the rest is listed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its models cannot be audited")
pytest.importorskip("onnx", reason="onnx is not installed: its models cannot be audited")

import onnx
from onnx_models import UINT8, model_of, node, of, qdq, qoperator, qparams, saved, weights

from qfuzz.audit.cut import cut, is_cut
from qfuzz.audit.layer import Layer, Uncovered, judge
from qfuzz.audit.onnx_layers import layers_of_onnx
from qfuzz.audit.outcome import audit
from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.backends.onnx_executor import LEVELS
from qfuzz.oracle.reference import Reference


def layers(model: Any, folder: Path, **options: Any) -> list[Any]:
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    found = layers_of_onnx(path, **options)
    assert found.notes == ()
    return list(found.layers)


def ops(captured: list[Any]) -> list[str]:
    assert all(isinstance(c, Layer) for c in captured), captured
    reports = [judge(c) for c in captured]
    assert [r for r in reports if r.violation] == []
    return [r.op for r in reports if r.op != "transpose"]  # the runtime's own changes of layout


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_integer_kernels_are_judged_at_every_level_and_opset(tmp_path: Path, opset: int, level: str) -> None:
    pool = ["max_pool"] if opset >= 12 else []
    wanted = ["quantize", "conv", "add", *pool, "global_avg_pool", "dequantize"]
    assert ops(layers(qoperator(opset=opset), tmp_path, level=level)) == wanted


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_both_storage_types_and_both_kinds_of_scales(tmp_path: Path, dtype: Any, per_channel: bool) -> None:
    captured = layers(qoperator(dtype=dtype, per_channel=per_channel), tmp_path, dimensions={"N": 3})
    assert ops(captured)[1] == "conv"
    (conv,) = [c for c in captured if isinstance(c, Layer) and c.case.network.nodes[0].op.name == "conv"]
    _, w, _ = conv.case.network.input_types(conv.case.network.nodes[0])
    assert (w.qtype.axis == 0) is per_channel
    assert conv.got.shape[0] == 3


@pytest.mark.parametrize("opset", [10, 13, 21])
@pytest.mark.parametrize("relu", [False, True])
def test_unfused_groups_are_one_layer_each(tmp_path: Path, opset: int, relu: bool) -> None:
    captured = layers(qdq(opset=opset, relu=relu), tmp_path, level="disable")
    assert ops(captured) == ["quantize", "conv", "flatten", "linear", "sigmoid", "dequantize"]
    conv = captured[1]
    assert conv.kernel == f"DequantizeLinear, Conv, {'Relu, ' * relu}QuantizeLinear"
    assert conv.case.network.nodes[0].op.relu is relu
    assert conv.case.network.constants[1].type.element == "int32"
    linear = captured[3]
    assert linear.case.network.constants[1].type.element == "float32"


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_what_the_runtime_fuses_is_judged_as_it_ran(tmp_path: Path, level: str) -> None:
    found = ops(layers(qdq(), tmp_path, level=level))
    assert found[0] == "quantize" and found[-1] == "dequantize" and "conv" in found and "linear" in found


@pytest.mark.parametrize("make", [qoperator, qdq])
def test_one_wrong_element_is_a_violation_and_is_cut_out(tmp_path: Path, make: Any) -> None:
    n_cut = 0
    for layer in layers(make(), tmp_path, level="disable"):
        got = np.array(layer.got)
        at = tuple(d // 2 for d in got.shape)
        got[at] = got[at] + 3 if got.dtype == np.float32 or got[at] < 100 else got[at] - 3
        report = judge(replace(layer, got=got))
        assert (report.violation, report.violating) == (1, (at,)), layer.name
        small = cut(layer.case, at)
        assert small.n_elements <= layer.case.n_elements
        if is_cut(small):
            n_cut += 1
            assert exact(small).reshape(()) == exact(layer.case)[at]
    assert n_cut >= 3


def exact(case: Any) -> Any:
    """The correctly rounded output of a single-node case."""
    (n,) = case.network.nodes
    feeds = case.feeds
    arrays = [feeds[i].array if i in feeds else None for i in n.inputs]
    return Reference(case).node(n, arrays, contracts_of("qdq", "disable")[n.op.name]).exact


def test_the_last_activation_is_said_as_relu_only_where_it_is_one(tmp_path: Path) -> None:
    def clipped(high: float) -> list[Any]:
        nodes = [
            node("QuantizeLinear", ["x", *of("x")], "xq"),
            node("DequantizeLinear", ["xq", *of("x")], "xr"),
            node("DequantizeLinear", ["w", *of("w")], "wr"),
            node("Conv", ["xr", "wr"], "c"),
            node("Clip", ["c", "low", "high"], "r"),
            node("QuantizeLinear", ["r", *of("h")], "hq"),
            node("DequantizeLinear", ["hq", *of("h")], "y"),
        ]
        bounds = {"low": np.float32(0), "high": np.float32(high)}
        constants = qparams() | weights(per_channel=False) | bounds | {"h_zero": np.uint8(0)}
        return layers(model_of(nodes, constants), tmp_path, level="disable")

    inside = clipped(2.0)  # the output stores 0 to 7.65
    assert any(isinstance(c, Uncovered) and "relu fused only" in c.reason for c in inside)
    assert all(judge(c).violation == 0 for c in inside if isinstance(c, Layer))
    beyond = clipped(7.65)
    assert ops(beyond) == ["quantize", "conv", "dequantize"]
    assert beyond[1].case.network.nodes[0].op.relu


def test_what_is_not_judged_is_listed_with_a_reason(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("QLinearConv", ["xq", *of("x"), "w", *of("w"), *of("h")], "h"),
        node("DequantizeLinear", ["h", *of("h")], "hr"),
        node("Erf", ["hr"], "e"),
        node("Sqrt", ["e"], "y"),
    ]
    captured = layers(model_of(nodes, qparams() | weights(per_channel=False)), tmp_path)
    listed = [c for c in captured if isinstance(c, Uncovered)]
    assert [c.kernel for c in listed] == ["Erf", "Sqrt"]
    assert all("float32" in c.reason for c in listed)


def test_the_audit_says_so_in_one_line(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "m.onnx",
        [
            node("QuantizeLinear", ["x", *of("x")], "xq"),
            node("QLinearConv", ["xq", *of("x"), "w", *of("w"), *of("h")], "h"),
            node("DequantizeLinear", ["h", *of("h")], "y"),
        ],
        qparams(UINT8) | weights(per_channel=False),
    )
    result = audit(path, level="extended")
    assert result.verdict.startswith("no violation: ") and "3 layers" in result.verdict
    assert result.violating == result.uncovered == result.violations == ()
    assert audit(path, seed=0, level="extended") == result
    assert audit(path, {"x": np.zeros((2, 4, 6, 6), np.float32)}).layers[0].elements == 2 * 4 * 36


def test_a_hard_swish_is_one_layer_though_two_kernels_compute_it(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("DequantizeLinear", ["xq", *of("x")], "xr"),
        node("HardSwish", ["xr"], "s"),
        node("QuantizeLinear", ["s", *of("h")], "hq"),
        node("DequantizeLinear", ["hq", *of("h")], "y"),
    ]
    assert ops(layers(model_of(nodes, qparams(), opset=14), tmp_path)) == ["quantize", "hardswish", "dequantize"]


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_is_worked_out(tmp_path: Path, auto_pad: str, level: str) -> None:
    inputs = ["xq", *of("x"), "w", *of("w"), *of("h"), "b"]
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("QLinearConv", inputs, "h", strides=[2, 1], auto_pad=auto_pad),
        node("DequantizeLinear", ["h", *of("h")], "y"),
    ]
    model = model_of(nodes, qparams() | weights(per_channel=True), x=(1, 4, 6, 9))
    assert ops(layers(model, tmp_path, level=level)) == ["quantize", "conv", "dequantize"]


def test_automatic_padding_by_less_than_nothing_is_not_judged(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("QLinearConv", ["xq", *of("x"), "w", *of("w"), *of("h"), "b"], "h", strides=[9, 1], auto_pad="SAME_UPPER"),
        node("DequantizeLinear", ["h", *of("h")], "y"),
    ]
    captured = layers(model_of(nodes, qparams() | weights(per_channel=True), x=(1, 4, 6, 9)), tmp_path)
    (conv,) = [c for c in captured if isinstance(c, Uncovered)]
    assert conv.reason == "auto_pad = SAME_UPPER: pads by -3, and no text says what that means"


def test_operators_of_one_float_each(tmp_path: Path) -> None:
    """Every float32 operator that is read, between DequantizeLinear and QuantizeLinear, at opset 20."""
    made = {
        "clamp": node("Clip", ["r", "low", "high"], "f"),
        "tanh": node("Tanh", ["r"], "f"),
        "elu": node("Elu", ["r"], "f", alpha=0.5),
        "hardsigmoid": node("HardSigmoid", ["r"], "f", alpha=1 / 6, beta=0.5),
        "softmax": node("Softmax", ["r"], "f", axis=-1),
        "pad": node("Pad", ["r", "pads", "", "axes"], "f"),
        "slice": node("Slice", ["r", "from", "to", "axis"], "f"),
        "reshape": node("Unsqueeze", ["r", "axis"], "f"),
        "avg_pool": node("AveragePool", ["r"], "f", kernel_shape=[2, 3], pads=[0, 1, 1, 1], count_include_pad=1),
        "max_pool": node("MaxPool", ["r"], "f", kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]),
        "concat": node("Concat", ["r", "r"], "f", axis=-3),
        "mul": node("Mul", ["r", "r"], "f"),
    }
    more = {
        "low": np.float32(-0.5),
        "high": np.float32(0.75),
        "pads": np.array([1, 2]),
        "axes": np.array([-1]),
        "from": np.array([-4]),
        "to": np.array([2**40]),
        "axis": np.array([2]),
    }
    for op, float_node in made.items():
        nodes = [
            node("QuantizeLinear", ["x", *of("x")], "xq"),
            node("DequantizeLinear", ["xq", *of("x")], "r"),
            float_node,
            node("QuantizeLinear", ["f", *of("h")], "hq"),
            node("DequantizeLinear", ["hq", *of("h")], "y"),
        ]
        model = model_of(nodes, qparams() | more, opset=20)
        assert ops(layers(model, tmp_path, level="disable")) == ["quantize", op, "dequantize"]
