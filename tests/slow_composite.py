"""Definitions of whole layers for `slow_evaluator`: their text, element by element, at any precision of mpmath."""

import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

Index = tuple[int, ...]
Bounds = tuple[Fraction, Fraction]


def fraction(x: Any) -> Fraction:
    """An mpmath number as a rational."""
    sign, mantissa, exponent, _ = mpmath.mpf(x)._mpf_
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def number(x: Fraction | int | float) -> Any:
    """A rational at the working precision."""
    x = Fraction(x)
    return mpmath.mpf(x.numerator) / x.denominator


def at_precision(compute: Callable[[Index], Any]) -> Callable[[Index, int], Bounds]:
    """Bounds of `compute`, whose arguments and intermediate values stay below 2^300, from twice the precision.

    It gives a `Fraction` where it knows that the number is rational.
    """

    def real(index: Index, bits: int) -> Bounds:
        with mpmath.workprec(2 * bits + 700):
            result = compute(index)
            if isinstance(result, Fraction):
                return result, result
            value = fraction(result)
        room = Fraction(1, 2**bits)
        return value - room, value + room

    return real


def attention(op: Any, x: Any, w: Any, bias: Any, mask: Any = None) -> tuple[Index, Any]:
    """softmax(scale Q K^T + mask) V of each head."""
    batch, length, features = x.shape
    hidden = w.shape[1] // 3
    head = hidden // op.num_heads
    kept: dict[Index, Fraction] = {}

    def projected(which: int, n: int, token: int, column: int) -> Fraction:
        c = which * hidden + column
        key = (n, token, c)
        if key not in kept:
            products = (x.real((n, token, i)) * w.real((i, c)) for i in range(features))
            kept[key] = sum(products, Fraction(bias.at((c,))))
        return kept[key]

    def masked(n: int, query: int, token: int) -> bool:
        if mask is None:
            return False
        if len(mask.shape) == 3:
            return bool(mask.at((n, query, token)) == 0)
        if len(mask.shape) == 2:
            return bool(mask.at((n, token)) == 0)
        starts = mask.shape[0] != batch
        return token >= mask.at((n,)) or (starts and token < mask.at((batch + n,)))

    def compute(index: Index) -> Any:
        n, query, column = index
        first = column // head * head
        scale = 1 / mpmath.sqrt(head) if op.scale is None else number(op.scale)
        scores = {}
        for token in range(query + 1 if op.unidirectional else length):
            dot = sum(projected(0, n, query, c) * projected(1, n, token, c) for c in range(first, first + head))
            scores[token] = scale * number(dot) + (number(op.mask_filter_value) if masked(n, query, token) else 0)
        values = {token: projected(2, n, token, column) for token in scores}
        if len(set(values.values())) == 1 or len(set(scores.values())) == 1:
            return sum(values.values(), Fraction(0)) / len(values)
        top = max(scores.values())
        powers = {token: mpmath.exp(s - top) for token, s in scores.items()}
        mean = sum(p * number(values[token]) for token, p in powers.items())
        return mean / sum(powers.values())

    return (batch, length, hidden), at_precision(compute)


def stored_dynamically(
    values: dict[Index, Fraction], steps: int = 255, smallest: Fraction = Fraction(0)
) -> dict[Index, Fraction]:
    """What DynamicQuantizeLinear makes of these numbers, or a quantizer of other steps and scales, dequantized."""
    low, high = min([Fraction(0), *values.values()]), max([Fraction(0), *values.values()])
    if low == high:
        return dict.fromkeys(values, Fraction(0))
    scale = (high - low) / steps
    zero_point = min(max(round(-low / scale), 0), steps)
    scale = max(scale, smallest)
    return {i: (min(max(round(v / scale) + zero_point, 0), 255) - zero_point) * scale for i, v in values.items()}


