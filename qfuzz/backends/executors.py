"""Where a framework runs: in this Python, or in another one. Both sides have one surface."""

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast
from urllib.parse import quote

from qfuzz.backends.foreign import foreign
from qfuzz.ir.errors import BackendMissing
from qfuzz.ir.protocols import Array

FRAMEWORKS = {"onnx_executor": "onnxruntime", "onnx_reference_executor": "onnx", "torch_executor": "torch"}
"""Executor to the framework that it runs."""


class Loaded(Protocol):
    """What an executor has loaded. `compile_seconds` were spent inside the framework."""

    compile_seconds: float

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Values of `names`, or `Executor.Refusal`."""
        ...


class Executor(Protocol):
    """An executor: one of the modules ``*_executor`` of this folder, or its stand-in for another Python."""

    @property
    def Refusal(self) -> type[Exception]:
        """What it raises where the framework refuses; its text has the framework's message in it."""
        ...

    def facts(self) -> dict[str, str]:
        """Version and build of the framework, and what else it tells of itself."""
        ...

    def load(self, *data: Any) -> Loaded:
        """Load a dialect's data: plain values, bytes, and mappings of arrays."""
        ...


def executor(module: str, python: str = "", environment: Mapping[str, str] = MappingProxyType({})) -> Executor:
    """The executor `module` of this folder, in this Python or in the one that `python` names.

    With an `environment`, which frameworks read as their process starts, it has a process of its own in any case.
    Nothing is loaded or started: that is done when the executor is first asked for something.
    """
    if python or environment:
        there = str(Path(__file__).with_name(f"{module}.py"))
        return foreign(python or sys.executable, there, tuple(environment.items()))
    return Here(module)


class Here:
    """An executor in this Python. Its framework is imported when it is first needed."""

    def __init__(self, module: str) -> None:
        self._name = module

    @cached_property
    def _module(self) -> Executor:
        try:
            return cast(Executor, importlib.import_module(f"qfuzz.backends.{self._name}"))
        except (Exception, SystemExit) as e:  # noqa: BLE001  whatever a framework raises while it is imported
            last = traceback.format_exception_only(e)[-1].strip()
            raise BackendMissing(f"{FRAMEWORKS[self._name]} cannot be loaded: {last}") from None

    @property
    def Refusal(self) -> type[Exception]:
        """What it raises where the framework refuses."""
        return self._module.Refusal

    def facts(self) -> dict[str, str]:
        """Version and build of the framework; raises `BackendMissing` where it cannot be loaded."""
        return self._module.facts()

    def load(self, *data: Any) -> Loaded:
        """Load a dialect's data."""
        return self._module.load(*data)


def python_option(python: str) -> list[str]:
    """The option as a backend's name has it, last; nothing for this Python."""
    return [f"python={quote(python, safe='/:~')}"] if python else []
