"""softmax: e^x_i over the sum of e^x_j along one axis.

Semantics: ONNX Softmax (opset 13 and later); `torch.nn.functional.softmax`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qfuzz.exact import elementary
from qfuzz.exact.reals import Reals
from qfuzz.exact.rounding import Floats, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.semantics import ExactOperator, Image, Operand, check_rescaling, output_scale, zero_point_magnitude
from qfuzz.ops.table import known_reals


class Softmax(ExactOperator, frozen=True, kw_only=True, tag="softmax"):
    """Normalized exponentials along `axis`."""

    axis: int

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        (x,) = inputs
        check_rescaling(x, element)
        if not 0 <= self.axis < len(x.shape):
            raise InvalidCase(f"axis: {self.axis}; needs 0..{len(x.shape) - 1} for shape {x.shape}")
        return x.shape

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        (x,) = operands
        lo, hi = (np.moveaxis(a, self.axis, -1) for a in x.centered())
        scale_x, scale_y = float(x.scale), output_scale(element)
        if x.is_point:
            r = self._point(lo, x, element)
            lower = upper = r
        else:
            # Increasing in its own input, decreasing in every other one.
            lower = known_reals(
                self._back(_share(lo, hi, scale_x) / float(scale_y) * (1 - 2 * elementary.FILTER_MARGIN))
            )
            upper = known_reals(
                self._back(_share(hi, lo, scale_x) / float(scale_y) * (1 + 2 * elementary.FILTER_MARGIN))
            )
        return SoftmaxImage(lower, upper, x, self.axis, float(scale_y), zero_point_magnitude(element))

    def _back(self, a: Floats) -> Floats:
        return np.ascontiguousarray(np.moveaxis(a, -1, self.axis))

    def _point(self, n: Floats, x: Operand, element: Element) -> Reals:
        scale_y = output_scale(element)
        approx = _share(n, n, float(x.scale)) / float(scale_y)
        # Rational only where all inputs along the axis are equal (Lindemann-Weierstrass): then 1/length.
        length = n.shape[-1]
        equal = (n == n[..., :1]).all(axis=-1, keepdims=True) if length else np.zeros(n.shape, dtype=bool)
        dyadic = length > 0 and Fraction(float(1 / (length * scale_y))) == 1 / (length * scale_y)
        approx = np.where(equal, float(1 / (max(length, 1) * scale_y)), approx)
        error = np.where(equal & dyadic, 0.0, np.abs(approx) * 2 * elementary.FILTER_MARGIN + 1e-300)
        shape = x.type.shape
        rows = n.reshape(-1, length) if length else n.reshape(0, 0)
        position = self._back(np.arange(float(n.size)).reshape(n.shape)).ravel()

        def refine(i: int, bits: int) -> tuple[Fraction, Fraction]:
            row, column = divmod(int(position[i]), length)
            values = [int(v) for v in rows[row]]
            if all(v == values[0] for v in values):
                exact = 1 / (length * scale_y)
                return exact, exact
            own = values[column]
            low = high = Fraction(0)
            for v in values:
                difference = (v - own) * x.scale
                if difference > 10_000:  # the share is below every boundary, and not 0
                    return Fraction(1, 2**12_000), Fraction(1, 2**12_000)
                a, b = elementary.exp(difference, bits)
                low, high = low + a, high + b
            return 1 / (high * scale_y), 1 / (low * scale_y)

        return Reals(self._back(approx).reshape(shape), self._back(error).reshape(shape), refine)


def _share(own: Floats, others: Floats, scale: float) -> Floats:
    """e^own_i / (e^own_i + sum over j != i of e^others_j) along the last axis."""
    if own.shape[-1] == 0:
        return own
    if own is others:
        e = np.exp((own - own.max(axis=-1, keepdims=True)) * scale)
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    # Each element has its own row of rivals, and the largest of that row: others' own values must not scale it to 0.
    rivals = np.where(np.eye(own.shape[-1], dtype=bool), own[..., :, None], others[..., None, :])
    top = rivals.max(axis=-1)
    total = np.exp((rivals - top[..., None]) * scale).sum(axis=-1)
    return np.asarray(np.exp((own - top) * scale) / total)


@dataclass(frozen=True)
class SoftmaxImage(Image):
    """Shares, and how float32 kernels err on them.

    With arguments of exp off by d_j, a numerator is off by the factor e^d_i and the sum by at most the p-weighted mean
    of e^d_j; positive terms are summed with a relative error of gamma_n (Higham, section 4.2).
    """

    lower: Reals
    upper: Reals
    x: Operand
    axis: int
    scale_y: float
    zero_point_y: float

    def error(self, contract: Contract) -> Floats:
        p = self.upper.approx
        if contract.terms == "exact" or p.size == 0:
            return np.zeros_like(p)
        scale = float(self.x.scale)
        magnitude = (self.x.affine_magnitude() if contract.terms == "affine" else self.x.magnitude()) * scale
        top = magnitude.max(axis=self.axis, keepdims=True)
        # x_i and x_max are each off by gamma_k of their magnitude; their difference is rounded once more, in k.
        d = gamma(contract.k) * (magnitude + top) * 2.0
        n = p.shape[self.axis]
        grown = np.expm1(np.minimum(d, 1.0))
        share = np.minimum(p * self.scale_y, 1.0)
        total = np.minimum((share * grown).sum(axis=self.axis, keepdims=True), 0.5)
        rounding = gamma(contract.k + n + 2 * contract.function_ulps)
        relative = (1.0 + grown) / (1.0 - total) * (1.0 + rounding) - 1.0
        bound = p * relative
        if contract.terms == "affine":
            bound = bound + gamma(contract.k) * (p + self.zero_point_y)
        return np.asarray(bound)
