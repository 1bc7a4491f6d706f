"""Forms of an ONNX model: rewritings of the plain graph of a network that say the same in another way. Pure.

Each dimension of `qfuzz.ir.forms` that concerns the model has one function here, from a graph to that graph changed in
place. Values keep the names that the plain graph gave them; what is added has one more slash in its name.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from qfuzz.backends.onnx_opsets import axes_need, said_at
from qfuzz.ir.network import Network
from qfuzz.ops.sliding import same_padding

MICROSOFT = "com.microsoft"

QPARAMS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "QuantizeLinear"): (1, 2),
    ("", "DequantizeLinear"): (1, 2),
    ("", "QLinearConv"): (1, 2, 4, 5, 6, 7),
    ("", "QLinearMatMul"): (1, 2, 4, 5, 6, 7),
    ("", "ConvInteger"): (2, 3),
    ("", "MatMulInteger"): (2, 3),
    (MICROSOFT, "QLinearConv"): (1, 2, 4, 5, 6, 7),
    (MICROSOFT, "QLinearAdd"): (1, 2, 4, 5, 6, 7),
    (MICROSOFT, "QLinearMul"): (1, 2, 4, 5, 6, 7),
    (MICROSOFT, "QGemm"): (1, 2, 4, 5, 7, 8),
    (MICROSOFT, "QLinearSigmoid"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearLeakyRelu"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearSoftmax"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearAveragePool"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearGlobalAveragePool"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearReduceMean"): (1, 2, 3, 4),
    (MICROSOFT, "QLinearWhere"): (2, 3, 5, 6, 7, 8),
    (MICROSOFT, "DynamicQuantizeMatMul"): (2, 3),
    (MICROSOFT, "MatMulIntegerToFloat"): (2, 3, 4, 5),
    (MICROSOFT, "MatMulNBits"): (2, 3),
    (MICROSOFT, "GatherBlockQuantized"): (2, 3),
}
"""Inputs that are scales and zero points; QLinearConcat, of any number, is told by `_qparam_positions`."""

OMITTABLE: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "DequantizeLinear"): (2,),
    ("", "QuantizeLinear"): (2,),
    ("", "ConvInteger"): (2, 3),
    ("", "MatMulInteger"): (2, 3),
    (MICROSOFT, "QLinearAdd"): (2, 5, 7),
    (MICROSOFT, "QLinearMul"): (2, 5, 7),
    (MICROSOFT, "QLinearSigmoid"): (2, 4),
    (MICROSOFT, "QLinearLeakyRelu"): (2, 4),
    (MICROSOFT, "QLinearSoftmax"): (2,),
    (MICROSOFT, "QLinearAveragePool"): (2, 4),
    (MICROSOFT, "QLinearReduceMean"): (2, 4),
    (MICROSOFT, "DynamicQuantizeMatMul"): (3,),
    (MICROSOFT, "MatMulIntegerToFloat"): (4, 5),
    (MICROSOFT, "MatMulNBits"): (3,),
    (MICROSOFT, "GatherBlockQuantized"): (3,),
}
"""Zero points that the schemas call optional, and mostly 0 (QuantizeLinear: of uint8) where they are left out."""

ONE_ELEMENT = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")
"""Operators whose kernels say that they take a scalar or a vector of one element; others insist on scalars."""

Attribute: TypeAlias = int | float | tuple[int, ...]


@dataclass
class Said:
    """A graph while it is said in other forms.

    Attributes
    ----------
    opset, ir
        Versions that the model is to have.
    feeds
        Arrays of inputs that the network's cases do not feed.
    session
        What the session is to be told, as `onnx_executor.Session` reads it.
    """

    graph: GraphProto
    network: Network
    opset: int
    ir: int
    feeds: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    session: list[str] = field(default_factory=list)

    def initializers(self) -> dict[str, TensorProto]:
        """By name."""
        return {t.name: t for t in self.graph.initializer}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value of the network, or of one that is derived from it and has its shape."""
        type_ = self.network.types.get(name.split("/")[0])
        return None if type_ is None else type_.shape


def say(said: Said) -> None:
    """Say the graph in all the forms of its network."""
    _rewrite(said, NODES)
    said.opset = said_at(said.graph, said.opset)  # while constants are known: it looks at them
    _rewrite(said, VALUES)
    if said.ir < 4:  # an initializer is an input there, which a caller may give another value
        said.graph.input.extend(_value_info(t.name, t.data_type, tuple(t.dims)) for t in said.graph.initializer)


def _rewrite(said: Said, rewrites: tuple[tuple[str, "Rewrite"], ...]) -> None:
    chosen = dict(form.split("=", 1) for form in said.network.forms)
    for name, rewrite in rewrites:
        if name in chosen:
            rewrite(said, chosen[name])


