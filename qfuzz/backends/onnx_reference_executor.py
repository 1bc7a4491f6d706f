"""Runs an ONNX model in the ONNX reference evaluator. It never sees a network: standard library, NumPy, onnx only."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import __version__ as onnx_version
from onnx import load_model_from_string
from onnx.reference import ReferenceEvaluator

VERSION: str = onnx_version


# The evaluator is NumPy code, and raises what that raises.
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Refusal(Exception):
    """The evaluator raised. The message is its own, on one line."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")


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
        return dict(zip(names, values, strict=True))


def source_lines(model_file: str, inputs: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What `Evaluation` does as Python statements that need only onnx and NumPy (``np``); they end with ``outputs``."""
    fed = [
        f"    {name!r}: np.array({array.tolist()!r}, dtype=np.{array.dtype.name}).reshape({list(array.shape)!r}),"
        for name, array in inputs.items()
    ]
    return [
        "import numpy as np",
        "import onnx",
        "from onnx.reference import ReferenceEvaluator",
        "",
        f'evaluator = ReferenceEvaluator(onnx.load(HERE / "{model_file}"))',
        "fed = {",
        *fed,
        "}",
        f"names = {list(names)!r}",
        "outputs = dict(zip(names, evaluator.run(names, fed)))",
    ]
