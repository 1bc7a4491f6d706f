"""A kernel of many versions, given as ``versioned:Kernel?python=PATH``: the folder that PATH lies in is the version.

From 3.0 to 4.9 it truncates, from 5.0 on it is right again; 2.5 and all of 6 know no operator; 2.7 cannot be had.
"""

from pathlib import Path
from typing import Any

from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.ir.errors import BackendMissing
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support


class Kernel(PlantedBackend):
    """Right or truncating."""

    def __init__(self, python: str, **options: Any) -> None:
        self.version = Path(python).parent.name
        if self.version == "2.7":
            raise BackendMissing("version 2.7 does not load: no such library")
        super().__init__(fault="truncation" if "3.0" <= self.version < "5.0" else "none")
        self.name = f"versioned:Kernel?python={python}"

    def describe(self) -> dict[str, str]:
        return super().describe() | {"name": self.name, "version": self.version}

    def supports(self, network: Network) -> Support:
        return (
            NotSupported("no operators yet")
            if self.version[:1] == "6" or self.version == "2.5"
            else super().supports(network)
        )
