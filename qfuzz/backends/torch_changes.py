"""How an argument of a torch call is changed to an invalid one: functions of its value and of where it stands. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from qfuzz.backends.torch_calls import Call, literal, variable
from qfuzz.ir.network import Network
from qfuzz.ir.qtype import QType

Value: TypeAlias = Any
"""A literal of a call: a number, a list of numbers, …"""


class Site(NamedTuple):
    """A call that is to be changed, and the network that it is of."""

    call: Call
    network: Network

    def literal(self, position: int) -> Value:
        """An argument of the call."""
        return self.call.args[position].value

    @property
    def rank(self) -> int:
        """Of what the node reads first."""
        return len(self.network.types[self.network.nodes[0].inputs[0]].shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the node reads first."""
        return self.network.types[self.network.nodes[0].inputs[0]].shape


Changed: TypeAlias = Callable[[Value, Site], Value]
"""(an argument's value, where it stands) -> what it is changed to, or None where that says nothing here."""


class _Nothing:
    """In the place of an argument: None, which `Changed` cannot say."""


NOTHING = _Nothing()

Reshaped: TypeAlias = Callable[[str, Site], Call | None]
"""(an array's variable, where it is read) -> the call that changes its shape, or None."""


class Mutation(NamedTuple):
    """A change.

    Attributes
    ----------
    kind
        The value of the form.
    targets
        Shell globs over call targets; all calls that match are changed.
    position
        Of the argument: a literal for `change`, a tensor for `reshape`. A literal beyond the last one is appended; one
        that is told by its name is that.
    text
        What rules it out, where no float operator can tell.
    """

    kind: str
    targets: tuple[str, ...]
    position: int | str
    change: Changed | None = None
    reshape: Reshaped | None = None
    text: str = ""


def all(number: float) -> Changed:
    """Every number of the list, or the one number; nothing where there is none."""
    return lambda value, site: [number] * len(value) if isinstance(value, list) else None if value is None else number


def one(number: float) -> Changed:
    """Another literal in its place."""
    return lambda value, site: number


def more(by: int) -> Changed:
    """A number that is larger by so much."""
    return lambda value, site: value + by


def beside(position: int, by: int) -> Changed:
    """A number next to the literal at that position."""
    return lambda value, site: site.literal(position) + by


def group_beside(value: Value, site: Site) -> Value:
    """Groups of all of the last axis but one element."""
    n = site.shape[-1]
    return n - 1 if n > 2 else None


def longer(value: Value, site: Site) -> Value:
    """Two numbers more than dimensions."""
    return [*value, value[-1], value[-1]] if isinstance(value, list) else None


