"""An ONNX file as a checked model. Nothing in it is executed, and nothing outside its folder is read.

The runtime is given one self-contained model: all data kept outside the file is read here, where its place and its size
are checked first.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import GraphProto, ModelProto, TensorProto

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.tensor import MAX_ELEMENTS

MAX_BYTES = 2**31 - 1
"""A serialized model has at most so many: a limit of Protocol Buffers."""
MAX_VALUE_ELEMENTS = 8 * MAX_ELEMENTS
"""No activation of an audited model has more; above `MAX_ELEMENTS` its layer is listed, not judged."""
OLDEST_OPSET = 10

_QUANTIZED_OPS = frozenset(("ConvInteger", "MatMulInteger", "QGemm", "QAttention", "QEmbedLayerNormalization"))


def checked_model(path: Path) -> ModelProto:
    """The model in the file `path`, with all its data.

    Raises
    ------
    InvalidCase
        In one line: no ONNX file, a truncated or hostile one, or one without any quantized layer.
    """
    model = _parsed(path)
    try:
        _embed_external_data(model, path.parent)
        _check_constants(model)
        _check_acyclic(model.graph)
        _check_quantized(model)
        _check_by_onnx(model)
    except InvalidCase as e:
        raise InvalidCase(f"{path}: {e}") from None
    return model


def _parsed(path: Path) -> ModelProto:
    if not path.is_file():
        raise InvalidCase(f"{path}: no such file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InvalidCase(f"{path}: {size} bytes; an ONNX file has at most {MAX_BYTES}, the rest lies beside it")
    try:
        model = ModelProto.FromString(path.read_bytes())
    except DecodeError:
        raise InvalidCase(f"{path}: no ONNX model, or a truncated one: its bytes cannot be parsed") from None
    if not model.ir_version or not model.graph.node:
        raise InvalidCase(f"{path}: no ONNX model, or a truncated one: it has no nodes")
    return model


def _embed_external_data(model: ModelProto, folder: Path) -> None:
    """Read what lies beside the file, and nowhere else, into the model."""
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        data = _external_bytes(tensor, folder)
        total += len(data)
        if total > MAX_BYTES:
            raise InvalidCase(f"external data: more than {MAX_BYTES} bytes; a model of this size is not audited")
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _external_bytes(tensor: TensorProto, folder: Path) -> bytes:
    where = f"external data of {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise InvalidCase(f"{where}: {location!r} is not in the model's folder")
    file = folder / relative
    if any((folder / Path(*relative.parts[: n + 1])).is_symlink() for n in range(len(relative.parts))):
        raise InvalidCase(f"{where}: {location!r} is a symbolic link; data lies in the model's folder itself")
    if not file.is_file():
        raise InvalidCase(f"{where}: there is no file {location!r} in the model's folder")
    needed = _n_bytes(tensor)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or needed)
    except ValueError:
        raise InvalidCase(f"{where}: offset and length are whole numbers") from None
    if length != needed:
        raise InvalidCase(f"{where}: {length} bytes; its shape and type need {needed}")
    if offset < 0 or offset + length > file.stat().st_size:
        raise InvalidCase(f"{where}: bytes {offset} to {offset + length} of {location!r}, which is shorter")
    if length > MAX_BYTES:
        raise InvalidCase(f"{where}: {length} bytes; a model of this size is not audited")
    with file.open("rb") as f:
        f.seek(offset)
        return f.read(length)


def _n_bytes(tensor: TensorProto) -> int:
    """Bytes that the shape and type of `tensor` need; elements of 4 bits are stored two by two."""
    n = _n_elements(tensor)
    if tensor.data_type in (getattr(TensorProto, "UINT4", -1), getattr(TensorProto, "INT4", -1)):
        return (n + 1) // 2
    try:
        return n * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError):
        raise InvalidCase(
            f"tensor {tensor.name!r}: data type {tensor.data_type} is none that can lie outside"
        ) from None


def _n_elements(tensor: TensorProto) -> int:
    if any(d < 0 for d in tensor.dims):
        raise InvalidCase(f"tensor {tensor.name!r}: shape {tuple(tensor.dims)} has a negative dimension")
    return math.prod(tensor.dims)


def _check_constants(model: ModelProto) -> None:
    """Refuse a shape that no data in the file can fill, before anybody allocates it."""
    for tensor in _tensors(model):
        n = _n_elements(tensor)
        if n > 2 * max(MAX_BYTES, 1) or n > 2 * tensor.ByteSize() + 1:
            raise InvalidCase(f"tensor {tensor.name!r}: shape {tuple(tensor.dims)} has more elements than its data")


def _check_acyclic(graph: GraphProto) -> None:
    """Refuse a graph in which a value depends on itself, at whatever depth."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [{maker[name] for name in node.input if name in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for i, makers in enumerate(needs):
        for m in makers:
            readers.setdefault(m, []).append(i)
    missing = [len(makers) for makers in needs]
    ready = [i for i, n in enumerate(missing) if n == 0]
    while ready:
        for i in readers.get(ready.pop(), ()):
            missing[i] -= 1
            if missing[i] == 0:
                ready.append(i)
    stuck = next((i for i, n in enumerate(missing) if n), None)
    if stuck is not None:
        node = graph.node[stuck]
        raise InvalidCase(f"cyclic graph: {node.op_type} {node.name or node.output[0]!r} waits for its own output")


def _check_by_onnx(model: ModelProto) -> None:
    versions = {o.domain: o.version for o in model.opset_import}
    version = versions.get("", versions.get("ai.onnx"))
    if version is not None and version < OLDEST_OPSET:
        raise InvalidCase(f"opset {version}; models of opset {OLDEST_OPSET} and up are audited")
    shapeless = [o.type.tensor_type for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    for tensor in shapeless:  # the checker wants a shape, exporters and the runtime do not
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, EncodeError, ValueError, RuntimeError) as e:
        raise InvalidCase(f"no valid ONNX model: {one_line(e)}") from None
    for tensor in shapeless:
        tensor.ClearField("shape")


def is_quantized(op_type: str) -> bool:
    """Whether an ONNX operator works on quantized values."""
    return op_type.startswith(("QLinear", "Quantize", "Dequantize", "DynamicQuantize")) or op_type in _QUANTIZED_OPS


def _check_quantized(model: ModelProto) -> None:
    graphs = [model.graph, *model.functions]
    if not any(is_quantized(node.op_type) for graph in graphs for node in _nodes(graph)):
        raise InvalidCase("no quantized layer: none of its nodes quantizes, dequantizes or computes on integers")


def fix_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the shapes of the inputs into the model, and refuse values of absurd size that follow from them."""
    for value in model.graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape
            del dims.dim[:]
            for size in shapes[value.name]:
                dims.dim.add(dim_value=size)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, EncodeError, ValueError, RuntimeError) as e:
        raise InvalidCase(f"no valid ONNX model: {one_line(e)}") from None
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        sizes = [max(d.dim_value, 1) for d in tensor.shape.dim]
        if math.prod(sizes) > MAX_VALUE_ELEMENTS:
            raise InvalidCase(f"value {value.name!r}: shape {tuple(sizes)}; at most {MAX_VALUE_ELEMENTS} elements")


def _tensors(message: Any) -> Iterator[TensorProto]:
    """All tensors of a message, wherever they are: constants, attributes, inner graphs, functions."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "__len__") else (value,):
                yield from _tensors(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes of a graph or function, those of inner graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def one_line(error: BaseException) -> str:
    """An error's message on one line of sane length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "…"
