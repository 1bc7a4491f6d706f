"""Operators of qfuzz that are not said in ONNX: each with the reason. PyTorch has their kernels."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.onnx_builder import Builder, Lowering
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Node

_FUSED = "ONNX says a layer and what follows it as nodes, each of which rounds on its own"

ABSENT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("linear_pointwise", "conv_pointwise", "linear_add", "conv_add"), _FUSED),
        "dynamic_conv_transpose": "ONNX has no ConvTranspose on integers",
        "dynamic_nbits_linear": "ONNX chooses scales for whole tensors (DynamicQuantizeLinear), none for each row",
        "embedding_bag": "ONNX has no node that sums rows of a stored table by bags",
        "embedding_rows": "ONNX chooses scales for whole tensors (DynamicQuantizeLinear), none for each row",
        "recurrent": "DynamicQuantizeLSTM of ONNX Runtime is lstm; its GRU and RNN compute on reals",
        "linear_fp16": "ONNX has no layer that keeps float32 weights as float16",
        "concat_relu": "ONNX concatenates and clips in two nodes",
        "grid_sample": "not said: ONNX GridSample has no kernel on quantized tensors",
        "fake_quantize": "ONNX says it with QuantizeLinear and DequantizeLinear, of whole types only",
        "choose_qparams": "ONNX has DynamicQuantizeLinear only, of uint8 and without a smallest scale",
        "flip": "ONNX turns round by a Slice with a negative step, which slice has not",
        "channel_shuffle": "ONNX has no such node",
        "unfold": "ONNX has no such node",
        "reflection_pad": "not said: ONNX Pad with mode reflect has no kernel on quantized tensors",
        "sort": "ONNX has TopK only",
        "topk": "not said: ONNX TopK has no kernel on quantized tensors",
        "masked_fill": "ONNX says it with Where and a constant",
        "index_put": "ONNX says it with ScatterND and a constant",
        "constant_pad": "not said: ONNX Pad of another number than 0",
        "adaptive_avg_pool": "ONNX has no pool whose windows follow from the output's size",
        "celu": "ONNX Celu is a function of other nodes, which ONNX Runtime runs one by one",
        "threshold": "ONNX ThresholdedRelu has 0 in the place of the value; PyTorch has a kernel of its own",
        "prelu": "ONNX PRelu is no kernel on stored integers; PyTorch has one",
        **dict.fromkeys(("add_scalar", "mul_scalar"), "ONNX says it as add or mul with a constant"),
        **dict.fromkeys(("compare", "compare_scalar"), "ONNX Less and its kin compare integers as they are stored"),
        "std": "ONNX has no standard deviation: it is said as several nodes",
        "batch_norm": "ONNX Runtime folds BatchNormalization into the layer before; PyTorch has a kernel of its own",
        "group_norm": "ONNX GroupNormalization is a function of other nodes, which ONNX Runtime runs one by one",
    }
)
"""Operator name to why no ONNX node stands for it."""


def _refusing(reason: str) -> Lowering:
    def refuse(b: Builder, node: Node) -> None:
        raise Unsupported(reason)

    return refuse


LOWERINGS: Mapping[str, Lowering] = MappingProxyType({name: _refusing(reason) for name, reason in ABSENT.items()})