def lstm(op: Any, x: Any, w: Any, r: Any, *rest: Any) -> tuple[Index, Any]:
    """Step by step; everything is computed for each element that is asked for, and kept by precision."""
    length, batch, features = x.shape
    directions, hidden = r.shape[:2]
    bias, initial_h, initial_c, peepholes = (*rest, *(None for _ in range(4 - len(rest))))
    cells = [(n, u) for n in range(batch) for u in range(hidden)]
    kept: dict[tuple[int, int], dict[str, list[dict[Index, Fraction]]]] = {}

    def function(name: str, z: Fraction) -> Fraction:
        if name == "tanh":
            return fraction(mpmath.tanh(number(z)))
        return fraction(1 / (1 + mpmath.exp(-number(z))))

    def run(j: int) -> dict[str, list[dict[Index, Fraction]]]:
        backward = op.direction == "reverse" or j == 1
        h = {(n, u): initial_h.real((j, n, u)) if initial_h else Fraction(0) for n, u in cells}
        c = {(n, u): initial_c.real((j, n, u)) if initial_c else Fraction(0) for n, u in cells}
        every = {(t, n, i): x.real((t, n, i)) for t in range(length) for n in range(batch) for i in range(features)}
        x_q = stored_dynamically(every)
        steps: dict[str, list[dict[Index, Fraction]]] = {"h": [], "c": []}
        for t in reversed(range(length)) if backward else range(length):
            h_q = stored_dynamically(h)

            def z(block: int, n: int, u: int, looked_at: Fraction | None, t: int = t, h_q: Any = h_q) -> Fraction:
                column = block * hidden + u
                total = sum((x_q[t, n, i] * w.real((j, i, column)) for i in range(features)), Fraction(0))
                total += sum((h_q[n, i] * r.real((j, i, column)) for i in range(hidden)), Fraction(0))
                if bias:
                    total += bias.real((j, column)) + bias.real((j, 4 * hidden + column))
                if peepholes and looked_at is not None:
                    total += peepholes.real((j, block * hidden + u)) * looked_at
                return total

            def clipped(x: Fraction) -> Fraction:
                return x if op.clip is None else min(max(x, -Fraction(op.clip)), Fraction(op.clip))

            new_h, new_c = {}, {}
            for n, u in cells:
                i = function("sigmoid", clipped(z(0, n, u, c[n, u])))
                f = 1 - i if op.input_forget else function("sigmoid", clipped(z(2, n, u, c[n, u])))
                g = function("tanh", clipped(z(3, n, u, None)))
                new_c[n, u] = f * c[n, u] + i * g
                new_h[n, u] = function("sigmoid", clipped(z(1, n, u, new_c[n, u]))) * function(
                    "tanh", clipped(new_c[n, u])
                )
            h, c = new_h, new_c
            steps["h"].append(h)
            steps["c"].append(c)
        if backward:
            steps = {name: states[::-1] for name, states in steps.items()}
        return steps

    def real(index: Index, bits: int) -> Bounds:
        *first, j, n, u = index
        with mpmath.workprec(2 * bits + 700):
            if (j, bits) not in kept:
                kept[j, bits] = run(j)
        last = 0 if op.direction == "reverse" or j == 1 else length - 1
        states = kept[j, bits]["c" if op.output == "y_c" else "h"]
        value = states[first[0] if first else last][n, u]
        if value == 0 or (value.denominator.bit_length() < 200 and value.numerator.bit_length() < 200):
            return value, value
        return value - Fraction(1, 2**bits), value + Fraction(1, 2**bits)

    shape = (directions, batch, hidden)
    return (length, *shape) if op.output == "y" else shape, real


