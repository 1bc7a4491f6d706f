"""An ONNX model's layers on ONNX Runtime: every kernel that ran, in order, judged alone or listed with a reason."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qfuzz.audit.layer import Captured, Layer, Uncovered
from qfuzz.audit.onnx_file import checked_model, fix_shapes
from qfuzz.audit.onnx_groups import Group, GroupReader
from qfuzz.audit.onnx_inputs import inputs_of
from qfuzz.audit.onnx_kernels import KERNELS, REASONS
from qfuzz.audit.onnx_trace import Trace, traced
from qfuzz.audit.onnx_values import Call, Work
from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.protocols import Array

_QOPERATOR = contracts_of("qoperator", "all")
_UNFUSED = contracts_of("qdq", "disable")
_UNFUSED_SPEC = "onnxruntime?format=qdq&opt=disable"


@dataclass(frozen=True)
class OnnxLayers:
    """The layers of a model that has run, and what a reader should know about the run."""

    layers: Iterator[Captured]
    notes: tuple[str, ...]


def layers_of_onnx(
    path: Path,
    inputs: Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
    level: str = "all",
    dimensions: Mapping[str, int] | None = None,
) -> OnnxLayers:
    """The layers of the model in the file `path`. Nothing of the file is executed but its graph, by ONNX Runtime.

    Parameters
    ----------
    inputs
        Arrays by name; None draws them from `seed`.
    level
        Of ONNX Runtime's graph optimizations.
    dimensions
        Sizes of symbolic dimensions of the inputs by name; others are 1.

    Raises
    ------
    InvalidCase
        In one line: the file, or inputs that do not fit.
    """
    model = checked_model(path)
    fed = inputs_of(model, inputs, seed, dimensions or {})
    try:
        fix_shapes(model, {name: array.shape for name, array in fed.items()})
        trace = traced(model, fed, level)
    except InvalidCase as e:
        raise InvalidCase(f"{path}: {e}") from None
    return OnnxLayers(_renamed(_captured(trace)), trace.notes)


def _captured(trace: Trace) -> Iterator[Captured]:
    groups, reasons = _groups(trace)
    absorbed = _absorbed(trace, groups)
    for index, node in enumerate(trace.nodes):
        call = Call(node, trace)
        if index in groups:
            yield _of_group(groups[index])
        elif index in absorbed or _is_constant(call):
            continue  # part of a layer; constants are computed when the model is loaded
        elif index in reasons:
            yield Uncovered(call.name, call.kernel, reasons[index])
        else:
            yield from _of_node(call)


def _groups(trace: Trace) -> tuple[dict[int, Group], dict[int, str]]:
    """The groups by the index of their last node, and why float32 nodes before a QuantizeLinear are in none."""
    reader = GroupReader(trace)
    groups: dict[int, Group] = {}
    reasons: dict[int, str] = {}
    for index, node in enumerate(trace.nodes):
        if node.op_type != "QuantizeLinear":
            continue
        try:
            group = reader.group_of(index)
        except InvalidCase as e:
            before = reader.made_by(node.input[0])
            if before is not None:
                reasons[before] = str(e)
            continue
        if group is not None:
            groups[index] = group
    return groups, reasons


def _absorbed(trace: Trace, groups: Mapping[int, Group]) -> frozenset[int]:
    """Nodes that are no layers of their own: those inside groups, and those that dequantize for groups alone."""
    inner = {i for g in groups.values() for i in g.inner}
    inside = inner | set(groups)
    dequantizing = {i for g in groups.values() for i in g.dequantizing}
    readers: dict[str, set[int]] = {}
    for i, node in enumerate(trace.nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(i)
    alone = {
        i
        for i in dequantizing
        if trace.nodes[i].output[0] not in trace.outputs and readers[trace.nodes[i].output[0]] <= inside
    }
    return frozenset(inner | alone)


def _is_constant(call: Call) -> bool:
    return all(name in call.trace.constants for name in call.node.output if name)


def _of_group(group: Group) -> Captured:
    try:
        contract = _UNFUSED[group.work.op.name]
        return Layer(group.name, group.kernel, group.work.case(), group.work.got, contract, _UNFUSED_SPEC)
    except InvalidCase as e:
        return Uncovered(group.name, group.kernel, str(e))


def _of_node(call: Call) -> Iterator[Captured]:
    try:
        for work in _works(call):
            kernel = f"{call.kernel}, {work.layout}" if work.layout else call.kernel
            yield Layer(call.name, kernel, work.case(), work.got, _QOPERATOR[work.op.name], "onnxruntime")
    except InvalidCase as e:
        yield Uncovered(call.name, call.kernel, str(e))


def _works(call: Call) -> Iterator[Work]:
    """What a node alone did.

    Raises
    ------
    InvalidCase
        Why it is not judged.
    """
    op_type = call.node.op_type
    if op_type in REASONS:
        raise InvalidCase(REASONS[op_type])
    if any(a.HasField("g") or a.graphs for a in call.node.attribute):
        raise InvalidCase("it runs graphs of its own, whose layers are not seen")
    reading = KERNELS.get(op_type)
    quantized = op_type.startswith(("QLinear", "QGemm", "Dequantize", "Quantize"))
    values = call.trace.values
    dtypes = [values[n].dtype.name for n in (*call.node.input[:1], *call.node.output[:1]) if n in values]
    if not quantized and not {"uint8", "int8"} & set(dtypes):
        if call.node.domain == "com.microsoft.nchwc":
            raise InvalidCase("it computes in float32, in blocks of channels; --opt extended keeps it readable")
        kind = "float32" if "float32" in dtypes else ", ".join(dict.fromkeys(dtypes)) or "no tensors"
        raise InvalidCase(f"it computes on {kind}: no quantized layer")
    if reading is None:
        raise InvalidCase("qfuzz has no such operator")
    yield from reading(call)


def _renamed(layers: Iterator[Captured]) -> Iterator[Captured]:
    """The layers with a number after names that come again."""
    seen: Counter[str] = Counter()
    for captured in layers:
        seen[captured.name] += 1
        n = seen[captured.name]
        yield captured if n == 1 else replace(captured, name=f"{captured.name}#{n}")