def _zero_points(said: Said, value: str) -> None:
    """Leave zero points of 0 out where the schema gives them that default."""
    tensors = said.initializers()
    for node in said.graph.node:
        for position in OMITTABLE.get((node.domain, node.op_type), ()):
            tensor = tensors.get(node.input[position]) if position < len(node.input) else None
            if tensor is None or (numpy_helper.to_array(tensor) != _default_of(node, tensor)).any():
                continue
            if node.op_type == "QuantizeLinear" and tensor.data_type != TensorProto.UINT8:
                if node.domain or said.opset < 21:
                    continue
                _set(node, "output_dtype", tensor.data_type)
            node.input[position] = ""
        while node.input and not node.input[-1]:
            del node.input[-1]


def _default_of(node: NodeProto, tensor: TensorProto) -> int:
    """The zero points that are meant where none are given: 0, or the middle of `bits` where bytes hold them packed."""
    bits = next((a.i for a in node.attribute if a.name == "bits"), 0)
    packed = node.op_type in ("MatMulNBits", "GatherBlockQuantized")
    if not packed or tensor.data_type not in (TensorProto.UINT8, TensorProto.FLOAT):
        return 0
    middle = 1 << (bits - 1)
    return middle if tensor.data_type == TensorProto.FLOAT else {2: 0xAA, 4: 0x88, 8: 0x80}[bits]


def _accuracy(said: Said, value: str) -> None:
    """accuracy_level of MatMulNBits, and of what a session makes one of."""
    for node in said.graph.node:
        if node.op_type == "MatMulNBits":
            _set(node, "accuracy_level", int(value))
    said.session.append(f"accuracy={value}")


def _parameters(said: Said, value: str) -> None:
    """Scalars among scales and zero points become vectors of one element."""
    tensors = said.initializers()
    for node in said.graph.node:
        for position in _qparam_positions(node) if node.op_type in ONE_ELEMENT else ():
            tensor = tensors.get(node.input[position])
            if tensor is None or tensor.dims:
                continue
            name = f"{tensor.name}/one"
            if name not in tensors:
                vector = said.graph.initializer.add()
                vector.CopyFrom(tensor)
                vector.name = name
                vector.dims.append(1)
                tensors[name] = vector
            node.input[position] = name


def _axes(said: Said, value: str) -> None:
    """Count axes from the end."""
    for node in said.graph.node:
        for attribute in node.attribute:
            shape = said.shape(node.output[0] if node.op_type == "QLinearConcat" else node.input[0])
            if attribute.name == "axis" and shape and 0 <= attribute.i < len(shape):
                attribute.i -= len(shape)
                said.opset = max(said.opset, axes_need(node))


def _constants(said: Said, value: str) -> None:
    """Weights and biases as inputs of the graph, or given by Constant nodes."""
    ours = {c.name for c in said.network.constants}
    kept = []
    for tensor in said.graph.initializer:
        packed = tensor.data_type in _NOT_FED
        if tensor.name.split("/")[0] not in ours or (value == "inputs" and packed):
            kept.append(tensor)
        elif value == "inputs":
            said.graph.input.append(_value_info(tensor.name, tensor.data_type, tuple(tensor.dims)))
            said.feeds[tensor.name] = numpy_helper.to_array(tensor)
        else:
            node = NodeProto(op_type="Constant", output=[tensor.name])
            node.attribute.add(name="value", type=AttributeProto.TENSOR, t=tensor)
            said.graph.node.insert(0, node)
    _keep(said.graph, kept)


def _qparams(said: Said, value: str) -> None:
    """Scales and zero points as inputs of the graph."""
    used = {node.input[p] for node in said.graph.node for p in _qparam_positions(node)}
    kept = []
    for tensor in said.graph.initializer:
        if tensor.name in used and tensor.data_type not in _NOT_FED:
            said.graph.input.append(_value_info(tensor.name, tensor.data_type, tuple(tensor.dims)))
            said.feeds[tensor.name] = numpy_helper.to_array(tensor)
        else:
            kept.append(tensor)
    _keep(said.graph, kept)


def _sharing(said: Said, value: str) -> None:
    """An initializer of its own for each reader."""
    tensors, seen = said.initializers(), Counter[str]()
    for node in said.graph.node:
        for position, name in enumerate(node.input):
            if name not in tensors:
                continue
            seen[name] += 1
            if seen[name] > 1:
                copy = said.graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = node.input[position] = f"{name}/{seen[name]}"


def _shapes(said: Said, value: str) -> None:
    """Symbols in the place of sizes."""
    fed = {i.name for i in said.network.inputs}
    for info in said.graph.input:
        if info.name not in fed:
            continue
        for axis, dimension in enumerate(info.type.tensor_type.shape.dim):
            symbol, size = f"{info.name}_{axis}", dimension.dim_value
            dimension.dim_param = symbol
            if value == "overridden":
                said.session.append(f"symbol:{symbol}={size}")


