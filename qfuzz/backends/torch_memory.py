"""Where torch's inputs lie in memory: the same numbers, laid out in other ways. Pure: nothing here imports torch."""

from collections.abc import Callable

from qfuzz.backends.torch_builder import Builder
from qfuzz.backends.torch_calls import Array, literal, torch_name, variable, variables
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
        case "strided":
            _slice(b, name, rank - 1, 0, 2 * type_.shape[-1], 2)
        case "offset":
            _slice(b, name, 0, type_.shape[0], 2 * type_.shape[0], 1)
        case _:
            pass


def _possible(memory: str, type_: TensorType) -> str:
    """`memory`, where a tensor of that type can lie so."""
    rank, q = len(type_.shape), type_.element
    axis = None if not isinstance(q, QType) or q.is_per_tensor else q.axis or 0
    if memory == "channels_last":  # a tensor with scales of a later axis has no such format
        return memory if rank in CHANNELS_LAST and (axis is None or axis < 2) else ""
    if rank == 0 or axis is not None:
        return ""
    return memory


def _slice(b: Builder, name: str, *limits: int) -> None:
    b.call(name, "torch.ops.aten.slice.Tensor", variable(name), *(literal(v) for v in limits))
