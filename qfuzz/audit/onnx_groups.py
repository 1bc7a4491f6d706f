"""DequantizeLinear, a float32 operator, QuantizeLinear: three kernels or more that are one quantized layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from qfuzz.audit.onnx_movement import SHAPED, pad_op
from qfuzz.audit.onnx_trace import Trace
from qfuzz.audit.onnx_values import Call, Operand, Work, attributes_only, qtype_of, windows
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import FLOAT32_MAX, QType, float32
from qfuzz.ops.activation import Clamp, Elu, Hardsigmoid, Hardswish, LeakyRelu, Relu, Sigmoid, Tanh
from qfuzz.ops.convolution import Conv
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.linear import Linear
from qfuzz.ops.movement import Concat
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool
from qfuzz.ops.quantization import Requantize
from qfuzz.ops.softmax import Softmax


@dataclass(frozen=True)
class Group:
    """Nodes that are one layer together.

    Attributes
    ----------
    inner
        Indices of its float32 nodes.
    dequantizing
        Indices of the nodes that dequantize for it, constants included.
    """

    work: Work
    kernel: str
    name: str
    inner: frozenset[int]
    dequantizing: frozenset[int]


@dataclass
class _Seen:
    """Nodes that a group was read from, while it is."""

    inner: list[int] = field(default_factory=list)
    dequantizing: list[int] = field(default_factory=list)


class GroupReader:
    """Reads groups of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._maker = {name: i for i, node in enumerate(trace.nodes) for name in node.output if name}

    def made_by(self, name: str) -> int | None:
        """Index of the node that a value comes from; None for inputs and constants."""
        return self._maker.get(name)

    def group_of(self, index: int) -> Group | None:
        """The group that ends with the QuantizeLinear at `index`; None where that quantizes an input of the model.

        Raises
        ------
        InvalidCase
            Why what it quantizes is no quantized layer.
        """
        last = Call(self._trace.nodes[index], self._trace)
        got = last.result()
        element = last.qtype(got.dtype, 1, 2)
        at = self._maker.get(last.node.input[0])
        if at is None:
            return None
        seen = _Seen()
        call = self._call(at)
        if call.node.op_type == "DequantizeLinear":
            work = Work(Requantize(), (self.real(last, 0, seen),), element, got)
        else:
            work = self._float_work(at, element, got, seen)
        inner = [str(self._trace.nodes[i].op_type) for i in reversed(seen.inner)]
        return Group(
            work,
            ", ".join(["DequantizeLinear", *inner, "QuantizeLinear"]),
            self._call(seen.inner[-1]).name if seen.inner else last.name,
            frozenset(seen.inner),
            frozenset(seen.dequantizing),
        )

    def _call(self, index: int) -> Call:
        return Call(self._trace.nodes[index], self._trace)

    def _float_work(self, at: int, element: QType, got: Array, seen: _Seen) -> Work:
        """The float32 operator at `at`, with the activation after it where that is one."""
        call, relu = self._call(at), False
        seen.inner.append(at)
        before = self._maker.get(call.node.input[0]) if call.node.op_type in ("Relu", "Clip") else None
        if before is not None and self._trace.nodes[before].op_type != "DequantizeLinear":
            relu = _as_relu(*_bounds(call), element)
            seen.inner.append(before)
            call = self._call(before)
        reading = _READINGS.get(call.node.op_type)
        if reading is None:
            raise InvalidCase("it computes in float32: qfuzz has no such operator")
        op, operands = reading(self, call, element, seen)
        if relu:
            if not isinstance(op, Conv | Linear | Add | Mul):
                raise InvalidCase(f"{call.node.op_type} and an activation in one: qfuzz has no such operator")
            op = _with_relu(op)
        return Work(op, operands, element, got)

    def _dequantized(self, name: str, seen: _Seen) -> Call | None:
        """The DequantizeLinear that a value comes from, if it does."""
        index = self._maker.get(name)
        if index is None or self._trace.nodes[index].op_type != "DequantizeLinear":
            return None
        seen.dequantizing.append(index)
        return self._call(index)

    def real(self, call: Call, position: int, seen: _Seen) -> Operand:
        """An activation that was dequantized for `call`."""
        found = self._dequantized(call.node.input[position], seen) if call.has(position) else None
        if found is None:
            raise InvalidCase(f"input {position} is float32, and comes from no DequantizeLinear")
        return found.quantized(0, 1, 2)

    def weight(self, call: Call, seen: _Seen, *, transposed: bool = False) -> Operand:
        """A dequantized constant, output channels first; `transposed` where the node has them last."""
        found = self._dequantized(call.node.input[1], seen)
        if found is None:
            raise InvalidCase("the weight is float32, and comes from no DequantizeLinear")
        stored = found.constant(0, "the weight")
        axis = found.attribute("axis", 1) % max(stored.ndim, 1)
        zero_point = found.array(2) if found.has(2) else np.zeros(1, stored.dtype)
        q = qtype_of(stored.dtype, found.array(1), zero_point, axis)
        if not transposed:
            return Operand(stored, q)
        if stored.ndim != 2:
            raise InvalidCase(f"a stack of matrices of shape {stored.shape}: qfuzz has no such operator")
        turned = q if q.axis is None else QType(q.dtype, q.scale, q.zero_point, 1 - q.axis)
        return Operand(stored.T, turned)

    def bias(self, call: Call, position: int, x: Operand, weight: Operand, seen: _Seen) -> tuple[Operand, ...]:
        """The bias, if there is one: int32 where it is dequantized with the product of the scales, else float32."""
        if not call.has(position):
            return ()
        real = call.constant(position, "the bias")
        n = weight.array.shape[0]
        if real.dtype != np.float32:
            raise InvalidCase(f"bias: elements of {real.dtype}; float32 and int32 are judged")
        if real.size not in (1, n) or (real.ndim and real.shape[-1] != real.size):
            raise InvalidCase(f"bias: shape {real.shape}; one for each of {n} output channels is judged")
        found = self._dequantized(call.node.input[position], seen)
        if found is not None and found.array(0).dtype == np.int32 and real.size == n:
            product = _scales(x) * _scales(weight)
            shifted = found.has(2) and bool(found.array(2).any())
            if not shifted and np.array_equal(np.broadcast_to(found.array(1).reshape(-1), (n,)), _over(product, n)):
                return (Operand(found.array(0).reshape(n), "int32"),)
        return (Operand(np.broadcast_to(real.reshape(-1), (n,)), "float32"),)


