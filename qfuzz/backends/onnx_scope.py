"""Operators of ONNX Runtime that admit narrow integers or float8 and are not covered: each with the reason.

What makes an operator out of scope is that it has no scales of quantized values, as inputs, as attributes or in a
packed format, and that the runtime does not rewrite it in QDQ form: no real numbers are meant, so that no integer is
the rounded one. Four have scales and are out of scope (`SCALES_OF_OTHERS`): what these scale is no tensor of integers
or float8 with a scale and a zero point, or lives in an operator that has a state.
What has scales, or is rewritten, and is not drawn stands in `NOT_YET`. The texts are those of the operators' schemas.
"""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.onnx_kernels import MICROSOFT, ONNX, Key

NO_SUCH_KERNEL = "has no scales, and only its schema admits such types: no CPU kernel takes them"
"""A reason that holds as long as the runtime says so, which a test looks at."""

_REASONS: Mapping[str, Mapping[str, str]] = {
    "has no scales: arithmetic of integers as they are stored, which wraps where they end": {
        ONNX: "Abs Neg Sign Mod Shrink BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor"
    },
    "has no scales: compares integers as they are stored; returns truth values, indices or some of them": {
        ONNX: "Equal Greater GreaterOrEqual Less LessOrEqual IsInf IsNaN NonZero Unique ArgMin TopK"
    },
    "has no scales: copies stored values, and the runtime drops no quantization around it": {
        ONNX: "Compress GatherND ReverseSequence ScatterElements ScatterND TensorScatter",
        MICROSOFT: "ExpandDims GatherND UnfoldTensor",
    },
    "has no scales: of older opsets, where another has its place since (Slice, ScatterElements, Resize)": {
        ONNX: "DynamicSlice Scatter Upsample"
    },
    "has no scales: returns what it is given, and the optimizer removes it, whatever it carries": {ONNX: "Identity"},
    "has no scales: converts from one type to another, or only calls the same bits by another type": {
        ONNX: "BitCast Cast"
    },
    "has no scales: makes a tensor from numbers or from a shape": {
        ONNX: "BlackmanWindow ConstantOfShape HammingWindow HannWindow MelWeightMatrix Range",
        MICROSOFT: "Range",
    },
    "has no scales: returns random numbers; of a narrow input it reads the shape only": {
        ONNX: "RandomNormalLike RandomUniformLike"
    },
    "has no scales: reads the shape only": {ONNX: "Shape Size"},
    "has no scales and no zero points: sums of products of int16 as they are, in 32 bits": {
        MICROSOFT: "MatMulInteger16"
    },
    "control flow: runs graphs whose operators are covered themselves, or not": {ONNX: "If Loop Scan"},
    "has no scales: puts tensors into a sequence or an optional, or takes them out": {
        ONNX: "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct "
        "SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence"
    },
    "has no scales: copies between the memories of devices; the runtime itself puts it into graphs": {
        ONNX: "MemcpyFromHost MemcpyToHost"
    },
    NO_SUCH_KERNEL: {
        ONNX: "Attention Col2Im Dropout Einsum Erf EyeLike GridSample OneHot Pow Trilu",
        MICROSOFT: "GridSample Trilu Unique",
    },
}

_OTHERS: Mapping[str, str] = {
    "GatherPacked": "has scales inside of bytes that are packed in a format of ggml, whose number is packed_type: "
    "no tensor of integers that has a scale, and its layout is no part of the schema",
    "GroupQueryAttention": "has scales of its cache alone (k_scale, v_scale): attention of real numbers, which rounds "
    "keys and values itself and appends them to what earlier calls left, at positions that grow from call to call",
    "MatMulBnb4": "has scales (absmax), but no integers: its 4-bit codes are looked up in a table of 16 real numbers, "
    "FP4 or NF4, which are no float type of ONNX either",
    "MatMulFpQ4": "has scales inside of a blob that the runtime's own library packs, in a layout and of a size that no "
    "text gives, where it has a kernel for the processor",
}

_MISSING: Mapping[str, Mapping[str, str]] = {}


def _by_key(reasons: Mapping[str, Mapping[str, str]]) -> Mapping[Key, str]:
    return MappingProxyType(
        {
            (domain, name): reason
            for reason, domains in reasons.items()
            for domain, names in domains.items()
            for name in names.split()
        }
    )


SCALES_OF_OTHERS: Mapping[Key, str] = MappingProxyType({(MICROSOFT, name): why for name, why in _OTHERS.items()})
"""Operator that has scales, but not of integers or float8 with a zero point, to what it has."""

OUT_OF_SCOPE: Mapping[Key, str] = MappingProxyType({**_by_key(_REASONS), **SCALES_OF_OTHERS})
"""Operator to why it is out of scope."""

NOT_YET: Mapping[Key, str] = _by_key(_MISSING)
"""Operator that is in scope and not drawn to what it has."""
