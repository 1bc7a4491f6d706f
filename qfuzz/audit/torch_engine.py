"""PyTorch's quantized engine, set for as long as a model is built and run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qfuzz.ir.errors import InvalidCase


@contextmanager
def chosen_engine(name: str | None) -> Iterator[None]:
    """Run under the engine `name`, or the current one.

    Raises
    ------
    InvalidCase
        If this PyTorch has no such engine.
    """
    if name is None:
        yield
        return
    there = [e for e in torch.backends.quantized.supported_engines if e != "none"]
    if name not in there:
        raise InvalidCase(f"engine {name!r}: this PyTorch has {', '.join(there)}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
