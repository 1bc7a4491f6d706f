"""Which operators of an installed PyTorch quantize: told by its dispatcher. Nothing of torch is imported here.

An operator, each overload by itself, is in question where one of three holds:

- its namespace is one of `NAMESPACES`, which hold nothing else;
- it has a kernel of its own for quantized tensors on the CPU (dispatch key QuantizedCPU);
- its name or that of an argument says that it packs, quantizes or multiplies narrow numbers (`NAMES`, `ARGUMENTS`).

What has no kernel of its own, and takes quantized tensors because what it calls does (aten::reshape), is not.
"""

import re

import msgspec

from qfuzz.backends.asking import ask

NAMESPACES = ("quantized", "_quantized", "onednn", "quantized_decomposed")
"""Namespaces of quantized operators alone."""

NAMES = re.compile(r"quant(?!ile)|qparams|qlinear|::q_|int_repr|int_mm|int\d|fp16|fbgemm|scaled_(grouped_)?mm")
"""What names of operators that quantize have in them."""

ARGUMENTS = re.compile(r"zero_point|quant_min|qGroupSize|\bscale_a\b")
"""What names of their arguments have in them."""


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What torch tells of one overload of an operator: see `operators` in `torch_executor`."""

    name: str
    schema: str
    kernels: tuple[str, ...]
    generated: bool

    @property
    def namespace(self) -> str:
        """What stands before the ``::``."""
        return self.name.partition("::")[0]

    @property
    def quantizes(self) -> bool:
        """Whether it is in question."""
        arguments = self.schema.partition("(")[2].partition(" -> ")[0]
        return bool(
            self.namespace in NAMESPACES
            or "QuantizedCPU" in self.kernels
            or NAMES.search(self.name)
            or ARGUMENTS.search(arguments)
        )


class Torch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of PyTorch, as it tells of itself."""

    version: str
    operators: tuple[Operator, ...]

    def by_name(self) -> dict[str, Operator]:
        """All operators."""
        return {o.name: o for o in self.operators}


def ask_torch(python: str = "") -> Torch:
    """What the torch of this Python tells, or that of another one; raises `BackendMissing` where there is none."""
    return ask("torch_executor", "operators", Torch, python)