def _scales(operand: Operand) -> Array:
    assert isinstance(operand.element, QType)
    return np.array(operand.element.scale, dtype=np.float32)


def _over(values: Array, n: int) -> Array:
    return np.broadcast_to(values, (n,))


def _with_relu(op: Conv | Linear | Add | Mul) -> Operator:
    if isinstance(op, Conv):
        return Conv(strides=op.strides, padding=op.padding, dilations=op.dilations, groups=op.groups, relu=True)
    return type(op)(relu=True)


def _bounds(call: Call) -> tuple[float, float]:
    """What a Relu or Clip lets through."""
    if call.node.op_type == "Relu":
        return 0.0, FLOAT32_MAX
    low = call.constant(1, "a bound") if call.has(1) else np.float32(call.attribute("min", -FLOAT32_MAX))
    high = call.constant(2, "a bound") if call.has(2) else np.float32(call.attribute("max", FLOAT32_MAX))
    return float(np.asarray(low).reshape(())), float(np.asarray(high).reshape(()))


_CLEAR_OF_TIES = 0.25


def _as_relu(low: float, high: float, element: QType) -> bool:
    """Whether clipping to `low`..`high` before quantizing is a relu, rather than nothing.

    Raises
    ------
    InvalidCase
        If it is neither: bounds matter only where they are inside what can be stored.
    """
    scale, zero_point = element.scale[0], element.zero_point[0]
    if high / scale + zero_point < element.qmax - _CLEAR_OF_TIES:
        raise InvalidCase(f"clipped at {high!r}, inside what its output can store: qfuzz has relu fused only")
    if low == 0:
        return True
    if low / scale + zero_point <= element.qmin + _CLEAR_OF_TIES:
        return False
    raise InvalidCase(f"clipped at {low!r}, inside what its output can store: qfuzz has relu fused only")


_Found = tuple[Operator, tuple[Operand, ...]]
_Reading = Callable[[GroupReader, Call, QType, _Seen], _Found]


def _fused_activation(call: Call, element: QType) -> bool:
    """Whether a fused operator ends with a relu."""
    activation = call.attribute("activation", "")
    match activation:
        case "":
            return False
        case "Relu":
            return True
        case "Clip":
            low, high = call.attribute("activation_params", (-FLOAT32_MAX, FLOAT32_MAX))
            return _as_relu(low, high, element)
        case _:
            raise InvalidCase(f"{activation} fused: qfuzz has relu fused only")


