"""Directed inputs: with the constants fixed, rows of the batch are solved for results on or next to a rounding tie.

For the first conv or linear node, a row's receptive field is moved so that its accumulator is the one, of about a
thousand nearby, whose real result lies closest to half a step. A pure function of the case and a key.
"""

import numpy as np

from qfuzz.ir.network import Case, Node
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import Tensor, qparams_at
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.strategies import fill
from qfuzz.strategies.fill import Array

REACH = 400
"""How far from its accumulator a row may be moved."""
MAX_ROWS = 3


def direct(case: Case, key: int) -> Case:
    """`case` with some rows of its first input next to ties of the node that reads it; unchanged where none can be."""
    network = case.network
    first = network.inputs[0].name
    node = next((n for n in network.nodes if n.inputs[0] == first and _requantizes(n)), None)
    x = case.inputs[0].array
    if (
        node is None
        or not network.inputs[0].type.is_quantized
        or x.size == 0
        or network.types[node.name].n_elements == 0
    ):
        return case
    array = x.copy()
    picks = fill.below(fill.words(key, 2 * MAX_ROWS, stream=9), 2**20)
    for i in range(min(MAX_ROWS, x.shape[0])):
        _row(case, node, array, i, int(picks[2 * i]), int(picks[2 * i + 1]))
    return Case(network, (Tensor(array), *case.inputs[1:]))


def _requantizes(node: Node) -> bool:
    """Whether a node's accumulators are rounded to stored integers."""
    return isinstance(node.op, Conv | Linear) and isinstance(node.element, QType)


def _row(case: Case, node: Node, array: Array, row: int, pick: int, phase: int) -> None:
    network = case.network
    weight = network.constant_data[node.inputs[1]].array
    q_x, q_w = network.types[node.inputs[0]].qtype, network.types[node.inputs[1]].qtype
    assert isinstance(node.element, QType)
    channel = pick % weight.shape[0]
    at = channel if q_w.axis is not None else 0
    w = weight[channel].astype(np.int64).ravel() - q_w.zero_point[at]
    field = _field(node, array, row, channel, weight.shape)
    if field is None:
        return
    x = field.astype(np.int64).ravel() - q_x.zero_point[0]
    alpha, beta = (getattr(node.op, name, 1.0) for name in ("alpha", "beta"))
    unit = q_x.scale[0] * q_w.scale[at] / node.element.scale[0]
    bias = _integer_bias(case, node, channel)
    acc, multiplier = int(x @ w) + (bias if alpha == beta else 0), alpha * unit
    offset = beta * (_float_bias(case, node, channel) / node.element.scale[0] + (0 if alpha == beta else bias * unit))
    # Around the accumulator itself, or where that saturates around one that does not.
    limit = (node.element.qmax - node.element.qmin) / 2 / abs(multiplier)
    middle = round(min(max(acc, -limit), limit)) if limit < 2.0**31 else acc
    step = middle - acc + np.arange(-REACH, REACH + 1)
    r = (acc + step) * multiplier + offset
    distance = np.abs(r - np.floor(r) - 0.5)
    inside = np.abs(r) < (node.element.qmax - node.element.qmin)
    best = int(step[np.argmin(np.where(inside, distance, 1.0) + (step + phase) % 7 * 1e-12)])
    moved = _move(x, w, best, q_x.qmin - q_x.zero_point[0], q_x.qmax - q_x.zero_point[0])
    field[...] = (moved + q_x.zero_point[0]).reshape(field.shape).astype(field.dtype)


def _field(node: Node, array: Array, row: int, channel: int, weight: tuple[int, ...]) -> Array | None:
    """A view of the inputs that the first unpadded output element of `channel` sums, in the weight's order."""
    match node.op:
        case Linear():
            view: Array = array[row].reshape(-1, array.shape[-1])[0]
            return view
        case Conv() as op:
            spatial = len(weight) - 2
            group = channel // (weight[0] // op.groups)
            slices: list[int | slice] = [row, slice(group * weight[1], (group + 1) * weight[1])]
            for i in range(spatial):
                start = -(-op.padding[i] // op.strides[i]) * op.strides[i] - op.padding[i]
                reach = op.dilations[i] * (weight[2 + i] - 1) + 1
                if start + reach > array.shape[2 + i]:
                    return None
                slices.append(slice(start, start + reach, op.dilations[i]))
            return np.asarray(array[tuple(slices)])
        case _:
            return None


def _move(x: Array, w: Array, distance: int, low: int, high: int) -> Array:
    """`x` changed within low..high so that x @ w grows by `distance`, as far as a greedy pass gets."""
    x = x.copy()
    for i in np.argsort(-np.abs(w), kind="stable")[:128].tolist():
        weight = int(w[i])
        if weight == 0 or distance == 0:
            break
        change = int(distance / weight)
        change = min(max(change, low - int(x[i])), high - int(x[i]))
        x[i] += change
        distance -= change * weight
    return x


def _integer_bias(case: Case, node: Node, channel: int) -> int:
    """A bias in units of scale_x * scale_w; 0 where there is none."""
    if len(node.inputs) < 3 or case.network.types[node.inputs[2]].element != "int32":
        return 0
    return int(case.network.constant_data[node.inputs[2]].array[channel])


def _float_bias(case: Case, node: Node, channel: int) -> float:
    """A bias as a real number, where it is told as one or has a scale of its own."""
    if len(node.inputs) < 3:
        return 0.0
    type_, bias = case.network.types[node.inputs[2]], case.network.constant_data[node.inputs[2]].array
    if isinstance(type_.element, QType):
        scale, zero_point = qparams_at(type_, (channel,))
        return scale * (int(bias[channel]) - zero_point)
    return float(bias[channel]) if type_.element == "float32" else 0.0
