"""Calls of torch's operators as qfuzz's: one short function for each family, whatever kernel runs them.

The other direction of `qfuzz.backends.torch_dialect`. What a function cannot say as one operator is `InvalidCase`, and
its message is the reason that a report gives.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from qfuzz.audit.torch_trace import Call
from qfuzz.audit.torch_values import Value
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ops.activation import Clamp, Elu, LeakyRelu
from qfuzz.ops.movement import Concat, Pad, Reshape, Slice, Transpose
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.softmax import Softmax


@dataclass(frozen=True)
class Work:
    """What a call computed, as one operator.

    Attributes
    ----------
    operands
        In the operator's order, constants included.
    got
        The output's elements, in the shape that the operator gives.
    family
        Whose kernel it is, where packed weights tell: fbgemm, onednn, qnnpack, or export.
    contract
        Where it is another than the engine's for that operator.
    """

    op: Operator
    operands: tuple[Value, ...]
    element: Element
    got: Array
    family: str = ""
    contract: Contract | None = None


Reading: TypeAlias = Callable[[Call], Iterator[Work]]

_QPARAMS = (("output_scale", "output_zero_point"), ("Y_scale_i", "Y_zero_point_i"), ("scale", "zero_point"))
"""How schemas name the qparams of an output."""


def asked(call: Call, x: Value) -> Element:
    """The output's type: scale and zero point as the call asks for them, else as the output says."""
    (y,) = call.outputs
    for scale, zero_point in _QPARAMS:
        if zero_point in call.arguments and call[scale] is not None:
            return QType.per_tensor(x.qtype.dtype, float32(call[scale]), int(call[zero_point]))
    return y.type.element


def batched(call: Call, spatial: int) -> tuple[Value, Array]:
    """The first input and the output of an operator on images, with a batch dimension."""
    x, (y,) = call.x, call.outputs
    if x.array.ndim == spatial + 1:
        return x.reshaped(1, *x.array.shape), y.array.reshape(1, *y.array.shape)
    return x, y.array


def each(value: Any, n: int) -> tuple[int, ...]:
    """One number for each of `n` dimensions, where one may stand for all."""
    numbers = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return numbers * n if len(numbers) == 1 else numbers


# elementwise


def unary(op_of: Callable[[Call], Operator]) -> Reading:
    """An operator of one tensor."""

    def read(call: Call) -> Iterator[Work]:
        yield Work(op_of(call), (call.x,), asked(call, call.x), call.outputs[0].array)

    return read


def binary(op: Operator) -> Reading:
    """An operator of two tensors."""

    def read(call: Call) -> Iterator[Work]:
        a, b = list(call.arguments.values())[:2]
        if not isinstance(a, Value) or not isinstance(b, Value):
            raise InvalidCase("one operand is a number; qfuzz judges two tensors")
        if call.arguments.get("alpha", 1) != 1:
            raise InvalidCase(f"alpha is {call['alpha']}; qfuzz's add has none")
        yield Work(op, (a, b), asked(call, a), call.outputs[0].array)

    return read


def clamp_between(low: str, high: str) -> Callable[[Call], Operator]:
    """A clamp whose bounds are the arguments `low` and `high`, where None is no bound."""

    def op_of(call: Call) -> Operator:
        bounds = (call.arguments.get(low), call.arguments.get(high))
        if any(isinstance(b, Value) for b in bounds):
            raise InvalidCase("bounds are tensors; qfuzz's clamp has numbers")
        beyond = 2.0 ** (np.ceil(np.log2(call.x.qtype.scale[0])) + 9)  # no stored integer stands for as much
        return Clamp(
            min=-beyond if bounds[0] is None else float32(float(bounds[0])),
            max=beyond if bounds[1] is None else float32(float(bounds[1])),
        )

    return op_of


def leaky_relu(call: Call) -> Operator:
    """The slope is a float32 in every kernel."""
    return LeakyRelu(negative_slope=float32(float(call["negative_slope"])))


def elu(call: Call) -> Operator:
    """Without the two scales that make it another function."""
    if (float(call["scale"]), float(call["input_scale"])) != (1.0, 1.0):
        raise InvalidCase("scale and input_scale are not 1; qfuzz's elu has neither")
    return Elu(alpha=float32(float(call["alpha"])))


def softmax(call: Call) -> Operator:
    """Along one dimension."""
    return Softmax(axis=int(call["dim"]) % call.x.array.ndim)


# pools


def max_pool(spatial: int) -> Reading:
    """A max pool over windows."""

    def read(call: Call) -> Iterator[Work]:
        x, got = batched(call, spatial)
        dilations = each(call["dilation"], spatial)
        op = MaxPool(**_windows(call, spatial), dilations=dilations, ceil_mode=bool(call["ceil_mode"]))
        yield Work(op, (x,), asked(call, x), got)

    return read


def avg_pool(spatial: int) -> Reading:
    """An average pool over windows."""

    def read(call: Call) -> Iterator[Work]:
        x, got = batched(call, spatial)
        op = AvgPool(
            **_windows(call, spatial),
            ceil_mode=bool(call["ceil_mode"]),
            count_include_pad=bool(call["count_include_pad"]),
            divisor_override=int(call.arguments.get("divisor_override") or 0),
        )
        yield Work(op, (x,), asked(call, x), got)

    return read


