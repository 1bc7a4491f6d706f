"""Runs a list of torch calls. Standard library, NumPy and torch only: it never sees a network.

The calls are plain tuples, as `qfuzz.backends.torch_calls` describes them. This file alone suffices to run them in
another Python, of version 3.9 or later.
"""

import contextlib
import copy
import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch


class Refusal(Exception):
    """The framework raised in a call. The message is the first line of its own, after the call's target."""

    def __init__(self, target: str, error: Exception) -> None:
        self.target = target
        self.message = str(error).strip().split("\n")[0][:500]
        super().__init__(f"{target}: {type(error).__name__}: {self.message}")


class WrongQParams(Refusal):
    """A call returned a tensor that says another dtype, scale or zero point of itself than the call asked for."""

    def __init__(self, message: str) -> None:
        self.target, self.message = "", message
        Exception.__init__(self, message)


def facts() -> dict[str, str]:
    """Version of torch, and the instruction set that its kernels chose."""
    capability = getattr(torch.backends, "cpu", None)
    told = {"version": str(torch.__version__), "framework": "torch"}
    return told if capability is None else {**told, "cpu_capability": capability.get_cpu_capability()}


def load(calls: Sequence[Any], constants: Mapping[str, Any], threads: int = 1) -> "Execution":
    """The calls, prepared as `Execution` says."""
    return Execution(calls, constants, threads)


# How torch refuses: TORCH_CHECK is RuntimeError (NotImplementedError where there is no kernel), and its kin these.
_REFUSALS = (RuntimeError, ValueError, IndexError)


