"""Every form of weight_only_linear and embedding is drawn. A fixed seed: these are facts, not chances."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from qfuzz.ir.forms import CHOICES
from qfuzz.ir.network import Case, Network
from qfuzz.ir.qtype import QType
from qfuzz.ops.weight_only import WEIGHT_DTYPES, Embedding, WeightOnlyLinear
from qfuzz.strategies.generate import cases_of
from qfuzz.strategies.weight_only import BLOCKS, FORMS, TABLES

OPS = ("weight_only_linear", "embedding")


@cache
def _cases(op: str) -> tuple[Case, ...]:
    return tuple(c for shard in range(4) for c in cases_of(20, shard, ops=(op,), max_nodes=3))


def _weights(op: str) -> list[tuple[Network, tuple[int, ...], QType]]:
    found = []
    for network in (c.network for c in _cases(op)):
        for n in network.nodes:
            if isinstance(n.op, WeightOnlyLinear | Embedding):
                t = network.types[n.inputs[isinstance(n.op, WeightOnlyLinear)]]
                found.append((network, t.shape, t.qtype))
    return found


@pytest.mark.parametrize("op", OPS)
def test_few_draws_are_rejected(op: str) -> None:
    for max_nodes in (1, 4):
        drawn = cases_of(20, 1, ops=(op,), max_nodes=max_nodes)
        assert drawn.counts.rejected < 0.015 * drawn.counts.draws


@pytest.mark.parametrize("op", OPS)
def test_types_blocks_and_zero_points(op: str) -> None:
    types = Counter(q.dtype for _, _, q in _weights(op))
    assert set(types) == set(WEIGHT_DTYPES if op == OPS[0] else TABLES)
    granularity = Counter((q.axis is None, bool(q.block)) for _, _, q in _weights(op))
    assert min(granularity[True, False], granularity[False, False], granularity[False, True]) > 60
    assert {q.block for _, _, q in _weights(op)} == {0, *BLOCKS}
    integers = [q for _, _, q in _weights(op) if not q.is_float]
    middles = sum(set(q.zero_point) == {(q.qmin + q.qmax + 1) // 2} for q in integers)
    zeros = sum(not any(q.zero_point) for q in integers)
    own = sum(len(set(q.zero_point)) > 1 for q in integers)
    assert min(middles, zeros, own) > 0.08 * len(integers)
    partial = sum(q.block > 1 and shape[q.axis or 0] % q.block > 0 for _, shape, q in _weights(op))
    assert partial > 40


def test_forms_of_linear() -> None:
    drawn = Counter(f for n, _, _ in _weights(OPS[0]) for f in n.forms if f.partition("=")[0] in FORMS)
    assert set(drawn) == {f"{n}={v}" for n, v in CHOICES if n in FORMS and n != "table"}
    assert min(drawn.values()) >= 10
    assert drawn["accuracy=4"] > 40
    nodes = [(c.network, n) for c in _cases(OPS[0]) for n in c.network.nodes if isinstance(n.op, WeightOnlyLinear)]
    assert sum(len(n.inputs) == 3 for _, n in nodes) > 0.2 * len(nodes)
    ranks = Counter(len(network.types[n.inputs[0]].shape) for network, n in nodes)
    assert min(ranks[2], ranks[3]) > 50
    rows = Counter(int(np.prod(network.types[n.inputs[0]].shape[:-1])) for network, n in nodes)
    assert min(rows[0], rows[1]) > 20
    quantized = sum(any(c.op.name == "quantize" for c in network.consumers(n.name)) for network, n in nodes)
    dequantized = sum(n.inputs[0] not in {i.name for i in network.inputs} for network, n in nodes)
    assert min(quantized, dequantized) > 20


def test_forms_of_embedding() -> None:
    nodes = [(c.network, n, n.op) for c in _cases(OPS[1]) for n in c.network.nodes if isinstance(n.op, Embedding)]
    assert Counter(network.form("table") for network, _, _ in nodes)["bytes"] > 100
    indices = [network.constant_data[n.inputs[1]].array for network, n, _ in nodes]
    assert {a.dtype.name for a in indices} == {"int32", "int64"}
    assert {a.ndim for a in indices} == {0, 1, 2}
    assert any((a < 0).any() for a in indices)
    assert any(a.size == 0 for a in indices)
    assert any(op.axis > 0 for _, _, op in nodes)