def _windows(call: Call, n: int) -> dict[str, Any]:
    kernel = each(call["kernel_size"], n)
    strides = each(call["stride"], n) if call["stride"] else kernel
    return {"kernel": kernel, "strides": strides, "padding": each(call["padding"], n) * 2}


def adaptive_avg_pool(spatial: int) -> Reading:
    """An adaptive pool, which is a global one where it gives one element."""

    def read(call: Call) -> Iterator[Work]:
        x, got = batched(call, spatial)
        sizes = got.shape[2:]
        yield Work(
            GlobalAvgPool() if {*sizes} == {1} else AdaptiveAvgPool(output_size=sizes), (x,), asked(call, x), got
        )

    return read


_STRIDED_MEAN = Contract(
    terms="affine",
    k=6,
    tie="either_even",
    accumulates_float=True,
    source="aten/src/ATen/native/quantized/ReduceOps.cpp mean_out_quantized_cpu: where the inner dimensions are not "
    "contiguous, dequantized (2 roundings), averaged in float32 (the sum, 1), and quantized (2, and the zero point)",
)
"""Of contiguous images, integers are summed, as in avg_pool; QNNPACK makes them so."""


def mean(call: Call) -> Iterator[Work]:
    """A mean over all spatial dimensions, kept or not."""
    x, (y,) = call.x, call.outputs
    n = x.array.ndim
    dims = {int(d) % n for d in call.arguments.get("dim") or range(n)}
    if n not in (3, 4) or dims != set(range(2, n)):
        raise InvalidCase(f"a mean over dimensions {sorted(dims)} of {n}; qfuzz judges means over all spatial ones")
    got = y.array.reshape(*x.array.shape[:2], *(1,) * (n - 2))
    yield Work(
        GlobalAvgPool(),
        (x,),
        asked(call, x),
        got,
        contract=_STRIDED_MEAN if x.layout and call.engine != "qnnpack" else None,
    )


# movement: the output's own qparams hold, for a view has those of its base


def concat(call: Call) -> Iterator[Work]:
    """Of more inputs than qfuzz's operator takes, some at a time."""
    parts, (y,) = list(call.x), call.outputs
    axis = int(call["dim"]) % y.array.ndim
    if call.op == "aten::stack":
        parts = [p.reshaped(*p.array.shape[:axis], 1, *p.array.shape[axis:]) for p in parts]
    element, most = asked(call, parts[0]), Concat.arity[1]
    for first in range(0, len(parts), most):
        some = parts[first : first + most]
        start = sum(p.array.shape[axis] for p in parts[:first])
        stop = start + sum(p.array.shape[axis] for p in some)
        yield Work(Concat(axis=axis), tuple(some), element, y.array.take(range(start, stop), axis=axis))


def _moved(call: Call, op: Operator, got: Array | None = None) -> Work:
    (y,) = call.outputs
    return Work(op, (call.x,), y.type.element, y.array if got is None else got)


def reshape(call: Call) -> Iterator[Work]:
    """The same elements in the output's shape."""
    if call.x.array.size != call.outputs[0].array.size:
        raise InvalidCase("elements are repeated; qfuzz has no such operator")
    yield _moved(call, Reshape(shape=call.outputs[0].array.shape))


def transpose(perm_of: Callable[[Call, int], Sequence[int]]) -> Reading:
    """Dimensions in another order."""

    def read(call: Call) -> Iterator[Work]:
        n = call.x.array.ndim
        yield _moved(call, Transpose(perm=tuple(int(p) % n for p in perm_of(call, n))))

    return read


def swapped(call: Call, n: int) -> list[int]:
    """The order of dimensions that ``transpose`` gives."""
    perm = list(range(n))
    if n:
        a, b = call["dim0"], call["dim1"]
        perm[a], perm[b] = perm[b], perm[a]
    return perm


def slice_along(call: Call) -> Iterator[Work]:
    """Some indices of one dimension."""
    axis = int(call["dim"]) % call.x.array.ndim
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(call.x.array.shape[axis])
    yield _moved(call, Slice(axis=axis, start=start, stop=max(start, stop), step=step))


def select(call: Call) -> Iterator[Work]:
    """One index of one dimension, which goes."""
    axis = int(call["dim"]) % call.x.array.ndim
    start = int(call["index"]) % call.x.array.shape[axis]
    yield _moved(call, Slice(axis=axis, start=start, stop=start + 1), np.expand_dims(call.outputs[0].array, axis))


def split(call: Call) -> Iterator[Work]:
    """Several slices."""
    axis, start = int(call["dim"]) % call.x.array.ndim, 0
    for y in call.outputs:
        stop = start + y.array.shape[axis]
        yield Work(Slice(axis=axis, start=start, stop=stop), (call.x,), y.type.element, y.array)
        start = stop


def pad_zeros(call: Call) -> Iterator[Work]:
    """Zeros around: sides come from the last dimension on."""
    n, sides = call.x.array.ndim, [int(side) for side in call["pad"]]
    if float(call["value"] or 0) != 0.0:
        raise InvalidCase(f"padded with {call['value']}; qfuzz's pad adds zeros")
    if min(sides, default=0) < 0:
        raise InvalidCase(f"padding {sides}: a negative side crops; qfuzz's pad only adds")
    pairs = [(0, 0)] * (n - len(sides) // 2) + list(zip(sides[::2], sides[1::2], strict=True))[::-1]
    yield _moved(call, Pad(padding=(*(a for a, _ in pairs), *(b for _, b in pairs))))
