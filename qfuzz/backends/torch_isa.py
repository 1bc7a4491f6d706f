"""Instruction sets that torch's libraries can be held to: each has a cap of its own, read when a process starts."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.environment import INSTRUCTION_SETS

CAPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "sse41": {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        },
        "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"},
        "avx512": {
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512",
        },
    }
)
"""Instruction set to the environment that allows no more than it. FBGEMM has no kernels below AVX2.

PyTorch asks the CPU itself, whatever the caps, whether engine x86 and _int_mm call oneDNN, which then keeps to its own.

Sources: aten/src/ATen/native/DispatchStub.cpp compute_cpu_capability; oneDNN, "CPU Dispatcher Control"; FBGEMM,
src/Utils.cc fbgemmEnvGetIsa.
"""

_NEWER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sse41": ("avx2", "fma", "f16c", "avx_vnni", "avx512", "amx"),
        "avx2": ("avx_vnni", "avx512", "amx"),
        "avx512": ("avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx"),
    }
)
"""Beginnings of the names of what a CPU may have beyond an instruction set."""


def capped_flags(flags: str, isa: str) -> str:
    """Those of a CPU's flags that kernels see under a cap."""
    kept = set(flags.split())
    return " ".join(f for f in INSTRUCTION_SETS if f in kept and not f.startswith(_NEWER[isa]))
