"""Runs an ONNX model in ONNX Runtime's CPU kernels. It never sees a network: standard library, NumPy, onnxruntime only.

This file alone suffices to run a model in another Python, of version 3.9 or later.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

LEVELS: dict[str, Any] = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""Name of a level of graph optimizations to the runtime's constant."""

_FATAL = 4  # the highest severity: nothing else is logged


_REFUSALS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
"""How the runtime refuses: an exception class per status code, which have no base of their own."""


class Refusal(Exception):
    """The runtime raised. `stage` is ``load`` or ``run``; the message is the runtime's own, on one line."""

    def __init__(self, stage: str, error: Exception) -> None:
        self.stage = stage
        self.message = " ".join(str(error).split())[:500]
        super().__init__(f"{stage}: {type(error).__name__}: {self.message}")


def facts() -> dict[str, str]:
    """Version and build of the runtime; early releases do not tell their build."""
    told = {"version": ort.__version__, "framework": "onnxruntime"}
    build = getattr(ort, "get_build_info", None)
    return told if build is None else {**told, "build": build()}


_CPU = "CPUExecutionProvider"


def kernels() -> dict[str, Any]:
    """What the runtime has CPU kernels for, as it tells itself; plain data.

    Returns
    -------
    dict
        ``version``, and ``operators``: for each operator of a registered schema its ``domain``, its ``name``, whether
        it ``has_kernel`` on the CPU, and the types that these kernels (``kernel_types``) and any version of the schema
        (``schema_types``) take for any input or output, such as ``tensor(uint8)``. What kernels leave open, they take
        as the newest schema has it.
    """
    schemas: dict[tuple[str, str], list[Any]] = {}
    for schema in ort_state.get_all_operator_schema():
        schemas.setdefault((schema.domain, schema.name), []).append(schema)
    definitions: dict[tuple[str, str], list[dict[str, list[str]]]] = {}
    for kernel in ort_state.get_all_opkernel_def():
        if kernel.provider == _CPU:  # some names end in a space
            definitions.setdefault((kernel.domain, kernel.op_name.strip()), []).append(kernel.type_constraints)
    operators = []
    for key in sorted({*schemas, *definitions}):
        versions = sorted(schemas.get(key, []), key=lambda schema: schema.since_version)
        constraints = definitions.get(key, [])
        taken = {t for by_name in constraints for types in by_name.values() for t in types}
        if constraints and versions:
            closed = {name for by_name in constraints for name in by_name}
            taken |= {t for name, types in _schema_types(versions[-1]).items() if name not in closed for t in types}
        admitted = {t for schema in versions for types in _schema_types(schema).values() for t in types}
        operators.append(
            {
                "domain": key[0],
                "name": key[1],
                "has_kernel": bool(constraints),
                "kernel_types": sorted(taken),
                "schema_types": sorted(admitted),
            }
        )
    return {"version": ort.__version__, "operators": operators}


def _schema_types(schema: Any) -> dict[str, Sequence[str]]:
    """Types by the name of their constraint; an input or output of one type alone is called after it."""
    named = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return {p.typeStr: named.get(p.typeStr, [p.typeStr]) for p in [*schema.inputs, *schema.outputs]}


def load(model: bytes, optimization: str = "all", threads: int = 1, forms: Sequence[str] = ()) -> "Session":
    """The model, loaded as `Session` says."""
    return Session(model, optimization, threads, forms)


SETTINGS: dict[str, tuple[str, str]] = {
    "prepacking=off": ("session.disable_prepacking", "1"),
    "qdq_cleanup=on": ("session.enable_quant_qdq_cleanup", "1"),
    "double_qdq=kept": ("session.disable_double_qdq_remover", "1"),
    "qdq_int8=forbidden": ("session.qdqisint8allowed", "0"),
    "saturation=avoided": ("session.x64quantprecision", "1"),
    "accuracy=0": ("session.qdq_matmulnbits_accuracy_level", "0"),
    "accuracy=1": ("session.qdq_matmulnbits_accuracy_level", "1"),
    "accuracy=4": ("session.qdq_matmulnbits_accuracy_level", "4"),
    "nbits_block=16": ("session.qdq_matmulnbits_block_size", "16"),
    "nbits_block=64": ("session.qdq_matmulnbits_block_size", "64"),
    "nbits_block=128": ("session.qdq_matmulnbits_block_size", "128"),
    "nbits_block=256": ("session.qdq_matmulnbits_block_size", "256"),
    "nbits_block=fitting": ("session.qdq_matmulnbits_block_size", "-1"),
    "nbits_fusion=on": ("session.enable_dq_matmulnbits_fusion", "1"),
}
"""Form to the entry of a session's configuration that has it."""

