"""An exported program (``.pt2``): read by torch, run on the inputs that it brings or on given ones.

`torch.export.load` unpickles what is no plain tensor, so that a hostile file can execute code, as a Python file does.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from qfuzz.audit.torch_builder import one_line
from qfuzz.ir.errors import InvalidCase


def loaded(path: Path, inputs: Sequence[Any] | None) -> tuple[Any, tuple[Any, ...]]:
    """The program's module, and the arguments to run it on.

    Parameters
    ----------
    inputs
        Tensors or arrays, in order; None takes the example inputs that the program was exported with.

    Raises
    ------
    InvalidCase
        In one line: the file is no exported program, or brings no inputs where none are given.
    """
    if not path.is_file():
        raise InvalidCase(f"{path}: no such file")
    _register_quantizing()
    with _quietly() as reasons:
        try:
            program = torch.export.load(path)
            module = program.module()
        except Exception as e:  # noqa: BLE001  torch raises whatever its readers do
            why = one_line(reasons[-1] if reasons else e)
            raise InvalidCase(f"{path}: torch cannot load it as an exported program: {why}") from None
    if inputs is not None:
        return module, tuple(inputs)
    arguments, named = program.example_inputs or ((), {})
    if not arguments or named:
        raise InvalidCase(f"{path}: it brings no positional example inputs; give some")
    return module, tuple(arguments)


def _register_quantizing() -> None:
    """Make the operators known that a PT2E-converted program calls; importing torch alone does not."""
    if not hasattr(torch.ops.quantized_decomposed, "quantize_per_tensor"):
        import_module("torch.ao.quantization.fx._decomposed")  # twice is an error: torchao may have done it


@contextmanager
def _quietly() -> Iterator[list[BaseException]]:
    """Keep torch from logging tracebacks; the errors that it would have logged."""
    reasons: list[BaseException] = []

    def note(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            reasons.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(note)
    try:
        yield reasons
    finally:
        logger.removeFilter(note)
