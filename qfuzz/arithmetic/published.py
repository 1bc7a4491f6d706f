"""Kernels that are published to compute a convolution or linear layer so, with the place where that is said."""

from typing import NamedTuple

from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.equality import Form, canonical


class Published(NamedTuple):
    """A kernel's name, its arithmetic, and the source."""

    name: str
    model: Contraction
    source: str


PUBLISHED: tuple[Published, ...] = (
    Published(
        "FBGEMM",
        Contraction(bias="before_multiplier", multiplier="float32", clamp="int32_conversion"),
        "pytorch/FBGEMM src/QuantUtilsAvx2.cc requantizeOutputProcessingAvx2",
    ),
    Published(
        "FBGEMM on AVX2",
        Contraction(
            products="int16_pairs_channels_last",
            bias="before_multiplier",
            multiplier="float32",
            clamp="int32_conversion",
        ),
        "pytorch/FBGEMM src/GenerateKernelU8S8S32ACC32.cc genComputeBlock: vpmaddubsw without VNNI",
    ),
    Published(
        "QNNPACK",
        Contraction(bias="int32", multiplier="float32_reciprocal", clamp="int32_conversion"),
        "pytorch aten/src/ATen/native/quantized/cpu/qnnpack q8gemm/*-sse2.c, qnnpack_utils.h "
        "generate_requantization_scales: fl(s_x * s_w) times fl(1 / s_y), as measured",
    ),
    Published(
        "MLAS",
        Contraction(bias="int32", multiplier="float32", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/quantize.cpp MlasRequantizeOutput",
    ),
    Published(
        "MLAS on AVX2",
        Contraction(products="int16_pairs_channels_last", bias="int32", multiplier="float32", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/x86_64/QgemmU8S8KernelAvx2.S: vpmaddubsw without VNNI",
    ),
    Published(
        "oneDNN",
        Contraction(
            bias="after_multiplier",
            multiplier="scaled_reciprocal",
            zero_point="before_rounding",
            clamp="before_rounding",
        ),
        "uxlfoundation/oneDNN doc/advanced/int8_computations.md and src/cpu/x64 jit x8s8s32x kernels: scales, bias, "
        "1/scale_y, zero point in float32, then saturation and conversion",
    ),
    Published(
        "XNNPACK fp32",
        Contraction(bias="int32", multiplier="float32", rounding="magic", clamp="before_rounding"),
        "google/XNNPACK src/qs8-gemm/scalar.c.in, fmagic: min, max, plus 12582912.0f",
    ),
    Published(
        "TFLite and CMSIS-NN, double rounding; gemmlowp",
        Contraction(bias="int32", multiplier="q31", rounding="half_away"),
        "google/gemmlowp fixedpoint/fixedpoint.h; tensorflow/lite/kernels/internal/common.cc "
        "MultiplyByQuantizedMultiplier; ARM-software/CMSIS-NN Include/arm_nnsupportfunctions.h arm_nn_requantize",
    ),
    Published(
        "TFLite and CMSIS-NN, single rounding",
        Contraction(bias="int32", multiplier="q31_single", rounding="half_up"),
        "tensorflow/lite/kernels/internal/common.cc with TFLITE_SINGLE_ROUNDING",
    ),
    Published(
        "TFLite with 16-bit activations",
        Contraction(bias="int32", multiplier="fixed16", rounding="half_up"),
        "tensorflow/lite/kernels/internal/common.cc MultiplyByQuantizedMultiplier(int64_t, ...)",
    ),
    Published(
        "dequantize, float32 sgemm of MLAS, quantize",
        Contraction(
            operands="dequantized",
            accumulator="float32_fma",
            bias="after_multiplier",
            multiplier="scaled_divided",
            clamp="before_rounding",
        ),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/x86_64/FgemmKernelFma3Common.h (one chain of fused "
        "multiply-adds below a panel of K), quantize.cpp MlasQuantizeLinear",
    ),
)
"""In the order in which they are named."""


def published_as(model: Contraction, form: Form) -> tuple[Published, ...]:
    """The published kernels that cannot differ from `model` on `form`."""
    wanted = canonical(model, form)
    return tuple(p for p in PUBLISHED if canonical(p.model, form) == wanted)
