"""What ONNX Runtime really ran: the graph after its optimizations, with every value that a node received or returned.

The runtime optimizes the model and saves the graph. That graph then runs without further optimization, with all its
values exposed, so that its nodes are the kernels that a user's session runs. Both must return the same bits.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, NodeProto, ValueInfoProto

from qfuzz.audit.onnx_file import one_line
from qfuzz.backends.onnx_executor import Refusal, Session
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.protocols import Array


@dataclass(frozen=True)
class Trace:
    """One run of a model.

    Attributes
    ----------
    nodes
        The optimized graph's, in order.
    values
        Of constants, inputs and every node's outputs, by name; tensors only.
    constants
        Names of values that depend on no input.
    outputs
        Names of the graph's outputs.
    opset
        Version of ONNX's own operators.
    notes
        What a reader should know about this run.
    """

    nodes: Sequence[NodeProto]
    values: Mapping[str, Array]
    constants: frozenset[str]
    outputs: frozenset[str]
    opset: int
    notes: tuple[str, ...] = ()


def traced(model: ModelProto, inputs: Mapping[str, Array], level: str, threads: int = 1) -> Trace:
    """Run `model` on `inputs`, optimized at `level`; where that graph cannot be saved and loaded, at ``extended``.

    Raises
    ------
    InvalidCase
        Where the runtime does not load or run the model on these inputs.
    """
    try:
        data = model.SerializeToString()
    except (EncodeError, ValueError) as e:
        raise InvalidCase(f"the model with its external data is too large: {one_line(e)}") from None
    outputs = [o.name for o in model.graph.output]
    optimized, returned = _optimized(data, inputs, outputs, level, threads)
    try:
        return _exposed(optimized, inputs, returned, threads)
    except Refusal as e:
        if level != "all":
            raise InvalidCase(f"ONNX Runtime does not load its own optimized graph: {e}") from None
    note = "the graph optimized at level all cannot be loaded again: its layers are those of level extended"
    optimized, returned = _optimized(data, inputs, outputs, "extended", threads)
    try:
        trace = _exposed(optimized, inputs, returned, threads)
    except Refusal as e:
        raise InvalidCase(f"ONNX Runtime does not load its own optimized graph: {e}") from None
    return replace(trace, notes=(note, *trace.notes))


def _optimized(
    data: bytes, inputs: Mapping[str, Array], outputs: Sequence[str], level: str, threads: int
) -> tuple[ModelProto, Mapping[str, Array]]:
    """The optimized graph, and what it returned."""
    with tempfile.TemporaryDirectory(prefix="qfuzz-") as folder:
        file = Path(folder) / "optimized.onnx"
        try:
            session = Session(data, level, threads, save_to=str(file))
            returned = session.run(inputs, outputs)
        except Refusal as e:
            raise InvalidCase(f"ONNX Runtime refuses the model: {one_line(e)}") from None
        try:
            return ModelProto.FromString(file.read_bytes()), returned
        except (OSError, DecodeError) as e:
            raise InvalidCase(f"ONNX Runtime saved no optimized graph: {one_line(e)}") from None


def _exposed(model: ModelProto, inputs: Mapping[str, Array], returned: Mapping[str, Array], threads: int) -> Trace:
    graph = model.graph
    outputs = [o.name for o in graph.output]
    inner = [name for node in graph.node for name in node.output if name and name not in outputs]
    graph.output.extend(ValueInfoProto(name=name) for name in inner)
    session = Session(model.SerializeToString(), "disable", threads)
    fed = {value.name for value in graph.input}
    values = session.run({n: a for n, a in inputs.items() if n in fed}, [*outputs, *inner])
    notes = tuple(
        f"output {name!r} differs between the model and its optimized graph with all values exposed"
        for name in outputs
        if not _same_bits(values[name], returned[name])
    )
    initial = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    constants = set(initial) - fed
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    everything = {**initial, **inputs, **values}
    return Trace(
        nodes=graph.node,
        values={name: v for name, v in everything.items() if isinstance(v, np.ndarray)},
        constants=frozenset(constants),
        outputs=frozenset(outputs),
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        notes=notes,
    )


def _same_bits(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and (np.array_equal(a, b) if a.dtype == object else a.tobytes() == b.tobytes())
    return type(a) is type(b)
