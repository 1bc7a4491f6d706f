"""The drawing side of masked_fill, index_put, constant_pad."""

from qfuzz.ir.qtype import float32
from qfuzz.ops.filling import ConstantPad, IndexPut, MaskedFill
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.elementwise import broadcasting
from qfuzz.strategies.movement import padding_of, same


def _value(b: Builder) -> float:
    """A number of half steps, whose odd ones are ties; far out of range, or any float32, now and then."""
    d = b.d
    kind = d.integer(0, 7)
    steps = d.integer(0, 300) * (-1 if d.rarely(2) else 1)
    step = b.qtype.scale[0]
    if kind == 6:
        return float32(steps * step * 2.0**20)
    return float32((steps / 2 if kind < 4 else steps / 7) * step)


def draw_masked_fill(b: Builder) -> None:
    """A masked_fill node. Its mask is an input or a constant, of the value's shape or broadcast."""
    d = b.d
    shape = b.type.shape
    form = d.integer(0, 5)
    if form == 3:
        shape = ()
    elif form > 3:
        shape = broadcasting(b, shape)
    op = MaskedFill(value=_value(b))
    x, element = b.current, same(b)
    if d.integer(0, 1):
        name = b.add_constant("c", "bool", fill.conditions(d.key(), shape))
    else:
        name = b.add_input(shape, "bool")
    b.add_node(op, (x, name), element)


def draw_index_put(b: Builder) -> None:
    """An index_put node: some entries, any of them twice; seldom none."""
    d = b.d
    size = b.type.shape[0]
    n = 0 if size == 0 or d.rarely(16) else d.integer(1, 3)
    taken = [d.integer(-size, size - 1) if d.rarely(3) else d.integer(0, size - 1) for _ in range(n)]
    b.add_node(IndexPut(value=_value(b), indices=tuple(taken)), (b.current,), same(b))


def draw_constant_pad(b: Builder) -> None:
    """A constant_pad node: of spatial dimensions mostly."""
    b.add_node(ConstantPad(value=_value(b), padding=padding_of(b)), (b.current,), same(b))
