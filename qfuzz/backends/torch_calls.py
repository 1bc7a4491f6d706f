"""Torch calls as plain data: what the dialects write and the executor runs. Tuples all the way down, no torch."""

from typing import Any, Literal, NamedTuple


class Arg(NamedTuple):
    """One argument: a literal, the value of a variable, a list of variables, or a name inside torch."""

    kind: Literal["literal", "variable", "variables", "torch"]
    value: Any


class Call(NamedTuple):
    """`out = target(*args, **kwargs)`; a target that begins with a dot is a method of the first argument.

    Where it returns several values, `out` are their variables, with commas between them; one of one is ``x,``.
    """

    out: str
    target: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...] = ()


class Array(NamedTuple):
    """A variable that holds the array named `name`: a graph input, or a constant."""

    variable: str
    name: str


class Declared(NamedTuple):
    """What a variable's tensor must say of itself. `scale` and `zero_point` are None for an unquantized tensor.

    `dtype` is torch's own name (quint8, qint8, uint8, int8, float32); empty where the tensor may say anything. With
    scales on an axis there is one of each for every index.
    """

    variable: str
    name: str
    dtype: str
    scale: float | tuple[float, ...] | None = None
    zero_point: int | tuple[int, ...] | None = None
    axis: int | None = None


class CallList(NamedTuple):
    """A lowered network.

    Attributes
    ----------
    engine
        What ``torch.backends.quantized.engine`` is while `prepare` and `run` run; empty where it does not matter.
    constants, prepare
        What is done once: constant arrays, and calls on them (prepacking).
    inputs, run
        What is done for every run.
    values
        The network's node values, in order.
    settings
        How it is run, as ``name=value``: those forms of the network that `torch_executor.SETTINGS` knows.
    """

    engine: str
    constants: tuple[Array, ...]
    prepare: tuple[Call, ...]
    inputs: tuple[Array, ...]
    run: tuple[Call, ...]
    values: tuple[Declared, ...]
    settings: tuple[str, ...] = ()


def literal(value: Any) -> Arg:
    """A number, string, boolean, None, or list of numbers."""
    return Arg("literal", value)


def variable(name: str) -> Arg:
    """The value of a variable."""
    return Arg("variable", name)


def variables(names: tuple[str, ...]) -> Arg:
    """A list of the values of variables."""
    return Arg("variables", names)


def torch_name(name: str) -> Arg:
    """Something inside torch, for example ``torch.float64``."""
    return Arg("torch", name)
