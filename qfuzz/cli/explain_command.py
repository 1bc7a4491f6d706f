"""``qfuzz explain CASE``: one element, step by step, in exact arithmetic and as each backend computes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import numpy as np

from qfuzz.arithmetic.cause import Explanation, explaining
from qfuzz.arithmetic.family import departures
from qfuzz.arithmetic.trace import Index, Product, Step, exact_steps, model_steps, products
from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.explain_table import print_page
from qfuzz.cli.options import backend_option, case_argument, chosen_specs, output_options, print_json
from qfuzz.cli.rim import OK
from qfuzz.findings.corpus import read_case
from qfuzz.ir.contract import contract_of
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Node
from qfuzz.ir.protocols import Array
from qfuzz.oracle.admissible import Admissible
from qfuzz.oracle.check import problem
from qfuzz.oracle.reference import DEFAULT_CONTRACT, Reference


class _Own(NamedTuple):
    """What a backend's node received, what it returned, and what it may have returned."""

    inputs: list[Array]
    got: Array
    allowed: Admissible


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's element.

    Attributes
    ----------
    verdict
        ``exact``, ``admissible`` or ``violation``; else why there is no element.
    lo, hi
        What its contract admits.
    models
        Names of the models that reproduce every element of the node's output.
    choices, steps
        Of the first of them: what it does otherwise than the exact one, and its numbers. Nothing where none explains.
    fused
        What the backend returns where nothing between the nodes is shown, if that is something else.
    exact
        The exact column on what this backend's node received.
    """

    backend: str
    verdict: str
    returned: float | None = None
    fused: float | None = None
    lo: float | None = None
    hi: float | None = None
    models: tuple[str, ...] = ()
    choices: dict[str, str] = {}
    steps: tuple[Step, ...] = ()
    exact: tuple[Step, ...] = ()
    products: tuple[Product, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of one element."""

    schema: int
    case: str
    node: str
    op: str
    index: Index
    exact: tuple[Step, ...]
    products: tuple[Product, ...]
    backends: tuple[Column, ...]


