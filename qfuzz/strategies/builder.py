"""A network under construction: its values so far, and what all drawing sides share."""

from dataclasses import dataclass, field
from typing import NamedTuple

from qfuzz.ir.network import Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType, QuantizedDType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.strategies.draw import Draw
from qfuzz.strategies.fill import Array
from qfuzz.strategies.qtypes import draw_scale, draw_zero_point, near_ties

MAX_VALUE_ELEMENTS = 4096
"""Values of a drawn network stay below this."""


@dataclass(frozen=True)
class Flavour:
    """What a whole case keeps to.

    Attributes
    ----------
    dyadic
        All scales are powers of two, so that float32 arithmetic is exact and ties are real.
    integer
        Only operators that have kernels on stored integers.
    common
        Only forms that most backends have a kernel for.
    dtype
        Of all activations.
    """

    dyadic: bool
    integer: bool
    common: bool
    dtype: QuantizedDType


class RealRange(NamedTuple):
    """What the data of an input of reals are like: a kind of `fill.ranged`, and its magnitude; `by_row`, each row's."""

    kind: int
    magnitude: float
    by_row: bool = False


@dataclass
class Builder:
    """Values in the order in which they came to be; `current` is what the next node reads.

    `ranges` says how float32 inputs are filled whose own range says how they are quantized. `forms` are those that
    drawing an operator chose for the network, beside the ones that are drawn for all; `most_nodes` bounds what an
    operator may draw around itself.
    """

    d: Draw
    flavour: Flavour
    inputs: list[Input] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    ranges: dict[str, RealRange] = field(default_factory=dict)
    current: str = ""
    forms: list[tuple[str, str]] = field(default_factory=list)
    most_nodes: int = 1

    def add_input(self, shape: tuple[int, ...], element: Element) -> str:
        """A new graph input."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(Input(name, TensorType(shape, element)))
        self.types[name] = self.inputs[-1].type
        return name

    def add_constant(self, prefix: str, element: Element, data: Array) -> str:
        """A new constant."""
        name = f"{prefix}{len(self.nodes)}"
        self.constants.append(Constant(name, TensorType(data.shape, element), Tensor(data)))
        self.types[name] = self.constants[-1].type
        return name

    def add_node(self, op: Operator, inputs: tuple[str, ...], element: Element) -> str:
        """A new node, which becomes the current value."""
        name = f"{op.name}{len(self.nodes)}"
        shape = op.infer([self.types[i] for i in inputs], element)
        self.nodes.append(Node(name, op, inputs, element))
        self.types[name] = TensorType(shape, element)
        self.current = name
        return name

    def choose_call(self) -> None:
        """Which of torch's calls of one meaning: what an operator draws that has several."""
        call = self.d.pick(("plain", "plain", "aten", "overload", "swapped", "tensor"))
        if call != "plain":
            self.forms.append(("call", call))

    @property
    def room(self) -> int:
        """How many more nodes the network may have."""
        return self.most_nodes - len(self.nodes)

    @property
    def type(self) -> TensorType:
        """Type of the current value."""
        return self.types[self.current]

    @property
    def qtype(self) -> QType:
        """Quantized type of the current value."""
        return self.type.qtype

    def scale(self, around: float, spread: int = 2) -> float:
        """A scale in this case's flavour."""
        return draw_scale(self.d, around, dyadic=self.flavour.dyadic, spread=spread, simplest=1.0)

    def output(self, around: float, spread: int = 2, unit: float | None = None) -> QType:
        """An output type whose scale is near `around`.

        Results that are multiples of `unit` often fall next to rounding ties: the scale is then an odd part of twice
        the unit, as near as float32 gets.
        """
        dtype = self.flavour.dtype
        if not self.flavour.common and dtype != "int32" and self.d.rarely(8):
            dtype = "int8" if dtype == "uint8" else "uint8"
        scale = self.scale(around, spread)
        if unit is not None and not self.flavour.dyadic and self.d.rarely(2):
            scale = near_ties(scale, unit)
        return QType.per_tensor(dtype, scale, draw_zero_point(self.d, dtype))

    def same_or_output(self, around: float) -> QType:
        """The current value's type, as kernels that only move or select need it; seldom another one."""
        if self.flavour.common or not self.d.rarely(3):
            return self.qtype
        return self.output(around, unit=self.qtype.scale[0])

    def network(self, forms: tuple[str, ...] = ()) -> Network:
        """The network whose outputs are all values that nothing reads, without inputs that nothing reads."""
        read = {i for n in self.nodes for i in n.inputs}
        outputs = tuple(n.name for n in self.nodes if n.name not in read)
        inputs = tuple(i for i in self.inputs if i.name in read)
        return Network(inputs, tuple(self.constants), tuple(self.nodes), outputs, forms)
