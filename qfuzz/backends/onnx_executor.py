"""Runs an ONNX model in ONNX Runtime's CPU kernels. It never sees a network: standard library, NumPy, onnxruntime only.

This file alone suffices to run a model in another Python.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

VERSION: str = ort.__version__
BUILD_INFO: str = ort.get_build_info()

LEVELS: dict[str, Any] = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""Name of a level of graph optimizations to the runtime's constant."""

_FATAL = 4  # the highest severity: nothing else is logged


_REFUSALS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
"""How the runtime refuses: an exception class per status code, which have no base of their own."""


class Refusal(Exception):
    """The runtime raised. `stage` is ``load`` or ``run``; the message is the runtime's own, on one line."""

    def __init__(self, stage: str, error: Exception) -> None:
        self.stage = stage
        self.message = " ".join(str(error).split())[:500]
        super().__init__(f"{stage}: {type(error).__name__}: {self.message}")


class Session:
    """A loaded model. `compile_seconds` is the time that the runtime took to load it.

    Parameters
    ----------
    model
        A serialized ONNX model.
    optimization
        One of `LEVELS`.
    threads
        Threads of one operator.
    save_to
        A path for the graph as it is after optimization; nothing saves none.
    """

    def __init__(self, model: bytes, optimization: str = "all", threads: int = 1, save_to: str = "") -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = LEVELS[optimization]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        # Every buffer from malloc, whose checks and fills then see what kernels do to it.
        options.enable_cpu_mem_arena = False
        if save_to:
            options.optimized_model_filepath = save_to
        start = time.perf_counter()
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _REFUSALS as e:
            raise Refusal("load", e) from None
        self.compile_seconds = time.perf_counter() - start

    def run(self, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Values of the outputs in `names`.

        Raises
        ------
        Refusal
            The runtime raised.
        """
        try:
            values = self._session.run(list(names), dict(inputs))
        except _REFUSALS as e:
            raise Refusal("run", e) from None
        return dict(zip(names, values, strict=True))


def source_lines(
    model_file: str, inputs: Mapping[str, Any], names: Sequence[str], optimization: str = "all", threads: int = 1
) -> list[str]:
    """What `Session` does as Python statements that need only onnxruntime and NumPy; they end with ``outputs``."""
    fed = [
        f"    {name!r}: np.array({array.tolist()!r}, dtype=np.{array.dtype.name}).reshape({list(array.shape)!r}),"
        for name, array in inputs.items()
    ]
    return [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        "options = ort.SessionOptions()",
        f"options.graph_optimization_level = ort.GraphOptimizationLevel.{LEVELS[optimization].name}",
        f"options.intra_op_num_threads = {threads}",
        f"options.log_severity_level = {_FATAL}",
        "options.enable_cpu_mem_arena = False",
        f'model = (HERE / "{model_file}").read_bytes()',
        'session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])',
        "fed = {",
        *fed,
        "}",
        f"names = {list(names)!r}",
        "outputs = dict(zip(names, session.run(names, fed)))",
    ]
