"""Which operators an installed ONNX Runtime has CPU kernels for, and for which types: told by itself.

Nothing of ONNX is imported here.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from qfuzz.backends.asking import ask

Key = tuple[str, str]
"""An operator: domain and name."""

ONNX, MICROSOFT = "", "com.microsoft"
"""The domains of the matrix: ai.onnx, whose name in models is empty, and the runtime's own operators."""

NARROW = (
    *("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"),
    *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
)
"""Types that quantized values are stored in, as ONNX names them: 2 to 16-bit integers, and the kinds of float8."""


class OperatorKernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the runtime tells of one operator: see `kernels` in `onnx_executor`."""

    domain: str
    name: str
    has_kernel: bool
    kernel_types: tuple[str, ...]
    schema_types: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Domain and name."""
        return self.domain, self.name

    @property
    def stored(self) -> tuple[str, ...]:
        """The types of `NARROW` that its kernels take."""
        return _narrow(self.kernel_types)

    @property
    def admits_narrow(self) -> bool:
        """Whether a kernel or a version of the schema takes a type of `NARROW`, in a sequence or an optional, too."""
        return bool(_narrow((*self.kernel_types, *self.schema_types)))


class Runtime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of the runtime, as it tells of itself."""

    version: str
    operators: tuple[OperatorKernels, ...]

    def by_key(self) -> Mapping[Key, OperatorKernels]:
        """Operators of the two domains."""
        return {o.key: o for o in self.operators if o.domain in (ONNX, MICROSOFT)}


def ask_runtime(python: str = "") -> Runtime:
    """What the onnxruntime of this Python tells, or that of another one; raises `BackendMissing` without one."""
    return ask("onnx_executor", "kernels", Runtime, python)


_STORED = re.compile(r"tensor\((\w+)\)")


def _narrow(types: Iterable[str]) -> tuple[str, ...]:
    """Those of `NARROW` that are in `types`, in its order; also inside of sequences and optionals."""
    inside = {m.group(1) for t in types for m in _STORED.finditer(t)}
    return tuple(t for t in NARROW if t in inside)
