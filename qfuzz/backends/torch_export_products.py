"""Products of plain integers, and of reals with stored weights: aten's own calls, which know no zero points."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType

from qfuzz.backends.torch_builder import Builder, Lowering
from qfuzz.backends.torch_calls import Arg, literal, torch_name, variable
from qfuzz.backends.torch_layers import bias_of
from qfuzz.exact.floating import FORMATS, nearest_exactly
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node


def _matmul_integer(b: Builder, node: Node) -> None:
    _check_integers(b, node)
    b.call(node.name, "torch._int_mm", b.x(node), b.x(node, 1))


def _linear_integer(b: Builder, node: Node) -> None:
    _check_integers(b, node)
    weight = b.prepare_call(b.fresh(f"{node.name}_weight"), ".t", b.constant(node.inputs[1]))
    b.call(node.name, "torch._int_mm", b.x(node), weight)


def _check_integers(b: Builder, node: Node) -> None:
    for position in range(2):
        t = b.type(node, position)
        if len(t.shape) != 2:
            raise Unsupported(f"input {position}: rank {len(t.shape)}; _int_mm multiplies matrices")
        if any(t.qtype.zero_point):
            raise Unsupported(f"input {position}: zero point {t.qtype.zero_point[0]}; _int_mm knows none")
    if b.type(node, 1).dtype != "int8":
        raise Unsupported("input 1: uint8; _int_mm takes an int8 right operand")


def _weight_only_linear(b: Builder, node: Node) -> None:
    x, q = b.type(node, 0), b.type(node, 1).qtype
    if len(x.shape) != 2:
        raise Unsupported(f"x: rank {len(x.shape)}; the kernels multiply matrices")
    if len(node.inputs) > 2:
        raise Unsupported("bias: the kernels add none")
    if q.dtype == "int8":
        _int8_weight(b, node)
    elif q.dtype in ("uint4", "int4"):
        _int4_weight(b, node)
    else:
        raise Unsupported(f"weight: {q.dtype}; the kernels take int8, uint4 and int4")


def _int8_weight(b: Builder, node: Node) -> None:
    weight, dtype = b.type(node, 1), b.type(node, 0).dtype
    q = weight.qtype
    if q.block or any(q.zero_point):
        raise Unsupported("weight: _weight_int8pack_mm takes int8 without zero points and blocks")
    scales = q.scale if q.axis == 0 else q.scale * weight.shape[0]
    _refuse_rounded(scales, dtype)
    b.call(
        node.name,
        "torch._weight_int8pack_mm",
        b.x(node),
        b.constant(node.inputs[1]),
        b.numbers(f"{node.name}_scales", scales, dtype),
    )


def _int4_weight(b: Builder, node: Node) -> None:
    """Integers count from the middle there: ``(q - 8) * scale + zero``."""
    weight, dtype = b.type(node, 1), b.type(node, 0).dtype
    q, (n, k) = weight.qtype, weight.shape
    if q.block not in GROUPS or k % q.block or n % 16:
        raise Unsupported(f"weight: {n} x {k}, blocks of {q.block}; in groups of {GROUPS} of K, and N a multiple of 16")
    middle = 8 if q.dtype == "uint4" else 0
    pairs = [(s, (middle - z) * s) for s, z in zip(q.scale, q.zero_point, strict=True)]
    numbers = [v for group in range(k // q.block) for pair in pairs[group :: k // q.block] for v in pair]
    _refuse_rounded(numbers, dtype)
    name = b.fresh(f"{node.name}_weight")
    b.prepare_call(name, ".int", b.constant(node.inputs[1]))
    if not middle:
        b.prepare_call(name, ".add", variable(name), literal(8))
    packed = b.prepare_call(
        b.fresh(f"{node.name}_packed"), "torch._convert_weight_to_int4pack_for_cpu", variable(name), literal(1)
    )
    flat = b.numbers(f"{node.name}_scales", tuple(numbers), dtype)
    scales = b.prepare_call(b.fresh(f"{node.name}_groups"), ".reshape", flat, literal([k // q.block, n, 2]))
    if n % 32:  # the same kernel, told the size of a group by a tensor
        size = b.number(f"{node.name}_size", q.block, "int64")
        b.call(node.name, "torch.ops.quantized.int4mm_packed_weight_cpu", b.x(node), packed, size, scales)
    else:
        b.call(node.name, "torch._weight_int4pack_mm_for_cpu", b.x(node), packed, literal(q.block), scales)


def _dynamic_nbits_linear(b: Builder, node: Node) -> None:
    """A byte holds an even column in its lower half and the odd one after it, both moved by 8."""
    weight, rank = b.type(node, 1), len(b.type(node, 0).shape)
    if rank != 2:
        raise Unsupported(f"x: rank {rank}; 'input must be a 2D tensor' (torch/_meta_registrations.py)")
    q, (n, k) = weight.qtype, weight.shape
    name = node.name

    def made(what: str, target: str, *args: Arg, **kwargs: Arg) -> Arg:
        return b.prepare_call(b.fresh(f"{name}_{what}"), target, *args, **kwargs)

    nibbles = made("weight", ".add", b.constant(node.inputs[1]), literal(8))
    if k % 2:
        nibbles = made("padded", "torch.constant_pad_nd", nibbles, literal([0, 1]), literal(8))
    nibbles = made("nibbles", ".to", nibbles, torch_name("torch.uint8"))
    pairs = made("pairs", ".reshape", nibbles, literal([n, (k + 1) // 2, 2]))
    even, odd = (made(f"column_{i}", ".select", pairs, literal(2), literal(i)) for i in range(2))
    packed = made("bytes", "torch.bitwise_or", even, made("upper", ".mul", odd, literal(16)))
    scales = q.scale * n if q.is_per_tensor else q.scale
    dtype = "bfloat16" if q.block and not any(map(_is_rounded, scales)) else "float32"
    flat = b.numbers(f"{name}_scales", scales, dtype)
    groups = made("groups", ".reshape", flat, literal([n, len(scales) // n]))
    sizes = (literal(q.block or k), literal(k), literal(n))
    weights = made("packed", "torch._dyn_quant_pack_4bit_weight", packed, groups, bias_of(b, node), *sizes)
    b.call(name, "torch._dyn_quant_matmul_4bit", b.x(node), weights, *sizes)


def _is_rounded(number: float) -> bool:
    """Whether it is no bfloat16: of these, the packing "expects" the scales of groups, and takes float32, too."""
    return nearest_exactly(Fraction(number), FORMATS["bfloat16"]) != number


def _refuse_rounded(numbers: Sequence[float], dtype: str) -> None:
    """Raise `Unsupported` unless scales, and what is added for zero points, are numbers of the activation's type."""
    for number in numbers:
        if nearest_exactly(Fraction(number), FORMATS[dtype]) != number:
            raise Unsupported(f"weight: {number!r} is no {dtype}, of which the kernel takes scales and zeros")


GROUPS = (32, 64, 128, 256)
"""_weight_int4pack_mm_cpu in aten/src/ATen/native/LinearAlgebra.cpp."""

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "matmul_integer": _matmul_integer,
        "linear_integer": _linear_integer,
        "weight_only_linear": _weight_only_linear,
        "dynamic_nbits_linear": _dynamic_nbits_linear,
    }
)
"""Operator name to the function that writes its calls."""
