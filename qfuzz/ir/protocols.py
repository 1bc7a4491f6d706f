"""The seam between qfuzz and what it tests: `Backend` and `Program`. A user's own class needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy.typing as npt

from qfuzz.ir.contract import Contract
from qfuzz.ir.network import Network

Array: TypeAlias = npt.NDArray[Any]


class Supported(msgspec.Struct, frozen=True):
    """The backend has a kernel for every node."""


class NotSupported(msgspec.Struct, frozen=True):
    """The backend has no kernel for some node, and why."""

    reason: str


Support: TypeAlias = Supported | NotSupported


@runtime_checkable
class Program(Protocol):
    """A network compiled by a backend."""

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Compute the network's outputs, and the values named in `taps`, by name.

        Quantized values are arrays of their storage dtype. Inputs are never written to.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Something that computes quantized networks.

    Attributes
    ----------
    name
        As the user names it.
    contracts
        Operator name to `Contract`; an operator that is not listed is held to `qfuzz.oracle.DEFAULT_CONTRACT`.
    fuses
        Whether exposing intermediate values can change what is computed: then both the tapped and the untapped
        network run. Otherwise one tapped run serves both.
    """

    name: str
    contracts: Mapping[str, Contract]
    fuses: bool

    def describe(self) -> dict[str, str]:
        """Versions and float environment (instruction set, threads) as plain strings; at least ``version``."""
        ...

    def supports(self, network: Network) -> Support:
        """Whether every node has a kernel, or why not. Never runs the framework."""
        ...

    def compile(self, network: Network, taps: Sequence[str] = ()) -> Program:
        """Prepare `network`; `taps` are the intermediate values that will be asked for.

        Raises
        ------
        Unsupported
            A documented refusal that only shows when the framework is asked.
        Rejected
            Any other refusal, with the framework's own message.
        """
        ...


class Script(msgspec.Struct, frozen=True):
    """How a backend's calls look to a reader who has only the framework.

    Attributes
    ----------
    lines
        Python statements that need the framework and NumPy (as ``np``) only. They may read `files` from the folder
        ``HERE`` (a `pathlib.Path`), and end with ``outputs``, a dict of NumPy arrays by value name, taps included.
    files
        Contents of those files, by name.
    on_reals
        Of a network whose form is invalid: statements with the same call on real numbers, which is refused.
    """

    lines: tuple[str, ...]
    files: dict[str, bytes]
    on_reals: tuple[str, ...] = ()


@runtime_checkable
class Scriptable(Protocol):
    """A backend that can print what it runs. Without it, a reproducer calls qfuzz itself."""

    fuses: bool

    def script(self, network: Network, arrays: Mapping[str, Array], taps: Sequence[str] = ()) -> Script:
        """The calls for `network`; `arrays` are its inputs and constants by name."""
        ...


@runtime_checkable
class KnowsInvalid(Protocol):
    """A backend that runs networks whose form is invalid. Others say nothing of them."""

    def why_invalid(self, network: Network, inputs: Mapping[str, Array]) -> str:
        """Why `network` should be refused: what the operator on real numbers says, or the text that rules it out.

        Nothing where it should not be.

        Raises
        ------
        Unsupported
            Where this cannot be told.
        """
        ...
