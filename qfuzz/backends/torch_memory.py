"""Where torch's tensors lie in memory: the same numbers, laid out in other ways. Pure: nothing here imports torch."""

from collections.abc import Callable

from qfuzz.backends.torch_builder import Builder
from qfuzz.backends.torch_calls import Array, Call, literal, torch_name, variable, variables
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType

CHANNELS_LAST = {4: "torch.channels_last", 5: "torch.channels_last_3d"}
"""Rank to the memory format that has channels as the fastest dimension."""


def place(b: Builder, name: str, type_: TensorType, make: Callable[[str], None] | None) -> None:
    """Feed an input, and make the tensor `name` of it, which lies in memory as `b.memory` says.

    Parameters
    ----------
    make
        Writes the call that makes `name` of the plain tensor in the variable that it is given; None where the plain
        tensor is what is wanted.
    """
    rank, how = len(type_.shape), _possible(b.memory, type_)
    array = name if make is None else b.fresh(f"{name}_array")
    b.inputs.append(Array(array, name))
    if how == "strided":
        b.call(array, "torch.repeat_interleave", variable(array), literal(2), literal(rank - 1))
    elif how == "offset":
        b.call(array, "torch.cat", variables((array, array)))
    if make is not None:
        make(array)
    match how:
        case "channels_last":
            b.call(name, ".contiguous", variable(name), memory_format=torch_name(CHANNELS_LAST[rank]))
        case "permuted":
            backwards = literal(list(range(rank))[::-1])
            b.call(name, ".permute", variable(name), backwards)
            b.call(name, ".contiguous", variable(name))
            b.call(name, ".permute", variable(name), backwards)
        case "strided" | "offset":
            b.run.append(_slice(name, type_, how))
        case _:
            pass


def given(b: Builder, made: Call, type_: TensorType, memory: str = "") -> tuple[Call, ...]:
    """Calls that make a tensor to write into, by `made`, which lacks its sizes; it lies as inputs do, or as told."""
    shape, how = list(type_.shape), _possible(memory or b.memory, type_)
    match how:
        case "channels_last":
            format_ = ("memory_format", torch_name(CHANNELS_LAST[len(shape)]))
            return (made._replace(args=(literal(shape),), kwargs=(*made.kwargs, format_)),)
        case "permuted":
            backwards = literal(list(range(len(shape)))[::-1])
            turned = Call(made.out, ".permute", (variable(made.out), backwards))
            return made._replace(args=(literal(shape[::-1]),)), turned
        case "strided" | "offset":
            larger = [*shape[:-1], 2 * shape[-1]] if how == "strided" else [2 * shape[0], *shape[1:]]
            return made._replace(args=(literal(larger),)), _slice(made.out, type_, how)
        case _:
            return (made._replace(args=(literal(shape),)),)


def _possible(memory: str, type_: TensorType) -> str:
    """`memory`, where a tensor of that type can lie so."""
    rank, q = len(type_.shape), type_.element
    axis = None if not isinstance(q, QType) or q.is_per_tensor else q.axis or 0
    if memory == "channels_last":  # a tensor with scales of a later axis has no such format
        return memory if rank in CHANNELS_LAST and (axis is None or axis < 2) else ""
    if rank == 0 or axis is not None:
        return ""
    return memory


def _slice(name: str, type_: TensorType, how: str) -> Call:
    """Every second element of the last dimension, or the second half of the first one."""
    rank, shape = len(type_.shape), type_.shape
    limits = (rank - 1, 0, 2 * shape[-1], 2) if how == "strided" else (0, shape[0], 2 * shape[0], 1)
    return Call(name, "torch.ops.aten.slice.Tensor", (variable(name), *map(literal, limits)))
