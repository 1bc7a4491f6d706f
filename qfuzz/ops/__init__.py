"""Operators: attributes, shape and type rules, exact semantics, terms of their error bounds. One file a family."""

from qfuzz.ir.codec import Codec
from qfuzz.ir.operator import Operator
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

OPERATORS: tuple[type[Operator], ...] = (Conv, Linear)
"""Every operator, in the order in which `qfuzz ops` prints them."""

CODEC = Codec(OPERATORS)
"""Reads and writes case files over all operators."""
