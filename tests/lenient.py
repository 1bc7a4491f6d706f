"""Backends that know which networks are invalid, and run the valid ones exactly. Given as ``lenient:Name``."""

import os
import signal
from collections.abc import Mapping, Sequence

from qfuzz.backends.reference import ReferenceBackend, ReferenceProgram
from qfuzz.ir.errors import Rejected
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array

RULE = "the rule of this test"


class Strict(ReferenceBackend):
    """Refuses every network whose form is invalid."""

    name = "lenient:Strict"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = f"lenient:{cls.__name__}"

    def why_invalid(self, network: Network, inputs: Mapping[str, Array]) -> str:
        return RULE

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        if network.is_invalid and not self.accepts(network):
            raise Rejected("no such thing")
        return ReferenceProgram(network)

    def accepts(self, network: Network) -> bool:
        return False


class Lenient(Strict):
    """Takes operands of shapes that do not go together."""

    def accepts(self, network: Network) -> bool:
        return network.form("invalid") == "shapes"


class Valid(Strict):
    """On which the operator on real numbers takes everything."""

    def why_invalid(self, network: Network, inputs: Mapping[str, Array]) -> str:
        return ""


class Dies(Strict):
    """Dies of what Lenient takes."""

    def accepts(self, network: Network) -> bool:
        if network.form("invalid") == "shapes":
            os.kill(os.getpid(), signal.SIGFPE)
        return False
