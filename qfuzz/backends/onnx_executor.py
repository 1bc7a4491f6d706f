"""Runs an ONNX model in ONNX Runtime's CPU kernels. It never sees a network: standard library, NumPy, onnxruntime only.

This file alone suffices to run a model in another Python, of version 3.9 or later.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

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


def facts() -> dict[str, str]:
    """Version and build of the runtime; early releases do not tell their build."""
    told = {"version": ort.__version__, "framework": "onnxruntime"}
    build = getattr(ort, "get_build_info", None)
    return told if build is None else {**told, "build": build()}


def load(model: bytes, optimization: str = "all", threads: int = 1) -> "Session":
    """The model, loaded as `Session` says."""
    return Session(model, optimization, threads)


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
        """Values of the outputs in `names`, less those that were not computed.

        Raises
        ------
        Refusal
            The runtime raised.
        """
        try:
            values = self._session.run(list(names), dict(inputs))
        except _REFUSALS as e:
            raise Refusal("run", e) from None
        # A kernel that writes no output leaves None: that value is missing.
        return {name: value for name, value in zip(names, values) if value is not None}  # noqa: B905  for old Pythons
