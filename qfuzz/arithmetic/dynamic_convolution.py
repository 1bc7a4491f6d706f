"""dynamic_conv, dynamic_conv_transpose: float32 results, or those that a kernel stored as bytes before.

PyTorch's kernels quantize the data, run the convolution of quantized data with their scale and zero point as those of
the result, too, and dequantize that (qconv_dynamic.cpp, apply_dynamic).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.contraction_published import PUBLISHED
from qfuzz.arithmetic.float32 import fma
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.exact.rounding import Floats
from qfuzz.ir.network import Node
from qfuzz.ir.protocols import Array
from qfuzz.ir.qtype import QType, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_range import NO_SCALE, QMAX, QMIN
from qfuzz.ops.semantics import Operand

OPERATORS = ("dynamic_conv", "dynamic_conv_transpose")

Result: TypeAlias = Literal[
    "own",
    "fbgemm",
    "fbgemm_avx2",
    "fbgemm_fused",
    "fbgemm_fused_avx2",
    "qnnpack",
    "onednn",
    "onednn_avx2",
    "onednn_apart",
    "onednn_apart_avx2",
    "onednn_divided",
    "onednn_divided_avx2",
]


def _published(name: str, multiplier: str = "") -> Contraction:
    models = [p.model for p in PUBLISHED if p.name == name]
    return next(m for m in models if isinstance(m, Contraction) and multiplier in ("", m.multiplier))


KERNELS: Mapping[str, Contraction] = MappingProxyType(
    {
        "fbgemm": _published("FBGEMM"),
        "fbgemm_avx2": _published("FBGEMM on AVX2"),
        "fbgemm_fused": _published("FBGEMM per tensor"),
        "fbgemm_fused_avx2": _published("FBGEMM per tensor on AVX2"),
        "qnnpack": _published("QNNPACK"),
        "onednn": _published("oneDNN's convolution", "scaled_reciprocal"),
        "onednn_avx2": _published("oneDNN's convolution on AVX2", "scaled_reciprocal"),
        "onednn_apart": _published("oneDNN's convolution", "scaled_apart_reciprocal"),
        "onednn_apart_avx2": _published("oneDNN's convolution on AVX2", "scaled_apart_reciprocal"),
        "onednn_divided": _published("oneDNN's convolution", "scaled_apart_divided"),
        "onednn_divided_avx2": _published("oneDNN's convolution on AVX2", "scaled_apart_divided"),
    }
)
"""Choice of `result` to the convolution of bytes that gives it."""


class DynamicConvolution(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `OPERATORS`.

    Attributes
    ----------
    result
        Others than ``own`` (faults): what one of `KERNELS` stores in the scale and the zero point of the data.
    """

    result: Result = "own"


FAULTS = {**rounded.FAULTS, "result": frozenset(KERNELS)}


class DynamicConvolutionEvaluation(RoundedEvaluation):
    """A convolution of float32 data on known inputs."""

    def compute(self, model: DynamicConvolution) -> Array:
        """float32 results."""
        return self.exact() if model.result == "own" else self._through_bytes(KERNELS[model.result])

    def _through_bytes(self, kernel: Contraction) -> Floats:
        op: Any = self.op
        assert isinstance(op, DynamicConv | DynamicConvTranspose)
        quantization = op.quantization(Operand.point(self.types[0], self.arrays[0]))
        scale = NO_SCALE if quantization.is_zero else float(quantization.scale.lo)
        q = QType.per_tensor("uint8", float32(scale), quantization.correct[1])
        types, arrays = [TensorType(self.types[0].shape, q), *self.types[1:]], [*self.arrays]
        arrays[0] = _quantized(arrays[0], q)
        if kernel.bias == "int32" and len(arrays) > 2:
            w = types[1]
            scales = op.plain.channel_scales(w) if isinstance(op, DynamicConvTranspose) else w.qtype.scale
            types[2] = TensorType(types[2].shape, "int32")
            arrays[2] = _integer_bias(arrays[2], scale * np.array(scales))
        conv: Any = _transposed if isinstance(op, DynamicConvTranspose) else _plain
        y: Array = conv(op, types, arrays, kernel, scale)
        return np.asarray((y.astype(np.float32) - np.float32(q.zero_point[0])) * np.float32(scale), dtype=np.float64)


