"""A backend whose kernels run in another Python, exact but for one fault: ``echoing:Echoing?fault=segfault``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qfuzz.backends.foreign import Foreign, ForeignProgram
from qfuzz.backends.foreign_protocol import DTYPES
from qfuzz.backends.reference import ReferenceBackend, ReferenceProgram
from qfuzz.ir.errors import Rejected
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support, Supported

EXECUTOR = Path(__file__).parent / "backends" / "echo_executor.py"


class Echoing(ReferenceBackend):
    """Right values are computed here, sent there, and echoed by `echo_executor`, which does what its fault says."""

    def __init__(self, fault: str = "", marker: str = "", python: str = "") -> None:
        self.fault, self.marker = fault, marker
        options = [f"{k}={quote(v, safe='/')}" for k, v in (("fault", fault), ("marker", marker)) if v]
        self.name = "echoing:Echoing" + ("?" + "&".join(options) if options else "")
        self.foreign = Foreign(python or sys.executable, str(EXECUTOR))

    def describe(self) -> dict[str, str]:
        return self.foreign.facts()

    def supports(self, network: Network) -> Support:
        """All types that NumPy itself has: a dialect says others in these, before they leave."""
        others = sorted({t.dtype for t in network.types.values()} - {*DTYPES})
        return NotSupported(f"{others[0]}: NumPy has none") if others else Supported()

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "EchoProgram":  # type: ignore[override]
        ops = [n.op.name for n in network.nodes]
        constants = {name: t.array for name, t in network.constant_data.items()}
        try:
            there = self.foreign.load(self.fault, ops, self.marker, constants)
        except self.foreign.Refusal as e:
            raise Rejected(str(e)) from None
        return EchoProgram(ReferenceProgram(network), there, network.outputs, self.foreign.Refusal)


class EchoProgram:
    def __init__(
        self, right: ReferenceProgram, there: ForeignProgram, outputs: Sequence[str], refusal: type[Exception]
    ) -> None:
        self.right, self.there, self.outputs, self.refusal = right, there, outputs, refusal

    def run(self, inputs: Mapping[str, Any], taps: Sequence[str] = ()) -> dict[str, Any]:
        names = (*self.outputs, *taps)
        values = {"=" + name: np.array(a) for name, a in self.right.run(inputs, taps).items()}
        try:
            return self.there.run(dict(inputs) | values, names)
        except self.refusal as e:
            raise Rejected(str(e)) from None
