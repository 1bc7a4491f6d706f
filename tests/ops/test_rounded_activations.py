"""Layers of 16-bit activations, which a kernel may round to int8 in blocks on the way."""

import msgspec
import numpy as np
import pytest

from qfuzz.ir.contract import Contract, contract_of
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.attention import Attention
from qfuzz.ops.linear import Linear
from qfuzz.ops.semantics import Image, Operand

BLOCK = 16
PLAIN = Contract(terms="affine", k=6, tie="half_even", accumulates_float=True, function_ulps=4.0, source="test")
INT8 = msgspec.structs.replace(PLAIN, activation_block=BLOCK)
X = QType.per_tensor("int16", 2.0**-14, 100)


def _operands(seed: int, op: str) -> tuple[list[Operand], np.ndarray, np.ndarray]:
    """Operands of a layer of 40 features, its activations and weights [K, N] as reals."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**15), 2**15, (1, 3, 40)).astype(np.int16)
    q = QType("int8", (2.0**-9, 3 * 2.0**-10, 2.0**-8), (3, 0, -7), 0 if op == "linear" else 1)
    w = rng.integers(-128, 128, (40, 3)).astype(np.int8)
    stored = np.ascontiguousarray(w.T) if op == "linear" else w
    operands = [Operand.point(TensorType(x.shape, X), x), Operand.point(TensorType(stored.shape, q), stored)]
    operands.append(Operand.point(TensorType((3,), "float32"), np.zeros(3, dtype=np.float32)))
    return operands, (x.astype(np.float64) - 100) * X.scale[0], (w.astype(np.float64) - q.zero_point) * q.scale


def _rounded(x: np.ndarray, steps: float) -> np.ndarray:
    """`x` in blocks of integers up to `steps` times the block's scale."""
    y = x.copy()
    for start in range(0, x.shape[-1], BLOCK):
        part = x[..., start : start + BLOCK]
        scale = np.abs(part).max(axis=-1, keepdims=True) / steps
        y[..., start : start + BLOCK] = np.rint(part / scale) * scale
    return y


def _value(op: str, projected: np.ndarray) -> np.ndarray:
    """What a layer gives whose product with the weights is `projected`."""
    if op == "linear":
        return projected
    q, k, v = (projected[0, :, i : i + 1] for i in range(3))
    shares = np.exp(q @ k.T - (q @ k.T).max(axis=1, keepdims=True))
    return np.asarray((shares / shares.sum(axis=1, keepdims=True)) @ v)[None]


def _image(op: str, operands: list[Operand]) -> Image:
    element: Element = "float32"
    return (Linear() if op == "linear" else Attention(num_heads=1, scale=1.0)).image(operands, element)


def _holds(image: Image, contract: Contract, got: np.ndarray) -> bool:
    lo, hi = image.ends(contract)
    return bool(((lo <= got) & (got <= hi)).all())


@pytest.mark.parametrize("op", ["linear", "attention"])
def test_int8_activations_are_admitted_where_the_contract_says_so_and_only_those(op: str) -> None:
    told, coarser = 0, 0
    for seed in range(40):
        operands, x, w = _operands(seed, op)
        image = _image(op, operands)
        assert _holds(image, PLAIN, _value(op, x @ w))
        got = _value(op, _rounded(x, 127.0) @ w)
        assert _holds(image, INT8, got)
        told += not _holds(image, PLAIN, got)
        coarser += not _holds(image, INT8, _value(op, _rounded(x, 7.0) @ w))
    assert told == 40
    assert coarser > (30 if op == "linear" else 0)


def test_a_contract_may_depend_on_the_type_of_the_activations() -> None:
    table = {"linear": PLAIN, "linear?x=int16": INT8}
    assert contract_of(table, "linear", ("x=uint8",), PLAIN) is PLAIN
    assert contract_of(table, "linear", ("opset=10", "x=int16"), PLAIN) is INT8