def recurrent(op: Any, x: Any, *rest: Any) -> tuple[Index, Any]:
    """Layer by layer and step by step; everything is computed at once, and kept by precision."""
    cell = len(x.shape) == 2
    batch_axis = 0 if cell or op.batch_first else 1
    batch, length = x.shape[batch_axis], 1 if cell else x.shape[1 - batch_axis]
    directions = 2 if op.bidirectional else 1
    n_cells = op.layers * directions
    hidden = rest[1].shape[1]
    initial = rest[4 * n_cells :]
    halves = rest[0].element == "float32"
    kept: dict[int, tuple[Any, Any, Any]] = {}

    def place(t: int, n: int, *more: int) -> Index:
        return (n, *more) if cell else (n, t, *more) if op.batch_first else (t, n, *more)

    def weight(w: Any, index: Index) -> Fraction:
        if not halves:
            return w.real(index)  # type: ignore[no-any-return]
        value = min(max(float(w.at(index)), -65504.0), 65504.0)
        return Fraction(*struct.unpack("<e", struct.pack("<e", value)))

    def stored(values: dict[Index, Fraction]) -> dict[Index, Fraction]:
        steps = 127 if op.reduce_range else 255
        smallest = Fraction(*struct.unpack("<f", struct.pack("<f", 6.1e-5)))
        return values if halves else stored_dynamically(values, steps, smallest)

    def within(z: Fraction) -> Fraction:
        return min(max(z, Fraction(-9000)), Fraction(9000))  # beyond, nothing changes that a float32 could show

    def sigmoid(z: Fraction) -> Fraction:
        return fraction(1 / (1 + mpmath.exp(-number(within(z)))))

    def tanh(z: Fraction) -> Fraction:
        return fraction(mpmath.tanh(number(within(z))))

    def run() -> tuple[Any, Any, Any]:
        read = {(t, n, i): x.real(place(t, n, i)) for t in range(length) for n in range(batch)
                for i in range(x.shape[-1])}  # fmt: skip
        last_h, last_c, y = {}, {}, {}
        for layer in range(op.layers):
            y = {}
            width = max((i for _, _, i in read), default=0) + 1
            for direction in range(directions):
                j = layer * directions + direction
                w, r, b, c_bias = rest[4 * j : 4 * j + 4]
                state = [{(n, u): s.real((n, u) if cell else (j, n, u)) for n in range(batch) for u in range(hidden)}
                         for s in initial]  # fmt: skip
                h, c = state[0], state[-1]
                x_q = stored(read)
                for t in reversed(range(length)) if direction else range(length):
                    h_q = stored(h)

                    def of_x(block: int, n: int, u: int, t: int = t, w: Any = w, b: Any = b, x_q: Any = x_q,
                             width: int = width) -> Fraction:  # fmt: skip
                        row = block * hidden + u
                        products = (x_q[t, n, i] * weight(w, (row, i)) for i in range(width))
                        return sum(products, b.real((row,)))  # type: ignore[no-any-return]

                    def of_h(block: int, n: int, u: int, r: Any = r, b: Any = c_bias, h_q: Any = h_q) -> Fraction:
                        row = block * hidden + u
                        products = (h_q[n, i] * weight(r, (row, i)) for i in range(hidden))
                        return sum(products, b.real((row,)))  # type: ignore[no-any-return]

                    new_h, new_c = {}, dict(c)
                    for n, u in h:
                        if op.kind.startswith("rnn"):
                            z = of_x(0, n, u) + of_h(0, n, u)
                            new_h[n, u] = max(z, Fraction(0)) if op.kind == "rnn_relu" else tanh(z)
                        elif op.kind == "lstm":
                            i, f, g, o = (of_x(block, n, u) + of_h(block, n, u) for block in range(4))
                            new_c[n, u] = sigmoid(f) * c[n, u] + sigmoid(i) * tanh(g)
                            new_h[n, u] = sigmoid(o) * tanh(new_c[n, u])
                        else:
                            reset, update = (sigmoid(of_x(block, n, u) + of_h(block, n, u)) for block in (0, 1))
                            new = tanh(of_x(2, n, u) + reset * of_h(2, n, u))
                            new_h[n, u] = (1 - update) * new + update * h[n, u]
                    h, c = new_h, new_c
                    y |= {(t, n, direction * hidden + u): value for (n, u), value in h.items()}
                last_h |= {(j, n, u): value for (n, u), value in h.items()}
                last_c |= {(j, n, u): value for (n, u), value in c.items()}
            read = y
        return y, last_h, last_c

    def real(index: Index, bits: int) -> Bounds:
        with mpmath.workprec(2 * bits + 700):
            if bits not in kept:
                kept[bits] = run()
        if op.output == "y":
            at = (0, *index) if cell else (index[1], index[0], index[2]) if op.batch_first else index
        else:
            at = (0, *index) if cell else index
        value: Fraction = kept[bits]["yhc".index(op.output)][at]
        if value == 0 or (value.denominator.bit_length() < 200 and value.numerator.bit_length() < 200):
            return value, value
        return value - Fraction(1, 2**bits), value + Fraction(1, 2**bits)

    if cell:
        return (batch, hidden), real
    return place(length, batch, directions * hidden) if op.output == "y" else (n_cells, batch, hidden), real


