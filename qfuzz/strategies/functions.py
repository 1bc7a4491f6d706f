"""The drawing side of gelu, layer_norm, instance_norm, group_norm, batch_norm, mean."""

import math
from typing import Literal

import numpy as np

from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.batch_norm import BatchNorm
from qfuzz.ops.deviation import Std
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.normalization import GroupNorm, InstanceNorm, LayerNorm
from qfuzz.ops.reduction import Mean
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder

EPSILONS = (float32(1e-5), float32(1e-5), float32(1e-12), 1.0, float32(1e-3), 2.0**-20)


def draw_gelu(b: Builder) -> None:
    """A gelu node, by either formula."""
    forms: tuple[Literal["none", "tanh"], ...] = ("none", "tanh")
    element = b.qtype if b.d.rarely(2) else b.output(b.qtype.scale[0])
    b.add_node(Gelu(approximate=b.d.pick(forms)), (b.current,), element)


def _squares_fit(b: Builder) -> bool:
    """Whether squares stay far within float32."""
    return 2.0**-40 <= b.qtype.scale[0] <= 2.0**40


def fits_layer_norm(b: Builder) -> bool:
    """Whether there is something to normalize."""
    return bool(b.type.shape) and b.type.shape[-1] > 0 and _squares_fit(b)


def draw_layer_norm(b: Builder) -> None:
    """A layer_norm node, mostly over the last axis; scale and bias, if any, have its shape or broadcast to it."""
    d = b.d
    shape = b.type.shape
    rank = len(shape)
    choices = [a for a in range(rank - 1, -1, -1) if 0 not in shape[a:]]
    axis = d.pick(choices) if d.rarely(2) else rank - 1
    own = bias = shape[axis:]
    form = d.integer(0, 15)
    if form == 10:
        own = bias = (1,)
    elif form == 11 and not b.flavour.common and 0 not in shape:
        own = tuple(n if d.integer(0, 1) else 1 for n in shape)
        bias = shape[axis:] if d.integer(0, 1) else own
    inputs, element = _parameters(b, own, bias)
    b.add_node(LayerNorm(axis=axis, epsilon=d.pick(EPSILONS)), inputs, element)


def fits_instance_norm(b: Builder) -> bool:
    """Whether the current value is a signal or an image."""
    return len(b.type.shape) >= 3 and 0 not in b.type.shape[1:] and _squares_fit(b)


def draw_instance_norm(b: Builder) -> None:
    """An instance_norm node; seldom without a bias, which ONNX needs."""
    own = (b.type.shape[1],)
    inputs, element = _parameters(b, own, own, without=0 if b.flavour.common else 1)
    b.add_node(InstanceNorm(epsilon=b.d.pick(EPSILONS)), inputs, element)


def draw_group_norm(b: Builder) -> None:
    """A group_norm node: one group, one a channel, or any number between."""
    d = b.d
    channels = b.type.shape[1]
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    groups = d.pick((1, channels, d.pick(divisors)))
    inputs, element = _parameters(b, (channels,), (channels,), floats=True)
    b.add_node(GroupNorm(groups=groups, epsilon=d.pick(EPSILONS)), inputs, element)


def fits_batch_norm(b: Builder) -> bool:
    """Whether there are channels."""
    return len(b.type.shape) >= 2 and b.type.shape[1] > 0 and _squares_fit(b)


def draw_batch_norm(b: Builder) -> None:
    """A batch_norm node: plain parameters first, then dyadic ones with roots that are powers of two, then any."""
    d = b.d
    n = b.type.shape[1]
    kind = d.integer(0, 7)
    magnitude, spread = b.scale(1.0, 3), b.scale(b.qtype.scale[0] * 16, 3)
    epsilon = d.pick(EPSILONS)
    steps = [fill.biases(d.key(), fill.UNIFORM, n, 64) for _ in range(3)]
    variance = np.full(n, spread**2)
    if kind < 4:
        epsilon = d.pick((epsilon, 1.0, 2.0**-20))
        powers = epsilon * 4.0 ** fill.below(fill.words(d.key(), n), 4)
        variance = np.maximum(powers - epsilon, 0.0)  # their sum with epsilon is a power of 4
    elif kind < 7:
        variance = variance * (fill.below(fill.words(d.key(), n), 2**20) * 2.0**-19)
    scale = np.where(steps[0] == 0, 32, steps[0]) / 32 * magnitude * np.sqrt(variance + epsilon)
    deviation = float(np.sqrt(variance + epsilon).max(initial=1.0))
    unit = magnitude / 32
    parameters = [scale, steps[1] * unit, steps[2] * spread / 16, variance]
    names = [b.add_constant(p, "float32", v.astype(np.float32)) for p, v in zip("sbmv", parameters, strict=True)]
    output = b.output(max(b.qtype.scale[0] * magnitude, unit, deviation * 2.0**-30), unit=unit)
    relu = d.rarely(3)
    b.choose_call()
    b.add_node(BatchNorm(epsilon=epsilon, relu=relu), (b.current, *names), output)


