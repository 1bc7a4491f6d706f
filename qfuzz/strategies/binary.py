"""The drawing side of sub, div, minimum, maximum, where."""

from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.binary import Div, Sub
from qfuzz.ops.comparison import Compare, CompareScalar, Relation
from qfuzz.ops.elementwise import broadcast_shape
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder
from qfuzz.strategies.elementwise import broadcasting, partner


def _operands(b: Builder, other: str) -> tuple[str, str]:
    """The current value and `other`, in either order."""
    return (other, b.current) if b.d.rarely(3) else (b.current, other)


def draw_sub(b: Builder) -> None:
    """A sub node."""
    a, c = _operands(b, partner(b))
    scales = [b.types[name].qtype.scale[0] for name in (a, c)]
    b.add_node(Sub(), (a, c), b.output(max(scales) * 1.5, unit=min(scales)))


def draw_div(b: Builder) -> None:
    """A div node: quotients near 1, or of a divisor of a few steps."""
    a, c = _operands(b, partner(b))
    unit = b.types[a].qtype.scale[0] / b.types[c].qtype.scale[0]
    steps = b.d.pick((1, 16, 64, 2))
    b.add_node(Div(), (a, c), b.output(unit / steps, spread=3, unit=unit))


def draw_minimum(b: Builder) -> None:
    """A minimum node."""
    _draw_extreme(b, Minimum())


def draw_maximum(b: Builder) -> None:
    """A maximum node."""
    _draw_extreme(b, Maximum())


def _draw_extreme(b: Builder, op: Operator) -> None:
    """Of two operands mostly; else of one only, or of one more, a scalar or like the first."""
    number = b.d.integer(0, 7)
    if number == 7:
        b.add_node(op, (b.current,), b.same_or_output(b.qtype.scale[0]))
        return
    pair, element = _selected(b)
    third = (b.add_input(b.types[pair[0]].shape if number == 5 else (), b.qtype),) if number in (5, 6) else ()
    b.add_node(op, (*pair, *third), element)


def _selected(b: Builder) -> tuple[tuple[str, str], QType]:
    """Two operands and an output: all of one type, as kernels on stored integers need it, or each of its own."""
    d = b.d
    if d.integer(0, 2) < 2:
        shape = b.type.shape
        if shape and not b.flavour.common and d.rarely(3):
            shape = broadcasting(b, shape)
        return _operands(b, b.add_input(shape, b.qtype)), b.qtype
    pair = _operands(b, partner(b))
    scales = [b.types[name].qtype.scale[0] for name in pair]
    return pair, b.output(max(scales), unit=d.pick(scales))


RELATIONS: tuple[Relation, ...] = ("eq", "lt", "ge", "le", "ne", "gt")


def draw_compare(b: Builder) -> None:
    """A compare node, which ends a branch in bool: what follows reads its input."""
    source = b.current
    shape = b.type.shape
    if b.d.integer(0, 2) < 2:  # of one type, whose integers are often equal
        other = b.add_input(broadcasting(b, shape) if shape and b.d.rarely(4) else shape, b.qtype)
    else:
        other = partner(b)
    b.add_node(Compare(relation=b.d.pick(RELATIONS)), _operands(b, other), "bool")
    b.current = source


def draw_compare_scalar(b: Builder) -> None:
    """A compare_scalar node: with numbers on steps, between them, and beyond the range."""
    d = b.d
    source, q = b.current, b.qtype
    steps = d.pick((0.0, d.integer(q.qmin, q.qmax) - q.zero_point[0], d.integer(-40, 40) / 2, 4.0 * q.qmax))
    op = CompareScalar(relation=d.pick(RELATIONS), other=float32(steps * q.scale[0]))
    b.add_node(op, (source,), "bool")
    b.current = source


def draw_where(b: Builder) -> None:
    """A where node. Its condition is an input or a constant, of the operands' shape or broadcast."""
    d = b.d
    pair, element = _selected(b)
    shape = broadcast_shape([b.types[n] for n in pair])
    form = d.integer(0, 5)
    if form == 3:
        shape = ()
    elif form > 3 and shape:
        shape = broadcasting(b, shape)
    if d.integer(0, 1):
        name = b.add_constant("c", "bool", fill.conditions(d.key(), shape))
    else:
        name = b.add_input(shape, "bool")
    b.add_node(Where(), (*pair, name), element)