ATTRIBUTES: dict[str, tuple[str, Any]] = {
    "execution=parallel": ("execution_mode", ort.ExecutionMode.ORT_PARALLEL),
    # Else every buffer comes from malloc, whose checks and fills then see what kernels do to it.
    "arena=on": ("enable_cpu_mem_arena", True),
    "memory_pattern=off": ("enable_mem_pattern", False),
    "memory_reuse=off": ("enable_mem_reuse", False),
    "threads=3": ("intra_op_num_threads", 3),
}
"""Form to the attribute of a session's options that has it."""


class Session:
    """A loaded model. `compile_seconds` is the time that the runtime took to load it.

    Parameters
    ----------
    model
        A serialized ONNX model.
    optimization
        One of `LEVELS`.
    threads
        Threads of one operator.
    forms
        How the session is to be made, as ``name=value``: what stands in `SETTINGS` and `ATTRIBUTES`, ``saved=onnx`` or
        ``saved=ort`` (the optimized model is saved in memory, and loaded again), ``callers=2`` (threads that run it at
        the same time; each call returns what another of them got), ``symbol:NAME=SIZE`` (a free dimension's size).
    save_to
        A path for the graph as it is after optimization; nothing saves none.
    """

    def __init__(
        self, model: bytes, optimization: str = "all", threads: int = 1, forms: Sequence[str] = (), save_to: str = ""
    ) -> None:
        self._said = dict(form.split("=") for form in forms)
        self._callers = int(self._said.get("callers", 1))
        self._calls = 0
        options = self._options(optimization, threads, forms)
        if save_to:
            options.optimized_model_filepath = save_to
        start = time.perf_counter()
        try:
            if "saved" in self._said:
                model = _saved(model, options, self._said["saved"].upper())
                options = self._options(optimization, threads, forms)
                options.add_session_config_entry("session.load_model_format", self._said["saved"].upper())
            self._session = ort.InferenceSession(model, options, providers=[_CPU])
        except _REFUSALS as e:
            raise Refusal("load", e) from None
        self.compile_seconds = time.perf_counter() - start

    def _options(self, optimization: str, threads: int, forms: Sequence[str]) -> Any:
        options = ort.SessionOptions()
        options.graph_optimization_level = LEVELS[optimization]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 2 if "execution=parallel" in forms else 1
        options.log_severity_level = _FATAL
        options.enable_cpu_mem_arena = False
        for form in forms:
            if form in SETTINGS:
                options.add_session_config_entry(*SETTINGS[form])
            elif form in ATTRIBUTES:
                setattr(options, *ATTRIBUTES[form])
            elif form.startswith("symbol:"):
                name, _, size = form[len("symbol:") :].partition("=")
                options.add_free_dimension_override_by_name(name, int(size))
        return options

    def run(self, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Values of the outputs in `names`, less those that were not computed.

        Raises
        ------
        Refusal
            The runtime raised.
        """
        fed, wanted = dict(inputs), list(names)
        try:
            if self._callers == 1:
                values = self._session.run(wanted, fed)
            else:
                with ThreadPoolExecutor(self._callers) as pool:
                    calls = [pool.submit(self._session.run, wanted, fed) for _ in range(self._callers)]
                    values = [call.result() for call in calls][self._calls % self._callers]
                self._calls += 1
        except _REFUSALS as e:
            raise Refusal("run", e) from None
        # A kernel that writes no output leaves None: that value is missing.
        return {name: value for name, value in zip(names, values) if value is not None}  # noqa: B905  for old Pythons


def _saved(model: bytes, options: Any, kind: str) -> bytes:
    """The optimized model as the runtime saves it, in a file that exists in memory only."""
    descriptor = os.memfd_create("optimized")
    try:
        options.optimized_model_filepath = f"/proc/self/fd/{descriptor}"
        options.add_session_config_entry("session.save_model_format", kind)
        ort.InferenceSession(model, options, providers=[_CPU])
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()
    finally:
        os.close(descriptor)
