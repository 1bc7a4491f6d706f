"""ONNX models written by hand for the audit's tests: QOperator chains, and unfused QDQ of the same network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCALES = {"x": 0.02, "w": 0.01, "h": 0.03, "y": 0.05}
UINT8 = np.dtype(np.uint8)


def saved(path: Any, nodes: Sequence[Any], constants: dict[str, Any], **options: Any) -> Any:
    """Write the model of these nodes to `path`; see `model_of`."""
    onnx.save(model_of(nodes, constants, **options), str(path))
    return path


def model_of(
    nodes: Sequence[Any],
    constants: dict[str, Any],
    *,
    x: tuple[Any, ...] = ("N", 4, 6, 6),
    x_type: int = onnx.TensorProto.FLOAT,
    y: str = "y",
    y_type: int = onnx.TensorProto.FLOAT,
    opset: int = 13,
) -> Any:
    """A model with one input `x` and one output `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", x_type, x)],
        [helper.make_tensor_value_info(y, y_type, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


def node(op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> Any:
    """A node named after its output."""
    return helper.make_node(op, list(inputs), [output], name=f"{op}_{output}", domain=domain, **attributes)


def qparams(dtype: Any = UINT8) -> dict[str, Any]:
    """Scales, and zero points in the middle of the range."""
    middle = 128 if np.dtype(dtype) == UINT8 else 0
    named = {f"{n}_scale": np.float32(s) for n, s in SCALES.items()}
    return named | {f"{n}_zero": np.array(0 if n == "w" else middle, np.int8 if n == "w" else dtype) for n in SCALES}


def weights(*, per_channel: bool) -> dict[str, Any]:
    """A 3x3 convolution of 4 channels to 8, and its bias."""
    rng = np.random.default_rng(7)
    constants: dict[str, Any] = {
        "w": rng.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8),
        "b": rng.integers(-2000, 2000, 8).astype(np.int32),
    }
    if per_channel:
        constants["w_scale"] = rng.uniform(0.005, 0.02, 8).astype(np.float32)
        constants["w_zero"] = np.zeros(8, np.int8)
    return constants


def of(name: str) -> tuple[str, str]:
    """Names of the scale and zero point of a value."""
    return f"{name}_scale", f"{name}_zero"


def qoperator(*, opset: int = 13, dtype: Any = UINT8, per_channel: bool = True) -> Any:
    """Quantize, convolution, sum with itself, max pool, average, dequantize: all on stored integers."""
    pool = [node("MaxPool", ["s"], "m", kernel_shape=[2, 2], strides=[2, 2])] if opset >= 12 else []
    last = "m" if pool else "s"
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("QLinearConv", ["xq", *of("x"), "w", *of("w"), *of("h"), "b"], "h", pads=[1, 1, 1, 1]),
        node("QLinearAdd", ["h", *of("h"), "h", *of("h"), *of("y")], "s", "com.microsoft"),
        *pool,
        node("QLinearGlobalAveragePool", [last, *of("y"), *of("y")], "g", "com.microsoft"),
        node("DequantizeLinear", ["g", *of("y")], "y"),
    ]
    return model_of(nodes, qparams(dtype) | weights(per_channel=per_channel), opset=opset)


def qdq(*, opset: int = 13, dtype: Any = UINT8, relu: bool = True) -> Any:
    """The same convolution, with a relu, a matrix product and a sigmoid, as float32 operators between DQ and Q."""
    rng = np.random.default_rng(8)
    extra = {
        "fw": rng.integers(-127, 128, (288, 5)).astype(np.int8),
        "b_scale": np.float32(SCALES["x"]) * np.float32(SCALES["w"]),
        "fb": rng.normal(size=5).astype(np.float32),
    }
    activated = [node("Relu", ["c"], "r")] if relu else []
    nodes = [
        node("QuantizeLinear", ["x", *of("x")], "xq"),
        node("DequantizeLinear", ["xq", *of("x")], "xr"),
        node("DequantizeLinear", ["w", *of("w")], "wr"),
        node("DequantizeLinear", ["b", "b_scale"], "br"),
        node("Conv", ["xr", "wr", "br"], "c", pads=[1, 1, 1, 1]),
        *activated,
        node("QuantizeLinear", ["r" if relu else "c", *of("h")], "hq"),
        node("DequantizeLinear", ["hq", *of("h")], "hr"),
        node("Flatten", ["hr"], "f"),
        node("QuantizeLinear", ["f", *of("h")], "fq"),
        node("DequantizeLinear", ["fq", *of("h")], "fr"),
        node("DequantizeLinear", ["fw", *of("w")], "fwr"),
        node("MatMul", ["fr", "fwr"], "p"),
        node("Add", ["p", "fb"], "a"),
        node("QuantizeLinear", ["a", *of("y")], "aq"),
        node("DequantizeLinear", ["aq", *of("y")], "ar"),
        node("Sigmoid", ["ar"], "sr"),
        node("QuantizeLinear", ["sr", *of("w_out")], "sq"),
        node("DequantizeLinear", ["sq", *of("w_out")], "y"),
    ]
    out = {"w_out_scale": np.float32(1 / 256), "w_out_zero": np.array(0 if dtype is UINT8 else -128, dtype)}
    constants = qparams(dtype) | weights(per_channel=False) | extra | out
    constants["fw"] = extra["fw"]
    return model_of(nodes, constants, x=("N", 4, 6, 6), opset=opset)
