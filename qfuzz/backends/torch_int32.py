"""Torch's eager kernels on qint32: which there are, and what they promise."""

from collections.abc import Mapping

from msgspec.structs import replace

from qfuzz.ir.contract import Contract

OF_QINT32 = (
    *("quantize", "dequantize", "requantize", "add", "mul", "relu", "clamp", "max_pool", "avg_pool"),
    *("global_avg_pool", "concat", "concat_relu", "reshape", "transpose", "slice", "pad", "flatten", "sigmoid"),
    *("tanh", "leaky_relu", "elu", "celu", "hardsigmoid", "hardswish", "gelu", "threshold", "prelu", "softmax"),
    *("mean", "amax", "amin", "argmax", "split", "squeeze", "unsqueeze", "expand", "gather", "tile"),
    *("depth_to_space", "space_to_depth", "interpolate", "adaptive_avg_pool", "flip", "unfold", "reflection_pad"),
    *("sort", "topk", "masked_fill", "index_put", "constant_pad", "batch_norm", "add_scalar", "mul_scalar"),
    *("compare", "compare_scalar"),
)
"""Operators whose kernels are dispatched by AT_DISPATCH_QINT_TYPES, which are quint8, qint8 and qint32, or move
elements of any type. Others take bytes only: 'Quantized channel shuffle works only on QUInt8', 'MatMul operands should
use QInt8 or QUInt8 data types.', grid_sampler 'not implemented for QInt32', activations of layers.

The kernels of layer_norm, group_norm, instance_norm and std take qint32, too; sums of squares of such integers are more
than the reference here holds exactly.
"""

_CONVERTED = (
    "of qint32: an integer of more than 24 bits is rounded where it is converted to float32 (_mm512_cvtepi32_ps, "
    "Dequantize of fbgemm/QuantUtils.h), and the zero point is added in float32 (Quantize, there, before it rounds)"
)
_AS_INTEGERS = (
    "of qint32: a float32 of the int32 result, times the multiplier, to the nearest integer, and the zero point added "
    "as an integer (requantize_from_int). That integers wrap at int32 is not granted"
)
_SCALED = Contract(
    terms="real",
    k=1,
    tie="half_even",
    source="quantized/cpu/qmul.cpp _mul_scalar_out: stored integers are copied, or mirrored, and their scale is "
    "a product in float64, of which a float32 is known here",
)
_INDEXED = Contract(
    terms="real",
    k=6,
    tie="either_even",
    adds_zero_point=True,
    source="native/TensorAdvancedIndexing.cpp quantized_index: 'naive implementation which does dq -> index -> q'; "
    f"{_CONVERTED}; select and index_select move integers",
)
_PADDED = Contract(
    terms="real",
    k=1,
    tie="half_even",
    adds_zero_point=True,
    source="constant_pad_nd: fill_ copies a float32 0, quantized as a tensor is, which adds the zero point in float32",
)


def of_int32(contracts: Mapping[str, Contract]) -> dict[str, Contract]:
    """The contracts of the same kernels where what they read is int32: as entries of the same table."""
    return {_on_int32(key): _converted(key, contract) for key, contract in contracts.items() if _name(key) in OF_QINT32}


def _name(key: str) -> str:
    return key.partition("?")[0]


def _on_int32(key: str) -> str:
    return f"{key}{'&' if '?' in key else '?'}x=int32"


def _converted(key: str, contract: Contract) -> Contract:
    match _name(key):
        case "dequantize" | "quantize":
            return contract  # the operators themselves count the conversion
        case "mul_scalar":
            return _SCALED
        case "gather":
            return _INDEXED
        case "pad":
            return _PADDED
        case "mul" | "add_scalar" | "prelu":
            return replace(contract, terms="real", k=6, tie="half_even", source=f"{contract.source}; {_AS_INTEGERS}")
        case _ if contract.terms == "exact":
            return contract
        case name:
            k = contract.k + (4 if name == "hardswish" else 2)  # whose slope is up to 1.5 times x's error
            source = f"{contract.source}; {_CONVERTED}"
            return replace(contract, terms="affine", k=k, tie="either_even", source=source)
