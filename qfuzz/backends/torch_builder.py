"""What the torch dialects share: writing a call list for a network, node by node."""

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, TypeAlias

from qfuzz.backends.torch_calls import Arg, Array, Call, CallList, Declared, literal, torch_name, variable
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import BYTES, QType
from qfuzz.ir.tensor import TensorType

Lowering: TypeAlias = Callable[["Builder", Node], None]
"""Writes the calls of one node, or raises `Unsupported` with the reason why the framework has no kernel for it."""


def once(network: Network, key: Hashable, lower_it: Callable[[], CallList]) -> CallList:
    """The calls that `lower_it` gives, or the `Unsupported` that it raises: kept with the network under `key`."""

    def reasoned() -> CallList | str:
        try:
            return lower_it()
        except Unsupported as e:
            return str(e)

    lowered = network.once(key, reasoned)
    if isinstance(lowered, str):
        raise Unsupported(lowered)
    return lowered


SETTINGS = ("packing", "grad", "threads", "callers")
"""Dimensions of form that are about how calls are run."""


class Builder:
    """Collects the calls of one network.

    Attributes
    ----------
    memory
        How inputs lie in memory: a value of that form.
    n_lowered
        How many of the network's nodes have their calls.
    """

    def __init__(self, network: Network, memory: str = "") -> None:
        self.network = network
        self.memory = memory or network.form("memory")
        self.constants: list[Array] = []
        self.inputs: list[Array] = []
        self.prepare: list[Call] = []
        self.run: list[Call] = []
        self.n_lowered = 0
        self._taken = {*network.types}

    def fresh(self, name: str) -> str:
        """A variable name that nothing else has."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def type(self, node: Node, position: int) -> TensorType:
        """Type of an input of `node`."""
        return self.network.types[node.inputs[position]]

    def x(self, node: Node, position: int = 0) -> Arg:
        """The value of an input of `node`."""
        return variable(node.inputs[position])

    def call(self, out: str, target: str, *args: Arg, **kwargs: Arg) -> None:
        """A call of the run part."""
        self.run.append(Call(out, target, args, tuple(kwargs.items())))

    def prepare_call(self, out: str, target: str, *args: Arg, **kwargs: Arg) -> Arg:
        """A call of the prepare part; its result."""
        self.prepare.append(Call(out, target, args, tuple(kwargs.items())))
        return variable(out)

    def constant(self, name: str) -> Arg:
        """The plain array of a constant."""
        array = self.fresh(f"{name}_array")
        self.constants.append(Array(array, name))
        return variable(array)

    def number(self, name: str, value: float, dtype: str) -> Arg:
        """A tensor of one number and no dimensions, made in the prepare part."""
        return self.prepare_call(self.fresh(name), "torch.tensor", literal(value), dtype=torch_name(f"torch.{dtype}"))

    def numbers(self, name: str, values: tuple[Any, ...], dtype: str) -> Arg:
        """A vector made in the prepare part."""
        return self.prepare_call(
            self.fresh(name), "torch.tensor", literal(list(values)), dtype=torch_name(f"torch.{dtype}")
        )


def lower(builder: Builder, lowerings: Mapping[str, Lowering], feed: Callable[[Builder, str, TensorType], None],
          declare: Callable[[Node], Declared], *, of_int32: Collection[str] = ()) -> CallList:  # fmt: skip
    """The network's call list, for no engine; `of_int32` are the operators with kernels on quantized int32.

    Raises
    ------
    Unsupported
        Naming the node and why the framework has no kernel for it.
    """
    network = builder.network
    _check_types(network, of_int32)
    for value in network.inputs:
        feed(builder, value.name, value.type)
    for node in network.nodes:
        lowering = lowerings.get(node.op.name)
        if lowering is None:
            raise Unsupported(f"{node.op.name} {node.name!r}: this dialect has no kernel for it")
        try:
            refuse_reals(network, node)
            lowering(builder, node)
        except Unsupported as e:
            raise Unsupported(f"{node.op.name} {node.name!r}: {e}") from None
        builder.n_lowered += 1
    return CallList(
        engine="",
        constants=tuple(builder.constants),
        prepare=tuple(builder.prepare),
        inputs=tuple(builder.inputs),
        run=tuple(builder.run),
        values=tuple(declare(node) for node in network.nodes),
        settings=tuple(f for f in network.forms if f.split("=")[0] in SETTINGS),
    )


OF_ANY_TYPE = (
    "quantize",
    "dequantize",
    "fake_quantize",
    "choose_qparams",
    "embedding",
    "embedding_bag",
    "weight_only_linear",
    "dynamic_nbits_linear",
    "linear_pointwise",
    "conv_pointwise",
    "scaled_mm",
)
"""Operators whose lowerings say themselves which types they take."""


def _check_types(network: Network, of_int32: Collection[str]) -> None:
    """Raise `Unsupported` unless all is of the types that quantized kernels take here."""
    for node in network.nodes:
        for name in (*node.inputs, node.name) if node.op.name not in (*OF_ANY_TYPE, *of_int32) else ():
            q = network.types[name].element
            if isinstance(q, QType) and q.dtype == "int32":
                raise Unsupported(f"{name}: int32; {node.op.name} has no kernel on quantized int32 here")
    others = [n for n in network.nodes if n.op.name not in OF_ANY_TYPE]
    inner = {*(i.name for i in network.inputs), *(n.name for n in network.nodes)}
    for name in {v: None for n in others for v in (*n.inputs, n.name)}:
        type_ = network.types[name]
        q = type_.element
        if type_.dtype not in (*BYTES, "float32", "int32", "int64", "bool"):
            raise Unsupported(f"{name}: {type_.dtype}; torch's quantized kernels take uint8, int8 and float32")
        if isinstance(q, QType) and (q.block or (name in inner and not q.is_per_tensor)):
            raise Unsupported(f"{name}: {q.dtype} on axis {q.axis}; the kernels here take per-tensor activations")


def refuse_reals(network: Network, node: Node) -> None:
    """Raise `Unsupported` for a layer whose activations are no quantized ones."""
    if node.op.name in ("conv", "linear", "conv_transpose") and not network.types[node.inputs[0]].is_quantized:
        raise Unsupported("x: float32; quantized kernels take quantized activations")


def scale_of(q: QType) -> Arg:
    """The scale of a per-tensor type, as an argument."""
    return literal(q.scale[0])


def zero_point_of(q: QType) -> Arg:
    """The zero point of a per-tensor type, as an argument."""
    return literal(q.zero_point[0])


def symmetric(padding: tuple[int, ...]) -> list[int]:
    """Padding as torch takes it: one number for both ends of each dimension."""
    half = len(padding) // 2
    if padding[:half] != padding[half:]:
        raise Unsupported(f"padding {padding}: torch pads both ends of a dimension alike")
    return list(padding[:half])


def refuse_factors(node: Node) -> None:
    """Raise `Unsupported` for a linear node with the factors of ONNX Gemm."""
    op: Any = node.op
    if op.alpha != 1.0 or (op.beta != 1.0 and len(node.inputs) > 2):
        raise Unsupported(f"alpha {op.alpha}, beta {op.beta}: torch's linear has no such factors, ONNX Gemm has")
