"""A second, slow and obvious evaluator of whole cases, to hold against `qfuzz.oracle.reference`.

Every operator is written down element by element as its definition reads, in Python integers and `fractions.Fraction`;
elementary functions come from mpmath's floating point at growing precision. It shares no arithmetic with qfuzz: of it,
only the attributes of operators and the data of cases are read. NumPy serves to unpack arrays into lists.

Every element is evaluated on demand, so that confirming one violation in a large case costs one element.
"""

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import mpmath
import slow_composite

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


class NotANumber(ArithmeticError):
    """A result is NaN."""


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
        q = self.element
        if q.axis is None:
            at = 0
        elif q.block == 0:
            at = index[q.axis]
        else:  # a scale a block, row-major
            at = 0
            for axis, (i, size) in enumerate(zip(index, self.shape, strict=True)):
                blocked = axis == q.axis
                at = at * (-(-size // q.block) if blocked else size) + (i // q.block if blocked else i)
        return Fraction(q.scale[at]), q.zero_point[at]

    def real(self, index: Index) -> Fraction:
        """The real number that is stored at `index`."""
        scale, zero_point = self.qparams(index)
        number = self.at(index)
        if math.isnan(number):
            raise NotANumber
        if math.isinf(number):  # beyond every number that can be stored
            return Fraction(2) ** 400 * (1 if number > 0 else -1)
        return scale * (Fraction(number) - zero_point)


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
    saturates: bool = True

    def qparams(self, index: Index) -> tuple[Fraction, int]:
        """Scale and zero point of the output at `index`."""
        return Values(self.shape, self.element, ()).qparams(index)

    def unrounded(self, index: Index, bits: int = 300) -> Bounds:
        """The real result in output units, without the zero point."""
        scale, _ = self.qparams(index)
        low, high = self.real(index, bits)
        return low / scale, high / scale

    def correct(self, index: Index) -> int | float:
        """The correctly rounded stored number: half to even, zero point added, saturated.

        Of NaN a float8 stores NaN; of integers all are right, and the smallest is given.
        """
        try:
            self.real(index, 300)
        except NotANumber:
            return math.nan if self.is_float else self._range()[0]
        for bits in (300, 3_000, 30_000):
            low, high = self.unrounded(index, bits)
            if self.is_float:
                ends: tuple[float, float] = self._nearest(low), self._nearest(high)
            elif low == high:
                return self._stored(half_even(low), index)
            else:
                # Strictly between: a tie at the lower end goes up, a tie at the upper end goes down.
                ends = self._stored(math.floor(low + HALF), index), self._stored(math.ceil(high - HALF), index)
            if ends[0] == ends[1] or all(map(math.isnan, ends)):
                return ends[0]
        raise Undecided(f"element {index} lies between {float(low)} and {float(high)}")

    @property
    def dtype(self) -> str:
        """The type that is stored."""
        return self.element.dtype if isinstance(self.element, QType) else self.element

    @property
    def is_float(self) -> bool:
        """Whether floating-point numbers are stored."""
        return self.dtype in FLOATS

    def _nearest(self, x: Fraction) -> float:
        dtype = self.dtype
        rounded = nearest_float(x, dtype)
        largest = float(FLOATS[dtype][2])
        if math.isinf(rounded) and self.saturates and dtype.startswith("float8"):
            return math.copysign(largest, rounded)
        return math.nan if math.isinf(rounded) and dtype.endswith(("fn", "fnuz")) else rounded  # they have no infinity

    def _range(self) -> tuple[int, int]:
        """Smallest and largest integer that can be stored."""
        dtype = self.dtype
        if dtype == "bool":
            return 0, 1
        bits = int(dtype.removeprefix("u").removeprefix("int"))
        return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def _stored(self, rounded: int, index: Index) -> int:
        lowest, highest = self._range()
        if not isinstance(self.element, QType):
            assert lowest <= rounded <= highest, "plain integers are exact, and sums that leave int32 are no valid case"
            return rounded
        return min(max(rounded + self.qparams(index)[1], lowest), highest)

    def excess(self, index: Index, got: int) -> Fraction:
        """By how many output steps, at the least, `got` is farther from the real result than rounding explains.

        0 for a correctly rounded value and for either side of a tie; a value at an end of the range stands for
        everything beyond it. A violation under a bound `delta` is confirmed where this is larger than `delta`.
        """
        low, high = (b + self.qparams(index)[1] for b in self.unrounded(index))
        lowest, highest = self._range()
        if not lowest <= got <= highest:
            raise ValueError(f"{got} is no {self.element}")
        too_large = got - HALF - high if got > lowest else Fraction(0)
        too_small = low - got - HALF if got < highest else Fraction(0)
        return max(too_large, too_small, Fraction(0))

    def is_nearly(self, index: Index, got: float, share: Fraction) -> bool:
        """Whether a floating-point `got` is the rounding of a number within a `share` of the real result."""
        right = self.correct(index)
        if math.isnan(right) or math.isnan(got):
            return math.isnan(right) and math.isnan(got)
        low, high = self.unrounded(index)
        ends = [self._nearest(b * f) for b in (low, high) for f in (1 - share, 1 + share)]
        return got == right or min(ends) <= got <= max(ends)

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
    definition = places if node.op.name in ("sort", "topk") and node.element == "int64" else DEFINITIONS[node.op.name]
    shape, real = definition(node.op, *inputs)
    saturates = getattr(node.op, "saturate", True)
    if node.op.name == "scaled_mm":  # as torch converts to float8
        saturates = isinstance(node.element, QType) and node.element.dtype == "float8_e4m3fn"
    return SlowResult(shape, node.element, real, saturates)


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


FLOATS: dict[str, tuple[int, int, Fraction]] = {
    "float32": (24, -149, (2 - Fraction(1, 2**23)) * 2**127),
    "float16": (11, -24, Fraction(65504)),
    "bfloat16": (8, -133, (2 - Fraction(1, 2**7)) * 2**127),
    "float8_e4m3fn": (4, -9, Fraction(448)),
    "float8_e4m3fnuz": (4, -10, Fraction(240)),
    "float8_e5m2": (3, -16, Fraction(57344)),
    "float8_e5m2fnuz": (3, -17, Fraction(57344)),
}
"""Bits of the significand, exponent of the smallest number, and the largest."""


def nearest_float(x: Fraction, dtype: str) -> float:
    """The nearest number of a format, half to even in the last place; infinite from half a step beyond the largest."""
    precision, exponent, largest = FLOATS[dtype]
    if x == 0:
        return 0.0
    while abs(x) >= Fraction(2) ** (exponent + precision):
        exponent += 1
    steps = half_even(x / Fraction(2) ** exponent)
    if abs(steps) * Fraction(2) ** exponent > largest:
        return math.copysign(math.inf, steps)
    return math.ldexp(float(steps), exponent)


def nearest_float32(x: Fraction) -> float:
    """The nearest float32."""
    return nearest_float(x, "float32")


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
        value = max(x, Fraction(0)) * Fraction(op.scale)
        return value, value
    low, high = exp_bounds(x * Fraction(op.input_scale), bits)
    factor = Fraction(op.alpha) * Fraction(op.scale)
    return factor * (low - 1), factor * (high - 1)


def celu(op: Any, x: Fraction, bits: int) -> Bounds:
    if x >= 0:
        return x, x
    low, high = exp_bounds(x / Fraction(op.alpha), bits)
    return Fraction(op.alpha) * (low - 1), Fraction(op.alpha) * (high - 1)


def prelu(op: Any, x: Values, slope: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        value = x.real(index)
        return value if value > 0 else value * slope.real((index[1] if slope.shape[0] > 1 else 0,))

    return x.shape, rational(real)


RELATIONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def compare(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
    shape, difference = without_relu(lambda x, y: x - y)(op, a, b)
    relation = RELATIONS[op.relation]
    return shape, rational(lambda i: Fraction(int(relation(difference(i, 0)[0], Fraction(0)))))


def plus_steps(op: Any, x: Values) -> tuple[Shape, Real]:
    scale = Fraction(x.qparams(())[0])
    steps = Fraction(op.other) / scale
    below = math.floor(steps)
    up = steps - below > Fraction(1, 2) or (steps - below == Fraction(1, 2) and below % 2 == 1)
    added = (below + up) * scale
    return x.shape, with_relu(op, lambda i: x.real(i) + added)


def std(op: Any, x: Values) -> tuple[Shape, Real]:
    axes = op.axes or tuple(range(len(x.shape)))
    shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape) if op.keepdims or d not in axes)

    def real(index: Index, bits: int) -> Bounds:
        kept = iter(index)
        at = [0 if d in axes and not op.keepdims else next(kept) for d in range(len(x.shape))]
        over = [range(n) if d in axes else (at[d],) for d, n in enumerate(x.shape)]
        window = [x.real(p) for p in itertools.product(*over)]
        mean = sum(window, Fraction(0)) / len(window)
        variance = sum(((v - mean) ** 2 for v in window), Fraction(0)) / (len(window) - op.correction)
        under = variance.numerator * variance.denominator
        if math.isqrt(under) ** 2 == under:
            return (Fraction(math.isqrt(under), variance.denominator),) * 2
        low = math.isqrt(under << 2 * (bits + 64))
        unit = variance.denominator << (bits + 64)
        return Fraction(low, unit), Fraction(low + 1, unit)

    return shape, real


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
    """The bias as a real number; int32 ones without a scale count units of scale_x * scale_w."""
    if bias is None:
        return Fraction(0)
    if isinstance(bias.element, QType):
        return bias.real((channel,))
    stored = Fraction(bias.at((channel,)))
    return stored * unit if bias.element == "int32" else stored


def linear(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    alpha, beta = Fraction(op.alpha), Fraction(op.beta)

    def real(index: Index) -> Fraction:
        channel = index[-1]
        scale_x, zero_x = x.qparams(index)
        scale_w, zero_w = weight.qparams((channel, 0))
        acc = sum((x.at((*index[:-1], k)) - zero_x) * (weight.at((channel, k)) - zero_w) for k in range(x.shape[-1]))
        return alpha * acc * scale_x * scale_w + beta * bias_at(bias, channel, scale_x * scale_w)

    return (*x.shape[:-1], weight.shape[0]), with_relu(op, real)


def conv(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    shape, accumulator = correlation(op, x, weight)

    def real(index: Index) -> Fraction:
        unit = x.qparams(index)[0] * weight.qparams((index[1], 0))[0]
        return accumulator(index) * unit + bias_at(bias, index[1], unit)

    return shape, with_relu(op, real)


def conv_integer(op: Any, x: Values, weight: Values) -> tuple[Shape, Real]:
    shape, accumulator = correlation(op, x, weight)
    return shape, rational(lambda i: Fraction(accumulator(i)))


def correlation(op: Any, x: Values, weight: Values) -> tuple[Shape, Callable[[Index], Fraction]]:
    """Shape and accumulators of a convolution."""
    spatial = len(x.shape) - 2
    kernel, sizes = weight.shape[2:], x.shape[2:]
    filters_per_group, channels_per_group = weight.shape[0] // op.groups, weight.shape[1]
    out = []
    for d in range(spatial):
        last = sizes[d] + op.padding[spatial + d] - 1 - op.dilations[d] * (kernel[d] - 1)
        out.append(len(range(-op.padding[d], last + 1, op.strides[d])))

    def accumulator(index: Index) -> Fraction:
        n, m, *at = index
        _, zero_x = x.qparams(index)
        _, zero_w = weight.qparams((m, 0))
        first_channel = m // filters_per_group * channels_per_group
        acc = Fraction(0)
        for tap in indices(kernel):
            p = [
                i * s - b + t * d for i, s, b, t, d in zip(at, op.strides, op.padding, tap, op.dilations, strict=False)
            ]
            if all(0 <= i < size for i, size in zip(p, sizes, strict=True)):
                for c in range(channels_per_group):
                    acc += (Fraction(x.at((n, first_channel + c, *p))) - zero_x) * int(weight.at((m, c, *tap)) - zero_w)
        return acc

    return (x.shape[0], weight.shape[0], *out), accumulator


def product_of_matrices(a: Values, b: Values) -> tuple[Shape, Callable[[Index], int]]:
    """Shape and accumulators of numpy.matmul: a vector is a matrix of one row, or of one column, without it."""
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    rank = max(len(left), len(right))
    stacks = [(1,) * (rank - len(s)) + s[:-2] for s in (left, right)]
    stack = tuple(q if p == 1 else p for p, q in zip(*stacks, strict=True))
    shape = (*stack, *left[-2 : -1 if len(a.shape) > 1 else -2], *(right[-1:] if len(b.shape) > 1 else ()))

    def own(sizes: Shape, at: Index) -> Index:
        last = at[len(at) - (len(sizes) - 2) :]
        return tuple(0 if d == 1 else i for i, d in zip(last, sizes[:-2], strict=True))

    def accumulator(index: Index) -> int:
        at = list(index)
        column = at.pop() if len(b.shape) > 1 else 0
        row = at.pop() if len(a.shape) > 1 else 0
        acc = 0
        for k in range(left[-1]):
            at_a = (*own(left, tuple(at)), row, k)[-len(a.shape) :]
            at_b = (*own(right, tuple(at)), k, column)[: len(right)] if len(b.shape) > 1 else (k,)
            acc += int(a.at(at_a) - a.qparams(at_a)[1]) * int(b.at(at_b) - b.qparams(at_b)[1])
        return acc

    return shape, accumulator


def matmul(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
    shape, accumulator = product_of_matrices(a, b)
    unit = Fraction(a.element.scale[0]) * Fraction(b.element.scale[0])  # type: ignore[union-attr]
    return shape, with_relu(op, lambda i: accumulator(i) * unit)


def matmul_integer(op: Any, a: Values, b: Values) -> tuple[Shape, Real]:
    shape, accumulator = product_of_matrices(a, b)
    return shape, rational(lambda i: Fraction(accumulator(i)))


def linear_integer(op: Any, x: Values, weight: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        m, zero_x = index[-1], x.qparams(index)[1]
        zero_w = weight.qparams((m, 0))[1]
        pairs = ((x.at((*index[:-1], k)), weight.at((m, k))) for k in range(x.shape[-1]))
        return Fraction(sum((a - zero_x) * (w - zero_w) for a, w in pairs))

    return (*x.shape[:-1], weight.shape[0]), rational(real)


def conv_transpose(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    """Every output place asks which input elements, each times its tap of the kernel, fall on it."""
    n = len(x.shape) - 2
    kernel, sizes = weight.shape[2:], x.shape[2:]
    per_group, filters = x.shape[1] // op.groups, weight.shape[1]
    out = []
    for d in range(n):
        reach = op.dilations[d] * (kernel[d] - 1) + 1
        full = op.strides[d] * (sizes[d] - 1) + reach + op.output_padding[d]
        out.append(full - op.padding[d] - op.padding[n + d])

    def real(index: Index) -> Fraction:
        batch, m, *at = index
        group, filter_ = divmod(m, filters)
        scale_w, zero_w = weight.qparams((0, filter_))
        scale_x, zero_x = x.qparams(index)
        acc = Fraction(0)
        for source in indices(sizes):
            for tap in indices(kernel):
                place = [source[d] * op.strides[d] + tap[d] * op.dilations[d] - op.padding[d] for d in range(n)]
                if place == at:
                    for c in range(group * per_group, (group + 1) * per_group):
                        acc += (Fraction(x.at((batch, c, *source))) - zero_x) * int(
                            weight.at((c, filter_, *tap)) - zero_w
                        )
        return acc * scale_x * scale_w + bias_at(bias, m, scale_x * scale_w)

    return (x.shape[0], op.groups * filters, *out), with_relu(op, real)


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
        return total / (op.divisor_override or count)

    return (*x.shape[:2], *(len(s) for s in starts)), rational(real)


def global_avg_pool(op: Any, x: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        window = [x.real((*index[:2], *p)) for p in indices(x.shape[2:])]
        return sum(window, Fraction(0)) / len(window)

    return (*x.shape[:2], *(1 for _ in x.shape[2:])), rational(real)


def adaptive_avg_pool(op: Any, x: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        inside = []
        for p in indices(x.shape[2:]):
            # Element p covers [p, p + 1), output i covers [i * s / n, (i + 1) * s / n): those that meet count.
            cuts = [
                (Fraction(i * s, n), Fraction((i + 1) * s, n))
                for i, s, n in zip(index[2:], x.shape[2:], op.output_size, strict=True)
            ]
            if all(at < end and at + 1 > start for at, (start, end) in zip(p, cuts, strict=True)):
                inside.append(x.real((*index[:2], *p)))
        return sum(inside, Fraction(0)) / len(inside)

    return (*x.shape[:2], *op.output_size), rational(real)


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


def fraction_of(value: Any) -> Fraction:
    """The rational that mpmath's number is."""
    mantissa, exponent = abs(value).man_exp
    exact = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -exact if value < 0 else exact


def gelu(op: Any, x: Fraction, bits: int) -> Bounds:
    """x / 2 times erfc(-x / sqrt 2), or 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)) by e^u."""
    if x == 0:
        return Fraction(0), Fraction(0)
    context = mpmath.MPContext()
    # The tails are as small as e^(-x^2 / 2), or as e^(-x^3 / 14): to be narrow there takes as many more bits.
    context.prec = bits + 200 + 6 * int(min(x * x, 2500)) + int(min(abs(x) ** 3, 2500))
    v = context.mpf(x.numerator) / x.denominator
    if op.approximate == "none":
        far, twice = abs(x) > 50, (lambda: context.erfc(-v / context.sqrt(2)))
    else:
        u = context.sqrt(2 / context.pi) * (v + context.mpf(44715) / 1000000 * v**3)
        far, twice = abs(u) > 2000, (lambda: 2 / (1 + context.exp(-2 * u)))
    if far:  # within 2^-1800 of 0 or of 2, on the inner side
        low, high = (Fraction(0), Fraction(1, 2**1800)) if x < 0 else (2 - Fraction(1, 2**1800), Fraction(2))
    else:
        value = fraction_of(twice())
        slack = Fraction(1, 2 ** (bits + 60))
        low, high = value * (1 - slack), value * (1 + slack)
    ends = sorted((x / 2 * low, x / 2 * high))
    return ends[0], ends[1]


def normalized(
    op: Any, x: Values, members: Callable[[Index], list[Index]], weight: Real, bias: Real
) -> tuple[Shape, Real]:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the `members` that go with an index."""

    def real(index: Index, bits: int) -> Bounds:
        together = [x.real(i) for i in members(index)]
        mean = sum(together, Fraction(0)) / len(together)
        under = sum(((v - mean) ** 2 for v in together), Fraction(0)) / len(together) + Fraction(op.epsilon)
        shift = bias(index, bits)[0]
        top = (x.real(index) - mean) * weight(index, bits)[0]
        if top == 0:
            return shift, shift
        root = math.isqrt(under.numerator * under.denominator)
        if root**2 == under.numerator * under.denominator:  # a root that is rational
            return top * under.denominator / root + shift, top * under.denominator / root + shift
        context = mpmath.MPContext()
        context.prec = bits + 80
        value = fraction_of(context.mpf(under.denominator) / context.sqrt(under.numerator * under.denominator))
        slack = Fraction(1, 2 ** (bits + 40))
        ends = sorted((top * value * (1 - slack) + shift, top * value * (1 + slack) + shift))
        return ends[0], ends[1]

    return x.shape, real


def parameter(values: Values | None, own: Callable[[Index], Index], unit: Fraction = Fraction(1)) -> Real:
    """A scale or bias at the index that belongs to the output's; int32 counts `unit`."""

    def real(index: Index) -> Fraction:
        if values is None:
            return Fraction(0)
        return values.real(own(index)) * (unit if values.element == "int32" else 1)

    return rational(real)


def layer_norm(op: Any, x: Values, weight: Values | None = None, bias: Values | None = None) -> tuple[Shape, Real]:
    def broadcast_to(v: Values) -> Callable[[Index], Index]:
        return lambda i: tuple(0 if d == 1 else p for p, d in zip(i[len(i) - len(v.shape) :], v.shape, strict=True))

    def members(index: Index) -> list[Index]:
        return [(*index[: op.axis], *rest) for rest in indices(x.shape[op.axis :])]

    unit = x.qparams(())[0] * (weight.qparams(())[0] if weight and isinstance(weight.element, QType) else 1)
    shift = parameter(bias, broadcast_to(bias) if bias else tuple, unit)
    scale = parameter(weight, broadcast_to(weight)) if weight else rational(lambda _: Fraction(1))
    return normalized(op, x, members, scale, shift)


def instance_norm(op: Any, x: Values, weight: Values | None = None, bias: Values | None = None) -> tuple[Shape, Real]:
    def members(index: Index) -> list[Index]:
        return [(*index[:2], *rest) for rest in indices(x.shape[2:])]

    return normalized(op, x, members, *by_channel(x, weight, bias))


def group_norm(op: Any, x: Values, weight: Values | None = None, bias: Values | None = None) -> tuple[Shape, Real]:
    size = x.shape[1] // op.groups

    def members(index: Index) -> list[Index]:
        first = index[1] // size * size
        return [(index[0], c, *rest) for c in range(first, first + size) for rest in indices(x.shape[2:])]

    return normalized(op, x, members, *by_channel(x, weight, bias))


def by_channel(x: Values, weight: Values | None, bias: Values | None) -> tuple[Real, Real]:
    """Scale and bias of a normalization whose parameters are one for each channel."""
    unit = x.qparams(())[0] * (weight.qparams(())[0] if weight and isinstance(weight.element, QType) else 1)
    scale = parameter(weight, lambda i: (i[1],)) if weight else rational(lambda _: Fraction(1))
    return scale, parameter(bias, lambda i: (i[1],), unit)


def batch_norm(op: Any, x: Values, *parameters: Values) -> tuple[Shape, Real]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias."""

    def real(index: Index, bits: int) -> Bounds:
        scale, bias, mean, variance = (p.real((index[1],)) for p in parameters)
        top = (x.real(index) - mean) * scale
        square = variance + Fraction(op.epsilon)
        under = square.numerator * square.denominator
        root = math.isqrt(under)
        if root**2 == under or top == 0:
            ends = [top * square.denominator / max(root, 1) + bias] * 2
        else:
            low = math.isqrt(under << 2 * (bits + 64))
            ends = [top * square.denominator * 2 ** (bits + 64) / Fraction(r) + bias for r in (low + 1, low)]
        low_end, high_end = sorted(max(e, Fraction(0)) if op.relu else e for e in ends)
        return low_end, high_end

    return x.shape, real


def mean(op: Any, x: Values) -> tuple[Shape, Real]:
    axes = op.axes if op.axes or op.noop_with_empty_axes else tuple(range(len(x.shape)))
    shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape) if op.keepdims or d not in axes)

    def real(index: Index) -> Fraction:
        kept = iter(index)
        at = [0 if d in axes and not op.keepdims else next(kept) for d in range(len(x.shape))]
        over = [range(n) if d in axes else (at[d],) for d, n in enumerate(x.shape)]
        window = [x.real(p) for p in itertools.product(*over)]
        return sum(window, Fraction(0)) / len(window)

    return shape, rational(real)


def split(op: Any, x: Values) -> tuple[Shape, Real]:
    axis = op.axis if op.axis >= 0 else op.axis + len(x.shape)
    positions, start = [], 0
    for size in op.sizes:
        positions.append(list(range(start, start + size)))
        start += size
    assert start == x.shape[axis]
    kept = positions[op.index]
    shape = (*x.shape[:axis], len(kept), *x.shape[axis + 1 :])
    return shape, rational(lambda i: x.real((*i[:axis], kept[i[axis]], *i[axis + 1 :])))


def squeeze(op: Any, x: Values) -> tuple[Shape, Real]:
    rank = len(x.shape)
    dropped = [a % rank for a in op.axes] or [d for d in range(rank) if x.shape[d] == 1]
    assert all(x.shape[d] == 1 for d in dropped)
    return in_row_major_order(x, tuple(x.shape[d] for d in range(rank) if d not in dropped))


def unsqueeze(op: Any, x: Values) -> tuple[Shape, Real]:
    rank = len(x.shape) + len(op.axes)
    shape = list(x.shape)
    for axis in sorted(a % rank for a in op.axes):
        shape.insert(axis, 1)
    assert len(shape) == rank
    return in_row_major_order(x, tuple(shape))


def expand(op: Any, x: Values) -> tuple[Shape, Real]:
    rank = max(len(x.shape), len(op.shape))
    own, wanted = ((1,) * (rank - len(s)) + tuple(s) for s in (x.shape, op.shape))
    shape = tuple(b if a == 1 else a for a, b in zip(own, wanted, strict=True))

    def real(index: Index) -> Fraction:
        tail = index[rank - len(x.shape) :]
        return x.real(tuple(0 if d == 1 else i for i, d in zip(tail, x.shape, strict=True)))

    return shape, rational(real)


def gather(op: Any, x: Values) -> tuple[Shape, Real]:
    axis = op.axis % len(x.shape)
    n, depth = len(op.indices_shape), x.shape[axis]
    looked_up = dict(zip(indices(op.indices_shape), op.indices, strict=True))

    def real(index: Index) -> Fraction:
        entry = looked_up[index[axis : axis + n]]
        return x.real((*index[:axis], entry if entry >= 0 else depth + entry, *index[axis + n :]))

    return (*x.shape[:axis], *op.indices_shape, *x.shape[axis + 1 :]), rational(real)


def depth_to_space(op: Any, x: Values) -> tuple[Shape, Real]:
    b = op.blocksize
    n, channels, height, width = x.shape
    deep = channels // (b * b)

    def real(index: Index) -> Fraction:
        image, c, row, column = index
        block = (row % b) * b + column % b
        channel = block * deep + c if op.mode == "DCR" else c * b * b + block
        return x.real((image, channel, row // b, column // b))

    return (n, deep, height * b, width * b), rational(real)


def space_to_depth(op: Any, x: Values) -> tuple[Shape, Real]:
    b = op.blocksize
    n, channels, height, width = x.shape

    def real(index: Index) -> Fraction:
        image, c, row, column = index
        block, channel = divmod(c, channels) if op.mode == "DCR" else divmod(c, b * b)[::-1]
        return x.real((image, channel, row * b + block // b, column * b + block % b))

    return (n, channels * b * b, height // b, width // b), rational(real)


def argmax(op: Any, x: Values) -> tuple[Shape, Real]:
    axis = op.axis % len(x.shape)
    shape = (*x.shape[:axis], *([1] if op.keepdims else []), *x.shape[axis + 1 :])

    def real(index: Index) -> Fraction:
        rest = index[axis + 1 :] if op.keepdims else index[axis:]
        best = 0
        row = [(-1 if op.smallest else 1) * x.real((*index[:axis], j, *rest)) for j in range(x.shape[axis])]
        for j, value in enumerate(row):
            if value > row[best] or (op.select_last_index and value == row[best]):
                best = j
        return Fraction(best)

    return shape, rational(real)


def original_coordinate(mode: str, i: int, scale: Fraction, size: int, resized: int) -> Fraction:
    """x_original of x_resized `i`, as the text of Resize has it."""
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return Fraction(i * (size - 1), resized - 1) if resized > 1 else Fraction(0)
    if mode == "pytorch_half_pixel" and resized <= 1:
        return Fraction(0)
    x = (i + HALF) / scale - HALF
    if mode == "half_pixel_symmetric":
        x += Fraction(size) / 2 * (1 - Fraction(resized) / (scale * size))
    return x


def cubic_weight(distance: Fraction, a: Fraction) -> Fraction:
    d = abs(distance)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else Fraction(0)


def sampled(op: Any, x: Fraction, size: int, scale: Fraction) -> list[tuple[int, Fraction]]:
    """Elements of one dimension and their weights, at coordinate `x`; beyond the ends the end elements go on."""
    squeezed = scale if op.antialias and scale < 1 else Fraction(1)
    reach = math.ceil(3 / squeezed)
    around = range(math.floor(x) - reach, math.ceil(x) + reach + 1)
    if op.mode == "nearest":
        below, above = math.floor(x), math.ceil(x)
        prefers_above = {
            "floor": False,
            "ceil": True,
            "round_prefer_floor": above - x < x - below,
            "round_prefer_ceil": above - x <= x - below,
        }[op.nearest_mode]
        pairs = [(above if prefers_above else below, Fraction(1))]
    elif op.mode == "linear":
        pairs = [(j, max(1 - abs(x - j) * squeezed, Fraction(0))) for j in around]
    else:
        pairs = [(j, cubic_weight((x - j) * squeezed, Fraction(op.cubic_coeff_a))) for j in around]
    if op.exclude_outside:
        pairs = [(j, w) for j, w in pairs if 0 <= j < size]
    total = sum((w for _, w in pairs), Fraction(0))
    return [(min(max(j, 0), size - 1), w / total) for j, w in pairs if w]


def interpolate(op: Any, x: Values) -> tuple[Shape, Real]:
    rank = len(x.shape)
    axes = [a % rank for a in op.axes] or list(range(rank))
    scales, shape = [Fraction(1)] * rank, list(x.shape)
    quotients = [Fraction(n, x.shape[d]) for d, n in zip(axes, op.sizes, strict=False) if x.shape[d]]
    for d, value in zip(axes, op.scales or op.sizes, strict=True):
        if op.aspect != "stretch":
            scales[d] = min(quotients) if op.aspect == "not_larger" else max(quotients)
            shape[d] = math.floor(x.shape[d] * scales[d] + HALF)
        elif op.scales:
            scales[d], shape[d] = Fraction(value), math.floor(x.shape[d] * Fraction(value))
        else:
            scales[d], shape[d] = Fraction(value, x.shape[d]) if value else Fraction(1), value

    def real(index: Index) -> Fraction:
        choices = []
        for i, s, size, out in zip(index, scales, x.shape, shape, strict=True):
            choices.append(sampled(op, original_coordinate(op.coordinates, i, s, size, out), size, s))
        total = Fraction(0)
        for taps in itertools.product(*choices):
            total += math.prod((w for _, w in taps), start=x.real(tuple(j for j, _ in taps)))
        return total

    return tuple(shape), rational(real)


def own_qparams(x: Values, steps: int = 255, smallest: Fraction = Fraction(0)) -> tuple[Fraction, int]:
    """Scale and zero point that DynamicQuantizeLinear derives from the data; 0 / 0 stands for no zero point: 0.

    PyTorch also has 127 steps, and a smallest scale, with the zero point as of the scale that it stands for.
    """
    numbers = [Fraction(v) for v in x.stored]
    low, high = min([Fraction(0), *numbers]), max([Fraction(0), *numbers])
    scale = (high - low) / steps
    return max(scale, smallest), 0 if scale == 0 else min(max(half_even(0 - low / scale), 0), 255)


SMALLEST = Fraction(261993, 2**32)
"""6.1e-5 as a float32."""


def layer_qparams(op: Any, x: Values) -> tuple[Fraction, int]:
    """Of a layer that quantizes its data."""
    return own_qparams(x, 127 if op.reduce_range else 255, SMALLEST if op.chosen_as == "torch" else Fraction(0))


def dynamically_quantized(x: Values, index: Index, scale: Fraction, zero: int) -> int:
    rounded = 0 if scale == 0 else half_even(Fraction(x.at(index)) / scale)
    return min(max(rounded + zero, 0), 255)


def fake_quantize(op: Any, x: Values, scales: Values, zero_points: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        at = (index[op.axis],) if scales.shape else ()
        scale, zero_point = Fraction(scales.at(at)), int(zero_points.at(at))
        level = round(x.real(index) / scale) + zero_point
        return (min(max(level, op.quant_min), op.quant_max) - zero_point) * scale

    return x.shape, rational(real)


def choose_qparams(op: Any, x: Values) -> tuple[Shape, Real]:
    steps = op.quant_max - op.quant_min
    shape = (*x.shape[:-1], 1) if op.tokens else (1,)

    def real(index: Index) -> Fraction:
        row = [x.at((*index[:-1], k)) for k in range(x.shape[-1])] if op.tokens else x.stored
        numbers = [Fraction(v) for v in row]
        low, high = min([Fraction(0), *numbers]), max([Fraction(0), *numbers])
        width = 2 * max(-low, high) if op.symmetric else high - low
        scale = max(width / steps, Fraction(op.least))
        if op.output == "scale":
            return scale
        if op.symmetric:
            return Fraction(128 if op.dtype == "uint8" and not op.tokens else 0)
        return Fraction(min(max(op.quant_min - half_even(low / scale), op.quant_min), op.quant_max))

    return shape, rational(real)


def dynamic_quantize(op: Any, x: Values) -> tuple[Shape, Real]:
    scale, zero = layer_qparams(op, x)
    match op.output:
        case "scale":
            return (), rational(lambda i: scale)
        case "zero_point":
            return (), rational(lambda i: Fraction(zero))
        case _:
            return x.shape, rational(lambda i: Fraction(dynamically_quantized(x, i, scale, zero)))


def dynamic_linear(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    scale_x, zero_x = layer_qparams(op, x)

    def real(index: Index) -> Fraction:
        channel = index[-1]
        scale_w, zero_w = weight.qparams((channel, 0))
        acc = 0
        for k in range(x.shape[-1]):
            q = dynamically_quantized(x, (*index[:-1], k), scale_x, zero_x)
            acc += (q - zero_x) * (int(weight.at((channel, k))) - zero_w)
        return acc * scale_x * scale_w + bias_at(bias, channel, Fraction(1))

    return (*x.shape[:-1], weight.shape[0]), with_relu(op, real)


def dynamic_nbits_linear(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        channel, total = index[-1], Fraction(0)
        row = [x.real((*index[:-1], k)) for k in range(x.shape[-1])]
        low, high = min([Fraction(0), *row]), max([Fraction(0), *row])
        scale = (high - low) / 255
        zero = half_even(-128 - low / scale) if scale else -128
        zero = min(max(zero, -128), 127)
        for k, number in enumerate(row):
            stored = min(max((half_even(number / scale) if scale else 0) + zero, -128), 127)
            total += (stored - zero) * scale * weight.real((channel, k))
        return total + bias_at(bias, channel, Fraction(1))

    return (*x.shape[:-1], weight.shape[0]), rational(real)


def _dynamically(static: Any, op: Any, x: Values, weight: Values, bias: Values | None) -> tuple[Shape, Real]:
    """A layer of integers: those that the data become, with the data's scale."""
    scale, zero = layer_qparams(op, x)
    stored = [dynamically_quantized(x, i, scale, zero) - zero for i in indices(x.shape)]
    shape, real = static(op, Values(x.shape, "float32", stored), weight, None)

    def scaled(index: Index) -> Fraction:
        return real(index, 300)[0] * scale + bias_at(bias, index[1], Fraction(1))

    return shape, rational(scaled)


class _Plain:
    """A layer's attributes, and no relu."""

    def __init__(self, op: Any) -> None:
        self.op, self.relu = op, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.op, name)


def dynamic_conv(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    return _dynamically(conv, _Plain(op), x, weight, bias)


def dynamic_conv_transpose(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    return _dynamically(conv_transpose, _Plain(op), x, weight, bias)


def linear_fp16(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    def half(number: int | float) -> Fraction:
        rounded = nearest_float(Fraction(number), "float16")
        return Fraction(min(max(rounded, -65504.0), 65504.0))

    def real(index: Index) -> Fraction:
        channel = index[-1]
        products = (x.real((*index[:-1], k)) * half(weight.at((channel, k))) for k in range(x.shape[-1]))
        return sum(products, Fraction(0) if bias is None else bias.real((channel,)))

    return (*x.shape[:-1], weight.shape[0]), with_relu(op, real)


def weight_only_linear(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        channel = index[-1]
        products = (x.real((*index[:-1], k)) * weight.real((channel, k)) for k in range(x.shape[-1]))
        return sum(products, Fraction(0) if bias is None else bias.real((channel,)))

    return (*x.shape[:-1], weight.shape[0]), rational(real)


def scaled_mm(op: Any, x: Values, weight: Values, bias: Values | None = None) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        total = Fraction(0) if bias is None else bias.real((index[1],))
        infinities = set()
        for k in range(x.shape[1]):
            stored, factor = x.at((index[0], k)), weight.real((index[1], k))
            if math.isnan(stored) or (math.isinf(stored) and factor == 0):
                raise NotANumber
            if math.isinf(stored):
                infinities.add(1 if (stored > 0) == (factor > 0) else -1)
            else:
                total += x.real((index[0], k)) * factor
        if len(infinities) == 2:
            raise NotANumber
        return infinities.pop() * Fraction(2) ** 400 if infinities else total

    return (x.shape[0], weight.shape[0]), rational(real)


def embedding(op: Any, table: Values, at: Values) -> tuple[Shape, Real]:
    def real(index: Index) -> Fraction:
        before, named, after = (
            index[: op.axis],
            index[op.axis : op.axis + len(at.shape)],
            index[op.axis + len(at.shape) :],
        )
        position = int(at.at(named))
        return table.real((*before, position if position >= 0 else position + table.shape[op.axis], *after))

    return (*table.shape[: op.axis], *at.shape, *table.shape[op.axis + 1 :]), rational(real)


def embedding_bag(op: Any, table: Values, at: Values, *rest: Values) -> tuple[Shape, Real]:
    others = list(rest)
    offsets = others.pop(0).stored if len(at.shape) == 1 else [n * at.shape[1] for n in range(at.shape[0])]
    weights = others.pop(0).stored if op.weighted else [1] * len(at.stored)
    mapping = others.pop(0).stored if op.pruned else None
    begins = [int(o) for o in offsets]
    ends = begins[1:] if op.include_last_offset else [*begins[1:], len(at.stored)]

    def stored_as(x: float) -> Fraction:
        return Fraction(*struct.unpack("<e", struct.pack("<e", x))) if op.parameters == "float16" else Fraction(x)

    def row(position: int, column: int) -> Fraction:
        entry = int(at.stored[position] if mapping is None else mapping[int(at.stored[position])])
        if entry < 0:
            return Fraction(0)
        scale, zero_point = table.qparams((entry, column))
        bias = stored_as(float(nearest_float32(-zero_point * scale)))
        return stored_as(float(scale)) * int(table.at((entry, column))) + bias

    def real(index: Index) -> Fraction:
        bag = range(begins[index[0]], ends[index[0]])
        total = sum((Fraction(weights[i]) * row(i, index[1]) for i in bag), Fraction(0))
        return total / len(bag) if op.mode == "mean" and bag else total

    return (min(len(begins), len(ends)), table.shape[1]), rational(real)


def concat_relu(op: Any, *inputs: Values) -> tuple[Shape, Real]:
    shape, real = concat(op, *inputs)
    return shape, lambda index, bits: (max(real(index, bits)[0], Fraction(0)),) * 2


def flip(op: Any, x: Values) -> tuple[Shape, Real]:
    turned = {a % len(x.shape) for a in op.axes}
    return x.shape, rational(
        lambda index: x.real(tuple(x.shape[d] - 1 - i if d in turned else i for d, i in enumerate(index)))
    )


def channel_shuffle(op: Any, x: Values) -> tuple[Shape, Real]:
    order = [c for first in range(x.shape[1] // op.groups) for c in range(first, x.shape[1], x.shape[1] // op.groups)]
    return x.shape, rational(lambda index: x.real((index[0], order[index[1]], *index[2:])))


def unfold(op: Any, x: Values) -> tuple[Shape, Real]:
    axis = op.axis % len(x.shape)
    windows = sum(start % op.step == 0 for start in range(x.shape[axis] - op.size + 1))

    def real(index: Index) -> Fraction:
        *at, place = index
        at[axis] = at[axis] * op.step + place
        return x.real(tuple(at))

    return (*x.shape[:axis], windows, *x.shape[axis + 1 :], op.size), rational(real)


def reflection_pad(op: Any, x: Values) -> tuple[Shape, Real]:
    n = len(op.padding) // 2
    first = len(x.shape) - n

    def real(index: Index) -> Fraction:
        at = list(index)
        for d in range(n):
            i, last = index[first + d] - op.padding[d], x.shape[first + d] - 1
            mirrored = -i if i < 0 else 2 * last - i if i > last else i
            at[first + d] = i % (last + 1) if op.mode == "circular" else mirrored
        return x.real(tuple(at))

    own = (s + op.padding[d] + op.padding[n + d] for d, s in enumerate(x.shape[first:]))
    return (*x.shape[:first], *own), rational(real)


def ordered(downwards: Callable[[Any], bool]) -> Definition:
    """Elements of one axis in order, `k` of them where an operator says so."""

    def definition(op: Any, x: Values) -> tuple[Shape, Real]:
        axis = op.axis % len(x.shape)
        k = getattr(op, "k", x.shape[axis])

        def real(index: Index) -> Fraction:
            line = [x.real((*index[:axis], i, *index[axis + 1 :])) for i in range(x.shape[axis])]
            return sorted(line, reverse=downwards(op))[index[axis]]

        return (*x.shape[:axis], k, *x.shape[axis + 1 :]), rational(real)

    return definition


def places(op: Any, x: Values) -> tuple[Shape, Real]:
    """Where the elements of one axis stood before they were put in order, the first of equal ones first."""
    axis = op.axis % len(x.shape)
    downwards = op.descending if op.name == "sort" else op.largest

    def real(index: Index) -> Fraction:
        line = [x.real((*index[:axis], i, *index[axis + 1 :])) for i in range(x.shape[axis])]
        return Fraction(sorted(range(len(line)), key=line.__getitem__, reverse=downwards)[index[axis]])

    return (*x.shape[:axis], getattr(op, "k", x.shape[axis]), *x.shape[axis + 1 :]), rational(real)


def masked_fill(op: Any, x: Values, mask: Values) -> tuple[Shape, Real]:
    shape = broadcast_to(x, mask)

    def real(index: Index) -> Fraction:
        return Fraction(op.value) if mask.at(shared_index(mask, index)) else x.real(shared_index(x, index))

    return shape, rational(real)


def grid_sample(op: Any, x: Values, grid: Values) -> tuple[Shape, Real]:
    sizes = x.shape[2:]

    def position(at: float, size: int) -> Fraction:
        """In elements; reflected at the ends as often as it takes, then held inside."""
        p = (Fraction(at) + 1) / 2 * (size - 1) if op.align_corners else ((Fraction(at) + 1) * size - 1) / 2
        low, high = (Fraction(0), Fraction(size - 1)) if op.align_corners else (-HALF, size - HALF)
        if op.padding_mode == "reflection":
            if low == high:
                return Fraction(0)
            p = (p - low) % (2 * (high - low))
            p = low + (p if p <= high - low else 2 * (high - low) - p)
        return p if op.padding_mode == "zeros" else clamp(p, Fraction(0), Fraction(size - 1))

    def real(index: Index) -> Fraction:
        n, c, i, j = index
        row, column = (position(grid.at((n, i, j, 1 - d)), sizes[d]) for d in range(2))
        total = Fraction(0)
        for y, z in indices(sizes):  # a tent around the place
            weight = max(1 - abs(y - row), Fraction(0)) * max(1 - abs(z - column), Fraction(0))
            if weight:
                total += weight * x.real((n, c, y, z))
        return total

    return (*x.shape[:2], *grid.shape[1:3]), rational(real)


def index_put(op: Any, x: Values) -> tuple[Shape, Real]:
    rows = {i % x.shape[0] for i in op.indices}
    return x.shape, rational(lambda index: Fraction(op.value) if index[0] in rows else x.real(index))


def constant_pad(op: Any, x: Values) -> tuple[Shape, Real]:
    n = len(x.shape)

    def real(index: Index) -> Fraction:
        source = tuple(i - before for i, before in zip(index, op.padding, strict=False))
        inside = all(0 <= i < d for i, d in zip(source, x.shape, strict=True))
        return x.real(source) if inside else Fraction(op.value)

    return tuple(op.padding[d] + x.shape[d] + op.padding[n + d] for d in range(n)), rational(real)


def embedding_rows(op: Any, x: Values) -> tuple[Shape, Real]:
    top = 2**op.bits - 1

    def half(v: float) -> Fraction:
        return Fraction(*struct.unpack("<e", struct.pack("<e", v)))

    def real(index: Index) -> Fraction:
        row = [x.real((*index[:-1], i)) for i in range(x.shape[-1])]
        offset = min(row) if op.bits == 8 else half(float(min(row)))
        span = max(row) - offset
        if op.bits == 8:
            scale, divisor = span / top, (span + nearest_float32(Fraction(1, 10**8))) / top
        else:
            scale = Fraction(0)
            for bits in range(-24, 17):  # float16: multiples of 2^-24, and 11 bits
                if abs(span / top) < Fraction(2) ** bits or bits == 16:
                    unit = Fraction(2) ** max(bits - 11, -24)
                    scale = round(span / top / unit) * unit
                    break
            divisor = scale = scale or Fraction(1)
        stored = min(max(round((x.real(index) - offset) / divisor), 0), top)
        return stored * scale + offset

    return x.shape, rational(real)


def tile(op: Any, x: Values) -> tuple[Shape, Real]:
    shape = tuple(n * r for n, r in zip(x.shape, op.repeats, strict=True))
    return shape, rational(lambda index: x.real(tuple(i % n for i, n in zip(index, x.shape, strict=True))))


def gather_elements(op: Any, x: Values) -> tuple[Shape, Real]:
    axis = op.axis % len(x.shape)
    looked_up = dict(zip(indices(op.indices_shape), op.indices, strict=True))

    def real(index: Index) -> Fraction:
        entry = looked_up[index]
        return x.real((*index[:axis], entry if entry >= 0 else x.shape[axis] + entry, *index[axis + 1 :]))

    return op.indices_shape, rational(real)


def over_axes(choose: Callable[[Iterable[Fraction]], Fraction]) -> Definition:
    """The largest or smallest real number over the axes of a node."""

    def definition(op: Any, x: Values) -> tuple[Shape, Real]:
        rank = len(x.shape)
        gone = {a + rank if a < 0 else a for a in op.axes}
        if not op.axes and not op.noop_with_empty_axes:
            gone = set(range(rank))
        members: dict[Index, list[Fraction]] = {}
        for index in indices(x.shape):
            left = tuple(0 if d in gone else i for d, i in enumerate(index) if op.keepdims or d not in gone)
            members.setdefault(left, []).append(x.real(index))
        shape = tuple(1 if d in gone else n for d, n in enumerate(x.shape) if op.keepdims or d not in gone)
        return shape, rational(lambda index: choose(members[index]))

    return definition


def without_factors(layer: Definition, op: Any, *operands: Values) -> tuple[Shape, Callable[[Index], Fraction]]:
    """Shape and real result of a layer, of which no factors and no relu are said."""
    bare = SimpleNamespace(alpha=1.0, beta=1.0, relu=False)
    for name in ("strides", "padding", "dilations", "groups"):
        setattr(bare, name, getattr(op, name, None))
    shape, real = layer(bare, *operands)
    return shape, lambda i: real(i, 0)[0]


def followed(layer: Definition) -> Definition:
    """A layer and its post operation."""

    def define(op: Any, *operands: Values) -> tuple[Shape, Real]:
        shape, inner = without_factors(layer, op, *operands)
        return shape, lambda i, bits: post_operation(op, inner(i), bits)

    return define


def post_operation(op: Any, x: Fraction, bits: int) -> Bounds:
    match op.activation:
        case "tanh":
            return tanh_bounds(x, bits)
        case "swish":
            ends = sorted(x * s for s in sigmoid_bounds(x, bits))
            return ends[0], ends[1]
        case "gelu" | "gelu_tanh":
            return gelu(SimpleNamespace(approximate="none" if op.activation == "gelu" else "tanh"), x, bits)
    y = {
        "none": lambda: x,
        "relu": lambda: max(x, Fraction(0)),
        "hardtanh": lambda: clamp(x, Fraction(op.min), Fraction(op.max)),
        "leaky_relu": lambda: x if x > 0 else x * Fraction(op.negative_slope),
        "hardswish": lambda: hardswish(op, x),
    }[op.activation]()
    return y, y


def layer_and_add(layer: Definition) -> Definition:
    """A layer plus another activation, which stands before the bias."""

    def define(op: Any, x: Values, weight: Values, other: Values, *bias: Values) -> tuple[Shape, Real]:
        shape, inner = without_factors(layer, op, x, weight, *bias)
        return shape, with_relu(op, lambda i: inner(i) + other.real(i))

    return define


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
    "gelu": elementary(gelu),
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "mean": mean,
    "split": split,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "expand": expand,
    "gather": gather,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "argmax": argmax,
    "interpolate": interpolate,
    "matmul": matmul,
    "conv_transpose": conv_transpose,
    "conv_integer": conv_integer,
    "linear_integer": linear_integer,
    "matmul_integer": matmul_integer,
    "dynamic_quantize": dynamic_quantize,
    "fake_quantize": fake_quantize,
    "choose_qparams": choose_qparams,
    "dynamic_linear": dynamic_linear,
    "dynamic_nbits_linear": dynamic_nbits_linear,
    "attention": slow_composite.attention,
    "lstm": slow_composite.lstm,
    "recurrent": slow_composite.recurrent,
    "embed_layer_norm": slow_composite.embed_layer_norm,
    "moe": slow_composite.moe,
    "dynamic_conv": dynamic_conv,
    "dynamic_conv_transpose": dynamic_conv_transpose,
    "linear_fp16": linear_fp16,
    "weight_only_linear": weight_only_linear,
    "scaled_mm": scaled_mm,
    "embedding": embedding,
    "embedding_bag": embedding_bag,
    "embedding_rows": embedding_rows,
    "tile": tile,
    "gather_elements": gather_elements,
    "linear_pointwise": followed(linear),
    "conv_pointwise": followed(conv),
    "linear_add": layer_and_add(linear),
    "conv_add": layer_and_add(conv),
    "amax": over_axes(max),
    "amin": over_axes(min),
    "adaptive_avg_pool": adaptive_avg_pool,
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "concat_relu": concat_relu,
    "flip": flip,
    "channel_shuffle": channel_shuffle,
    "unfold": unfold,
    "reflection_pad": reflection_pad,
    "sort": ordered(lambda op: op.descending),
    "topk": ordered(lambda op: op.largest),
    "masked_fill": masked_fill,
    "index_put": index_put,
    "grid_sample": grid_sample,
    "constant_pad": constant_pad,
    "celu": elementary(celu),
    "threshold": elementwise(lambda op, x: x if x > Fraction(op.threshold) else Fraction(op.value)),
    "prelu": prelu,
    "std": std,
    "add_scalar": plus_steps,
    "compare": compare,
    "compare_scalar": elementwise(lambda op, x: Fraction(int(RELATIONS[op.relation](x, Fraction(op.other))))),
    "mul_scalar": elementwise(
        lambda op, x: max(x * Fraction(op.other), Fraction(0)) if op.relu else x * Fraction(op.other)
    ),
}
