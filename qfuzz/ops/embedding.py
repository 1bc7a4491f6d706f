"""embed_layer_norm: rows of quantized tables, summed and normalized, as one kernel that ends in float32.

Semantics: QEmbedLayerNormalization of onnxruntime/docs/ContribOperators.md (com.microsoft, version 1): the embeddings
of a word, of its position in the sequence and, maybe, of its segment "are added then applied layer normalization using
gamma and beta": (e - mean) / sqrt(variance + epsilon) * gamma + beta, the variance that of the n features of a word.
Indices are within their tables; others the kernel refuses when it runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from qfuzz.exact.arithmetic_model import FLOAT64, NONE, Rounding, float32_rounding
from qfuzz.exact.float32_sides import settled_float32
from qfuzz.exact.intervals import Interval, hull, magnitude, times, widened
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.semantics import EnclosedImage, ExactOperator, Image, Operand, check_narrow, per_tensor
from qfuzz.ops.table import known_reals

MIN_SCALE, MAX_SCALE = 2.0**-44, 2.0**44
"""Of tables, so that squares of features and their sums are normal float32 numbers."""
MIN_EPSILON, MAX_EPSILON = 2.0**-60, 2.0**60
_TABLES = {0: "words", 2: "positions", 3: "gamma", 4: "beta", 6: "segments"}
_INDICES = {1: "word ids", 5: "segment ids"}


class EmbedLayerNorm(ExactOperator, frozen=True, kw_only=True, tag="embed_layer_norm"):
    """Embedded, normalized words [batch, length, features] of ids [batch, length].

    Inputs are words [n_words, features], word ids, positions [at least length, features], gamma and beta [features],
    then, both or none, segment ids [batch, length] and segments [n_segments, features]; all tables have one dtype.

    Attributes
    ----------
    epsilon
        What is added to the variance.
    """

    arity = (5, 7)
    constant_inputs = (1, 2, 3, 4, 5, 6)

    epsilon: float = float32(1e-12)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        if element != "float32":
            raise InvalidCase("output: quantized elements; embed_layer_norm gives float32 elements")
        if len(inputs) == 6:
            raise InvalidCase("6 inputs; segment ids and segments come together")
        if float32(self.epsilon) != self.epsilon or not MIN_EPSILON <= self.epsilon <= MAX_EPSILON:
            raise InvalidCase(f"epsilon: {self.epsilon!r}; needs a float32 in {MIN_EPSILON!r}..{MAX_EPSILON!r}")
        words, ids = inputs[:2]
        check_narrow(inputs, element)
        if len(words.shape) != 2 or not words.shape[1]:
            raise InvalidCase(f"words: shape {words.shape}; needs [words, features], and features")
        if len(ids.shape) != 2:
            raise InvalidCase(f"word ids: shape {ids.shape}; needs [batch, length]")
        features = words.shape[1]
        for position, name in _TABLES.items():
            if position >= len(inputs):
                continue
            t = inputs[position]
            q = per_tensor(t, name)
            if q.dtype != words.dtype:
                raise InvalidCase(
                    f"{name}: {q.dtype} where words are {words.dtype}; the schema has one type T2 for all"
                )
            if not MIN_SCALE <= q.scale[0] <= MAX_SCALE:
                raise InvalidCase(f"{name}: scale {q.scale[0]!r}; needs {MIN_SCALE!r} to {MAX_SCALE!r}")
            rank = 1 if name in ("gamma", "beta") else 2
            if len(t.shape) != rank or t.shape[-1] != features:
                raise InvalidCase(f"{name}: shape {t.shape}; needs rank {rank} with {features} features")
        if inputs[2].shape[0] < ids.shape[1]:
            raise InvalidCase(f"positions: {inputs[2].shape[0]} of them for a length of {ids.shape[1]}")
        for position, name in _INDICES.items():
            if position < len(inputs) and (inputs[position].element, inputs[position].shape) != ("int32", ids.shape):
                raise InvalidCase(f"{name}: {inputs[position]}; needs int32 of shape {ids.shape}")
        return (*ids.shape, features)

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        for position, table in ((1, 0), (5, 6)):
            if position in constants and constants[position].array.size:
                ids, rows = constants[position].array, inputs[table].shape[0]
                if ids.min() < 0 or ids.max() >= rows:
                    raise InvalidCase(f"{_INDICES[position]}: {ids.min()}..{ids.max()}; the table has 0..{rows - 1}")

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        words, ids = operands[:2]
        rows = ids.lo.astype(np.int64)
        parts = [_real(words, rows), _real(operands[2], np.arange(rows.shape[1]))]
        if len(operands) > 5:
            parts.append(_real(operands[6], operands[5].lo.astype(np.int64)))
        gamma, beta = (_real(o, np.array(True))[0] for o in operands[3:5])
        norm = _Normalized(self, tuple(parts), gamma.reshape(-1), beta.reshape(-1))
        lo, hi = norm.output(FLOAT64)
        if not words.is_point:
            return EmbedLayerNormImage(known_reals(lo), known_reals(hi), norm)
        approx, _ = norm.output(NONE)
        error = np.maximum(hi - approx, approx - lo) * (1 + 2.0**-20)
        r = settled_float32(Reals(approx, error, norm.bounds))
        return EmbedLayerNormImage(r, r, norm)


def _real(table: Operand, rows: npt.NDArray[np.generic]) -> Interval:
    """The real numbers in rows of a table: exact products of 8 and 24 bits."""
    lo, hi = table.centered()
    scale = table.float_scale
    low = lo[rows] * scale
    return (low, low) if lo is hi else (low, hi[rows] * scale)


@dataclass(frozen=True)
class _Normalized:
    """What is summed and normalized, in the order of contrib_ops/cpu/quantization/qembed_layer_norm.cc."""

    op: EmbedLayerNorm
    parts: tuple[Interval, ...]
    gamma: Floats
    beta: Floats

    def output(self, rounding: Rounding) -> Interval:
        """Bounds of all outputs for any embeddings within `parts`, rounded as `rounding` says.

        A part is one product; sums of three parts, and then of n features, are off by gamma_(n + k) of the magnitudes
        of all of them, the mean by an n-th of that. A centered feature is off by what it and the mean are, and by its
        own subtraction. The sum of squares is of positive terms: gamma_(n + k), relatively, and so the root by half of
        that. No centered feature exceeds sqrt(n) deviations, whatever the roundings before the division.
        """
        n = self.gamma.size
        k = rounding.k
        size: Floats = np.asarray(sum(magnitude(p) for p in self.parts))
        lo: Floats = np.asarray(sum(p[0] for p in self.parts))
        hi: Floats = np.asarray(sum(p[1] for p in self.parts))
        mean_off = rounding.gamma(n + k) * size.sum(axis=-1, keepdims=True) / n
        # e_i - mean = e_i (1 - 1/n) - (sum of the others) / n
        others = lo.sum(axis=-1, keepdims=True) - lo, hi.sum(axis=-1, keepdims=True) - hi
        a = lo * (1 - 1 / n) - others[1] / n, hi * (1 - 1 / n) - others[0] / n
        off = rounding.gamma(k) * size + mean_off
        a = widened(a, off + rounding.unit * (magnitude(a) + off) + rounding.lost(k))
        greatest = magnitude(a) ** 2
        least = np.where((a[0] <= 0) & (a[1] >= 0), 0.0, np.minimum(a[0] ** 2, a[1] ** 2))
        relative = rounding.gamma(n + k)
        squares = [s.sum(axis=-1, keepdims=True) / n for s in (least, greatest)]
        low = (squares[0] * (1 - relative) + self.op.epsilon) * (1 - rounding.gamma(k)) - rounding.lost(n + k)
        high = (squares[1] * (1 + relative) + self.op.epsilon) * (1 + rounding.gamma(k)) + rounding.lost(n + k)
        low = np.maximum(low, self.op.epsilon * (1 - rounding.gamma(k)))
        ratio = times(a, (1 / np.sqrt(high), 1 / np.sqrt(low)))
        most = math.sqrt(n) * (1 + rounding.gamma(n + 3 * k))
        ratio = np.clip(ratio[0], -most, most), np.clip(ratio[1], -most, most)
        scaled = times(ratio, (self.gamma, self.gamma))
        off = rounding.gamma(k) * (magnitude(scaled) + np.abs(self.beta)) + rounding.lost(k) * (1 + np.abs(self.gamma))
        return widened((scaled[0] + self.beta, scaled[1] + self.beta), off)

    def bounds(self, i: int, bits: int) -> Bounds:
        """One output of known embeddings, in rationals: only a root is none."""
        shape = np.broadcast_shapes(*(p[0].shape for p in self.parts))
        *row, column = (int(j) for j in np.unravel_index(i, shape))
        parts = [np.broadcast_to(p[0], shape)[tuple(row)].tolist() for p in self.parts]
        features = [sum((Fraction(v) for v in values), Fraction(0)) for values in zip(*parts, strict=True)]
        mean = sum(features, Fraction(0)) / len(features)
        variance = sum(((f - mean) ** 2 for f in features), Fraction(0)) / len(features) + Fraction(self.op.epsilon)
        scaled = (features[column] - mean) * Fraction(float(self.gamma[column]))
        beta = Fraction(float(self.beta[column]))
        if scaled == 0:
            return beta, beta
        room = 4 ** (bits + 64)
        root = math.isqrt(variance.numerator * room // variance.denominator)
        exact = root * root * variance.denominator == variance.numerator * room
        roots = Fraction(root, 2 ** (bits + 64)), Fraction(root + (0 if exact else 1), 2 ** (bits + 64))
        ends = sorted(scaled / r for r in roots)
        return beta + ends[0], beta + ends[1]


@dataclass(frozen=True)
class EmbedLayerNormImage(EnclosedImage):
    """The outputs, and how far float32 kernels may be from them."""

    lower: Reals
    upper: Reals
    normalized: _Normalized

    def reached(self, contract: Contract, exact: Interval) -> Interval:
        """`k` counts what each stage does beside its sums: embeddings, centering, the root, the output."""
        return hull(exact, self.normalized.output(float32_rounding(contract.k, contract.function_ulps)))
