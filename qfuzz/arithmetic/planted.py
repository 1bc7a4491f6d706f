"""The backend `planted?fault=NAME`: the exact arithmetic with one fault, to show that qfuzz finds it."""

from collections.abc import Mapping, Sequence

from qfuzz.arithmetic.catalogue import FAULTS, family_of_node
from qfuzz.arithmetic.cause import is_modelled
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, NotSupported, Support, Supported

FLOAT32 = Contract(
    terms="accumulator", k=4, tie="half_even", source="float32 requantization: multiplier in 2 roundings, product, bias"
)


class PlantedBackend:
    """Judged as a float32 kernel would be.

    Parameters
    ----------
    fault
        A name of `FAULTS`, or ``none``.
    """

    fuses = False

    def __init__(self, fault: str = "none") -> None:
        if fault != "none" and fault not in FAULTS:
            raise InvalidCase(f"fault: {fault!r}; one of none, {', '.join(FAULTS)}")
        self.choices: Mapping[str, str] = {} if fault == "none" else FAULTS[fault]
        self.name = f"planted?fault={fault}"
        self.contracts: Mapping[str, Contract] = _Everywhere(FLOAT32)

    def describe(self) -> dict[str, str]:
        """Which fault."""
        return {"version": "1", "framework": "qfuzz"}

    def supports(self, network: Network) -> Support:
        """All whose arithmetic has models."""
        for node in network.nodes:
            if not is_modelled(node, network.input_types(node)):
                return NotSupported(f"{node.op.name} {node.name!r}: models are of bytes with one scale")
        return Supported()

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "PlantedProgram":
        """Nothing to prepare."""
        return PlantedProgram(network, self.choices)


class PlantedProgram:
    """The network in exact arithmetic, but for `choices` at each node that has them."""

    def __init__(self, network: Network, choices: Mapping[str, str]) -> None:
        self._network, self._choices = network, choices

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name."""
        values: dict[str, Array] = {n: t.array for n, t in self._network.constant_data.items()}
        values.update(inputs)
        for node in self._network.nodes:
            arrays = [values[i] for i in node.inputs]
            types = self._network.input_types(node)
            family = family_of_node(node, types)
            exact = family.model()
            evaluation = family.evaluate(node, types, arrays)
            values[node.name] = evaluation.stored(family.departing(exact, self._choices) or exact)
        return {name: values[name] for name in (*self._network.outputs, *taps)}


class _Everywhere(dict[str, Contract]):
    """The same contract for every operator."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self._contract = contract

    def get(self, name: str, default: Contract | None = None) -> Contract:  # type: ignore[override]
        return self._contract

    def __getitem__(self, name: str) -> Contract:
        return self._contract
