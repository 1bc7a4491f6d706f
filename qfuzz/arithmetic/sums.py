"""Elementwise sums and products of two quantized tensors."""

from typing import Literal

import numpy as np

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.dequantized import Output, dequantized
from qfuzz.arithmetic.family import Published
from qfuzz.arithmetic.fixed_point import (
    doubling_high_multiply,
    halves_of_shift,
    multiplied_once,
    multiplied_q31,
    quantized_multiplier,
    rounding_shift,
)
from qfuzz.arithmetic.float32 import fma
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Ints
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType

_DEQUANTIZED = ("dequantized", "dequantized_fma")
_RATIOS = ("ratios", "ratios_fma")


class Sum(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `add`.

    Attributes
    ----------
    operands
        ``dequantized`` and ``dequantized_fma``: float32 real numbers; ``ratios``: stored integers times
        r = fl(s / s_y), one after the other added to fixed = fl(z_y - (r_a * z_a + r_b * z_b)); ``ratios_fma`` the
        same by fused multiply-adds, b first (MLAS). ``fixed21`` and ``fixed22``: multipliers of that many bits with
        one shift for both (XNNPACK, QNNPACK); ``q31``: three doubling high multiplies (TFLite).
    """

    operands: Literal[
        "exact", "dequantized", "dequantized_fma", "ratios", "ratios_fma", "fixed21", "fixed22", "q31"
    ] = "exact"
    output: Output = "own"


def why_not_sum(m: Sum) -> str | None:
    """Why these choices do not go together, or None."""
    if (m.output != "own") != (m.operands in _DEQUANTIZED):
        return "only dequantized operands come into output units after the sum"
    if m.operands in _RATIOS and m.zero_point != "before_rounding":
        return "sums of ratios begin with the output zero point"
    if m.operands == "exact":
        return rounded.why_not(m)
    if m.operands in ("fixed21", "fixed22", "q31"):
        return rounded.why_not_of_integers(m)
    return rounded.why_not_of_floats(m)


class SumEvaluation(RoundedEvaluation):
    """An `add` on known inputs."""

    def compute(self, model: Sum) -> Array:
        """The sum in output units."""
        a, b = self.centered(0), self.centered(1)
        match model.operands:
            case "exact":
                return self.exact()
            case "ratios" | "ratios_fma":
                return self._of_ratios(fused=model.operands == "ratios_fma")
            case "fixed21" | "fixed22":
                return self._fixed(a, b, int(model.operands[-2:]))
            case "q31":
                return self._q31(a, b)
            case _:
                z = [t.qtype.zero_point[0] for t in self.types]
                real = dequantized(a, z[0], self.scale(0), model.operands)
                return self.over_scale(real + dequantized(b, z[1], self.scale(1), model.operands), model.output)

    def zero_point_added(self, model: Sum) -> bool:
        """Sums of ratios begin with it."""
        return model.operands in _RATIOS or super().zero_point_added(model)

    def _of_ratios(self, *, fused: bool) -> Array:
        assert isinstance(self.element, QType)
        qa, qb = (a.astype(np.float32) for a in self.arrays)
        ra, rb = self.scale(0) / self.scale_y, self.scale(1) / self.scale_y
        za, zb = (np.float32(t.qtype.zero_point[0]) for t in self.types)
        zero_y = np.float32(self.element.zero_point[0])
        if fused:
            fixed = zero_y - fma(np.asarray(ra), np.asarray(za), np.asarray(rb * zb))
            return fma(qa, np.asarray(ra), fma(qb, np.asarray(rb), fixed))
        fixed = np.asarray(zero_y - (ra * za + rb * zb))
        return np.asarray((fixed + qa * ra) + qb * rb)

    def _fixed(self, a: Ints, b: Ints, bits: int) -> Array:
        ratios = np.array([self.scale(0) / self.scale_y, self.scale(1) / self.scale_y]).astype(np.float64)
        shift = bits - 1 - (np.frexp(ratios.max())[1] - 1)
        ma, mb = np.rint(ratios * 2.0**shift).astype(np.int64)
        value = a * ma + b * mb
        right = np.asarray(shift, dtype=np.int64)
        return halves_of_shift(value, right) if 0 <= shift <= 62 else np.asarray(np.ldexp(value.astype(float), -shift))

    def _q31(self, a: Ints, b: Ints) -> Array:
        scales = np.array([float(t.qtype.scale[0]) for t in self.types])
        twice = 2 * scales.max()
        total = np.zeros((), dtype=np.int64)
        for values, scale in zip((a, b), scales, strict=True):
            mantissa, exponent = quantized_multiplier(np.asarray(scale / twice))
            total = total + rounding_shift(doubling_high_multiply(values << 20, mantissa), np.clip(-exponent, 0, 62))
        return halves_of_shift(*multiplied_q31(total, np.asarray(twice / (2.0**20 * float(self.scale_y)))))


SUMS: tuple[Published, ...] = (
    Published(
        "PyTorch add, vectors",
        Sum(operands="dequantized_fma", output="reciprocal", clamp="int32_limit"),
        "pytorch aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp qadd_kernel, cpu/vec/vec512/"
        "vec512_qint.h: fma(s, q, s * -z), QuantizeAvx512",
    ),
    Published(
        "PyTorch add, scalars",
        Sum(operands="dequantized", output="reciprocal", zero_point="before_rounding"),
        "pytorch QuantizedOpKernels.cpp qadd_kernel: dequantize_val, quantize_val with fbgemm::Quantize",
    ),
    Published(
        "MLAS add on AVX2",
        Sum(operands="ratios_fma", zero_point="before_rounding", clamp="int32_conversion"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/intrinsics/avx2/qladd_avx2.cpp",
    ),
    Published(
        "MLAS add",
        Sum(operands="ratios", zero_point="before_rounding", clamp="int32_conversion"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/qladd.cpp MlasQLinearAddKernelHelper",
    ),
    Published(
        "dequantize, add, quantize of ONNX Runtime",
        Sum(operands="dequantized", output="divided", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/quantize.cpp MlasQuantizeLinear",
    ),
    Published(
        "QNNPACK add",
        Sum(operands="fixed22", rounding="half_away"),
        "pytorch aten/src/ATen/native/quantized/cpu/qnnpack/src/q8vadd/sse2.c",
    ),
    Published(
        "XNNPACK add",
        Sum(operands="fixed21", rounding="half_up"),
        "google/XNNPACK src/qs8-vadd/scalar.c.in and src/microparams-init.c",
    ),
    Published(
        "TFLite and CMSIS-NN add",
        Sum(operands="q31", rounding="half_away"),
        "tensorflow/lite/kernels/internal/reference/integer_ops/add.h; ARM-software/CMSIS-NN arm_elementwise_add_s8.c",
    ),
)


class Product(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `mul`.

    Attributes
    ----------
    multiplier
        Of the integer product: ``float32`` fl(fl(s_a * s_b) / s_y); ``float32_reciprocal`` fl(fl(s_a * s_b) *
        fl(1 / s_y)); ``q31`` and ``q31_single`` in fixed point; ``dequantized``: none, real numbers are multiplied.
    """

    multiplier: Literal[
        "exact", "float32", "float32_reciprocal", "dequantized", "dequantized_fma", "q31", "q31_single"
    ] = "exact"
    output: Output = "own"


def why_not_product(m: Product) -> str | None:
    """Why these choices do not go together, or None."""
    if (m.output != "own") != (m.multiplier in _DEQUANTIZED):
        return "only dequantized operands come into output units after the product"
    if m.multiplier == "exact":
        return rounded.why_not(m)
    if m.multiplier in ("q31", "q31_single"):
        return rounded.why_not_of_integers(m)
    return rounded.why_not_of_floats(m)


class ProductEvaluation(RoundedEvaluation):
    """A `mul` on known inputs."""

    def compute(self, model: Product) -> Array:
        """The product in output units."""
        a, b = self.centered(0), self.centered(1)
        sa, sb, sy = self.scale(0), self.scale(1), self.scale_y
        real_multiplier = np.asarray(float(sa) * float(sb) / float(sy))
        match model.multiplier:
            case "exact":
                return self.exact()
            case "float32":
                return np.asarray((a * b).astype(np.float32) * ((sa * sb) / sy))
            case "float32_reciprocal":
                return np.asarray((a * b).astype(np.float32) * ((sa * sb) * (np.float32(1) / sy)))
            case "q31":
                return halves_of_shift(*multiplied_q31(a * b, real_multiplier))
            case "q31_single":
                return halves_of_shift(*multiplied_once(a * b, real_multiplier, 31))
            case _:
                z = [t.qtype.zero_point[0] for t in self.types]
                real = dequantized(a, z[0], sa, model.multiplier) * dequantized(b, z[1], sb, model.multiplier)
                return self.over_scale(real, model.output)


PRODUCTS: tuple[Published, ...] = (
    Published(
        "PyTorch mul, vectors",
        Product(multiplier="float32_reciprocal", clamp="int32_conversion_wrapping"),
        "pytorch QuantizedOpKernels.cpp qmul_kernel, cpu/vec/vec512/vec512_qint.h RequantizeAvx512",
    ),
    Published(
        "PyTorch mul, scalars",
        Product(multiplier="float32_reciprocal"),
        "pytorch QuantizedOpKernels.cpp qmul_kernel: requantize_from_int",
    ),
    Published(
        "MLAS mul",
        Product(multiplier="float32", zero_point="before_rounding", clamp="int32_conversion"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/qlmul.cpp",
    ),
    Published(
        "XNNPACK mul",
        Product(multiplier="float32", rounding="magic", clamp="before_rounding"),
        "google/XNNPACK src/qs8-vmul/scalar.c.in",
    ),
    Published(
        "dequantize, mul, quantize of ONNX Runtime",
        Product(multiplier="dequantized", output="divided", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/quantize.cpp MlasQuantizeLinear",
    ),
    Published(
        "TFLite and CMSIS-NN mul",
        Product(multiplier="q31", rounding="half_away"),
        "tensorflow/lite/kernels/internal/reference/integer_ops/mul.h",
    ),
)
