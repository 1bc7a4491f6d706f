"""What is admissible for uncertain inputs covers what is admissible for each input among them, under any contract."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from random_cases import random_case

from qfuzz.exact.floating import FORMATS
from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.network import Case, Node
from qfuzz.ir.qtype import QType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import Admissible, admissible
from qfuzz.oracle.reference import image_of
from qfuzz.strategies.networks import OF_INT32

CONTRACTS = (
    Contract(terms="exact", k=0, tie="half_even", source="test"),
    Contract(terms="exact", k=0, tie="half_even_after_zero_point", source="test"),
    Contract(terms="real", k=4, tie="half_even", source="test", accumulates_float=True, function_ulps=4.0),
    Contract(terms="affine", k=8, tie="any", source="test", function_ulps=2.0, bias_steps=0.5),
    Contract(terms="accumulator", k=3, tie="either_even", source="test"),
    Contract(terms="affine", k=3, tie="half_even", source="test", rounding_open=True),
)
CASES = 40
POINTS = 4


def _widened(case: Case, dice: random.Random) -> list[Operand]:
    """The case's inputs with room around each element, and its constants."""
    operands = []
    for value, tensor in zip(case.network.inputs, case.inputs, strict=True):
        q = value.type.element
        lo = tensor.array.astype(np.float64)
        hi = lo + np.array([dice.choice((0, 1, 2, 30)) for _ in range(lo.size)], dtype=np.float64).reshape(lo.shape)
        if isinstance(q, QType):
            hi = np.minimum(hi, FORMATS[q.dtype].largest if q.is_float else q.qmax)
        operands.append(Operand(value.type, lo, hi))
    return _as_read(case, operands)


def _as_read(case: Case, fed: Sequence[Operand]) -> list[Operand]:
    """What is fed, and the constants, as the one node reads them."""
    known = dict(zip((v.name for v in case.network.inputs), fed, strict=True))
    known |= {c.name: Operand.point(c.type, c.data.array) for c in case.network.constants}
    return [known[name] for name in case.network.nodes[0].inputs]


def _within(operands: Sequence[Operand], dice: random.Random) -> list[Operand]:
    """One point of them all: their ends, or something between."""
    points = []
    for o in operands:
        how = dice.choice(("lo", "hi", "mixed"))
        share = {"lo": 0.0, "hi": 1.0}.get(how)
        shares = np.array([dice.random() if share is None else share for _ in range(o.lo.size)]).reshape(o.lo.shape)
        rounded = o.type.is_quantized and o.are_integers
        between = np.rint(o.lo + shares * (o.hi - o.lo)) if rounded else np.where(shares < 0.5, o.lo, o.hi)
        points.append(o if o.is_point else Operand.point(o.type, between))
    return points


WIDE = tuple((op, True) for op in OF_INT32 if op not in ("quantize", "dequantize"))


@pytest.mark.parametrize(("op", "wide"), (*((op, False) for op in OPERATOR_NAMES), *WIDE))
def test_admissible_set_of_an_interval_covers_its_points(op: str, wide: bool) -> None:
    dice = random.Random(op)
    for seed in range(CASES):
        case = random_case(op, seed, wide=wide)
        (node,) = case.network.nodes
        operands = _widened(case, dice)

        def sets(operands: Sequence[Operand], node: Node = node) -> list[Admissible]:
            image = image_of(node, operands)
            return [admissible(image, c, node.element, FilterCount()) for c in CONTRACTS]

        covering = sets(operands)
        for _ in range(POINTS):
            for w, p, contract in zip(covering, sets(_within(operands, dice)), CONTRACTS, strict=True):
                assert (w.lo <= p.lo).all(), f"{op}, seed {seed}, {contract}"
                assert (p.hi <= w.hi).all(), f"{op}, seed {seed}, {contract}"


@pytest.mark.parametrize(("op", "wide"), (*((op, False) for op in OPERATOR_NAMES), *WIDE))
def test_admissible_set_holds_the_exact_value_and_grows_with_the_contract(op: str, wide: bool) -> None:
    for seed in range(CASES):
        case = random_case(op, seed, wide=wide)
        (node,) = case.network.nodes
        feeds = [Operand.point(v.type, t.array) for v, t in zip(case.network.inputs, case.inputs, strict=True)]
        image = image_of(node, _as_read(case, feeds))
        before = admissible(image, CONTRACTS[0], node.element, FilterCount())
        assert before.exact is not None
        for k in (1, 4, 16):
            contract = Contract(terms="affine", k=k, tie="any", source="test")
            now = admissible(image, contract, node.element, FilterCount())
            assert (now.lo <= before.lo).all() and (before.hi <= now.hi).all(), f"{op}, seed {seed}, k={k}"
            assert (now.lo <= before.exact).all() and (before.exact <= now.hi).all()
            before = Admissible(now.lo, now.hi, before.exact)