class Execution:
    """A call list, prepared. `compile_seconds` is the time spent in the calls of its prepare part.

    Parameters
    ----------
    calls
        ``(engine, constants, prepare, inputs, run, values, settings)``; settings are forms, as ``name=value``:
        ``packing=saved`` (packed weights are saved and loaded), ``packing=copied``, ``packing=repacked`` (unpacked, and
        packed again); ``grad=off``, ``grad=inference``; ``threads=3`` of one operator; ``callers=2`` (threads that do
        the run part at the same time; each run returns what another of them got).
    constants
        Arrays by name.
    threads
        Threads of one operator; a setting of the whole process.
    """

    def __init__(self, calls: Sequence[Any], constants: Mapping[str, Any], threads: int = 1) -> None:
        _use_up_warnings()
        self.engine, arrays, prepare, self.inputs, run, self.values, settings = calls
        said = dict(form.split("=") for form in settings)
        self.threads = int(said.get("threads", threads))
        self._mode = MODES[said.get("grad", "on")]
        self._callers = int(said.get("callers", 1))
        self._runs = 0
        self._variables: dict[str, Any] = {variable: _tensor(constants[name]) for variable, name in arrays}
        self._run = [_resolved(call) for call in run]
        steps = [_resolved(call) for call in prepare]
        start = time.perf_counter()
        self._enter()
        with self._mode():
            _do(steps, self._variables, PACKINGS.get(said.get("packing", "")))
        self.compile_seconds = time.perf_counter() - start

    def run(self, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Do the run part; the integers (or float32 values) of the values in `names`, as arrays.

        Raises
        ------
        Refusal
            The framework raised.
        WrongQParams
            A tensor does not say of itself what the call list declares.
        """
        self._enter()
        variables = dict(self._variables)
        for variable, name in self.inputs:
            variables[variable] = _tensor(inputs[name])
        if self._callers == 1:
            return self._returned(variables, names)
        with ThreadPoolExecutor(self._callers) as pool:
            calls = [pool.submit(self._returned, dict(variables), names) for _ in range(self._callers)]
            values = [call.result() for call in calls]
        self._runs += 1
        return values[self._runs % self._callers]

    def _returned(self, variables: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        with self._mode():
            _do(self._run, variables)
            return {d[1]: _array(variables[d[0]], d) for d in self.values if d[1] in names}

    def _enter(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        if self.engine:
            torch.backends.quantized.engine = self.engine


@cache
def _use_up_warnings() -> None:
    """Torch warns once per process that quantized dtypes are deprecated; here, where nobody need see it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._make_per_tensor_quantized_tensor(torch.zeros(1, dtype=torch.uint8), 1.0, 0)


def _saved(packed: Any, repack: Callable[[Any], Any]) -> Any:
    buffer = io.BytesIO()
    torch.save(packed, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def _copied(packed: Any, repack: Callable[[Any], Any]) -> Any:
    return copy.deepcopy(packed)


def _repacked(packed: Any, repack: Callable[[Any], Any]) -> Any:
    return repack(packed)


PACKINGS: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "saved": _saved,
    "copied": _copied,
    "repacked": _repacked,
}
"""What is done to packed weights. They are objects of TorchScript, which torch.save and copies read by their state."""

MODES: dict[str, Callable[[], Any]] = {
    "on": contextlib.nullcontext,
    "off": torch.no_grad,
    "inference": torch.inference_mode,
}
"""How calls are run, as to gradients."""


def _repack(target: str, function: Callable[..., Any], given: Sequence[Any]) -> Callable[[Any], Any]:
    """Unpacks, and packs again what that gives, with the settings of the first time."""

    def repack(packed: Any) -> Any:
        unpack = _lookup(target.replace("_prepack", "_unpack"))
        weight, bias = unpack(packed)
        return function(weight, bias, *given[2:])

    return repack


def _do(
    steps: Sequence[tuple[str, str, Callable[..., Any], Any, Any]],
    variables: dict[str, Any],
    packing: Any = None,
) -> None:
    for out, target, function, args, kwargs in steps:
        given = [_value(kind, value, variables) for kind, value in args]
        named = {k: _value(kind, value, variables) for k, (kind, value) in kwargs.items()}
        try:
            variables[out] = function(*given, **named)
            if packing is not None and isinstance(variables[out], torch.ScriptObject):
                variables[out] = packing(variables[out], _repack(target, function, given))
        except _REFUSALS as e:
            raise Refusal(target, e) from None


def _value(kind: str, value: Any, variables: Mapping[str, Any]) -> Any:
    if kind == "variable":
        return variables[value]
    return [variables[v] for v in value] if kind == "variables" else value


def _resolved(call: Sequence[Any]) -> tuple[str, str, Callable[..., Any], Any, Any]:
    """The call with names inside torch looked up."""
    out, target, args, kwargs = call
    try:
        ready = [("literal", _lookup(value)) if kind == "torch" else (kind, value) for kind, value in args]
        named = {k: ("literal", _lookup(v)) if kind == "torch" else (kind, v) for k, (kind, v) in kwargs}
        return out, target, _lookup(target), ready, named
    except AttributeError as e:
        raise Refusal(target, e) from None


@cache
def _lookup(target: str) -> Any:
    """What a dotted name stands for; `.method` is one of `torch.Tensor`."""
    path = ("Tensor" + target if target.startswith(".") else target.removeprefix("torch.")).split(".")
    found: Any = torch
    for part in path:
        found = getattr(found, part)
    return found


def _tensor(array: Any) -> torch.Tensor:
    """A tensor over the array's own memory, or over a copy where the array is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _array(tensor: torch.Tensor, declared: Sequence[Any]) -> Any:
    _, name, dtype, scale, zero_point = declared
    said: tuple[str, Any, Any]
    if tensor.is_quantized:
        said = (str(tensor.dtype), tensor.q_scale(), tensor.q_zero_point())
        tensor = tensor.int_repr()
    else:
        said = (str(tensor.dtype), None, None)
    if said != ("torch." + dtype, scale, zero_point):
        asked = f"torch.{dtype}, scale {scale!r}, zero_point {zero_point!r}"
        raise WrongQParams(
            f"{name}: the tensor says {said[0]}, scale {said[1]!r}, zero_point {said[2]!r}; asked for {asked}"
        )
    return tensor.contiguous().numpy()
