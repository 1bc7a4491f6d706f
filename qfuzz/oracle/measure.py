"""How far kernels really are from the real result, in units of what their contract's bound is relative to."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract, contract_of
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend
from qfuzz.ir.qtype import INTEGER_RANGE, Element, QType
from qfuzz.ops.semantics import Image, Operand, SteppedImage
from qfuzz.oracle.admissible import admissible
from qfuzz.oracle.check import judge
from qfuzz.oracle.reference import DEFAULT_CONTRACT, image_of

Array = npt.NDArray[Any]


def worst_errors(case: Case, backend: Backend) -> dict[str, float]:
    """Per operator, the worst error before rounding in units of u * T, of each node on what it received.

    A returned integer q says only that the kernel's real was within 1/2 of q: the error is how far the exact real is
    beyond that, so that it shows only next to ties. Saturated elements say nothing on their saturated side. A float32
    result says so of half its last place. Of an operator that rounds on its way it is the least k that admits the node.
    """
    network = case.network
    inner = tuple(n.name for n in network.nodes if n.name not in network.outputs)
    values = backend.compile(network, inner).run({n: np.array(t.array) for n, t in case.feeds.items()}, inner)
    known: Mapping[str, Array] = case.arrays | values
    worst: dict[str, float] = {}
    for node in network.nodes:
        operands = [Operand.point(t, known[i]) for i, t in zip(node.inputs, network.input_types(node), strict=True)]
        contract = contract_of(backend.contracts, node.op.name, network.said_of(node), DEFAULT_CONTRACT)
        image = image_of(node, operands)
        if isinstance(image, SteppedImage):
            e = _least_k(image, contract, known[node.name], node.element)
        elif node.element in INTEGER_RANGE:
            continue  # plain integers are computed without rounding
        else:
            e = _error(image, contract, known[node.name], node.element)
        worst[node.op.name] = max(worst.get(node.op.name, 0.0), e)
    return worst


def near_ties(case: Case, distance: float) -> int:
    """How many output elements of single-node cases have a real result within `distance` of a rounding tie."""
    (node,) = case.network.nodes
    known = case.arrays
    types = case.network.input_types(node)
    r = image_of(node, [Operand.point(t, known[i]) for i, t in zip(node.inputs, types, strict=True)]).lower.approx
    return int(np.count_nonzero(np.abs(r - np.floor(r) - 0.5) <= distance))


def _least_k(image: SteppedImage, contract: Contract, got: Array, element: Element) -> float:
    """The least k up to the contract's that admits everything; one more where even that does not."""
    for k in range(contract.k + 1):
        allowed = admissible(image, msgspec.structs.replace(contract, k=k), element, FilterCount())
        if not judge(got, allowed)[0].violation:
            return float(k)
    return float(contract.k + 1)


def _error(image: Image, contract: Contract, got: Array, element: Element) -> float:
    if got.size == 0 or contract.terms == "exact":
        return 0.0
    unit = Contract(
        terms=contract.terms,
        k=1,
        tie=contract.tie,
        adds_zero_point=contract.adds_zero_point,
        function_addend=contract.function_addend,
        source=contract.source,
        bias_steps=contract.bias_steps,
        exact_mean=contract.exact_mean,
        distributes=contract.distributes,
        multiplies_scale=contract.multiplies_scale,
        rounding_open=contract.rounding_open,
    )
    # One rounding's bound is gamma_1 * T = u * T to within u; bias steps are granted before anything is measured.
    base = image.error(unit)
    r, error = image.lower.approx, image.lower.error
    if isinstance(element, QType):
        q = got.astype(np.float64) - element.zero_point[0]
        beyond = np.abs(r - q) - 0.5 - error - 4 * np.spacing(np.abs(r) + 1)
        saturated = ((got == element.qmin) & (r < q)) | ((got == element.qmax) & (r > q))
    else:
        q = got.astype(np.float64)
        beyond = np.abs(r - q) - np.spacing(np.abs(got)) / 2 - error - 4 * np.spacing(np.abs(r))
        saturated = np.isinf(got)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((beyond > 0) & ~saturated & (base > 0), beyond / base, 0.0)
    return float(np.max(ratio, initial=0.0))
