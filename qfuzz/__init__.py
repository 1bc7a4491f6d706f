"""qfuzz: a differential fuzzer for quantized kernels that knows which integers are right.

Everything below is loaded when it is first used: importing qfuzz imports neither numpy, hypothesis nor a framework.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qfuzz.api import backend, check, load, reduce, save
    from qfuzz.audit.outcome import Audit, audit
    from qfuzz.ir.contract import Contract
    from qfuzz.ir.errors import BackendMissing, InvalidCase, QfuzzError, Rejected, Unsupported, WorkerFailed
    from qfuzz.ir.network import Case, Constant, Input, Network, Node
    from qfuzz.ir.protocols import Backend, NotSupported, Program, Supported
    from qfuzz.ir.qtype import QType
    from qfuzz.ir.tensor import Tensor, TensorType
    from qfuzz.oracle.verdicts import BackendVerdict, Mismatched, Outcome, Verdicts
    from qfuzz.strategies import cases, networks, qtypes, scales, zero_points

_HOMES: dict[str, tuple[str, ...]] = {
    "qfuzz.api": ("backend", "check", "load", "reduce", "save"),
    "qfuzz.audit.outcome": ("Audit", "audit"),
    "qfuzz.ir.contract": ("Contract",),
    "qfuzz.ir.errors": ("BackendMissing", "InvalidCase", "QfuzzError", "Rejected", "Unsupported", "WorkerFailed"),
    "qfuzz.ir.network": ("Case", "Constant", "Input", "Network", "Node"),
    "qfuzz.ir.protocols": ("Backend", "NotSupported", "Program", "Supported"),
    "qfuzz.ir.qtype": ("QType",),
    "qfuzz.ir.tensor": ("Tensor", "TensorType"),
    "qfuzz.oracle.verdicts": ("BackendVerdict", "Mismatched", "Outcome", "Verdicts"),
    "qfuzz.strategies": ("cases", "networks", "qtypes", "scales", "zero_points"),
}
"""Module to the public names that live there."""

__all__ = [
    "Audit",
    "Backend",
    "BackendMissing",
    "BackendVerdict",
    "Case",
    "Constant",
    "Contract",
    "Input",
    "InvalidCase",
    "Mismatched",
    "Network",
    "Node",
    "NotSupported",
    "Outcome",
    "Program",
    "QType",
    "QfuzzError",
    "Rejected",
    "Supported",
    "Tensor",
    "TensorType",
    "Unsupported",
    "Verdicts",
    "WorkerFailed",
    "audit",
    "backend",
    "cases",
    "check",
    "load",
    "networks",
    "qtypes",
    "reduce",
    "save",
    "scales",
    "zero_points",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'qfuzz' has no attribute {name!r}")


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        """Keep what the API has of a room's name: the import system would bind `reduce` to the room that it loads."""
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
