"""The drawing side of matmul and matmul_integer: products of two activations."""

import math

from qfuzz.ir.qtype import QType, QuantizedDType
from qfuzz.ops.matmul import MatMul, MatMulInteger
from qfuzz.strategies.builder import MAX_VALUE_ELEMENTS, Builder
from qfuzz.strategies.contraction import CHANNELS, MAX_PRODUCTS, reads_bytes
from qfuzz.strategies.qtypes import draw_zero_point

Shape = tuple[int, ...]


def fits_matmul(b: Builder) -> bool:
    """Whether the current value is a matrix, or a stack of some, whose products of scales stay within float32."""
    shape = b.type.shape
    return len(shape) >= 2 and 0 < shape[-1] <= 512 and 2.0**-40 <= b.qtype.scale[0] <= 2.0**40


def draw_matmul(b: Builder) -> None:
    """A matmul node."""
    a, other = _operands(b)
    relu = b.d.rarely(5) and not b.flavour.common
    q_a, q_b = b.types[a].qtype, b.types[other].qtype
    unit = q_a.scale[0] * q_b.scale[0]
    spread = math.sqrt(b.types[a].shape[-1]) * (q_a.qmax - q_a.qmin) * (q_b.qmax - q_b.qmin) / 16
    element = b.output(unit * spread / 64, spread=3, unit=unit)
    if relu and b.flavour.integer:
        element = QType.per_tensor(element.dtype, element.scale[0], element.qmin)
    b.add_node(MatMul(relu=relu), (a, other), element)


def draw_matmul_integer(b: Builder) -> None:
    """A matmul_integer node, which ends a branch: what follows reads its input."""
    plain = b.d.integer(0, 1) == 1
    reads_bytes(b, plain=plain)
    source = b.current
    b.add_node(MatMulInteger(omits_zeros=b.d.rarely(3)), _operands(b, plain=plain), "int32")
    b.current = source


def _operands(b: Builder, *, plain: bool = False) -> tuple[str, str]:
    """The current value and another one, in either order: a matrix, a stack that broadcasts, a vector, or itself."""
    d = b.d
    shape, common = b.type.shape, b.flavour.common
    kind = d.integer(0, 15)
    if kind == 15 and shape[-1] == shape[-2]:
        return b.current, b.current
    first = kind % 4 == 3 and 0 < shape[-2] <= 512
    stack: Shape = shape[:-2] if kind in (1, 2, 3, 9, 10, 11) else ()
    if kind in (9, 11) and not common:  # one of a stack's dimensions is 1, or the last ones are given only
        at = d.integer(0, len(stack))
        stack = (*stack[:at], 1, *stack[at + 1 :]) if at < len(stack) else stack[1:]
    if kind in (13, 14) and not common:
        return (
            (_new(b, plain, (shape[-2],)), b.current)
            if kind == 14 and shape[-2] > 0
            else (b.current, _new(b, plain, shape[-1:]))
        )
    if first:
        rows = _free(b, stack, shape[-2], shape[-1])
        return _new(b, plain, (*stack, rows, shape[-2])), b.current
    columns = _free(b, stack, shape[-1], shape[-2])
    return b.current, _new(b, plain, (*stack, shape[-1], columns))


def _free(b: Builder, stack: Shape, summed: int, kept: int) -> int:
    """The other value's own dimension, within the bounds of work and size."""
    each = max(1, math.prod(b.type.shape[:-2])) * max(1, kept)
    own = max(1, math.prod(stack)) * summed
    most = min(MAX_PRODUCTS // (each * summed), MAX_VALUE_ELEMENTS // each, MAX_VALUE_ELEMENTS // own)
    return b.d.pick([c for c in CHANNELS if c <= max(most, 1)])


def _new(b: Builder, plain: bool, shape: Shape) -> str:
    """Another activation: of the same dtype, or int8 beside uint8, as kernels take weights; `plain` ones are so."""
    q = b.qtype
    dtype: QuantizedDType = "int8" if plain or b.d.rarely(3) else q.dtype
    zero_point = 0 if plain else draw_zero_point(b.d, dtype)
    return b.add_input(shape, QType.per_tensor(dtype, b.scale(q.scale[0], 3), zero_point))