def _parameters(
    b: Builder, shape: tuple[int, ...], bias_shape: tuple[int, ...], *, without: int = 2, floats: bool = False
) -> tuple[tuple[str, ...], QType]:
    """Names of x, scale and bias, and the output's type: normalized values fill its range up to a few powers of two.

    `without`: nothing is left out, or the bias, or either bias or both; `floats`: nothing is quantized.
    """
    d = b.d
    n = math.prod(shape)
    kind = d.integer(0, 3 if floats else 9) % 8
    magnitude = b.scale(1.0, 3)
    left_out = d.pick((0, 0, 0, 0, 0, 0, min(without, 1), without))
    if left_out == 2 and not b.flavour.common:
        return (b.current,), b.output(1 / 32, unit=1 / 32)
    if kind < 4:  # ones, then dyadic numbers, then any
        steps = fill.biases(d.key(), fill.UNIFORM, n, 64) if kind else np.full(n, 32)
        weight = (steps / 32 * magnitude).astype(np.float32)
        scale = b.add_constant("s", "float32", weight.reshape(shape))
        unit = magnitude / 32
    else:
        dtype = "uint8" if kind == 7 else "int8"
        q = QType.per_tensor(dtype, float32(magnitude / 64), 0)  # type: ignore[arg-type]
        scale = b.add_constant("s", q, fill.quantized(d.key(), fill.UNIFORM, shape, dtype, 0))
        unit = q.scale[0]
    inputs: tuple[str, ...] = (b.current, scale)
    bias = d.integer(0, 7)
    if not left_out:
        largest = 64
        if kind >= 4 and bias >= 4:
            largest = max(1, int(min(64 / b.qtype.scale[0], 2.0**20)))
        steps = fill.biases(d.key(), fill.UNIFORM, math.prod(bias_shape), largest).reshape(bias_shape)
        if kind >= 4 and bias >= 4:
            inputs = (*inputs, b.add_constant("b", "int32", steps.astype(np.int32)))
        else:
            inputs = (*inputs, b.add_constant("b", "float32", (steps * unit).astype(np.float32)))
    return inputs, b.output(magnitude / 32, unit=unit)


def fits_mean(b: Builder) -> bool:
    """Whether there is an axis to reduce."""
    return any(b.type.shape)


def draw_mean(b: Builder) -> None:
    """A mean node: over spatial axes, or any others, or all, or none."""
    d = b.d
    shape = b.type.shape
    some = [a for a, n in enumerate(shape) if n]
    form = d.integer(0, 5)
    noop = False
    if form == 0 or (form < 3 and len(shape) > 2 and 0 not in shape[2:]):
        axes: tuple[int, ...] = tuple(a for a in some if a >= 2) or tuple(some[-1:])
    elif form < 5:
        axes = tuple(a for a in some if d.integer(0, 1)) or tuple(some[:1])
    else:
        axes, noop = (), bool(d.integer(0, 1)) or len(some) < len(shape)
    noop = noop or (form == 4 and bool(axes))
    count = math.prod(shape[a] for a in axes) if axes or noop else math.prod(shape)
    keepdims = not d.rarely(3)
    unit = b.qtype.scale[0]
    element = b.qtype if d.rarely(3) else b.output(unit / 2, unit=unit / count)
    b.add_node(Mean(axes=axes, keepdims=keepdims, noop_with_empty_axes=noop), (b.current,), element)


def draw_std(b: Builder) -> None:
    """A std node: over the last axes, or any others, or all."""
    d = b.d
    shape = b.type.shape
    some = [a for a, n in enumerate(shape) if n]
    form = d.integer(0, 5)
    axes: tuple[int, ...] = ()
    if form < 3:
        axes = tuple(range(d.integer(0, len(shape) - 1), len(shape)))
    elif form < 5:
        axes = tuple(a for a in some if d.integer(0, 1))
    if any(a not in some for a in axes or range(len(shape))):
        axes = tuple(some[-1:])
    n = math.prod(shape[a] for a in axes or range(len(shape)))
    correction = 0 if n == 1 else d.pick((1, 0, 1, 2))
    op = Std(axes=axes, keepdims=bool(d.integer(0, 1)), correction=min(correction, n - 1))
    element = b.qtype if d.integer(0, 2) < 2 else b.output(b.qtype.scale[0])
    b.add_node(op, (b.current,), element)
