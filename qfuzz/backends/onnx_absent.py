"""Operators of qfuzz that are not said in ONNX: each with the reason. PyTorch has their kernels."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.onnx_builder import Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node

ABSENT: Mapping[str, str] = MappingProxyType(
    {
        "adaptive_avg_pool": "ONNX has no pool whose windows follow from the output's size",
    }
)
"""Operator name to why no ONNX node stands for it."""


def _refusing(reason: str) -> Lowering:
    def refuse(b: Builder, node: Node) -> None:
        raise Unsupported(reason)

    return refuse


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({name: _refusing(reason) for name, reason in ABSENT.items()})
