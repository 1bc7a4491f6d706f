"""Kernels that are published to compute a convolution or linear layer so, with the place where that is said."""

from qfuzz.arithmetic.contraction import Bias, Contraction, Multiplier, Products, Scales
from qfuzz.arithmetic.family import Published

_ONEDNN: tuple[tuple[str, Scales, tuple[Products, ...]], ...] = (
    ("convolution", "input_inverted_twice", ("exact", "int16_pairs_per_tap")),
    ("matmul", "inverted_twice", ("exact", "int16_pairs")),
    ("convolution and matmul, scales as they are", "own", ("exact", "int16_pairs_per_tap")),
)
"""ideep, between PyTorch's eager kernels and oneDNN, inverts the scales of a convolution's input, or of a matmul."""
_ONEDNN_MULTIPLIERS: tuple[Multiplier, ...] = ("scaled_reciprocal", "scaled_apart_reciprocal", "scaled_apart_divided")
"""Which of these depends on the implementation that oneDNN picks for a CPU and a type."""

_MLAS_BIASES: tuple[Bias, ...] = ("after_multiplier", "int32")

TO_FLOAT32 = Published(
    "MLAS, to float32",
    Contraction(bias="after_multiplier", multiplier="float32"),
    "microsoft/onnxruntime onnxruntime/core/mlas/lib/qpostprocessor.cpp: float(acc) * scale + bias",
)
"""Of products that are not quantized again."""

PUBLISHED: tuple[Published, ...] = (
    Published(
        "FBGEMM",
        Contraction(bias="before_multiplier", multiplier="float32", clamp="int32_conversion"),
        "pytorch/FBGEMM src/QuantUtilsAvx2.cc requantizeOutputProcessingAvx2",
    ),
    Published(
        "FBGEMM per tensor",
        Contraction(bias="before_multiplier_fused", multiplier="float32", clamp="int32_conversion"),
        "pytorch/FBGEMM src/QuantUtilsAvx2.cc: bias times 1 / act_times_w_scale, which the compiler contracts with the "
        "addition into a fused multiply-add, as measured",
    ),
    Published(
        "FBGEMM per tensor on AVX2",
        Contraction(
            products="int16_pairs_channels_last",
            bias="before_multiplier_fused",
            multiplier="float32",
            clamp="int32_conversion",
        ),
        "pytorch/FBGEMM src/QuantUtilsAvx2.cc and src/GenerateKernelU8S8S32ACC32.cc",
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
    *(
        Published(
            f"oneDNN's {primitive}" + (" on AVX2" if products != "exact" else ""),
            Contraction(
                products=products,
                bias="after_multiplier",
                multiplier=multiplier,
                scales=scales,
                zero_point="before_rounding",
                clamp="before_rounding",
            ),
            "uxlfoundation/oneDNN src/cpu/x64/jit_avx512_core_x8s8s32x_conv_kernel.cpp store_output and "
            "brgemm/jit_brgemm_kernel.cpp: scales, bias, 1/scale_y, zero point in float32, then saturation and "
            "conversion; by PyTorch through ideep, which inverts scales twice, as measured",
        )
        for primitive, scales, all_products in _ONEDNN
        for products in all_products
        for multiplier in _ONEDNN_MULTIPLIERS
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
    *(
        Published(
            "dequantize, float32 sgemm of MLAS, quantize" + ("" if bias == "after_multiplier" else ", int32 bias"),
            Contraction(
                operands="dequantized",
                accumulator="float32_fma",
                bias=bias,
                multiplier="scaled_divided",
                clamp="before_rounding",
            ),
            "microsoft/onnxruntime onnxruntime/core/mlas/lib/x86_64/FgemmKernelFma3Common.h (one chain of fused "
            "multiply-adds below a panel of K), quantize.cpp MlasQuantizeLinear; core/optimizer/qdq_transformer "
            "WeightBiasQuantization makes a float32 bias int32",
        )
        for bias in _MLAS_BIASES
    ),
)
