"""recurrent as torch's eager kernels: cells, and layers of LSTM and GRU, with packed weights of int8 or float16."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable, variables
from qfuzz.backends.torch_int8_weights import int8_weight, is_given_as_reals, reals_of, weights_of
from qfuzz.backends.torch_layers import weight_of
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ops.recurrent import Recurrent


def _recurrent(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Recurrent)
    cell = len(b.type(node, 0).shape) == 2
    if not cell and op.kind.startswith("rnn"):
        raise Unsupported("kind: of plain RNN there are cells only (RNN.cpp)")
    halves = b.type(node, 1).element == "float32"
    if _is_older(b, node):
        _older_cell(b, node, op)
        return
    if cell and not op.reduce_range and not halves:
        raise Unsupported("reduce_range: cells always have it (RNN.cpp, DEFINE_QUANTIZED_RNN_CELL_DYNAMIC)")
    states = node.inputs[1 + 4 * op.n_cells :]
    given = [b.constant(name) for name in states]
    hx = variables(tuple(str(a.value) for a in given)) if op.kind == "lstm" else given[0]
    outs = [b.fresh(f"{node.name}_{o}") for o in ("y", "h", "c")]
    if cell:
        packed = [_packed(b, node, i, halves) for i in (1, 2)]
        biases = [b.constant(node.inputs[i]) for i in (3, 4)]
        out = f"{node.name},{outs[2]}" if op.output == "y" else f"{outs[1]},{node.name}"
        target = f"torch.ops.quantized.quantized_{op.kind}_cell_dynamic"
        b.call(out if op.kind == "lstm" else node.name, target, b.x(node), hx, *packed, *biases)
        return
    if b.network.form("call") == "overload" and not op.batch_first and b.type(node, 0).shape[1]:
        _packed_sequence(b, node, op, hx, outs, halves=halves)
        return
    params = [_cell_params(b, node, op, i, halves=halves) for i in range(op.n_cells)]
    outs["yhc".index(op.output)] = node.name
    settings: list[Any] = [True, op.layers, 0.0, False, op.bidirectional, op.batch_first]
    arguments = (b.x(node), hx, variables(tuple(str(a.value) for a in params)), *map(literal, settings))
    if op.kind == "gru":
        b.call(",".join(outs[:2]), "torch.quantized_gru", *arguments)
        return
    dtype = torch_name("torch.float16" if halves else "torch.qint8")
    b.call(",".join(outs), "torch.quantized_lstm", *arguments, dtype=dtype, use_dynamic=literal(True))


def _is_older(b: Builder, node: Node) -> bool:
    """Whether it is said with an older cell, which has no reduced range, and one scale for a weight."""
    op: Any = node.op
    weights = [b.type(node, i) for i in (1, 2)]
    plain = not op.reduce_range and all(w.is_quantized and w.qtype.is_per_tensor for w in weights)
    older = b.network.form("entry") == "older" or is_given_as_reals(b.network, weights_of(node))
    return older and plain and len(b.type(node, 0).shape) == 2


def _older_cell(b: Builder, node: Node, op: Recurrent) -> None:
    """Both weights with what was packed of them, told part by part."""
    w, r = (int8_weight(b, node, position) for position in (1, 2))
    biases = [b.constant(node.inputs[i]) for i in (3, 4)]
    states = [b.constant(name) for name in node.inputs[5:]]
    hx = variables(tuple(str(a.value) for a in states)) if op.kind == "lstm" else states[0]
    told = [a for pair in zip(w, r, strict=True) for a in pair]
    other = b.fresh(f"{node.name}_other")
    out = f"{node.name},{other}" if op.output == "y" else f"{other},{node.name}"
    target = f"torch.quantized_{op.kind}_cell"
    b.call(out if op.kind == "lstm" else node.name, target, b.x(node), hx, *told[:2], *biases, *told[2:])


def _packed_sequence(b: Builder, node: Node, op: Recurrent, hx: Arg, outs: list[str], *, halves: bool) -> None:
    """As what pack_sequence makes of sequences of one length: all steps after one another, and their batch sizes."""
    length, batch, features = b.type(node, 0).shape
    data = b.fresh(f"{node.name}_data")
    b.call(data, ".reshape", b.x(node), literal([length * batch, features]))
    sizes = b.numbers(b.fresh(f"{node.name}_sizes"), (batch,) * length, "int64")
    params = [_cell_params(b, node, op, i, halves=halves) for i in range(op.n_cells)]
    arguments = (variable(data), sizes, hx, variables(tuple(str(a.value) for a in params)))
    settings = map(literal, (True, op.layers, 0.0, False, op.bidirectional))
    if op.output != "y":
        outs["yhc".index(op.output)] = node.name
    if op.kind == "gru":
        b.call(",".join(outs[:2]), "torch.quantized_gru", *arguments, *settings)
    else:
        dtype = torch_name("torch.float16" if halves else "torch.qint8")
        out = ",".join(outs)
        b.call(out, "torch.quantized_lstm", *arguments, *settings, dtype=dtype, use_dynamic=literal(True))
    if op.output == "y":
        b.call(node.name, ".reshape", variable(outs[0]), literal([length, batch, -1]))


def _packed(b: Builder, node: Node, position: int, halves: bool) -> Arg:
    bias = b.constant(node.inputs[position + 2])
    out = b.fresh(f"{node.name}_packed{position}")
    if halves:
        weight = b.constant(node.inputs[position])
        return b.prepare_call(out, "torch.ops.quantized.linear_prepack_fp16", weight, bias)
    return b.prepare_call(out, "torch.ops.quantized.linear_prepack", weight_of(b, node, position), bias)


def _cell_params(b: Builder, node: Node, op: Recurrent, i: int, *, halves: bool) -> Arg:
    out, make = b.fresh(f"{node.name}_cell{i}"), "torch.ops.quantized.make_quantized_cell_params"
    w, r, *last = range(1 + 4 * i, 5 + 4 * i)
    if halves:
        return b.prepare_call(out, f"{make}_fp16", *(_packed(b, node, p, halves) for p in (w, r)))
    if not op.reduce_range and is_given_as_reals(b.network, weights_of(node)):
        weights = [reals_of(b, node, p) for p in (w, r)]
        return b.prepare_call(out, make, *weights, *(b.constant(node.inputs[p]) for p in last))
    packed = [_packed(b, node, p, halves) for p in (w, r)]
    biases = [b.constant(node.inputs[p]) for p in last]
    return b.prepare_call(out, f"{make}_dynamic", *packed, *biases, literal(op.reduce_range))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"recurrent": _recurrent})
