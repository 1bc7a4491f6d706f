"""A list of torch calls as Python statements, for a reader who has torch only. Pure: torch is not imported."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def source_lines(calls: Sequence[Any], arrays: Mapping[str, Any], threads: int = 1) -> list[str]:
    """The calls as Python statements that need only torch; `arrays` are constants and inputs by name."""
    engine, constants, prepare, inputs, run, _, settings = calls
    said = dict(form.split("=") for form in settings)
    decomposed = any("quantized_decomposed" in call[1] for call in run)
    lines = [
        "import torch",
        *["import torch.ao.quantization.fx._decomposed"] * decomposed,
        "",
        f"torch.set_num_threads({said.get('threads', threads)})",
    ]
    if engine:
        lines.append(f"torch.backends.quantized.engine = {engine!r}")
    lines += _MODES.get(said.get("grad", ""), ())
    lines += [f"{variable} = {array_source(arrays[name])}" for variable, name in (*constants, *inputs)]
    for call in prepare:
        lines += [call_source(call), *_packed_again(call, said.get("packing", ""))]
    run_lines = [call_source(call) for call in run]
    return lines + (run_lines if said.get("callers", "1") == "1" else _at_once(run_lines, [*inputs]))


_MODES = {"off": ("torch.set_grad_enabled(False)",), "inference": ("torch.inference_mode().__enter__()",)}


def _packed_again(call: Sequence[Any], packing: str) -> tuple[str, ...]:
    """What `torch_executor` does to packed weights, after the call that packs them."""
    out, target, args, kwargs = call
    prepacks = "_prepack" in target
    if not (prepacks or "_cell_params" in target) or packing in ("", "shared") or ".onednn." in target:
        return ()
    if packing == "saved":
        return (
            "import io",
            f"buffer = io.BytesIO(); torch.save({out}, buffer); buffer.seek(0)",
            f"{out} = torch.load(buffer, weights_only=False)",
        )
    if packing == "copied":
        return ("import copy", f"{out} = copy.deepcopy({out})")
    if not prepacks:
        return ()
    unpack = target.replace("_prepack", "_unpack").replace("._quantized.", ".quantized.")
    if len(args) == 1:
        return (f"w = {unpack}({out})", f"{out} = {target}(w)")
    again = call_source((out, target, (("variable", "w"), ("variable", "b"), *args[2:]), kwargs))
    return (f"w, b = {unpack}({out})[:2]", again)


def _at_once(run: Sequence[str], inputs: Sequence[Any]) -> list[str]:
    """The calls of the run part, by two threads at the same time."""
    return [
        "from concurrent.futures import ThreadPoolExecutor",
        f"def run({', '.join(variable for variable, _ in inputs)}):",
        *(f"    {line}" for line in run),
        "    return locals()",
        "with ThreadPoolExecutor(2) as pool:",
        f"    calls = [pool.submit(run, {', '.join(variable for variable, _ in inputs)}) for _ in range(2)]",
        "globals().update(calls[0].result())",
    ]


def array_source(array: Any) -> str:
    """An expression for a tensor that holds `array`."""
    made = f"torch.tensor({_numbers(array.tolist())}, dtype=torch.{array.dtype.name})"
    return made if array.size else f"{made}.reshape({list(array.shape)!r})"


def call_source(call: Sequence[Any]) -> str:
    """One call as a Python statement."""
    out, target, args, kwargs = call
    given = [_arg_source(kind, value) for kind, value in args]
    named = [f"{name}={_arg_source(kind, value)}" for name, (kind, value) in kwargs]
    if target.startswith("."):
        receiver, *given = given
        target = receiver + target
    return f"{out} = {target}({', '.join(given + named)})"


def value_source(declared: Any) -> str:
    """An expression for the integers, or the reals, that a variable's tensor holds, as a tensor that NumPy takes."""
    x, dtype = declared.variable, declared.dtype
    if dtype in ("quint4x2", "quint2x4"):
        bits = 4 if dtype == "quint4x2" else 2
        single = f"{x}.int_repr().reshape(-1, 1) >> torch.arange(0, 8, {bits}) & {2**bits - 1}"
        return f"({single}).reshape(-1)[: {x}.numel()].reshape({x}.shape)"
    if dtype == "bfloat16" or dtype.startswith("float8"):
        return f"{x}.float()"
    return f"{x}.int_repr()" if declared.scale is not None else str(x)


def _arg_source(kind: str, value: Any) -> str:
    if kind == "variables":
        return f"[{', '.join(value)}]"
    return str(value) if kind in ("variable", "torch") else _numbers(value)


def _numbers(value: Any) -> str:
    """An expression for numbers, or for any other literal."""
    return repr(value) if isinstance(value, str) else re.sub(r"\b(inf|nan)\b", r"torch.\1", repr(value))
