"""Runs an ONNX model in the ONNX reference evaluator. It never sees a network: standard library, NumPy, onnx only.

This file alone suffices to run a model in another Python, of version 3.9 or later.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import __version__ as onnx_version
from onnx import load_model_from_string
from onnx.reference import ReferenceEvaluator

# The evaluator is NumPy code, and raises what that raises.
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Refusal(Exception):
    """The evaluator raised. The message is its own, on one line."""

    def __init__(self, error: Exception) -> None:
        self.message = " ".join(str(error).split())[:500]
        super().__init__(f"{type(error).__name__}: {self.message}")


def facts() -> dict[str, str]:
    """Versions of the evaluator and of the NumPy that it computes with."""
    return {"version": onnx_version, "framework": "onnx", "numpy": np.__version__}


def load(model: bytes) -> "Evaluation":
    """The model, loaded."""
    return Evaluation(model)


class Evaluation:
    """A loaded model. `compile_seconds` is the time that loading took."""

    def __init__(self, model: bytes) -> None:
        start = time.perf_counter()
        try:
            self._evaluator = ReferenceEvaluator(load_model_from_string(model))
        except _REFUSALS as e:
            raise Refusal(e) from None
        self.compile_seconds = time.perf_counter() - start

    def run(self, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Values of the outputs in `names`.

        Raises
        ------
        Refusal
            The evaluator raised.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = self._evaluator.run(list(names), dict(inputs))
        except _REFUSALS as e:
            raise Refusal(e) from None
        return dict(zip(names, values))  # noqa: B905  for old Pythons
