"""Definitions of whole layers for `slow_evaluator`: their text, element by element, at any precision of mpmath."""

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
