"""The catalogue: every family of arithmetics, the kernels that are published to work so, and faults by name."""

from collections.abc import Mapping, Sequence

from qfuzz.arithmetic import (
    contraction,
    conversions,
    dynamic_convolution,
    functions,
    matrices,
    means,
    normalizing,
    quantizing,
    rounded,
    sums,
)
from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.contraction_equalities import EQUALITIES
from qfuzz.arithmetic.contraction_published import PUBLISHED, TO_FLOAT32
from qfuzz.arithmetic.dynamic import DynamicEvaluation
from qfuzz.arithmetic.family import Family
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import BYTES
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.convolution import Conv
from qfuzz.ops.linear import Linear

FAMILIES: tuple[Family, ...] = (
    Family(
        contraction.Contraction,
        ("conv", "linear"),
        contraction.why_not,
        ContractionEvaluation,
        EQUALITIES,
        PUBLISHED,
        contraction.FAULTS,
    ),
    Family(
        contraction.Contraction,
        ("dynamic_linear",),
        contraction.why_not,
        DynamicEvaluation,
        published=(TO_FLOAT32, *PUBLISHED),
        faults=contraction.FAULTS,
    ),
    Family(
        contraction.Contraction,
        matrices.OPERATORS,
        contraction.why_not,
        matrices.MatrixEvaluation,
        EQUALITIES,
        PUBLISHED,
        contraction.FAULTS,
    ),
    Family(sums.Sum, ("add",), sums.why_not_sum, sums.SumEvaluation, rounded.EQUALITIES, sums.SUMS, rounded.FAULTS),
    Family(
        sums.Product,
        ("mul",),
        sums.why_not_product,
        sums.ProductEvaluation,
        rounded.EQUALITIES,
        sums.PRODUCTS,
        rounded.FAULTS,
    ),
    Family(
        means.Mean,
        ("avg_pool", "global_avg_pool"),
        means.why_not,
        means.MeanEvaluation,
        rounded.EQUALITIES,
        means.PUBLISHED,
        means.FAULTS,
    ),
    Family(
        quantizing.Quantizing,
        ("quantize",),
        quantizing.why_not,
        quantizing.QuantizingEvaluation,
        rounded.EQUALITIES,
        quantizing.PUBLISHED,
        rounded.FAULTS,
    ),
    Family(
        conversions.Conversion,
        conversions.OPERATORS,
        conversions.why_not,
        conversions.ConversionEvaluation,
        conversions.EQUALITIES,
        conversions.PUBLISHED,
        conversions.FAULTS,
    ),
    Family(
        functions.Function,
        functions.OPERATORS,
        functions.why_not_function,
        functions.FunctionEvaluation,
        functions.FUNCTION_EQUALITIES,
        functions.FUNCTIONS,
        rounded.FAULTS,
    ),
    Family(
        functions.Normalization,
        ("softmax",),
        functions.why_not_normalization,
        functions.NormalizationEvaluation,
        functions.NORMALIZATION_EQUALITIES,
        functions.NORMALIZATIONS,
        rounded.FAULTS,
    ),
    Family(
        normalizing.Normalizing,
        normalizing.OPERATORS,
        rounded.why_not,
        normalizing.NormalizingEvaluation,
        rounded.EQUALITIES,
        faults=normalizing.FAULTS,
    ),
    Family(
        dynamic_convolution.DynamicConvolution,
        dynamic_convolution.OPERATORS,
        rounded.why_not,
        dynamic_convolution.DynamicConvolutionEvaluation,
        rounded.EQUALITIES,
        faults=dynamic_convolution.FAULTS,
    ),
)
"""An operator is in one of them, or in `ROUNDED`."""

ROUNDED = Family(
    rounded.Rounded, (), rounded.why_not, rounded.RoundedEvaluation, rounded.EQUALITIES, faults=rounded.FAULTS
)
"""An exact result, rounded by choice: all that is asked of an operator that no family names."""

FAULTS: Mapping[str, Mapping[str, str]] = {
    "truncation": {"rounding": "truncation"},
    "half-away": {"rounding": "half_away"},
    "ties-up": {"rounding": "half_up"},
    "zero-point-before-rounding": {"zero_point": "before_rounding"},
    "pads-with-stored-zero": {"padding": "stored_zero"},
    "swapped-zero-points": {"zero_points": "swapped"},
    "scale-of-next-channel": {"channel_scale": "next"},
    "unscaled-bias": {"bias": "unscaled"},
    "int16-pair-saturation": {"products": "int16_pairs"},
    "int16-pair-saturation-channels-last": {"products": "int16_pairs_channels_last"},
    "int16-pair-saturation-per-tap": {"products": "int16_pairs_per_tap"},
    "last-channel-dropped": {"tail": "dropped"},
    "clamp-before-zero-point": {"clamp": "before_zero_point"},
    "relu-at-stored-zero": {"relu": "at_stored_zero"},
    "bfloat16-multiplier": {"multiplier": "bfloat16", "bias": "before_multiplier"},
}
"""Single departures from the exact arithmetic: what the planted backend plants."""

CAUSES: Mapping[str, Mapping[str, str]] = {
    "divided-by-whole-kernel": {"divisor": "kernel"},
    "floored-reciprocal": {"reciprocal": "floored"},
    "clamp-dropped": {"limits": "dropped"},
    "int32-overflow": {"clamp": "int32_conversion"},
    "int32-overflow-wraps": {"clamp": "int32_conversion_wrapping"},
    "int32-limit-wraps": {"clamp": "int32_limit"},
    **{f"cancelled-variance-{kernel}": {"kernel": kernel} for kernel in normalizing.KERNELS},
    **{f"result-in-input-scale-{kernel}": {"result": kernel} for kernel in dynamic_convolution.KERNELS},
    **FAULTS,
}
"""What violations are attributed to: departures of the exact, or of a published arithmetic; special ones first."""


def family_of(op: str) -> Family:
    """The family of an operator."""
    return next((f for f in FAMILIES if op in f.operators), ROUNDED)


def family_of_node(node: Node, types: Sequence[TensorType]) -> Family:
    """The family of a node's operator, where it has models of such a node.

    No model of a convolution or linear layer has the factors of ONNX Gemm, operands other than bytes, or a bias with a
    scale of its own.

    Parameters
    ----------
    types
        Of all inputs of `node`, constants included.
    """
    if isinstance(node.op, Linear | Conv):
        has_factors = isinstance(node.op, Linear) and (node.op.alpha, node.op.beta) != (1.0, 1.0)
        of_bytes = all(t.dtype in BYTES for t in types[:2])
        if has_factors or not of_bytes or any(t.is_quantized for t in types[2:]):
            return ROUNDED
    return family_of(node.op.name)
