"""A second, slow and obvious evaluator of whole cases, to hold against `qfuzz.oracle.reference`.

Every operator is written down element by element as its definition reads, in Python integers and `fractions.Fraction`;
elementary functions come from mpmath's floating point at growing precision. It shares no arithmetic with qfuzz: of it,
only the attributes of operators and the data of cases are read. NumPy serves to unpack arrays into lists.

Every element is evaluated on demand, so that confirming one violation in a large case costs one element.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import mpmath

from qfuzz.ir.network import Case, Network, Node
from qfuzz.ir.qtype import Element, QType

Index = tuple[int, ...]
Shape = tuple[int, ...]
Bounds = tuple[Fraction, Fraction]
"""Of a real number: itself twice where it is rational; else the number lies strictly between them."""
Real = Callable[[Index, int], Bounds]
"""(index, bits) -> the real result at that index, as narrow as `bits` of precision make it."""

HALF = Fraction(1, 2)


class Undecided(AssertionError):
    """An element could not be rounded for lack of precision."""


def indices(shape: Shape) -> Iterable[Index]:
    """All indices of `shape` in row-major order."""
    return itertools.product(*(range(d) for d in shape))


@dataclass(frozen=True)
class Values:
    """A concrete tensor: stored numbers in row-major order, and what they stand for."""

    shape: Shape
    element: Element
    stored: Sequence[int | float]

    def at(self, index: Index) -> int | float:
        """The stored number."""
        flat = 0
        for i, d in zip(index, self.shape, strict=True):
            assert 0 <= i < d
            flat = flat * d + i
        return self.stored[flat]

    def qparams(self, index: Index) -> tuple[Fraction, int]:
        """Scale and zero point that apply at `index`."""
        if not isinstance(self.element, QType):
            return Fraction(1), 0
        channel = 0 if self.element.axis is None else index[self.element.axis]
        return Fraction(self.element.scale[channel]), self.element.zero_point[channel]

    def real(self, index: Index) -> Fraction:
        """The real number that is stored at `index`."""
        scale, zero_point = self.qparams(index)
        return scale * (Fraction(self.at(index)) - zero_point)


def values_of(array: Any, element: Element) -> Values:
    """A NumPy array of `element`'s storage type as `Values`."""
    return Values(tuple(array.shape), element, array.ravel().tolist())


@dataclass(frozen=True)
class SlowResult:
    """The exact result of one node.

    Attributes
    ----------
    shape, element
        Of the output.
    real
        The real result, before it is divided by the output scale.
    """

    shape: Shape
    element: Element
    real: Real = field(repr=False)

    def unrounded(self, index: Index, bits: int = 300) -> Bounds:
        """The real result in output units, without the zero point."""
        scale = Fraction(self.element.scale[0]) if isinstance(self.element, QType) else Fraction(1)
        low, high = self.real(index, bits)
        return low / scale, high / scale

    def correct(self, index: Index) -> int | float:
        """The correctly rounded stored number: half to even, zero point added, saturated."""
        if not isinstance(self.element, QType):
            low, high = self.unrounded(index)
            assert low == high, "only dequantize gives float32, and it is rational"
            return nearest_float32(low)
        for bits in (300, 3_000, 30_000):
            low, high = self.unrounded(index, bits)
            if low == high:
                return self._stored(half_even(low))
            # Strictly between: a tie at the lower end goes up, a tie at the upper end goes down.
            least, greatest = math.floor(low + HALF), math.ceil(high - HALF)
            if self._stored(least) == self._stored(greatest):
                return self._stored(least)
        raise Undecided(f"element {index} lies between {float(low)} and {float(high)}")

    def _stored(self, rounded: int) -> int:
        assert isinstance(self.element, QType)
        lowest, highest = (0, 255) if self.element.dtype == "uint8" else (-128, 127)
        return min(max(rounded + self.element.zero_point[0], lowest), highest)

    def excess(self, index: Index, got: int) -> Fraction:
        """By how many output steps, at the least, `got` is farther from the real result than rounding explains.

        0 for a correctly rounded value and for either side of a tie; a value at an end of the range stands for
        everything beyond it. A violation under a bound `delta` is confirmed where this is larger than `delta`.
        """
        assert isinstance(self.element, QType)
        low, high = (b + self.element.zero_point[0] for b in self.unrounded(index))
        lowest, highest = (0, 255) if self.element.dtype == "uint8" else (-128, 127)
        if not lowest <= got <= highest:
            raise ValueError(f"{got} is no {self.element.dtype}")
        too_large = got - HALF - high if got > lowest else Fraction(0)
        too_small = low - got - HALF if got < highest else Fraction(0)
        return max(too_large, too_small, Fraction(0))

    def values(self) -> Values:
        """All elements, correctly rounded."""
        return Values(self.shape, self.element, [self.correct(i) for i in indices(self.shape)])


