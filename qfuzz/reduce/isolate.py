"""One node of a case as a case of its own: what reduction begins with."""

from qfuzz.ir.alone import node_alone

__all__ = ["node_alone"]
