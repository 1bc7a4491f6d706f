"""The machine under the kernels: instruction sets and float environment, as plain strings for `describe()`."""

import platform
from functools import cache
from pathlib import Path

import numpy as np

INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip
"""What quantized kernels ask a CPU for, as Linux names it."""


@cache
def cpu_flags() -> frozenset[str]:
    """The `INSTRUCTION_SETS` that this CPU has; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    flags: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
            break
    return frozenset(flags) & frozenset(INSTRUCTION_SETS)


@cache
def cpu_model() -> str:
    """The CPU's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def flushes_subnormals() -> bool:
    """Whether this thread's float32 arithmetic flushes subnormal results to zero (FTZ)."""
    smallest_normal = np.full(4, 2.0**-126, dtype=np.float32)
    return not bool((smallest_normal * np.float32(0.5)).all())


def with_machine(facts: dict[str, str]) -> dict[str, str]:
    """`facts` of a framework with those of the machine under it; what the framework's own process says of it counts."""
    return facts | {key: value for key, value in describe_machine().items() if key not in facts}


def describe_machine() -> dict[str, str]:
    """Facts that belong to every finding."""
    return {
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_flags": " ".join(name for name in INSTRUCTION_SETS if name in cpu_flags()),
        "ftz": "on" if flushes_subnormals() else "off",
    }