def evaluate(case: Case) -> dict[str, Values]:
    """Every node's correctly rounded value by name, each computed from the rounded values that it reads."""
    known = {c.name: values_of(c.data.array, c.type.element) for c in case.network.constants}
    for value, tensor in zip(case.network.inputs, case.inputs, strict=True):
        known[value.name] = values_of(tensor.array, value.type.element)
    results: dict[str, Values] = {}
    for node in case.network.nodes:
        results[node.name] = known[node.name] = evaluate_node(node, [known[i] for i in node.inputs]).values()
    return results


def evaluate_node(node: Node, inputs: Sequence[Values]) -> SlowResult:
    """The exact result of `node` on concrete inputs, constants among them."""
    shape, real = DEFINITIONS[node.op.name](node.op, *inputs)
    return SlowResult(shape, node.element, real)


def evaluate_on(network: Network, node: Node, received: Sequence[Any]) -> SlowResult:
    """`evaluate_node` on the arrays that a backend's node received; None stands for a constant."""
    inputs = []
    for name, array in zip(node.inputs, received, strict=True):
        data = network.constant_data[name].array if array is None else array
        inputs.append(values_of(data, network.types[name].element))
    return evaluate_node(node, inputs)


# Rounding.


def half_even(x: Fraction) -> int:
    """Nearest integer; of two equally near, the even one."""
    below = x.numerator // x.denominator
    rest = x - below
    if rest == HALF:
        return below if below % 2 == 0 else below + 1
    return below if rest < HALF else below + 1


def nearest_float32(x: Fraction) -> float:
    """The nearest float32, half to even in the last place; infinite from half a step beyond the largest on."""
    if x == 0:
        return 0.0
    exponent = -149
    while abs(x) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    steps = half_even(x / Fraction(2) ** exponent)
    if abs(steps) * Fraction(2) ** exponent >= Fraction(2) ** 128:
        return math.copysign(math.inf, steps)
    return math.ldexp(float(steps), exponent)


# Elementary functions, strictly between bounds, or rational.


def exp_bounds(x: Fraction, bits: int) -> Bounds:
    """Bounds of e^x for x <= 0, by mpmath's correctly rounded-to-an-ulp floating point with 40 bits to spare."""
    assert x <= 0
    if x == 0:
        return Fraction(1), Fraction(1)
    if x < -20_000:
        return Fraction(0), Fraction(1, 2**28_000)
    context = mpmath.MPContext()
    context.prec = bits + 80
    mantissa, exponent = context.exp(context.mpf(x.numerator) / x.denominator).man_exp
    value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    slack = Fraction(1, 2 ** (bits + 40))
    return value * (1 - slack), value * (1 + slack)


def sigmoid_bounds(x: Fraction, bits: int) -> Bounds:
    """1 / (1 + e^-x)."""
    low, high = exp_bounds(-abs(x), bits)
    if x >= 0:
        return 1 / (1 + high), 1 / (1 + low)
    return low / (1 + low), high / (1 + high)


def tanh_bounds(x: Fraction, bits: int) -> Bounds:
    """(1 - e^-2x) / (1 + e^-2x), an odd function."""
    low, high = exp_bounds(-2 * abs(x), bits)
    a, b = (1 - high) / (1 + high), (1 - low) / (1 + low)
    return (a, b) if x >= 0 else (-b, -a)


# The operators: (attributes, inputs) -> (shape, real result at an index).

Definition = Callable[..., tuple[Shape, Real]]


def rational(real: Callable[[Index], Fraction]) -> Real:
    """A real result that is rational whatever the precision."""

    def bounds(index: Index, bits: int) -> Bounds:
        value = real(index)
        return value, value

    return bounds


