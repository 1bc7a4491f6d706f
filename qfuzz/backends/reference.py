"""The backend `reference`: the exact arithmetic itself, as a peer of the real ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from qfuzz.backends.environment import describe_machine
from qfuzz.ir.contract import Contract
from qfuzz.ir.network import Case, Network
from qfuzz.ir.protocols import Array, Support, Supported
from qfuzz.ir.tensor import Tensor
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.oracle.reference import exact_outputs

EXACT = Contract(terms="exact", k=0, tie="half_even", source="the definition")


class ReferenceBackend:
    """Computes every node exactly and rounds it correctly."""

    name = "reference"
    fuses = False
    contracts: Mapping[str, Contract] = dict.fromkeys(OPERATOR_NAMES, EXACT)

    def describe(self) -> dict[str, str]:
        """The NumPy that it computes with, and the machine."""
        return {"version": np.__version__, "framework": "numpy", **describe_machine()}

    def supports(self, network: Network) -> Support:
        """Everything that is valid."""
        return Supported()

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "ReferenceProgram":
        """Nothing to prepare."""
        return ReferenceProgram(network)


class ReferenceProgram:
    """The network, evaluated exactly."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name."""
        case = Case(self._network, tuple(Tensor(inputs[i.name]) for i in self._network.inputs))
        values = exact_outputs(case)
        return {name: values[name] for name in (*self._network.outputs, *taps)}