@click.command("explain")
@case_argument
@backend_option
@click.option("--node", "name", metavar="NAME", help="The node.  [default: the first that is accused, or the last]")
@click.option(
    "--element", metavar="INDEX", help="Its position, as 0,3,1.  [default: the first that is wrong, or differs]"
)
@output_options
def command(
    case: Path,
    specs: tuple[str, ...],
    name: str | None,
    element: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show how one element of CASE comes about: products, accumulator, bias, multiplier, rounding, zero point, clamp.

    The exact column stands beside each backend's, which shows the numbers of the model of the catalogue that reproduces
    every element that the backend returned. "unexplained" says that none does.
    """
    network_case = read_case(case).case
    chosen = chosen_specs(specs)
    received: dict[str, Mapping[str, Array] | str] = {}
    fused: dict[str, Array] = {}
    with WorkerClient(chosen) as client:
        accused = [v for v in client.check(network_case, chosen).backends if v.mismatches]
        node = _node(network_case, name, accused[0].mismatches[0].value if accused else None)
        inner = tuple(n.name for n in network_case.network.nodes if n.name not in network_case.network.outputs)
        for spec in chosen:
            values = client.values(network_case, spec, inner)
            received[spec] = values if isinstance(values, dict) else f"{values.verdict}: {values.reason}"
            untapped = client.values(network_case, spec) if inner else values
            if isinstance(untapped, dict) and node.name in untapped:
                fused[spec] = untapped[node.name]
    own = {spec: _own(network_case, node, spec, values) for spec, values in received.items()}
    index = _index(network_case, node, element, own)
    columns = tuple(_column(network_case, node, spec, index, mine, fused.get(spec)) for spec, mine in own.items())
    exact_inputs = _exact_inputs(network_case, node)
    types = network_case.network.input_types(node)
    page = Page(
        schema=1,
        case=str(case),
        node=node.name,
        op=node.op.name,
        index=index,
        exact=exact_steps(node, types, exact_inputs, index),
        products=products(node, types, exact_inputs, index),
        backends=columns,
    )
    if as_json:
        print_json(page)
    else:
        print_page(page, network_case.network, quiet=quiet, verbose=verbose)
    return OK


def _node(case: Case, name: str | None, accused: str | None) -> Node:
    names = [n.name for n in case.network.nodes]
    if name is not None and name not in names:
        raise InvalidCase(f"--node {name}: the case's nodes are {', '.join(names)}")
    return case.network.node(name or (accused if accused in names else names[-1]))


def _exact_inputs(case: Case, node: Node) -> list[Array]:
    known = {**Reference(case).exact(), **case.arrays}
    return [known[i] for i in node.inputs]


def _own(case: Case, node: Node, spec: str, values: Mapping[str, Array] | str) -> _Own | str:
    """A backend's own part; or why that is not known."""
    if isinstance(values, str):
        return values
    known = case.arrays | dict(values)
    for name in (*node.inputs, node.name):
        if name not in known:
            return f"the backend does not show {name!r}"
    for name in (*(i for i in node.inputs if i in values), node.name):
        why = problem(known[name], case.network.types[name])
        if why:
            return f"{name}: {why}"
    inputs, constants = [known[i] for i in node.inputs], case.network.constant_data
    contract = contract_of(load_backend(spec).contracts, node.op.name, case.network.said_of(node), DEFAULT_CONTRACT)
    received = [None if i in constants else known[i] for i in node.inputs]
    return _Own(inputs, known[node.name], Reference(case).node(node, received, contract))


def _index(case: Case, node: Node, text: str | None, own: Mapping[str, _Own | str]) -> Index:
    shape = case.network.types[node.name].shape
    if 0 in shape:
        raise InvalidCase(f"{node.name}: shape {shape} has no elements")
    if text is not None:
        try:
            index = tuple(int(part) for part in text.strip("[]()").split(",") if part.strip())
        except ValueError:
            raise InvalidCase(f"--element {text}: integers, one for each dimension of {shape}") from None
        if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            raise InvalidCase(f"--element {text}: not a position in the shape {shape} of {node.name}")
        return index
    wrong = differs = None
    for mine in own.values():
        if isinstance(mine, str):
            continue
        _, got, allowed = mine
        bad = np.argwhere(~((got >= allowed.lo) & (got <= allowed.hi)))
        other = np.argwhere(got != allowed.exact)
        wrong = wrong if wrong is not None or not len(bad) else bad[0]
        differs = differs if differs is not None or not len(other) else other[0]
    first = wrong if wrong is not None else differs
    return (0,) * len(shape) if first is None else tuple(int(i) for i in first)


def _column(case: Case, node: Node, spec: str, index: Index, mine: _Own | str, fused: Array | None) -> Column:
    if isinstance(mine, str):
        return Column(backend=spec, verdict=mine)
    inputs, got, allowed = mine
    types, exact = case.network.input_types(node), allowed.exact
    assert exact is not None  # what the node received is known
    value, lo, hi = (float(a[index]) for a in (got, allowed.lo, allowed.hi))
    verdict = "exact" if got[index] == exact[index] else "admissible" if lo <= value <= hi else "violation"
    models = sorted(explaining(node, types, inputs, got), key=lambda m: -_likeness(spec, m))
    steps = model_steps(node, types, inputs, index, models[0].model) if models else ()
    return Column(
        backend=spec,
        verdict=verdict,
        returned=value,
        fused=None if fused is None or fused.shape != got.shape or fused[index] == got[index] else float(fused[index]),
        lo=lo,
        hi=hi,
        models=tuple(dict.fromkeys(m.name for m in models)),
        choices=departures(models[0].model) if models else {},
        steps=steps,
        exact=exact_steps(node, types, inputs, index),
        products=products(node, types, inputs, index),
    )


def _likeness(spec: str, explanation: Explanation) -> int:
    """How many words of a backend's name are in a published kernel's name or source: its own kernel is shown first."""
    said = (explanation.name + explanation.source).lower().replace(" ", "")
    return sum(word in said for word in spec.partition("?")[0].split("-"))