def embed_layer_norm(op: Any, words: Any, ids: Any, positions: Any, gamma: Any, beta: Any, *more: Any) -> Any:
    """Rows of tables, added and normalized."""
    batch, length = ids.shape
    n = words.shape[1]

    def real(index: Index, bits: int) -> Bounds:
        b, s, column = index
        features = []
        for i in range(n):
            e = words.real((ids.at((b, s)), i)) + positions.real((s, i))
            if more:
                e += more[1].real((more[0].at((b, s)), i))
            features.append(e)
        mean = sum(features) / n
        variance = sum((e - mean) ** 2 for e in features) / n
        top = (features[column] - mean) * gamma.real((column,))
        if top == 0:
            return beta.real((column,)), beta.real((column,))
        with mpmath.workprec(2 * bits + 700):
            value = fraction(number(top) / mpmath.sqrt(number(variance + Fraction(op.epsilon)))) + beta.real((column,))
        return value - Fraction(1, 2**bits), value + Fraction(1, 2**bits)

    return (batch, length, n), real


def moe(op: Any, x: Any, router: Any, mixing: Any, w1: Any, w2: Any, *biases: Any) -> Any:
    """Each token's selected experts, mixed."""
    tokens, features = x.shape
    experts, rows, _ = w1.shape
    inner = w2.shape[2]

    def sigmoid(z: Fraction) -> Fraction:
        return fraction(1 / (1 + mpmath.exp(-number(z))))

    def between(n: int, e: int) -> list[Fraction]:
        z = [sum(x.real((n, i)) * w1.real((e, r, i)) for i in range(features)) for r in range(rows)]
        if biases:
            z = [v + biases[0].real((e, r)) for r, v in enumerate(z)]
        if op.activation == "identity":
            return z
        if op.activation == "relu":
            return [max(v, Fraction(0)) for v in z]
        if op.activation == "silu":
            return [v * sigmoid(v) for v in z]
        gates, linear = z[0::2], z[1::2]
        if op.limit is not None:
            limit = Fraction(op.limit)
            gates = [min(g, limit) for g in gates]
            linear = [min(max(v, -limit), limit) for v in linear]
        alpha, beta = Fraction(op.alpha), Fraction(op.beta)
        return [g * sigmoid(alpha * g) * (v + beta) for g, v in zip(gates, linear, strict=True)]

    def real(index: Index, bits: int) -> Bounds:
        n, column = index
        order = sorted(range(experts), key=lambda e: (-router.real((n, e)), e))[: op.top]
        total = sum(mixing.real((n, e)) for e in order) if op.normalized else Fraction(1)
        value = Fraction(0)
        with mpmath.workprec(2 * bits + 700):
            for e in order:
                hidden = between(n, e)
                y = sum(hidden[i] * w2.real((e, column, i)) for i in range(inner))
                y += biases[1].real((e, column)) if biases else 0
                value += mixing.real((n, e)) / total * y
        if op.activation in ("identity", "relu"):
            return value, value
        return value - Fraction(1, 2**bits), value + Fraction(1, 2**bits)

    return (tokens, features), real
