"""That ONNX Runtime's normalizations work as their contracts say, bit for bit: what their bounds are derived from."""

from typing import Any

import numpy as np
import pytest

from qfuzz.backends.environment import cpu_flags

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

Array = np.ndarray[Any, Any]
EPSILON = np.float32(1e-5)


def _kernel(op_type: str, x: Array, scale: Array, *bias: Array) -> Array:
    """One row through the float32 operator."""
    inputs = ["x", "s", "b"][: 2 + len(bias)]
    node = onnx.helper.make_node(op_type, inputs, ["y"], epsilon=float(EPSILON))
    x_info, y_info = (onnx.helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, [1, 1, x.size]) for v in "xy")
    parameters = [onnx.numpy_helper.from_array(a, name) for a, name in zip((scale, *bias), "sb", strict=False)]
    graph = onnx.helper.make_graph([node], "g", [x_info], [y_info], parameters)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.reshape(1, 1, x.size)})[0]).ravel()


def _drawn(rng: np.random.Generator, n: int) -> Array:
    return np.asarray((rng.integers(0, 256, n) - rng.integers(0, 256)) * np.float32(0.1), dtype=np.float32)


def _require(feature: str = "") -> None:
    if not runtime.__version__.startswith("1.32.") or feature not in ("", *cpu_flags()):
        pytest.skip(f"the contract's source is of release 1.32 on x86 with AVX2; this is {runtime.__version__}")


def _welford(x: Array) -> Array:
    mean = squares = np.float32(0)
    for k, v in enumerate(x):
        delta = v - mean
        mean = mean + delta / np.float32(k + 1)
        squares = squares + delta * (v - mean)
    return np.asarray((x - mean) / np.sqrt(squares / np.float32(x.size) + EPSILON))


def _two_passes(x: Array) -> Array:
    """Of whole blocks of 8: each lane is a chain of fused multiply-adds, and lanes are added in halves."""
    mean = np.float32(x.astype(np.float64).sum() / x.size)
    lanes = np.zeros(8, np.float32)
    for block in (x - mean).reshape(-1, 8).astype(np.float64):
        lanes = (block * block + lanes).astype(np.float32)  # 48 bits and 24 fit well enough into 53 to round once
    halves = lanes[:4] + lanes[4:]
    variance = (halves[0] + halves[2]) + (halves[1] + halves[3])
    return np.asarray((x - mean) * (np.float32(1) / np.sqrt(variance / np.float32(x.size) + EPSILON)))


def _distributed(x: Array, scale: np.float32, bias: np.float32) -> Array:
    """Of at most 3 elements, which are summed one after the other."""
    total = squares = np.float32(0)
    for v in x:
        total = total + v
    mean = total / np.float32(x.size)
    for v in x:
        squares = squares + (v - mean) * (v - mean)
    c = np.float32(1) / np.sqrt(squares / np.float32(x.size) + EPSILON) * scale
    return np.asarray(x * c + (bias - mean * c))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 16, 40, 64])
def test_layer_norm_is_welfords_update_or_two_passes(n: int) -> None:
    _require("avx2")
    rng = np.random.default_rng(n)
    for _ in range(40):
        x = _drawn(rng, n)
        expected = _welford(x) if n < 8 else _two_passes(x)
        np.testing.assert_array_equal(_kernel("LayerNormalization", x, np.ones(n, np.float32)), expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_instance_norm_multiplies_x_and_its_mean_apart(n: int) -> None:
    _require()
    rng = np.random.default_rng(n)
    for _ in range(40):
        x, scale, bias = _drawn(rng, n), *rng.normal(0, 1, (2, 1)).astype(np.float32)
        expected = _distributed(x, scale[0], bias[0])
        np.testing.assert_array_equal(_kernel("InstanceNormalization", x, scale, bias), expected)
