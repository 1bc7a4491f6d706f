"""The drawing side of recurrent."""

import math

import numpy as np

from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ops.recurrent import GATES, SMALLEST, Recurrent
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder, RealRange

FEATURES, HIDDEN = (1, 2, 3, 4, 5, 8, 9, 17, 33, 64), (1, 2, 3, 4, 5, 8, 9, 17)


def draw_recurrent(b: Builder) -> None:
    """A recurrent node on a new float32 input, which ends a branch: what follows reads what was there before."""
    d = b.d
    source, common = b.current, b.flavour.common
    cell = d.integer(0, 2) < 2
    kind = d.pick(("rnn_tanh", "rnn_relu", "lstm", "gru") if cell else ("lstm", "gru"))
    layers, bidirectional = (1, False) if cell else (d.pick((1, 1, 2, 3)), d.rarely(3))
    directions = 2 if bidirectional else 1
    n_cells = layers * directions
    length, batch = d.integer(1, 4), d.pick((1, 2, 3, 8) if common else (1, 2, 3, 8, 0))
    features, hidden = d.pick(FEATURES), d.pick(HIDDEN)
    batch_first = not cell and d.rarely(3)
    lead = (batch,) if cell else (batch, length) if batch_first else (length, batch)
    x = b.add_input((*lead, features), "float32")
    magnitude = d.pick((1.0, 1.0, 2.0**-6, 2.0**5, SMALLEST * 128 if common else SMALLEST))
    b.ranges[x] = RealRange(d.integer(0, fill.N_RANGES - 1), magnitude)
    halves = d.rarely(4)
    older = d.rarely(3)
    if older:
        b.forms.append(("entry", d.pick(("older", "unpacked")) if cell else "unpacked"))
    if not cell and d.integer(0, 1):
        b.forms.append(("call", "overload"))
    rows = GATES[kind] * hidden
    inputs = [x]
    for i in range(n_cells):
        read = features if i < directions else directions * hidden
        for name, columns in (("w", read), ("r", hidden)):
            inputs.append(_weight(b, f"{name}{i}_", (rows, columns), halves=halves, one_scale=older))
        for name in "bc":
            inputs.append(_reals(b, f"{name}{i}_", (rows,), 1.0))
    state = (batch, hidden) if cell else (n_cells, batch, hidden)
    inputs += [_reals(b, name, state, d.pick((1.0, 0.25, 4.0))) for name in ("h", "c")[: 1 + (kind == "lstm")]]
    outputs = ("y", "y", *("c",) * (kind == "lstm"), *("h",) * (not cell))
    op = Recurrent(
        kind=kind,  # type: ignore[arg-type]
        layers=layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        reduce_range=not older and (cell or d.integer(0, 1) == 0),
        output=d.pick(outputs),  # type: ignore[arg-type]
    )
    b.add_node(op, tuple(inputs), "float32")
    b.current = source


def _reals(b: Builder, name: str, shape: tuple[int, ...], around: float) -> str:
    """Numbers of about `around`; or all 0."""
    integers = fill.biases(b.d.key(), b.d.pick((fill.UNIFORM, fill.EDGES, fill.FLAT)), math.prod(shape), 256)
    unit = around / (256 if b.flavour.dyadic else 200)
    return b.add_constant(name, "float32", (integers * unit).astype(np.float32).reshape(shape))


def _weight(b: Builder, name: str, shape: tuple[int, int], *, halves: bool, one_scale: bool) -> str:
    d = b.d
    around = d.pick((1.0, 1.0, 0.25, 4.0)) / math.sqrt(shape[1])
    if halves:
        element: Element = "float32"
        data = fill.reals(d.key(), d.pick((fill.UNIFORM, fill.MIXED, fill.NARROW)), shape, 2.0**-8) * np.float32(around)
        return b.add_constant(name, element, data)
    scale = b.scale(around / 64, 1)
    kind = d.integer(0, 5)
    zero_point = 0 if kind < 5 or b.flavour.common else d.pick((1, -128, 127, -5))
    q = QType.per_tensor("int8", scale, zero_point)
    if kind in (1, 2) and not one_scale:
        steps = fill.below(fill.words(d.key(), shape[0]), 3)
        q = QType("int8", tuple(float32(scale * 2.0 ** int(s - 1)) for s in steps), (zero_point,) * shape[0], 0)
    style = d.pick((fill.UNIFORM, fill.UNIFORM, fill.EXTREMES, fill.NARROW))
    data = fill.quantized(d.key(), style, shape, "int8", zero_point)
    return b.add_constant(name, q, fill.with_ends(data) if ("entry", "unpacked") in b.forms else data)
