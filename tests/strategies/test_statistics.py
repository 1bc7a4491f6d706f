"""What a campaign's cases are like: sizes, edges, coverage. Fixed seeds: these are facts, not chances."""

import math
import statistics
from collections import Counter
from functools import cache

import pytest

from qfuzz.ir.network import Case
from qfuzz.ir.qtype import QType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear
from qfuzz.oracle.measure import near_ties
from qfuzz.strategies.generate import cases_of

KERNEL_EDGES = {s + e for s in (1, 2, 3, 4, 8, 16, 32, 64) for e in (-1, 0, 1)}


@cache
def _cases() -> tuple[Case, ...]:
    return tuple(c for shard in range(18) for c in cases_of(20, shard))


def _qtypes(case: Case) -> list[QType]:
    return [t.element for t in case.network.types.values() if isinstance(t.element, QType)]


def _share(hits: int, of: int) -> float:
    return hits / of


@pytest.mark.parametrize("ops", [(), ("conv", "linear"), ("mul",), ("*pool",)], ids=str)
@pytest.mark.parametrize("max_nodes", [1, 4, 12])
def test_less_than_one_percent_is_rejected(ops: tuple[str, ...], max_nodes: int) -> None:
    drawn = cases_of(20, 1, ops=ops, max_nodes=max_nodes)
    assert drawn.counts.draws >= 200
    assert drawn.counts.rejected < 0.015 * drawn.counts.draws


def test_rejected_overall() -> None:
    counts = [cases_of(21, shard).counts for shard in range(4)]
    assert sum(c.rejected for c in counts) < 0.01 * sum(c.draws for c in counts)


def test_three_nodes_in_the_median_and_small_values() -> None:
    assert statistics.median(len(c.network.nodes) for c in _cases()) == 3
    assert max(len(c.network.nodes) for c in _cases()) == 4
    assert statistics.median(c.n_elements for c in _cases()) < 1000
    assert max(t.n_elements for c in _cases() for t in c.network.types.values()) <= 2**15


def test_every_operator_is_drawn() -> None:
    seen = Counter(n.op.name for c in _cases() for n in c.network.nodes)
    assert set(seen) == set(OPERATOR_NAMES)
    assert min(seen.values()) >= 5


def test_a_quarter_of_the_cases_has_scales_with_exact_arithmetic() -> None:
    dyadic = sum(all(math.frexp(s)[0] == 0.5 for q in _qtypes(c) for s in q.scale) for c in _cases())
    assert dyadic >= len(_cases()) / 4


def test_dimensions_favour_kernel_edges_and_batches_of_eight() -> None:
    batches = Counter(c.inputs[0].shape[0] for c in _cases() if c.inputs and c.inputs[0].shape)
    assert batches.most_common(1)[0][0] == 8
    assert _share(batches[8], len(_cases())) > 0.5
    assert batches[0] > 10
    assert batches[1] > 10
    channels = Counter(c.inputs[0].shape[1] for c in _cases() if c.inputs and len(c.inputs[0].shape) > 1)
    assert _share(sum(n for d, n in channels.items() if d in KERNEL_EDGES), len(_cases())) > 0.8


def test_zero_points_reach_both_ends_and_most_activations_are_uint8() -> None:
    inputs = [v.type.qtype for c in _cases() for v in c.network.inputs if v.type.is_quantized]
    inputs = [q for q in inputs if not q.is_float]
    for end in ("qmin", "qmax"):
        assert _share(sum(q.zero_point[0] == getattr(q, end) for q in inputs), len(inputs)) > 0.05
    assert 0.6 < _share(sum(q.dtype == "uint8" for q in inputs), len(inputs)) < 0.95


def test_scales_are_dyadic_near_dyadic_tiny_huge_and_equal() -> None:
    scales = [s for c in _cases() for q in _qtypes(c) for s in q.scale]
    mantissas = [math.frexp(s)[0] for s in scales]
    assert any(m == 0.5 + 2.0**-24 for m in mantissas)
    assert any(m == 1 - 2.0**-24 for m in mantissas)
    assert min(scales) < 2.0**-26
    assert max(scales) > 2.0**26
    inputs = [[v.type.qtype.scale for v in c.network.inputs if v.type.is_quantized] for c in _cases()]
    assert any(len(i) > 1 and len(set(i)) < len(i) for i in inputs)


def test_forms_of_contractions() -> None:
    nodes = [(c, n) for c in _cases() for n in c.network.nodes if isinstance(n.op, Conv | Linear)]
    biases = Counter(str(c.network.types[n.inputs[2]].element) if len(n.inputs) == 3 else None for c, n in nodes)
    assert min(biases[None], biases["int32"], biases["float32"]) > 0.1 * len(nodes)
    per_channel = sum(c.network.types[n.inputs[1]].qtype.axis is not None for c, n in nodes)
    assert _share(per_channel, len(nodes)) > 0.15
    convs = [(c, n, n.op) for c, n in nodes if isinstance(n.op, Conv)]
    assert any(op.groups > 1 for _, _, op in convs)
    assert any(op.groups > 1 and op.groups == c.network.types[n.inputs[0]].shape[1] for c, n, op in convs)
    assert any(max(op.dilations) > 1 for _, _, op in convs)
    assert any(max(op.strides) > max(c.network.types[n.inputs[1]].shape[2:]) for c, n, op in convs)
    assert any(op.padding[: len(op.padding) // 2] != op.padding[len(op.padding) // 2 :] for _, _, op in convs)


@pytest.mark.parametrize("op", ["conv", "linear", "add", "mul", "requantize", "quantize"])
def test_many_cases_hold_results_next_to_ties(op: str) -> None:
    cases = list(cases_of(3, 1, ops=(op,), max_nodes=1))
    assert _share(sum(near_ties(c, 2.0**-16) > 0 for c in cases), len(cases)) > 0.2


def test_forms_of_operators_of_two_operands() -> None:
    ops = ("add", "mul", "sub", "div", "minimum", "maximum", "where")
    drawn = [c for shard in range(4) for c in cases_of(22, shard, ops=ops, max_nodes=1)]
    extremes = [len(c.network.nodes[0].inputs) for c in drawn if c.network.nodes[0].op.name in ("minimum", "maximum")]
    assert {1, 2, 3} == set(extremes)
    cases = [c for c in drawn if len(c.network.nodes[0].inputs) > 1]
    pairs = [[c.network.types[i] for i in c.network.nodes[0].inputs[:2]] for c in cases]
    ranks = Counter((len(a.shape) > len(b.shape)) - (len(a.shape) < len(b.shape)) for a, b in pairs)
    assert min(ranks.values()) >= 5 and len(ranks) == 3
    assert any(not t.shape for pair in pairs for t in pair), "no scalar"
    assert any(a.dtype != b.dtype for a, b in pairs)
    assert any(a.shape != b.shape and len(a.shape) == len(b.shape) for a, b in pairs)
    conditions = [(c, c.network.nodes[0]) for c in cases if c.network.nodes[0].op.name == "where"]
    constant = [n.inputs[2] in c.network.constant_data for c, n in conditions]
    assert 0.3 < _share(sum(constant), len(constant)) < 0.7
    broadcast = [c.network.types[n.inputs[2]].shape != c.network.types[n.name].shape for c, n in conditions]
    assert 0.1 < _share(sum(broadcast), len(broadcast)) < 0.7
    values = [c.arrays[n.inputs[2]] for c, n in conditions]
    assert any(v.any() and not v.all() for v in values)
    assert any(v.size > 1 and v.all() for v in values)
