"""The contracts of unlowered PT2E operators, against near ties: what the counted roundings allow, and no more."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: its operators cannot run")

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
import torch.nn.functional as F

from qfuzz.audit.torch_decomposed import DECOMPOSED
from qfuzz.ir.network import Network, Node
from qfuzz.ir.protocols import Array, Supported
from qfuzz.ir.qtype import INTEGER_RANGE, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.oracle.check import check
from qfuzz.oracle.measure import worst_errors
from qfuzz.strategies.near_ties import NEAR_TIE_OPS, near_tie_cases

D = torch.ops.quantized_decomposed
NEAR_TIES = 40

OPERATORS: dict[str, Callable[..., Any]] = {
    "quantize": lambda op, x: x,
    "requantize": lambda op, x: x,
    "conv": lambda op, x, w, b=None: (F.conv1d, F.conv2d)[x.dim() - 3](
        x, w, b, op.strides, op.padding[: x.dim() - 2], op.dilations, op.groups
    ),
    "linear": lambda op, x, w, b=None: F.linear(x, w, b),
    "add": lambda op, a, b: a + b,
    "mul": lambda op, a, b: a * b,
    "avg_pool": lambda op, x: (F.avg_pool1d, F.avg_pool2d)[x.dim() - 3](
        x, op.kernel, op.strides, op.padding[: x.dim() - 2], op.ceil_mode, op.count_include_pad
    ),
    "global_avg_pool": lambda op, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "concat": lambda op, *xs: torch.cat(xs, op.axis),
    "sigmoid": lambda op, x: torch.sigmoid(x),
    "tanh": lambda op, x: torch.tanh(x),
    "leaky_relu": lambda op, x: F.leaky_relu(x, op.negative_slope),
    "elu": lambda op, x: F.elu(x, op.alpha),
    "hardsigmoid": lambda op, x: F.hardsigmoid(x),
    "hardswish": lambda op, x: F.hardswish(x),
    "softmax": lambda op, x: torch.softmax(x, op.axis),
}


class Decomposed:
    """Runs a network of one node as PT2E conversion leaves it: dequantize, a float32 operator, quantize."""

    name = "decomposed"
    contracts = DECOMPOSED
    fuses = False

    def describe(self) -> dict[str, str]:
        return {"version": torch.__version__}

    def supports(self, network: Network) -> Supported:
        return Supported()

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "Decomposed":
        self.network = network
        return self

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        (node,) = self.network.nodes
        arrays = {**inputs, **{name: t.array for name, t in self.network.constant_data.items()}}
        reals = [_real(arrays[name], self.network.types[name]) for name in node.inputs]
        y = OPERATORS[node.op.name](node.op, *reals)
        return {node.name: _quantized(torch.relu(y) if getattr(node.op, "relu", False) else y, node)}


def _real(array: Array, type_: TensorType) -> Any:
    tensor, q = torch.from_numpy(array.copy()), type_.element
    if not isinstance(q, QType):
        return tensor
    limits = (*INTEGER_RANGE[q.dtype], getattr(torch, q.dtype))
    if q.axis is None:
        return D.dequantize_per_tensor(tensor, q.scale[0], q.zero_point[0], *limits)
    return D.dequantize_per_channel(tensor, torch.tensor(q.scale), torch.tensor(q.zero_point), q.axis, *limits)


def _quantized(y: Any, node: Node) -> Array:
    q = node.element
    assert isinstance(q, QType)
    limits = (*INTEGER_RANGE[q.dtype], getattr(torch, q.dtype))
    return np.asarray(D.quantize_per_tensor(y, q.scale[0], q.zero_point[0], *limits).numpy())


@pytest.mark.parametrize("op", [op for op in OPERATORS if op in DECOMPOSED])
def test_near_ties_stay_within_the_counted_roundings(op: str) -> None:
    assert op in NEAR_TIE_OPS
    backend, worst, n_summed = Decomposed(), 0.0, 0
    for case in itertools.islice(near_tie_cases(op, seed=11), NEAR_TIES):
        node = case.network.nodes[0]
        if len(node.inputs) > 2 and case.network.types[node.inputs[2]].element == "int32":
            continue  # a bias in accumulator units is another operator there
        (verdict,) = check(case, [backend]).backends
        assert verdict.counts.violation == 0, verdict.mismatches[:1]
        worst = max(worst, worst_errors(case, backend).get(op, 0.0))
        n_summed += verdict.counts.total
    assert set(OPERATORS) == set(NEAR_TIE_OPS) & set(DECOMPOSED)
    print(f"{op}: worst {worst:.2f} u, {DECOMPOSED[op].k} counted, {n_summed} elements")
    assert n_summed > 0
