"""A case as `model.onnx` with `test_data_set_0/`, as ONNX backend tests lie. Nothing where it has no ONNX form."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from qfuzz.ir.errors import QfuzzError
from qfuzz.ir.network import Case
from qfuzz.oracle.reference import exact_outputs


def model_files(case: Case) -> dict[str, bytes]:
    """The model in its QOperator form, else QDQ, with inputs and the exact outputs, by relative name."""
    if importlib.util.find_spec("onnx") is None or case.network.is_invalid:
        return {}
    from qfuzz.backends.onnx_dialect import lower, serialize  # needs onnx, which may be absent

    for form in ("qoperator", "qdq"):
        try:
            lowered = lower(case.network, form)
        except QfuzzError:
            continue
        inputs = {v.name: t.array for v, t in zip(case.network.inputs, case.inputs, strict=True)} | dict(lowered.feeds)
        exact = exact_outputs(case)
        outputs = {o: exact[o] for o in case.network.outputs}
        return {"model.onnx": serialize(case.network, lowered)} | _data("input", inputs) | _data("output", outputs)
    return {}


def _data(kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    from qfuzz.backends.onnx_dialect import tensor_file

    return {
        f"test_data_set_0/{kind}_{i}.pb": tensor_file(name, array) for i, (name, array) in enumerate(arrays.items())
    }
