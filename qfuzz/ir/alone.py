"""One node of a case as a case of its own, fed with the values that it received."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from qfuzz.ir.network import Case, Input, Network
from qfuzz.ir.tensor import Tensor


def node_alone(case: Case, name: str, values: Mapping[str, npt.NDArray[Any]]) -> Case:
    """The node `name` alone.

    Parameters
    ----------
    values
        Arrays of the node outputs that the node reads (graph inputs come from the case).
    """
    network = case.network
    node = network.node(name)
    feeds = case.feeds
    constants = tuple(c for c in network.constants if c.name in node.inputs)
    fed = [i for i in dict.fromkeys(node.inputs) if i not in network.constant_data]
    return Case(
        Network(
            inputs=tuple(Input(i, network.types[i]) for i in fed),
            constants=constants,
            nodes=(node,),
            outputs=(node.name,),
            forms=network.forms,
        ),
        tuple(feeds[i] if i in feeds else Tensor(values[i]) for i in fed),
    )
