"""A kernel that makes infinity or NaN of finite numbers is guilty; what reads them is not judged on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from qfuzz.backends.reference import ReferenceBackend, ReferenceProgram
from qfuzz.ir.network import Case, Input, Network, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.quantization import Dequantize, Quantize
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference

Q = QType.per_tensor("uint8", 0.5, 3)


class _Spoilt(ReferenceBackend):
    """The reference, whose dequantize gives one wrong number."""

    name = "spoilt"

    def __init__(self, wrong: float) -> None:
        self.wrong = wrong

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        wrong = self.wrong

        class Program(ReferenceProgram):
            def run(self, inputs: Mapping[str, Any], taps: Sequence[str] = ()) -> dict[str, Any]:
                values = super().run(inputs, taps)
                values["f"] = values["f"].copy()
                values["f"][0] = wrong
                return values

        return Program(network)


@pytest.mark.parametrize("wrong", [float("inf"), float("-inf"), float("nan")])
def test_non_finite_output_is_a_violation_of_its_node_alone(wrong: float) -> None:
    nodes = (Node("f", Dequantize(), ("x",), "float32"), Node("y", Quantize(), ("f",), Q))
    network = Network((Input("x", TensorType((2,), Q)),), (), nodes, ("y",))
    case = Case(network, (Tensor(np.array([9, 200], dtype=np.uint8)),))
    verdict = check_one(case, _Spoilt(wrong), Reference(case))
    assert verdict.op == "dequantize"
    assert {m.value for m in verdict.mismatches} == {"f"}
