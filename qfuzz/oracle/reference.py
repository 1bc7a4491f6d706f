"""The reference for one case: images of nodes and admissible sets, computed once and shared by all backends."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract, contract_of
from qfuzz.ir.network import Case, Network, Node
from qfuzz.ops.semantics import ExactOperator, Image, Operand
from qfuzz.oracle.admissible import NAN, Admissible, Settled, admissible, settle

Array = npt.NDArray[Any]

DEFAULT_CONTRACT = Contract(
    terms="affine",
    k=8,
    tie="any",
    source="none stated: float32 arithmetic in any order, ties either way",
)

CORRECT = Contract(terms="exact", k=0, tie="half_even", source="the definition")
"""Of the reference itself: only the correctly rounded value."""

Key = tuple[object, ...]


class Reference:
    """Exact semantics of one case's network. `seconds` and `count` accumulate over its use."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.network: Network = case.network
        self.seconds = 0.0
        self.count = FilterCount()
        self._constants = {c.name: Operand.point(c.type, c.data.array) for c in self.network.constants}
        self._images: dict[Key, tuple[Image, Settled | None]] = {}
        self._sets: dict[Key, Admissible] = {}
        self._ends: dict[int, dict[str, Admissible]] = {}
        self._exact: Mapping[str, Array] | None = None

    def node(self, node: Node, received: Sequence[Array | None], contract: Contract) -> Admissible:
        """The admissible set of `node` on the activations that it received (None at constant positions)."""
        start = time.perf_counter()
        result = self._set(node, received, contract)
        self.seconds += time.perf_counter() - start
        return result

    def exact(self) -> Mapping[str, Array]:
        """Every node's correctly rounded value when all before it are, by name, in its storage dtype."""
        start = time.perf_counter()
        if self._exact is None:
            known: dict[str, Array] = {n: t.array for n, t in self.case.feeds.items()}
            for node in self.network.nodes:
                received = [None if i in self._constants else known[i] for i in node.inputs]
                correct = self._set(node, received, CORRECT)
                rounded = correct.lo if correct.exact is None else correct.exact
                if rounded.dtype == np.float64:
                    rounded = np.where(rounded == NAN, np.nan, rounded)
                known[node.name] = rounded.astype(self.network.types[node.name].dtype, copy=False)
            self._exact = known
        self.seconds += time.perf_counter() - start
        return self._exact

    def whole(self, contracts: Mapping[str, Contract]) -> dict[str, Admissible]:
        """Admissible sets of every node when the whole network runs under `contracts`, by interval propagation."""
        start = time.perf_counter()
        if id(contracts) not in self._ends:
            self._ends[id(contracts)] = self._propagate(contracts)
        result = self._ends[id(contracts)]
        self.seconds += time.perf_counter() - start
        return result

    def _propagate(self, contracts: Mapping[str, Contract]) -> dict[str, Admissible]:
        """Node by node; what is known exactly shares images and sets with `node`."""
        known: dict[str, Array] = {v.name: t.array for v, t in zip(self.network.inputs, self.case.inputs, strict=True)}
        uncertain: dict[str, Operand] = {}
        sets: dict[str, Admissible] = {}
        for node in self.network.nodes:
            contract = contract_of(contracts, node.op.name, self.network.said_of(node), DEFAULT_CONTRACT)
            if not uncertain or not any(i in uncertain for i in node.inputs):
                s = self._set(node, [None if i in self._constants else known[i] for i in node.inputs], contract)
            else:
                image = image_of(node, [self._operand(i, known, uncertain) for i in node.inputs])
                s = admissible(image, contract, node.element, self.count)
            sets[node.name] = s
            if s.lo is s.hi:
                known[node.name] = s.lo.astype(self.network.types[node.name].dtype)
            else:
                lo, hi = s.lo.astype(np.float64), s.hi.astype(np.float64)
                uncertain[node.name] = Operand(self.network.types[node.name], lo, hi)
        return sets

    def _operand(self, name: str, known: Mapping[str, Array], uncertain: Mapping[str, Operand]) -> Operand:
        if name in uncertain:
            return uncertain[name]
        return (
            self._constants[name] if name in self._constants else Operand.point(self.network.types[name], known[name])
        )

    def _set(self, node: Node, received: Sequence[Array | None], contract: Contract) -> Admissible:
        """The admissible set on known values (None at constant positions), computed once."""
        key: Key = (node.name, *(None if a is None else a.tobytes() for a in received))
        decided = (key, _arithmetic(contract))
        if decided not in self._sets:
            if key not in self._images:
                self._images[key] = self._evaluated(node, received)
            image, settled = self._images[key]
            self._sets[decided] = admissible(image, contract, node.element, self.count, settled)
        return self._sets[decided]

    def _evaluated(self, node: Node, received: Sequence[Array | None]) -> tuple[Image, Settled | None]:
        """The image, and what of it holds under every contract."""
        types = self.network.input_types(node)
        operands = [
            self._constants[name] if a is None else Operand.point(t, a)
            for name, a, t in zip(node.inputs, received, types, strict=True)
        ]
        image = image_of(node, operands)
        return image, settle(image, node.element)


@cache
def _arithmetic(contract: Contract) -> Contract:
    """What of a contract decides: contracts that differ in their source only share their sets."""
    return msgspec.structs.replace(contract, source="")


def image_of(node: Node, operands: Sequence[Operand]) -> Image:
    """The exact image of one node."""
    if not isinstance(node.op, ExactOperator):
        raise TypeError(f"operator {node.op.name} has no exact semantics")
    return node.op.image(operands, node.element)


def exact_outputs(case: Case) -> dict[str, Array]:
    """Every node's correctly rounded value, by name, in its storage dtype."""
    values = Reference(case).exact()
    return {n.name: values[n.name] for n in case.network.nodes}