class _Convolution(ContractionEvaluation):
    """With the scale of data as PyTorch keeps it, float64; ideep is given its reciprocal."""

    data_scale = 1.0

    def _float32_scales(self, m: Contraction) -> tuple[np.float32, npt.NDArray[np.float32], np.float32]:
        x, w, y = super()._float32_scales(m)
        if m.scales != "own":
            x = y = np.float32(1) / np.float32(1 / self.data_scale)
        return x, w, y


def _integer_bias(bias: Array, units: Floats) -> Array:
    """As at::native::quantize_per_tensor and per_channel to qint32 (QuantUtils.h QuantizeBias)."""
    inverse = np.float32(1) / units.astype(np.float32)
    rounded_bias = np.rint((bias * inverse).astype(np.float64))
    return np.asarray(np.clip(rounded_bias, -(2.0**31), 2.0**31 - 1).astype(np.int32))


def _quantized(x: Array, q: QType) -> Array:
    """As fbgemm/QuantUtils.h Quantize: x * fl(1 / scale) + zero point, contracted by the compiler, as measured."""
    inverse, zero_point = np.float32(1) / np.float32(q.scale[0]), np.float32(q.zero_point[0])
    return np.clip(np.rint(fma(x, np.asarray(inverse), np.asarray(zero_point))), QMIN, QMAX).astype(np.uint8)


def _plain(
    op: DynamicConv, types: Sequence[TensorType], arrays: Sequence[Array], kernel: Contraction, scale: float
) -> Array:
    evaluation = _Convolution(Node("y", op.plain, ("x",), types[0].element), types, arrays)
    evaluation.data_scale = scale
    return evaluation.stored(kernel)


def _transposed(
    op: DynamicConvTranspose, types: Sequence[TensorType], arrays: Sequence[Array], kernel: Contraction, scale: float
) -> Array:
    """As a convolution with the weight turned round, of data with zeros between them and around."""
    x, w, q, weight = arrays[0], arrays[1], types[0].qtype, types[1]
    n, g = len(op.strides), op.groups
    sizes = (max((s - 1) * t + 1, 0) for s, t in zip(x.shape[2:], op.strides, strict=True))
    spread = np.full((*x.shape[:2], *sizes), q.zero_point[0], x.dtype)
    steps: Any = (..., *(slice(None, None, t) for t in op.strides))
    spread[steps] = x
    reach = tuple(d * (k - 1) for d, k in zip(op.dilations, w.shape[2:], strict=True))
    after = tuple(r + o for r, o in zip(reach, op.output_padding, strict=True))
    by_group = w.reshape(g, w.shape[0] // g, *w.shape[1:]).swapaxes(1, 2)
    turned = np.flip(by_group.reshape(g * w.shape[1], w.shape[0] // g, *w.shape[2:]), axis=tuple(range(2, 2 + n)))
    scales = op.plain.channel_scales(weight)
    q_w = QType("int8", scales, weight.qtype.zero_point * (len(scales) // len(weight.qtype.scale)),
                None if len(scales) == 1 else 0)  # fmt: skip
    plain = DynamicConv(strides=(1,) * n, padding=reach + after, dilations=op.dilations, groups=g)
    inputs = (TensorType(spread.shape, q), TensorType(turned.shape, q_w), *types[2:])
    y = _plain(plain, inputs, (spread, turned, *arrays[2:]), kernel, scale)
    out = op.plain.infer(types, q)[2:]
    ends: Any = (..., *(slice(p, p + s) for p, s in zip(op.padding[:n], out, strict=True)))
    return np.asarray(y[ends])
