"""What the ONNX executors do, as Python statements for a reader who has the framework only. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

LEVELS: Mapping[str, str] = MappingProxyType(
    {
        "disable": "ORT_DISABLE_ALL",
        "basic": "ORT_ENABLE_BASIC",
        "extended": "ORT_ENABLE_EXTENDED",
        "all": "ORT_ENABLE_ALL",
    }
)
"""Name of a level of graph optimizations to what ONNX Runtime calls it."""


def runtime_lines(
    model_file: str, inputs: Mapping[str, Any], names: Sequence[str], optimization: str = "all", threads: int = 1
) -> list[str]:
    """What `onnx_executor.Session` does; needs onnxruntime and NumPy, and ends with ``outputs``."""
    return [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        "options = ort.SessionOptions()",
        f"options.graph_optimization_level = ort.GraphOptimizationLevel.{LEVELS[optimization]}",
        f"options.intra_op_num_threads = {threads}",
        "options.log_severity_level = 4",
        "options.enable_cpu_mem_arena = False",
        f'model = (HERE / "{model_file}").read_bytes()',
        'session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])',
        *_fed(inputs),
        f"names = {list(names)!r}",
        "outputs = dict(zip(names, session.run(names, fed)))",
    ]


def evaluator_lines(model_file: str, inputs: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What `onnx_reference_executor.Evaluation` does; needs onnx and NumPy, and ends with ``outputs``."""
    return [
        "import numpy as np",
        "import onnx",
        "from onnx.reference import ReferenceEvaluator",
        "",
        f'evaluator = ReferenceEvaluator(onnx.load(HERE / "{model_file}"))',
        *_fed(inputs),
        f"names = {list(names)!r}",
        "outputs = dict(zip(names, evaluator.run(names, fed)))",
    ]


def _fed(inputs: Mapping[str, Any]) -> list[str]:
    fed = [
        f"    {name!r}: np.array({array.tolist()!r}, dtype={_dtype(array)}).reshape({list(array.shape)!r}),"
        for name, array in inputs.items()
    ]
    return ["fed = {", *fed, "}"]


def _dtype(array: Any) -> str:
    """NumPy's name of a dtype, in old releases, too: bool is Python's own."""
    return "bool" if array.dtype.name == "bool" else f"np.{array.dtype.name}"
