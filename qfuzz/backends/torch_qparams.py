"""Scale and zero point from the data's range, as torch chooses them: eager calls, observers, quantized_decomposed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable
from qfuzz.backends.torch_kernels import QUANTIZED
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import INTEGER_RANGE, float32
from qfuzz.ops.dynamic import DynamicQuantize
from qfuzz.ops.qparams import ChooseQparams

_OBSERVER = "torch.ao.quantization.MinMaxObserver"
_DECOMPOSED = "torch.ops.quantized_decomposed.choose_qparams"
_LEAST = {True: float32(float32(1e-5) / 127), False: 2.0**-23}
"""Smallest scales of tokens: symmetric, and not."""


def _dynamic_quantize(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, DynamicQuantize)
    if op.chosen_as != "torch":
        raise Unsupported("chosen_as: torch chooses no scale below its SMALL_SCALE_THRESHOLD, ONNX does")
    if not b.type(node, 0).n_elements:
        raise Unsupported("x: no elements; torch.min of none is documented to raise")
    reduce_range = literal(op.reduce_range)
    if op.output == "y":
        quantized = b.fresh(f"{node.name}_quantized")
        b.call(quantized, "torch.quantize_per_tensor_dynamic", b.x(node), torch_name("torch.quint8"), reduce_range)
        b.call(node.name, ".int_repr", variable(quantized))
        return
    scale, zero_point = b.fresh(f"{node.name}_s"), b.fresh(f"{node.name}_z")
    if b.network.form("entry") == "older" and _is_as_of_weights(b, node, op):
        rest = [b.fresh(f"{node.name}_{part}") for part in ("q", "offsets")]
        b.call(", ".join((*rest, scale, zero_point)), "torch.fbgemm_linear_quantize_weight", b.x(node))
    else:
        b.call(f"{scale}, {zero_point}", "torch._choose_qparams_per_tensor", b.x(node), reduce_range)
    chosen, dtype = (scale, "float32") if op.output == "scale" else (zero_point, "uint8")
    b.call(node.name, "torch.tensor", variable(chosen), dtype=torch_name(f"torch.{dtype}"))


def _is_as_of_weights(b: Builder, node: Node, op: DynamicQuantize) -> bool:
    """Whether FBGEMM's older layers choose so for a weight: its zero point is one of int8, and of zeros another."""
    return op.output == "scale" and len(b.type(node, 0).shape) == 2 and not op.reduce_range


def _observed(b: Builder, node: Node) -> None:
    """A new observer, which sees the data once."""
    op: Any = node.op
    assert isinstance(op, ChooseQparams)
    if op.tokens:
        raise Unsupported("tokens: MinMaxObserver has one scale for all")
    dtype = {**QUANTIZED, "int16": "int16", "uint16": "uint16"}.get(op.dtype)
    whole = (op.quant_min, op.quant_max) == INTEGER_RANGE[op.dtype]
    if dtype is None:
        raise Unsupported(f"dtype: {op.dtype}; an observer chooses for {', '.join(QUANTIZED)} and 16 bits")
    if op.symmetric and op.dtype == "uint16":
        raise Unsupported("dtype: uint16; an observer's zero point is 2^15 then, and its documentation says 128")
    if op.symmetric and not whole:
        raise Unsupported("symmetric: 'when customized quantization range is used, the midpoint' is the zero point")
    scheme = "per_tensor_symmetric" if op.symmetric else "per_tensor_affine"
    ends = {} if whole else {"quant_min": literal(op.quant_min), "quant_max": literal(op.quant_max)}
    observer = b.fresh(f"{node.name}_observer")
    b.call(
        observer,
        _OBSERVER,
        dtype=torch_name(f"torch.{dtype}"),
        qscheme=torch_name(f"torch.{scheme}"),
        eps=literal(op.least),
        **ends,
    )
    b.call(b.fresh(f"{node.name}_seen"), f"{_OBSERVER}.forward", variable(observer), b.x(node))
    _chosen(b, node, f"{_OBSERVER}.calculate_qparams", variable(observer))


def _decomposed(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, ChooseQparams)
    if op.tokens:
        low = -127 if op.symmetric else -128
        if (op.dtype, op.quant_min, op.quant_max, op.least) != ("int8", low, 127, _LEAST[op.symmetric]):
            raise Unsupported("tokens: the range and the smallest scale are fixed")
        call = f"{_DECOMPOSED}_per_token" + ("" if op.symmetric else "_asymmetric")
        _chosen(b, node, call, b.x(node), torch_name("torch.int8"))
        return
    call = f"{_DECOMPOSED}_symmetric.tensor" if op.symmetric else f"{_DECOMPOSED}.tensor"
    settings = [literal(v) for v in (op.quant_min, op.quant_max, op.least)]
    _chosen(b, node, call, b.x(node), *settings, torch_name(f"torch.{op.dtype}"))


def _chosen(b: Builder, node: Node, call: str, *args: Arg) -> None:
    """The call, and of what it gives the part that the node is."""
    op: Any = node.op
    scale, zero_point = b.fresh(f"{node.name}_s"), b.fresh(f"{node.name}_z")
    b.call(f"{scale}, {zero_point}", call, *args)
    chosen, dtype = (scale, "float32") if op.output == "scale" else (zero_point, "int32")
    b.call(node.name, ".to", variable(chosen), torch_name(f"torch.{dtype}"))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {"dynamic_quantize": _dynamic_quantize, "choose_qparams": _observed}
)
DECOMPOSED: Mapping[str, Lowering] = MappingProxyType({"choose_qparams": _decomposed})
