"""Backends that are exact, but for one misbehaviour each. Given as ``misbehaving:Name``; each class is one fault."""

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.backends.reference import ReferenceBackend, ReferenceProgram
from qfuzz.ir.errors import Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support

Array = npt.NDArray[Any]
Values = dict[str, Array]

GUILTY = "add"
"""The operator at which those die that die."""


class Honest(ReferenceBackend):
    """Exact. What it returns passes through `spoil`, which here leaves it alone."""

    name = "misbehaving:Honest"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = f"misbehaving:{cls.__name__}"

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        backend = self

        class Program(ReferenceProgram):
            def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> Values:
                backend.before(network, inputs)
                return backend.spoil(super().run(inputs, taps), network)

        return Program(network)

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        """Called with what it is given."""

    def spoil(self, values: Values, network: Network) -> Values:
        """What becomes of right outputs."""
        return values


def has_guilty(network: Network) -> bool:
    """Whether the operator is there that kills."""
    return any(n.op.name == GUILTY for n in network.nodes)


def last(values: Values, network: Network) -> tuple[str, Array]:
    """The last output and a copy of it."""
    name = network.outputs[-1]
    return name, np.array(values[name])


class Missing(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        del values[network.outputs[-1]]
        return values


class WrongShape(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: y[None]}


class WrongDtype(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: y.astype(np.int64)}


class OffByOne(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[:1] -= 1
        return values | {name: y}


class Permuted(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: np.ascontiguousarray(np.roll(y, 1))}


class Saturated(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[:1] = 255
        return values | {name: y}


class Garbage(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[:1] ^= 85
        return values | {name: y}


class NotANumber(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[0] = np.nan
        return values | {name: y}


class ChangesInputs(Honest):
    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        inputs[network.inputs[0].name].flat[0] ^= 1


class Unstable(Honest):
    def __init__(self) -> None:
        self.runs = 0

    def spoil(self, values: Values, network: Network) -> Values:
        self.runs += 1
        name, y = last(values, network)
        y.flat[0] = self.runs
        return values | {name: y}


class Refuses(Honest):
    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        raise Rejected("no kernel was found\nin the registry")


class HasNoKernel(Honest):
    def supports(self, network: Network) -> Support:
        return NotSupported("there is none")


class SaysSoLate(Honest):
    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        raise Unsupported("documented to be refused")


class Dies(Honest):
    """Of `death()`, in a network that holds the guilty operator."""

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        if has_guilty(network):
            self.death()

    def death(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Segfault(Dies):
    def death(self) -> None:
        ctypes.string_at(0)


class DividesByZero(Dies):
    def death(self) -> None:
        os.kill(os.getpid(), signal.SIGFPE)


class IllegalInstruction(Dies):
    def death(self) -> None:
        os.kill(os.getpid(), signal.SIGILL)


class Aborts(Dies):
    def death(self) -> None:
        os.write(2, b"check failed: x > 0\n")
        os.abort()


class Exits(Dies):
    """With status 0, as if all were well."""

    def death(self) -> None:
        os._exit(0)


class Hangs(Dies):
    def death(self) -> None:
        while True:
            pass


class Prints(Dies):
    """Thousands of lines past Python's own streams, and lives."""

    def death(self) -> None:
        for _ in range(50):
            os.write(1, b"INFO: a line from C\n" * 100)
            os.write(2, b"WARNING: another line from C\n" * 100)


class Raises(Dies):
    """An error of the backend's own code: no verdict on any kernel."""

    def death(self) -> None:
        raise ZeroDivisionError("in the backend's own code")


class Truncates(PlantedBackend):
    """A planted fault under another name."""

    def __init__(self) -> None:
        super().__init__("truncation")
        self.name = "misbehaving:Truncates"
