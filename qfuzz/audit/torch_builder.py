"""A user's Python file that builds a model: it is executed, and whatever goes wrong in it is one clear line."""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from qfuzz.ir.errors import InvalidCase


def built(path: Path, name: str) -> tuple[Any, tuple[Any, ...]]:
    """What the function `name` in the file `path` returns: a model, and the arguments to run it on.

    Raises
    ------
    InvalidCase
        In one line: the file or the function cannot be had, raises, or returns something else.
    """
    where = f"{path}:{name}"
    build = _function(path, name)
    with blaming(where):
        result = build()
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], torch.nn.Module):
        raise InvalidCase(f"{where}: returned {_kind(result)}; it returns a torch.nn.Module and its example inputs")
    model, inputs = result
    arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not arguments or not all(isinstance(a, torch.Tensor) for a in arguments):
        raise InvalidCase(f"{where}: example inputs are {_kind(inputs)}; they are a tensor or a tuple of tensors")
    return model, arguments


def _function(path: Path, name: str) -> Callable[[], Any]:
    if not path.is_file():
        raise InvalidCase(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidCase(f"{path}: no Python file; its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        with blaming(str(path)):
            spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    found = getattr(module, name, None)
    if not callable(found):
        raise InvalidCase(f"{path}: it has no function {name!r}")
    build: Callable[[], Any] = found
    return build


@contextmanager
def blaming(where: str) -> Iterator[None]:
    """Turn whatever a user's code raises into bad input; torch's deprecations are no news to an audit."""
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    except (Exception, SystemExit) as e:  # noqa: BLE001  a user's code may raise anything
        raise InvalidCase(f"{where}: {one_line(e)}") from None


def one_line(error: BaseException) -> str:
    """The first line of an error's message, after its type."""
    message = shorten(str(error).strip().split("\n")[0], 240, placeholder=" ...")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(v).__name__ for v in value)})"
    return "None" if value is None else f"a {type(value).__name__}"
