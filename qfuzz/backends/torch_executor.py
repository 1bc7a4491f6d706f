"""Runs a list of torch calls. Standard library, NumPy and torch only: it never sees a network.

The calls are plain tuples, as `qfuzz.backends.torch_calls` describes them. This file alone suffices to run them in
another Python, of version 3.9 or later.
"""

import contextlib
import copy
import importlib
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


class Changed(Refusal):
    """A call changed a constant that it only reads, as its schema says."""

    def __init__(self, name: str) -> None:
        self.target, self.message = "", f"constant {name!r} was changed by a call that reads it"
        Exception.__init__(self, self.message)


def facts() -> dict[str, str]:
    """Version of torch, and the instruction set that its kernels chose."""
    capability = getattr(torch.backends, "cpu", None)
    told = {"version": str(torch.__version__), "framework": "torch"}
    return told if capability is None else {**told, "cpu_capability": capability.get_cpu_capability()}


_KERNELS_ON_THE_CPU = (
    *("CPU", "QuantizedCPU", "MkldnnCPU"),
    *("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd"),
)
"""Dispatch keys of kernels that a call with tensors of the CPU comes to."""


def operators() -> dict[str, Any]:
    """The operators that torch registers, as its dispatcher tells; plain data.

    Returns
    -------
    dict
        ``version``, and ``operators``: for each its ``name`` with its overload (``aten::add.Tensor``), its ``schema``,
        the dispatch keys of its ``kernels`` on the CPU, and whether torch ``generated`` its kernel from another's.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers quantized_decomposed
    schemas = {f"{s.name}.{s.overload_name}".rstrip("."): str(s) for s in torch._C._jit_get_all_schemas()}
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        "version": str(torch.__version__),
        "operators": [
            {
                "name": name,
                "schema": schemas.get(name, ""),
                "kernels": [key for key in _KERNELS_ON_THE_CPU if has_kernel(name, key)],
                "generated": _is_generated(name),
            }
            for name in sorted(torch._C._dispatch_get_all_op_names())
        ],
    }


def _is_generated(name: str) -> bool:
    namespace, _, rest = name.partition("::")
    operator, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default")
        return torch.Tag.generated in found.tags
    except (AttributeError, RuntimeError):
        return False


def load(calls: Sequence[Any], constants: Mapping[str, Any], threads: int = 1) -> "Execution":
    """The calls, prepared as `Execution` says."""
    return Execution(calls, constants, threads)


# How torch refuses: TORCH_CHECK is RuntimeError (NotImplementedError where there is no kernel), and its kin these; what
# it writes in Python asserts.
_REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)


class Execution:
    """A call list, prepared. `compile_seconds` is the time spent in the calls of its prepare part.

    Parameters
    ----------
    calls
        ``(engine, constants, prepare, inputs, run, values, settings)``; settings are forms, as ``name=value``:
        ``packing=saved`` (packed weights are saved and loaded), ``packing=copied``, ``packing=repacked`` (unpacked, and
        packed again), ``packing=shared`` (others read the constants, which must stay as they are); ``grad=off``,
        ``grad=inference``; ``threads=3`` of one operator; ``callers=2`` (threads that do the run part at the same time;
        each run returns what another of them got); ``compile=inductor`` (by which torch.compile makes one function of
        the run part).
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
        self._read = {v: constants[name] for v, name in arrays} if said.get("packing") == "shared" else {}
        self._variables: dict[str, Any] = {
            variable: _tensor(constants[name].copy() if self._read else constants[name]) for variable, name in arrays
        }
        self._run = [_resolved(call) for call in run]
        steps = [_resolved(call) for call in prepare]
        start = time.perf_counter()
        self._enter()
        with self._mode():
            _do(steps, self._variables, PACKINGS.get(said.get("packing", "")))
        self._check_constants()
        self._compiled = _compiled(self, said["compile"]) if "compile" in said else None
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
            if self._compiled is None:
                _do(self._run, variables)
            else:
                self._compiled(variables)
            values = {d[1]: _array(variables[d[0]], d) for d in self.values if d[1] in names}
        self._check_constants()
        return values

    def _check_constants(self) -> None:
        for variable, array in self._read.items():
            if self._variables[variable].numpy().tobytes() != array.tobytes():
                raise Changed(variable)

    def _enter(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        if self.engine:
            torch.backends.quantized.engine = self.engine


def _compiled(execution: "Execution", compiler: str) -> Callable[[dict[str, Any]], None]:
    """What does the run part of `execution` as one compiled function: weights are frozen, as for inference."""
    names = [variable for variable, _ in execution.inputs]
    kept = [declared[0] for declared in execution.values]
    constants = sorted(execution._variables)

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for number, name in enumerate(constants):
                self.register_buffer(f"c{number}", execution._variables[name])

        def forward(self, *inputs: Any) -> Any:
            known = {name: getattr(self, f"c{number}") for number, name in enumerate(constants)}
            known.update(zip(names, inputs))  # noqa: B905  Python 3.9
            for out, _, function, args, kwargs in execution._run:
                _keep(known, out, _called(function, args, kwargs, known))
            return [known[name] for name in kept]

    import torch._inductor.config as settings

    torch._dynamo.reset()
    settings.compile_threads = 1
    settings.freezing = True
    module = torch.compile(Module().eval(), backend=compiler, dynamic=False)

    def run(variables: dict[str, Any]) -> None:
        try:
            with torch.no_grad():
                returned = module(*(variables[name] for name in names))
        except _REFUSALS as e:
            raise Refusal(f"torch.compile({compiler})", e) from None
        variables.update(zip(kept, returned))  # noqa: B905  Python 3.9

    return run


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
        if "_prepack" not in target:  # cells, which hold weights that were packed again already
            return packed
        # What packs has a second name in _quantized, what unpacks has not.
        unpacked = _lookup(target.replace("_prepack", "_unpack").replace("._quantized.", ".quantized."))(packed)
        parts = (unpacked,) if isinstance(unpacked, torch.Tensor) else unpacked
        flat = [p for part in parts for p in (part if isinstance(part, list) else [part])]  # sizes of sparse blocks
        return function(*flat, *given[len(flat) :])

    return repack


def _do(
    steps: Sequence[tuple[str, str, Callable[..., Any], Any, Any]],
    variables: dict[str, Any],
    packing: Any = None,
) -> None:
    for out, target, function, args, kwargs in steps:
        try:
            result = _called(function, args, kwargs, variables)
            if packing is not None and isinstance(result, torch.ScriptObject):
                given = [_value(kind, value, variables) for kind, value in args]
                result = packing(result, _repack(target, function, given))
        except _REFUSALS as e:
            raise Refusal(target, e) from None
        _keep(variables, out, result)


def _called(function: Callable[..., Any], args: Any, kwargs: Any, variables: Mapping[str, Any]) -> Any:
    """What a call gives, its arguments looked up."""
    given = [_value(kind, value, variables) for kind, value in args]
    named = {k: _value(kind, value, variables) for k, (kind, value) in kwargs.items()}
    return function(*given, **named)


def _keep(variables: dict[str, Any], out: str, result: Any) -> None:
    """Call it `out`, or its parts where that is several names."""
    if "," in out:
        variables.update(zip((name.strip() for name in out.split(",")), result))  # noqa: B905  Python 3.9
    else:
        variables[out] = result


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
    if "quantized_decomposed" in target:
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    path = ("Tensor" + target if target.startswith(".") else target.removeprefix("torch.")).split(".")
    found: Any = torch
    for part in path:
        found = getattr(found, part)
    return found


def _tensor(array: Any) -> torch.Tensor:
    """A tensor over the array's own memory, or over a copy where the array is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _array(tensor: torch.Tensor, declared: Sequence[Any]) -> Any:
    name, asked = declared[1], tuple(declared[2:])
    said: tuple[Any, ...] = (str(tensor.dtype)[len("torch.") :], None, None, None)
    if tensor.is_quantized:
        said = (said[0], *_qparams(tensor))
        tensor = _stored(tensor)
    if declared[2] and said != asked:
        words = ["{}, scale {!r}, zero_point {!r}, axis {!r}".format(*q) for q in (said, asked)]
        raise WrongQParams(f"{name}: the tensor says {words[0]}; asked for {words[1]}")
    tensor = tensor.contiguous()
    if tensor.dtype in _BITS:
        tensor = tensor.view(_BITS[tensor.dtype])
    return tensor.numpy()


_BITS = {
    getattr(torch, name): bits
    for name, bits in (
        ("bfloat16", torch.int16),
        *((f"float8_{kind}", torch.uint8) for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")),
    )
    if hasattr(torch, name)
}
"""Types that NumPy has not, and the integers whose bits stand for theirs."""


def _qparams(tensor: torch.Tensor) -> tuple[Any, Any, Any]:
    """What a quantized tensor says of itself: scale, zero point, axis."""
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return tensor.q_scale(), tensor.q_zero_point(), None
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return tuple(scales.tolist()), tuple(zero_points.tolist()), tensor.q_per_channel_axis()


_PACKED = {getattr(torch, name, None): bits for name, bits in (("quint4x2", 4), ("quint2x4", 2))}


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """The integers of a quantized tensor, each in a byte of its own: the first of those in one has its lowest bits."""
    bits = _PACKED.get(tensor.dtype, 0)
    if not bits:
        return tensor.int_repr()
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    single = (tensor.int_repr().reshape(-1, 1) >> shifts) & (2**bits - 1)
    return single.reshape(-1)[: tensor.numel()].reshape(tensor.shape)
