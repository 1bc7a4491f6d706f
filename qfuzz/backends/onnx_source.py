"""What the ONNX executors do, as Python statements for a reader who has the framework only. Pure."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

TOLD = "/told"
"""How the names end of inputs and outputs that the model has in a wider type than the network."""

LEVELS: Mapping[str, str] = MappingProxyType(
    {
        "disable": "ORT_DISABLE_ALL",
        "basic": "ORT_ENABLE_BASIC",
        "extended": "ORT_ENABLE_EXTENDED",
        "all": "ORT_ENABLE_ALL",
    }
)
"""Name of a level of graph optimizations to what ONNX Runtime calls it."""


def runtime_lines(
    model_file: str,
    inputs: Mapping[str, Any],
    names: Sequence[str],
    optimization: str = "all",
    threads: int = 1,
    forms: Sequence[str] = (),
) -> list[str]:
    """What `onnx_executor.Session` does; needs onnxruntime and NumPy, and ends with ``outputs``."""
    return [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        "options = ort.SessionOptions()",
        f"options.graph_optimization_level = ort.GraphOptimizationLevel.{LEVELS[optimization]}",
        f"options.intra_op_num_threads = {threads}",
        "options.log_severity_level = 4",
        "options.enable_cpu_mem_arena = False",
        *(_SETTING[form] for form in forms if form in _SETTING),
        *(_overridden(form) for form in forms if form.startswith("symbol:")),
        f'model = (HERE / "{model_file}").read_bytes()',
        *(line for form in forms for line in _SAVED.get(form, ())),
        'session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])',
        *_fed(inputs),
        f"names = {list(names)!r}",
        *(_AT_ONCE if "callers=2" in forms else ["outputs = dict(zip(names, session.run(names, fed)))"]),
        *_own_names(names),
    ]


_LEVEL, _BLOCK = "session.qdq_matmulnbits_accuracy_level", "session.qdq_matmulnbits_block_size"
_BLOCKS = ("16", "64", "128", "256")

_SETTING: Mapping[str, str] = MappingProxyType(
    {
        "prepacking=off": 'options.add_session_config_entry("session.disable_prepacking", "1")',
        "qdq_cleanup=on": 'options.add_session_config_entry("session.enable_quant_qdq_cleanup", "1")',
        "double_qdq=kept": 'options.add_session_config_entry("session.disable_double_qdq_remover", "1")',
        "qdq_int8=forbidden": 'options.add_session_config_entry("session.qdqisint8allowed", "0")',
        "saturation=avoided": 'options.add_session_config_entry("session.x64quantprecision", "1")',
        **{f"accuracy={n}": f'options.add_session_config_entry("{_LEVEL}", "{n}")' for n in ("0", "1", "4")},
        **{f"nbits_block={n}": f'options.add_session_config_entry("{_BLOCK}", "{n}")' for n in _BLOCKS},
        "nbits_block=fitting": f'options.add_session_config_entry("{_BLOCK}", "-1")',
        "nbits_fusion=on": 'options.add_session_config_entry("session.enable_dq_matmulnbits_fusion", "1")',
        "execution=parallel": "options.execution_mode = ort.ExecutionMode.ORT_PARALLEL; "
        "options.inter_op_num_threads = 2",
        "arena=on": "options.enable_cpu_mem_arena = True",
        "memory_pattern=off": "options.enable_mem_pattern = False",
        "memory_reuse=off": "options.enable_mem_reuse = False",
        "threads=3": "options.intra_op_num_threads = 3",
    }
)
"""What `onnx_executor.SETTINGS` and `ATTRIBUTES` do, as statements."""

_SAVED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        f"saved={kind}": (
            'options.optimized_model_filepath = str(HERE / "saved.model")',
            f'options.add_session_config_entry("session.save_model_format", "{kind.upper()}")',
            'ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])',
            'model = (HERE / "saved.model").read_bytes()',
            f'options.add_session_config_entry("session.load_model_format", "{kind.upper()}")',
            'options.optimized_model_filepath = ""',
        )
        for kind in ("onnx", "ort")
    }
)

_AT_ONCE = (
    "from concurrent.futures import ThreadPoolExecutor",
    "with ThreadPoolExecutor(2) as pool:  # two threads run the session at the same time",
    "    calls = [pool.submit(session.run, names, fed) for _ in range(2)]",
    "outputs = dict(zip(names, calls[0].result()))",
)


def _overridden(form: str) -> str:
    name, _, size = form[len("symbol:") :].partition("=")
    return f"options.add_free_dimension_override_by_name({name!r}, {size})"


def evaluator_lines(model_file: str, inputs: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What `onnx_reference_executor.Evaluation` does; needs onnx and NumPy, and ends with ``outputs``."""
    return [
        "import numpy as np",
        "import onnx",
        "from onnx.reference import ReferenceEvaluator",
        "",
        f'evaluator = ReferenceEvaluator(onnx.load(HERE / "{model_file}"))',
        *_fed(inputs),
        f"names = {list(names)!r}",
        "outputs = dict(zip(names, evaluator.run(names, fed)))",
        *_own_names(names),
    ]


def _own_names(names: Sequence[str]) -> list[str]:
    """Outputs by the network's names again."""
    if not any(name.endswith(TOLD) for name in names):
        return []
    length = len(TOLD)
    return [f"outputs = {{(n[:-{length}] if n.endswith({TOLD!r}) else n): value for n, value in outputs.items()}}"]


def numbers(array: Any) -> str:
    """An array's elements as a Python list: infinities and NaN by NumPy's names."""
    return re.sub(r"\b(inf|nan)\b", r"np.\1", repr(array.tolist()))


def _fed(inputs: Mapping[str, Any]) -> list[str]:
    fed = [
        f"    {name!r}: np.array({numbers(array)}, dtype={_dtype(array)}).reshape({list(array.shape)!r}),"
        for name, array in inputs.items()
    ]
    return ["fed = {", *fed, "}"]


def _dtype(array: Any) -> str:
    """NumPy's name of a dtype, in old releases, too: bool is Python's own."""
    return "bool" if array.dtype.name == "bool" else f"np.{array.dtype.name}"