def same(op: Any, x: Values) -> tuple[Shape, Real]:
    """quantize, dequantize, requantize: the number itself."""
    return x.shape, rational(x.real)


def elementwise(function: Callable[[Any, Fraction], Fraction]) -> Definition:
    """A rational function of one number and the attributes."""

    def define(op: Any, x: Values) -> tuple[Shape, Real]:
        return x.shape, rational(lambda i: function(op, x.real(i)))

    return define


def elementary(function: Callable[[Any, Fraction, int], Bounds]) -> Definition:
    """An elementary function of one number and the attributes."""

    def define(op: Any, x: Values) -> tuple[Shape, Real]:
        return x.shape, lambda i, bits: function(op, x.real(i), bits)

    return define


def clamp(x: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return low if x < low else high if x > high else x


def hardswish(op: Any, x: Fraction) -> Fraction:
    return x * clamp(x + 3, Fraction(0), Fraction(6)) / 6


def elu(op: Any, x: Fraction, bits: int) -> Bounds:
    if x >= 0 or op.alpha == 0:
        value = max(x, Fraction(0))
        return value, value
    low, high = exp_bounds(x, bits)
    return Fraction(op.alpha) * (low - 1), Fraction(op.alpha) * (high - 1)


def softmax(op: Any, x: Values) -> tuple[Shape, Real]:
    def real(index: Index, bits: int) -> Bounds:
        row = [x.real((*index[: op.axis], j, *index[op.axis + 1 :])) for j in range(x.shape[op.axis])]
        largest = max(row)
        powers = [exp_bounds(r - largest, bits) for r in row]
        low, high = powers[index[op.axis]]
        total_low, total_high = sum(p[0] for p in powers), sum(p[1] for p in powers)
        return low / total_high, high / total_low

    return x.shape, real


def with_relu(op: Any, real: Callable[[Index], Fraction]) -> Real:
    return rational(lambda i: max(real(i), Fraction(0)) if op.relu else real(i))


def broadcast(op: Any, a: Values, b: Values, combine: Callable[[Fraction, Fraction], Fraction]) -> tuple[Shape, Real]:
    rank = max(len(a.shape), len(b.shape))
    shapes = [(1,) * (rank - len(v.shape)) + v.shape for v in (a, b)]
    shape = tuple(q if p == 1 else p for p, q in zip(*shapes, strict=True))

    def own(v: Values, index: Index) -> Fraction:
        tail = index[rank - len(v.shape) :]
        return v.real(tuple(0 if d == 1 else i for i, d in zip(tail, v.shape, strict=True)))

    return shape, with_relu(op, lambda i: combine(own(a, i), own(b, i)))


def add(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
    return broadcast(op, a, b, lambda p, q: p + q)


def mul(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
    return broadcast(op, a, b, lambda p, q: p * q)


def bias_at(bias: Values | None, channel: int, unit: Fraction) -> Fraction:
    """The bias as a real number; int32 ones count units of scale_x * scale_w."""
    if bias is None:
        return Fraction(0)
    stored = Fraction(bias.at((channel,)))
    return stored * unit if bias.element == "int32" else stored


def linear(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        channel = index[-1]
        scale_x, zero_x = x.qparams(index)
        scale_w, zero_w = weight.qparams((channel, 0))
        acc = sum((x.at((*index[:-1], k)) - zero_x) * (weight.at((channel, k)) - zero_w) for k in range(x.shape[-1]))
        return acc * scale_x * scale_w + bias_at(bias, channel, scale_x * scale_w)

    return (*x.shape[:-1], weight.shape[0]), with_relu(op, real)


def conv(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    spatial = len(x.shape) - 2
    kernel, sizes = weight.shape[2:], x.shape[2:]
    filters_per_group, channels_per_group = weight.shape[0] // op.groups, weight.shape[1]
    out = []
    for d in range(spatial):
        last = sizes[d] + op.padding[spatial + d] - 1 - op.dilations[d] * (kernel[d] - 1)
        out.append(len(range(-op.padding[d], last + 1, op.strides[d])))

    def real(index: Index) -> Fraction:
        n, m, *at = index
        scale_x, zero_x = x.qparams(index)
        scale_w, zero_w = weight.qparams((m, 0))
        first_channel = m // filters_per_group * channels_per_group
        acc = 0
        for tap in indices(kernel):
            p = [
                i * s - b + t * d for i, s, b, t, d in zip(at, op.strides, op.padding, tap, op.dilations, strict=False)
            ]
            if all(0 <= i < size for i, size in zip(p, sizes, strict=True)):
                for c in range(channels_per_group):
                    acc += (x.at((n, first_channel + c, *p)) - zero_x) * (weight.at((m, c, *tap)) - zero_w)
        return acc * scale_x * scale_w + bias_at(bias, m, scale_x * scale_w)

    return (x.shape[0], weight.shape[0], *out), with_relu(op, real)


def window_starts(op: Any, sizes: Shape, dilations: Shape) -> list[list[int]]:
    """Where windows start, per spatial dimension; the leading padding has negative positions."""
    n = len(sizes)
    starts = []
    for d in range(n):
        reach = dilations[d] * (op.kernel[d] - 1) + 1
        end = sizes[d] + op.padding[n + d]
        own = []
        start = -op.padding[d]
        # With ceil_mode a window may hang over the end, when it starts in the input or the leading padding, and when
        # the window before it did not reach the end.
        while start + reach <= end or (op.ceil_mode and start < sizes[d] and start - op.strides[d] + reach < end):
            own.append(start)
            start += op.strides[d]
        starts.append(own)
    return starts


def max_pool(op: Any, x: Values) -> tuple[Shape, Real]:
    sizes = x.shape[2:]
    starts = window_starts(op, sizes, op.dilations)

    def real(index: Index) -> Fraction:
        n, c, *at = index
        inside = []
        for tap in indices(op.kernel):
            p = [starts[d][at[d]] + tap[d] * op.dilations[d] for d in range(len(sizes))]
            if all(0 <= i < size for i, size in zip(p, sizes, strict=True)):
                inside.append(x.real((n, c, *p)))
        return max(inside)

    return (*x.shape[:2], *(len(s) for s in starts)), rational(real)


def avg_pool(op: Any, x: Values) -> tuple[Shape, Real]:
    sizes = x.shape[2:]
    n_spatial = len(sizes)
    starts = window_starts(op, sizes, (1,) * n_spatial)

    def real(index: Index) -> Fraction:
        n, c, *at = index
        total, count = Fraction(0), 0
        for tap in indices(op.kernel):
            p = [starts[d][at[d]] + tap[d] for d in range(n_spatial)]
            in_padded = all(p[d] < sizes[d] + op.padding[n_spatial + d] for d in range(n_spatial))
            in_input = all(0 <= p[d] < sizes[d] for d in range(n_spatial))
            if in_input:
                total += x.real((n, c, *p))
            if in_padded if op.count_include_pad else in_input:
                count += 1
        return total / count

    return (*x.shape[:2], *(len(s) for s in starts)), rational(real)


def global_avg_pool(op: Any, x: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        window = [x.real((*index[:2], *p)) for p in indices(x.shape[2:])]
        return sum(window, Fraction(0)) / len(window)

    return (*x.shape[:2], *(1 for _ in x.shape[2:])), rational(real)


def concat(op: Any, *inputs: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        position = index[op.axis]
        for v in inputs:
            if position < v.shape[op.axis]:
                return v.real((*index[: op.axis], position, *index[op.axis + 1 :]))
            position -= v.shape[op.axis]
        raise AssertionError(index)

    first = inputs[0].shape
    return (*first[: op.axis], sum(v.shape[op.axis] for v in inputs), *first[op.axis + 1 :]), rational(real)


def in_row_major_order(x: Values, shape: Shape) -> tuple[Shape, Real]:
    """The same elements in another shape."""
    sources = dict(zip(indices(shape), indices(x.shape), strict=True))
    return shape, rational(lambda i: x.real(sources[i]))


def reshape(op: Any, x: Values) -> tuple[Shape, Real]:
    return in_row_major_order(x, op.shape)


def flatten(op: Any, x: Values) -> tuple[Shape, Real]:
    return in_row_major_order(x, (*x.shape[: op.start_axis], math.prod(x.shape[op.start_axis :])))


def transpose(op: Any, x: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        return x.real(tuple(index[op.perm.index(d)] for d in range(len(x.shape))))

    return tuple(x.shape[p] for p in op.perm), rational(real)


def slice_(op: Any, x: Values) -> tuple[Shape, Real]:
    kept = [i for i in range(x.shape[op.axis]) if op.start <= i < op.stop and (i - op.start) % op.step == 0]
    shape = (*x.shape[: op.axis], len(kept), *x.shape[op.axis + 1 :])
    return shape, rational(lambda i: x.real((*i[: op.axis], kept[i[op.axis]], *i[op.axis + 1 :])))


def pad(op: Any, x: Values) -> tuple[Shape, Real]:
    n = len(x.shape)

    def real(index: Index) -> Fraction:
        source = tuple(i - before for i, before in zip(index, op.padding, strict=False))
        if all(0 <= i < d for i, d in zip(source, x.shape, strict=True)):
            return x.real(source)
        return Fraction(0)

    return tuple(op.padding[d] + x.shape[d] + op.padding[n + d] for d in range(n)), rational(real)


def shared_index(v: Values, index: Index) -> Index:
    """Where a tensor that is broadcast has the element at `index`: its dimensions are the last, sizes of 1 repeat."""
    own = index[len(index) - len(v.shape) :]
    return tuple(0 if d == 1 else i for i, d in zip(own, v.shape, strict=True))


def broadcast_to(*inputs: Values) -> Shape:
    shape: list[int] = []
    for back in range(1, max(len(v.shape) for v in inputs) + 1):
        sizes = {v.shape[-back] for v in inputs if len(v.shape) >= back} - {1}
        assert len(sizes) <= 1
        shape.insert(0, sizes.pop() if sizes else 1)
    return tuple(shape)


def without_relu(combine: Callable[[Fraction, Fraction], Fraction]) -> Definition:
    """A rational function of two numbers."""

    def define(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
        return broadcast_to(a, b), rational(lambda i: combine(a.real(shared_index(a, i)), b.real(shared_index(b, i))))

    return define


def extreme(sign: int) -> Definition:
    """The largest of any number of numbers, or the smallest where `sign` is -1."""

    def define(op: Any, *inputs: Values) -> tuple[Shape, Real]:
        def real(index: Index) -> Fraction:
            best = inputs[0].real(shared_index(inputs[0], index))
            for v in inputs[1:]:
                other = v.real(shared_index(v, index))
                if (other - best) * sign > 0:
                    best = other
            return best

        return broadcast_to(*inputs), rational(real)

    return define


BEYOND = Fraction(10) ** 90
"""More than any output range: what an infinity is before it saturates."""


def quotient(a: Fraction, b: Fraction) -> Fraction:
    """By zero an infinity with the sign of `a`; 0 / 0 may be anything, of which the reference takes the smallest."""
    if b != 0:
        return a / b
    return BEYOND if a > 0 else -BEYOND


def where(op: Any, a: Values, b: Values, condition: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        v = a if condition.at(shared_index(condition, index)) else b
        return v.real(shared_index(v, index))

    return broadcast_to(a, b, condition), rational(real)


DEFINITIONS: dict[str, Definition] = {
    "quantize": same,
    "dequantize": same,
    "requantize": same,
    "conv": conv,
    "linear": linear,
    "add": add,
    "mul": mul,
    "relu": elementwise(lambda op, x: max(x, Fraction(0))),
    "clamp": elementwise(lambda op, x: clamp(x, Fraction(op.min), Fraction(op.max))),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_avg_pool": global_avg_pool,
    "concat": concat,
    "reshape": reshape,
    "transpose": transpose,
    "slice": slice_,
    "pad": pad,
    "flatten": flatten,
    "sigmoid": elementary(lambda op, x, bits: sigmoid_bounds(x, bits)),
    "tanh": elementary(lambda op, x, bits: tanh_bounds(x, bits)),
    "leaky_relu": elementwise(lambda op, x: x if x >= 0 else Fraction(op.negative_slope) * x),
    "elu": elementary(elu),
    "hardsigmoid": elementwise(lambda op, x: clamp(x / 6 + HALF, Fraction(0), Fraction(1))),
    "hardswish": elementwise(hardswish),
    "softmax": softmax,
    "sub": without_relu(lambda a, b: a - b),
    "div": without_relu(quotient),
    "minimum": extreme(-1),
    "maximum": extreme(1),
    "where": where,
}