def _conv(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    if call.has(3):
        raise InvalidCase("a sum fused into a convolution: qfuzz has no such operator")
    x, weight = reader.real(call, 0, seen), reader.weight(call, seen)
    strides, padding, dilations = windows(call, x.array.shape[2:], weight.array.shape[2:])
    op = Conv(
        strides=strides,
        padding=padding,
        dilations=dilations,
        groups=call.attribute("group", 1),
        relu=_fused_activation(call, element),
    )
    return op, (x, weight, *reader.bias(call, 2, x, weight, seen))


def _gemm(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    attributes_only(call, transA=0, alpha=1.0, beta=1.0)
    x = reader.real(call, 0, seen)
    weight = reader.weight(call, seen, transposed=not call.attribute("transB", 0))
    return Linear(relu=_fused_activation(call, element)), (x, weight, *reader.bias(call, 2, x, weight, seen))


def _matmul(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    x = reader.real(call, 0, seen)
    return Linear(), (x, reader.weight(call, seen, transposed=True))


def _add(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    for position in (0, 1):  # a product, and the bias after it
        index = reader.made_by(call.node.input[position])
        if index is not None and call.trace.nodes[index].op_type == "MatMul":
            product = Call(call.trace.nodes[index], call.trace)
            seen.inner.append(index)
            op, (x, weight) = _matmul(reader, product, element, seen)
            return op, (x, weight, *reader.bias(call, 1 - position, x, weight, seen))
    return Add(), (reader.real(call, 0, seen), reader.real(call, 1, seen))


def _mul(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    for position in (0, 1):  # HardSwish, which the runtime writes as x * HardSigmoid(x)
        index = reader.made_by(call.node.input[position])
        if index is not None and call.trace.nodes[index].op_type == "HardSigmoid":
            gate = Call(call.trace.nodes[index], call.trace)
            if gate.node.input[0] == call.node.input[1 - position]:
                _hard_sigmoid(gate)
                seen.inner.append(index)
                return Hardswish(), (reader.real(gate, 0, seen),)
    return Mul(), (reader.real(call, 0, seen), reader.real(call, 1, seen))


def _unary(make: Callable[[Call], Operator]) -> _Reading:
    def reading(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
        return make(call), (reader.real(call, 0, seen),)

    return reading


def _shaped(make: Callable[[Call, tuple[int, ...]], Operator]) -> _Reading:
    def reading(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
        x = reader.real(call, 0, seen)
        return make(call, x.array.shape), (x,)

    return reading


def _clamp(call: Call) -> Operator:
    low, high = _bounds(call)
    return Clamp(min=low, max=high)


def _hard_sigmoid(call: Call) -> Operator:
    alpha, beta = float32(call.attribute("alpha", 0.2)), float32(call.attribute("beta", 0.5))
    if (alpha, beta) != (float32(1 / 6), 0.5):
        raise InvalidCase(f"alpha {alpha!r}, beta {beta!r}: qfuzz has x/6 + 1/2 only")
    return Hardsigmoid()


def _softmax(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    x = reader.real(call, 0, seen)
    rank = x.array.ndim
    axis = call.attribute("axis", -1 if call.trace.opset >= 13 else 1) % max(rank, 1)
    if call.trace.opset < 13 and axis != rank - 1:
        raise InvalidCase("a softmax over several dimensions, as before opset 13: qfuzz has one over one")
    return Softmax(axis=axis), (x,)


def _concat(reader: GroupReader, call: Call, element: QType, seen: _Seen) -> _Found:
    operands = tuple(reader.real(call, i, seen) for i in range(len(call.node.input)))
    return Concat(axis=call.attribute("axis") % operands[0].array.ndim), operands


def _average_pool(call: Call, shape: tuple[int, ...]) -> Operator:
    kernel = call.attribute("kernel_shape")
    strides, padding, dilations = windows(call, shape[2:], kernel)
    if any(d != 1 for d in dilations):
        raise InvalidCase(f"dilations = {dilations}: qfuzz has no such average pool")
    return AvgPool(
        kernel=kernel,
        strides=strides,
        padding=padding,
        ceil_mode=bool(call.attribute("ceil_mode", 0)),
        count_include_pad=bool(call.attribute("count_include_pad", 0)),
    )


def _pad(call: Call, shape: tuple[int, ...]) -> Operator:
    fill = call.array(2) if call.has(2) else np.float32(call.attribute("value", 0.0))
    if np.any(fill):
        raise InvalidCase(f"padding of {float(np.asarray(fill).reshape(()))!r}: qfuzz pads with 0")
    return pad_op(call, shape)


_READINGS: Mapping[str, _Reading] = MappingProxyType(
    {name: _shaped(op) for name, op in SHAPED.items()}
    | {
        "Conv": _conv,
        "FusedConv": _conv,
        "Gemm": _gemm,
        "FusedGemm": _gemm,
        "MatMul": _matmul,
        "Add": _add,
        "Mul": _mul,
        "Relu": _unary(lambda call: Relu()),
        "Clip": _unary(_clamp),
        "Sigmoid": _unary(lambda call: Sigmoid()),
        "Tanh": _unary(lambda call: Tanh()),
        "LeakyRelu": _unary(lambda call: LeakyRelu(negative_slope=float32(call.attribute("alpha", 0.01)))),
        "Elu": _unary(lambda call: Elu(alpha=float32(call.attribute("alpha", 1.0)))),
        "HardSigmoid": _unary(_hard_sigmoid),
        "HardSwish": _unary(lambda call: Hardswish()),
        "Softmax": _softmax,
        "Concat": _concat,
        "AveragePool": _shaped(_average_pool),
        "GlobalAveragePool": _unary(lambda call: GlobalAvgPool()),
        "Pad": _shaped(_pad),
    }
)
"""float32 operator to its reading where all its activations are dequantized."""