def _padding(said: Said, value: str) -> None:
    """auto_pad where it says the padding."""
    for node in said.graph.node:
        attributes = {a.name: a for a in node.attribute}
        pads, kernel = attributes.get("pads"), attributes.get("kernel_shape")
        if pads is None or kernel is None or node.op_type == "ConvTranspose":
            continue
        shape = said.shape(node.input[0])
        n = len(kernel.ints)
        if shape is None or len(shape) != n + 2 or ("ceil_mode" in attributes and attributes["ceil_mode"].i):
            continue
        strides = list(attributes["strides"].ints) if "strides" in attributes else [1] * n
        dilations = list(attributes["dilations"].ints) if "dilations" in attributes else [1] * n
        name = _auto_pad(list(pads.ints), shape[2:], list(kernel.ints), strides, dilations)
        if name:
            node.attribute.remove(pads)
            node.attribute.add(name="auto_pad", type=AttributeProto.STRING, s=name.encode())


def _auto_pad(
    pads: list[int], sizes: tuple[int, ...], kernel: list[int], strides: list[int], dilations: list[int]
) -> Literal["", "VALID", "SAME_UPPER", "SAME_LOWER"]:
    """The auto_pad that is known to give `pads`; with SAME the odd one is at an end."""
    if not any(pads):
        return "VALID"
    totals = same_padding(sizes, kernel, strides, dilations)
    if min(totals) < 0:
        return ""
    upper = [(t // 2, t - t // 2) for t in totals]
    if pads == [a for a, _ in upper] + [b for _, b in upper]:
        return "SAME_UPPER"
    if pads == [b for _, b in upper] + [a for a, _ in upper]:
        return "SAME_LOWER"
    return ""


def _layout(said: Said, value: str) -> None:
    """Kernels on stored integers that take channels last, between two transpositions."""
    nodes = list(said.graph.node)
    del said.graph.node[:]
    for node in nodes:
        type_ = said.network.types.get(node.input[0]) if node.input else None
        if type_ is None or not type_.is_quantized or (node.domain, node.op_type) not in _CHANNELS_LAST:
            said.graph.node.append(node)
            continue
        rank = len(type_.shape)
        last, first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
        moved, result = f"{node.output[0]}/x_last", f"{node.output[0]}/last"
        _add(said.graph, "Transpose", [node.input[0]], moved, {"perm": last})
        changed = said.graph.node.add()
        changed.CopyFrom(node)
        changed.domain, changed.op_type = MICROSOFT, _CHANNELS_LAST[node.domain, node.op_type]
        changed.input[0], changed.output[0] = moved, result
        if changed.op_type != "NhwcMaxPool":
            _set(changed, "channels_last", 1)
        _add(said.graph, "Transpose", [result], node.output[0], {"perm": first})


_CHANNELS_LAST: Mapping[tuple[str, str], str] = {
    ("", "QLinearConv"): "QLinearConv",
    (MICROSOFT, "QLinearAveragePool"): "QLinearAveragePool",
    (MICROSOFT, "QLinearGlobalAveragePool"): "QLinearGlobalAveragePool",
    ("", "MaxPool"): "NhwcMaxPool",
}


def _qdq(said: Said, value: str) -> None:
    """A DequantizeLinear for each reader, or two pairs of QuantizeLinear and DequantizeLinear in the place of one."""
    nodes = list(said.graph.node)
    del said.graph.node[:]
    readers = Counter(name for node in nodes for name in node.input)
    apart: dict[str, NodeProto] = {}
    for node in nodes:
        if node.op_type == "DequantizeLinear" and value == "unshared" and readers[node.output[0]] > 1:
            apart[node.output[0]] = node
            continue
        for position, name in enumerate(node.input):
            if name in apart:
                own = f"{name}/{node.output[0]}/{position}"
                copy = said.graph.node.add()
                copy.CopyFrom(apart[name])
                copy.output[0] = own
                node.input[position] = own
        if node.op_type == "QuantizeLinear" and value == "doubled":
            _twice(said.graph, node)
        else:
            said.graph.node.append(node)
    for name, node in apart.items():
        if name in said.network.outputs:
            said.graph.node.append(node)


def _twice(graph: GraphProto, node: NodeProto) -> None:
    output = node.output[0]
    first = graph.node.add()
    first.CopyFrom(node)
    first.output[0] = f"{output}/once"
    back = graph.node.add()
    back.CopyFrom(node)
    back.op_type = "DequantizeLinear"
    del back.attribute[:]
    back.attribute.extend(a for a in node.attribute if a.name in ("axis", "block_size"))
    back.input[0], back.output[0] = f"{output}/once", f"{output}/back"
    last = graph.node.add()
    last.CopyFrom(node)
    last.input[0] = f"{output}/back"


def _qdq_domain(said: Said, value: str) -> None:
    """QuantizeLinear and DequantizeLinear of com.microsoft, where it has a kernel for the types."""
    float32 = {t.name for t in said.graph.initializer if t.data_type == TensorProto.FLOAT}
    narrow = {t.name for t in said.graph.initializer if t.data_type in _NOT_MICROSOFT}
    for node in said.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        names = {a.name for a in node.attribute}
        if node.input[1] in float32 and not narrow.intersection(node.input) and not names - {"axis"}:
            node.domain = MICROSOFT


def _types(said: Said, value: str) -> None:
    """Attributes that say the types which the inputs say already."""
    types = {t.name: t.data_type for t in said.graph.initializer}
    for node in said.graph.node:
        if node.domain or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, names = types.get(node.input[1]), {a.name for a in node.attribute}
        if node.op_type == "DequantizeLinear":
            if scale is not None and "output_dtype" not in names:
                _set(node, "output_dtype", scale)
            continue
        zero_point = types.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is not None:
            _set(node, "output_dtype", zero_point)
        if scale is not None and "precision" not in names:
            _set(node, "precision", scale)


def _opset(said: Said, value: str) -> None:
    said.opset = int(value)


def _ir(said: Said, value: str) -> None:
    said.ir = int(value)


def _in_session(name: str) -> "Rewrite":
    def rewrite(said: Said, value: str) -> None:
        said.session.append(f"{name}={value}")

    return rewrite


Rewrite: TypeAlias = Callable[[Said, str], None]

SESSION = (
    "saved", "threads", "callers", "execution", "arena", "memory_pattern", "memory_reuse", "prepacking",
    "qdq_cleanup", "double_qdq", "qdq_int8", "saturation", "nbits_block", "nbits_fusion",
)  # fmt: skip
"""Dimensions that the executor is told of."""

NODES: tuple[tuple[str, Rewrite], ...] = (
    ("opset", _opset),
    ("ir", _ir),
    ("padding", _padding),
    ("layout", _layout),
    ("qdq", _qdq),
    ("qdq_domain", _qdq_domain),
    ("types", _types),
    ("zero_points", _zero_points),
    ("parameters", _parameters),
    ("axes", _axes),
    ("sharing", _sharing),
    ("accuracy", _accuracy),
)
"""Dimension to what says it in nodes and initializers, in the order in which they are applied."""

VALUES: tuple[tuple[str, Rewrite], ...] = (
    ("constants", _constants),
    ("qparams", _qparams),
    ("shapes", _shapes),
    *((name, _in_session(name)) for name in SESSION),
)
"""Dimension to what says it of inputs, constants and the session, once the nodes are settled."""

_NOT_FED = {
    getattr(TensorProto, name)
    for name in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
    if hasattr(TensorProto, name)
}
"""Types that the runtime's Python interface takes no arrays of."""

_NOT_MICROSOFT = {
    getattr(TensorProto, name)
    for name in ("INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT16")
    if hasattr(TensorProto, name)
}
"""Types that the Q and DQ of com.microsoft have no kernel for."""


def _qparam_positions(node: NodeProto) -> tuple[int, ...]:
    if node.op_type == "QLinearConcat":
        return tuple(p for p in range(len(node.input)) if p < 2 or (p - 2) % 3)
    positions = QPARAMS.get((node.domain, node.op_type)) or QPARAMS.get(("", node.op_type), ())
    return tuple(p for p in positions if p < len(node.input) and node.input[p])


def _keep(graph: GraphProto, tensors: list[TensorProto]) -> None:
    kept = [TensorProto.FromString(t.SerializeToString()) for t in tensors]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _add(graph: GraphProto, op_type: str, inputs: list[str], output: str, attributes: Mapping[str, Attribute]) -> None:
    node = graph.node.add(op_type=op_type, input=inputs, output=[output])
    for name, value in attributes.items():
        _set(node, name, value)


def _set(node: NodeProto, name: str, value: Attribute) -> None:
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    if isinstance(value, tuple):
        node.attribute.add(name=name, type=AttributeProto.INTS, ints=value)
    else:
        node.attribute.add(name=name, type=AttributeProto.INT, i=int(value))


def _value_info(name: str, data_type: int, shape: tuple[int, ...]) -> ValueInfoProto:
    info = ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = data_type
    dimensions = info.type.tensor_type.shape
    dimensions.SetInParent()  # also where it has no dimension
    for size in shape:
        dimensions.dim.add(dim_value=size)
    return info


def array_of(tensor: TensorProto) -> npt.NDArray[Any]:
    """The data of an initializer."""
    return np.asarray(numpy_helper.to_array(tensor))
