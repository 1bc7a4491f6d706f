"""That ONNX Runtime's LayerNormalization works as its contract says, bit for bit: what its bound is derived from."""

from typing import Any

import numpy as np
import pytest

from qfuzz.backends.environment import cpu_flags

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

Array = np.ndarray[Any, Any]
EPSILON = np.float32(1e-5)


def _kernel(x: Array) -> Array:
    """One row through the float32 operator, with scale 1 and without bias."""
    n = x.size
    node = onnx.helper.make_node("LayerNormalization", ["x", "s"], ["y"], axis=-1, epsilon=float(EPSILON))
    x_info, y_info = (onnx.helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, [1, n]) for v in "xy")
    ones = onnx.numpy_helper.from_array(np.ones(n, np.float32), "s")
    graph = onnx.helper.make_graph([node], "g", [x_info], [y_info], [ones])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.reshape(1, n)})[0]).ravel()


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


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 16, 40, 64])
def test_layer_norm_is_welfords_update_or_two_passes(n: int) -> None:
    if not runtime.__version__.startswith("1.32.") or "avx2" not in cpu_flags():
        pytest.skip(f"the contract's source is of release 1.32 on x86 with AVX2; this is {runtime.__version__}")
    rng = np.random.default_rng(n)
    for _ in range(40):
        x = ((rng.integers(0, 256, n) - rng.integers(0, 256)) * np.float32(0.1)).astype(np.float32)
        expected = _welford(x) if n < 8 else _two_passes(x)
        np.testing.assert_array_equal(_kernel(x), expected)