def half_and_one(kernel: int) -> Changed:
    """Padding beyond half of the kernel, which is the argument at that position."""
    return lambda value, site: [k // 2 + 1 for k in site.literal(kernel)]


def beyond(value: Value, site: Site) -> Value:
    """Windows larger than the padded input."""
    return [2 * n + k + 1 for k, n in zip(value, site.shape[-len(value) :], strict=True)]


def as_strides(value: Value, site: Site) -> Value:
    """Padding of an output that is no smaller than strides and dilations."""
    return [max(s, d) for s, d in zip(site.literal(2), site.literal(5), strict=True)]


def indivisible(value: Value, site: Site) -> Value:
    """More groups than channels."""
    return site.shape[1] + 1 if len(site.shape) > 1 else None


def above(value: Value, site: Site) -> Value:
    """The first axis that is not there."""
    return None if value is None else site.rank or 1


def below(value: Value, site: Site) -> Value:
    """The same, counted from the end."""
    return None if value is None else -(site.rank or 1) - 1


def one_more(value: Value, site: Site) -> Value:
    """The last number larger by 1."""
    return [*value[:-1], value[-1] + 1] if value else [2]


def inferred_twice(value: Value, site: Site) -> Value:
    """Two sizes to be inferred."""
    return [-1, -1, *value[2:]] if len(value) > 1 else [-1, -1]


def negative_count(value: Value, site: Site) -> Value:
    """A negative first size, which is not -1."""
    return [-2, *value[1:]]


def repeated(value: Value, site: Site) -> Value:
    """An axis twice, another not at all."""
    return [value[0], *value[:-1]] if len(value) > 1 else None


def missing(value: Value, site: Site) -> Value:
    """An axis less."""
    return value[:-1] or None


def before_start(value: Value, site: Site) -> Value:
    """The last axis to flatten before the first."""
    start = site.literal(1)
    return start - 1 if start > 0 else None


def cut_away(value: Value, site: Site) -> Value:
    """More is cut from the last axis than it has."""
    return [-site.shape[-1] - 1 - max(value[1], 0), *value[1:]] if value and site.shape else None


def output(site: Site) -> QType | None:
    """The output's type, where it is quantized."""
    q = site.network.nodes[-1].element
    return q if isinstance(q, QType) else None


def zero_point_above(value: Value, site: Site) -> Value:
    """Beyond what the dtype has."""
    q = output(site)
    return None if q is None else q.qmax + 1


def zero_point_below(value: Value, site: Site) -> Value:
    """Before what the dtype has."""
    q = output(site)
    return None if q is None else q.qmin - 1


def grown(axis: int) -> Reshaped:
    """One more element along an axis, counted from the end."""

    def call(name: str, site: Site) -> Call:
        sides = [0, 0] * (-axis - 1) + [0, 1]
        return Call(name, "torch.nn.functional.pad", (variable(name), literal(sides)))

    return call


def fewer(axis: int) -> Reshaped:
    """The last index of an axis left out."""

    def call(name: str, site: Site) -> Call:
        limits = (literal(v) for v in (axis, 0, -1))
        return Call(name, "torch.ops.aten.slice.Tensor", (variable(name), *limits))

    return call


def other_size(name: str, site: Site) -> Call | None:
    """One more element along the last axis of the second operand, which is not broadcast."""
    inputs = site.network.nodes[0].inputs
    if len(inputs) < 2:
        return None
    first, second = (site.network.types[i].shape for i in inputs[:2])
    if not first or not second or first[-1] in (1, second[-1] + 1) or second[-1] == 0:
        return None
    return grown(-1)(name, site)


def off_axis(name: str, site: Site) -> Call | None:
    """One more element of a concatenated value along an axis on which it is not concatenated."""
    if site.rank < 2 or len(site.literal(0)) < 2:
        return None
    return grown(-1 if site.literal(1) % site.rank == 0 else -site.rank)(name, site)


def deeper(name: str, site: Site) -> Call:
    """One axis more."""
    return Call(name, ".unsqueeze", (variable(name), literal(0)))


def flatter(name: str, site: Site) -> Call | None:
    """The first axes as one: of a batch of one image, what is left is an image alone, which is legal."""
    if site.rank < 2 or 0 in site.shape:
        return None
    return Call(name, ".flatten", (variable(name), literal(0), literal(1)))


def batch(name: str, site: Site) -> Call | None:
    """The first axis."""
    return grown(-site.rank)(name, site)


def channels(name: str, site: Site) -> Call | None:
    """One channel more."""
    return grown(1 - site.rank)(name, site) if site.rank > 1 else None


def moved(by: int) -> Reshaped:
    """Indices that are moved by so much: past the end, or before the start."""
    return lambda name, site: Call(name, "torch.add", (variable(name), literal(by)))


def axes(*axes: int) -> Changed:
    """A list of axes, counted from behind the last one."""
    return lambda value, site: None if value is None else [site.rank + a for a in axes]


def reflected(value: Value, site: Site) -> Value:
    """Reflections as wide as what they reflect."""
    if site.literal(2) != "reflect":
        return None
    return [n for n in reversed(site.shape[-(len(value) // 2) :]) for _ in range(2)]
