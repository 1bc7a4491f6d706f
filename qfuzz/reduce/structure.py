"""Reduction passes over the structure of a case: forms, nodes, inputs that nodes need not read."""

from collections.abc import Iterator
from functools import partial

from qfuzz.ir.alone import node_alone
from qfuzz.ir.network import Case, Input, Node
from qfuzz.ir.tensor import Tensor
from qfuzz.ops.movement import Concat
from qfuzz.ops.selection import Maximum, Minimum
from qfuzz.oracle.reference import exact_outputs
from qfuzz.reduce.edit import Candidate, Pass, pruned, replace, with_node


def plain_forms(case: Case) -> Iterator[Candidate]:
    """Say the network the plain way, in all dimensions of form or in one more."""
    network = case.network
    for kept in dict.fromkeys([(), *(tuple(f for f in network.forms if f != said) for said in network.forms)]):
        if kept != network.forms:
            yield partial(Case, replace(network, forms=kept), case.inputs)


def one_node_alone(case: Case) -> Iterator[Candidate]:
    """Each node by itself, fed with the exact values that it receives."""
    if len(case.network.nodes) > 1:
        values = exact_outputs(case)
        for node in case.network.nodes:
            yield partial(node_alone, case, node.name, values)


def cut_network(case: Case) -> Iterator[Candidate]:
    """Drop what comes after a node, or feed a node's output as an input."""
    network = case.network
    if len(network.nodes) == 1:
        return
    for node in network.nodes:
        yield partial(pruned, network, case.feeds, outputs=(node.name,))
    values = exact_outputs(case)
    for node in network.nodes:
        if node.name in network.outputs:
            continue

        def fed(node: Node = node) -> Case:
            new = Input(node.name, network.types[node.name])
            rest = tuple(n for n in network.nodes if n.name != node.name)
            feeds = {**case.feeds, node.name: Tensor(values[node.name])}
            return pruned(network, feeds, inputs=(*network.inputs, new), nodes=rest)

        yield fed


def drop_concat_inputs(case: Case) -> Iterator[Candidate]:
    """Concatenate, or compare, fewer inputs."""
    for node in case.network.nodes:
        if isinstance(node.op, Concat | Minimum | Maximum) and len(node.inputs) > 1:
            for i in range(len(node.inputs)):
                rest = node.inputs[:i] + node.inputs[i + 1 :]
                yield partial(with_node, case, replace(node, inputs=rest))


def drop_bias(case: Case) -> Iterator[Candidate]:
    """Leave the last constant out: a bias, a mask."""
    for node in case.network.nodes:
        last = len(node.inputs) - 1
        if last >= node.op.arity[0] and last in node.op.constant_inputs:
            yield partial(with_node, case, replace(node, inputs=node.inputs[:last]))


STRUCTURE: list[Pass] = [plain_forms, one_node_alone, cut_network, drop_concat_inputs, drop_bias]
