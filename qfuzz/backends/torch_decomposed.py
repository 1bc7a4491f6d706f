"""quantize and dequantize as quantized_decomposed calls, on plain tensors: what torch.export graphs say them with.

Integers of fewer than 8 bits are said as a range (``quant_min``, ``quant_max``) of a dtype of 8 bits.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, Declared, literal, torch_name, variable
from qfuzz.backends.torch_kernels import qtype_out
from qfuzz.backends.torch_memory import place
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import FLOAT8, QType, dtype_of
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.quantization import Quantize

NARROW = {"uint2": "uint8", "uint4": "uint8", "int2": "int8", "int4": "int8"}
DTYPES: Mapping[str, str] = MappingProxyType(
    {**{d: d for d in ("uint8", "int8", "uint16", "int16", "int32", "float8_e4m3fn", "float8_e5m2")}, **NARROW}
)
"""Storage type to the dtype that stores it."""
_RANGES = {"float8_e4m3fn": (-448, 448), "float8_e5m2": (-57344, 57344)}


def feed(b: Builder, name: str, type_: TensorType) -> None:
    """An input as it is; of types that NumPy has not, the bits."""
    if type_.dtype != "bfloat16" and type_.dtype not in FLOAT8:
        place(b, name, type_, None)
        return
    place(b, name, type_, lambda bits: b.call(name, ".view", variable(bits), torch_name(f"torch.{type_.dtype}")))


def declared(node: Node) -> Declared:
    """What the tensor of a node is: plain."""
    dtype = dtype_of(node.element)
    return Declared(node.name, node.name, NARROW.get(dtype, dtype))


def _stored(q: QType, where: str) -> tuple[Arg, Arg, Arg]:
    """Smallest and largest stored number, and the dtype."""
    if q.dtype not in DTYPES:
        raise Unsupported(f"{where}: {q.dtype}; quantized_decomposed knows {', '.join(DTYPES)}")
    low, high = _RANGES[q.dtype] if q.is_float else (q.qmin, q.qmax)
    return literal(low), literal(high), torch_name(f"torch.{DTYPES[q.dtype]}")


def _say(b: Builder, node: Node, verb: str, q: QType, shape: tuple[int, ...], where: str, *rest: Arg) -> None:
    """The call for the granularity of `q`. `rest` is the type of reals that it returns, where they are not float32."""
    low, high, dtype = _stored(q, where)
    said = b.network.form("quantizer")
    x, name = b.x(node), node.name
    op = f"torch.ops.quantized_decomposed.{verb}"
    real = {"out_dtype": rest[0]} if rest else {}
    returned = (*rest, torch_name("torch.float32"))[:1] if verb == "dequantize" else ()
    if q.is_per_tensor and said in ("numbers", "float_qparams", "tokens"):
        values = literal(q.scale[0]), literal(q.zero_point[0])
        b.call(name, f"{op}_per_tensor.default", x, *values, low, high, dtype, **real)
    elif q.is_per_tensor:
        tensors = [b.number(f"{name}_scale", q.scale[0], "float32")]
        tensors.append(b.number(f"{name}_zero_point", q.zero_point[0], "int64"))
        ends = [low, high]
        if said == "list":
            ends = [b.number(f"{name}_{end}", value.value, "int64") for end, value in (("min", low), ("max", high))]
        overload = "tensor2" if said == "list" else "tensor"
        b.call(name, f"{op}_per_tensor.{overload}", x, *tensors, *ends, dtype, **real)
    elif q.block:
        if len(shape) != 2 or q.axis != 1:
            raise Unsupported(f"{where}: blocks on axis {q.axis} of {shape}; groups are of the last of 2 dimensions")
        if q.block == 1 or shape[1] % q.block:
            raise Unsupported(
                f"{where}: blocks of {q.block} along {shape[1]}; group_size is more than 1 and divides it"
            )
        tensors = _tensors(b, name, q, "int32", (shape[0], shape[1] // q.block))
        b.call(name, f"{op}_per_channel_group", x, *tensors, low, high, dtype, literal(q.block), *returned)
    elif said == "tokens" and _is_tokens(q, shape):
        # The kinds of numbers are those that its documentation says.
        kinds = ("float64", "int64") if verb == "dequantize" else ("float32", "int32")
        tensors = _tensors(b, name, q, kinds[1], (*shape[:-1], 1), kinds[0])
        b.call(name, f"{op}_per_token", x, *tensors, low, high, dtype, *returned)
    else:
        tensors = _tensors(b, name, q, "int64", (len(q.scale),))
        b.call(name, f"{op}_per_channel", x, *tensors, literal(q.axis), low, high, dtype, **real)


def _is_tokens(q: QType, shape: tuple[int, ...]) -> bool:
    """Whether each row along the last dimension has its own scale."""
    axis: Any = q.axis
    return axis < len(shape) - 1 and all(n == 1 for i, n in enumerate(shape[:-1]) if i != axis)


def _tensors(
    b: Builder, name: str, q: QType, integers: str, shape: tuple[int, ...], reals: str = "float32"
) -> list[Arg]:
    """Scales and zero points as tensors of a shape."""
    made = [
        b.numbers(f"{name}_scales", q.scale, reals),
        b.numbers(f"{name}_zero_points", q.zero_point, integers),
    ]
    if len(shape) == 1:
        return made
    shaped = [b.fresh(f"{name}_{what}") for what in ("scale_of", "zero_point_of")]
    return [b.prepare_call(n, ".reshape", t, literal(list(shape))) for n, t in zip(shaped, made, strict=True)]


def _quantize(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Quantize)
    if not op.saturate:
        raise Unsupported("saturate: False; quant_min and quant_max saturate")
    _say(b, node, "quantize", qtype_out(node), b.type(node, 0).shape, "output")


def _dequantize(b: Builder, node: Node) -> None:
    x = b.type(node, 0)
    rest = () if node.element == "float32" else (torch_name(f"torch.{node.element}"),)
    _say(b, node, "dequantize", x.qtype, x.shape, "x", *rest)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({"quantize": _quantize, "dequantize": _dequantize})
