"""Near-legal calls: which argument of which torch call a form ``invalid`` changes, and to what. Pure data."""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends import torch_changes as to
from qfuzz.backends.torch_changes import NOTHING, Mutation

DOCUMENTED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("zero_scale", "nan_scale"),
            "'quantization scale should be > 0' (ChooseQuantizationParams in "
            "aten/src/ATen/native/quantized/cpu/QuantUtils.h); torch.quantize_per_tensor divides by it",
        ),
        "scales_length": "torch.quantize_per_channel: 'float 1D tensor of scales to use, size should match "
        "input.size(axis)'",
        "zero_point_above": "torch.quantize_per_tensor: the zero point is the integer that maps to 0.0, and is refused "
        "above the largest that dtype has (checkZeroPoint in aten/src/ATen/native/quantized/AffineQuantizer.cpp)",
        "zero_point_below": "torch.quantize_per_tensor: the zero point is the integer that maps to 0.0, and is refused "
        "below the smallest that dtype has (checkZeroPoint in aten/src/ATen/native/quantized/AffineQuantizer.cpp)",
        **dict.fromkeys(
            ("zero_group_size", "odd_group_size"),
            "'Group size should be multiple of 32, in_features' (_dyn_quant_matmul_4bit_cpu in "
            "aten/src/ATen/native/LinearAlgebra.cpp)",
        ),
    }
)
"""Kinds that concern qparams, which float operators have none of: the text that rules them out."""


_CONV = ("torch.ops.quantized.conv?d_prepack",)
_ONEDNN_PACK = ("torch.ops.onednn.qconv_prepack",)
_RUN_CONV = ("torch.ops.quantized.conv?d", "torch.ops.quantized.conv?d.new", "torch.ops.quantized.conv?d_relu*")
_TRANSPOSE = ("torch.ops.quantized.conv_transpose?d_prepack",)
_RUN_TRANSPOSE = ("torch.ops.quantized.conv_transpose?d",)
_LINEAR = ("torch.ops.quantized.linear", "torch.ops.quantized.linear_relu")
_ONEDNN_CONV = ("torch.ops.onednn.qconv_pointwise.default",)
_ONEDNN_LINEAR = ("torch.ops.onednn.qlinear_pointwise.default",)
_ADD = tuple(f"torch.ops.quantized.{name}" for name in ("add", "add_relu", "mul", "mul_relu"))
_ONEDNN_CONV_ADD = ("torch.ops.onednn.qconv2d_pointwise.binary",)
_ONEDNN_LINEAR_ADD = ("torch.ops.onednn.qlinear_pointwise.binary",)
_ALL_CONV = (*_RUN_CONV, *_RUN_TRANSPOSE, *_ONEDNN_CONV, *_ONEDNN_CONV_ADD)
_DYNAMIC = tuple(f"torch.ops.quantized.linear_{name}" for name in ("dynamic", "relu_dynamic", "dynamic_fp16"))
_ALL_LINEAR = (*_LINEAR, *_DYNAMIC, *_ONEDNN_LINEAR, *_ONEDNN_LINEAR_ADD)
_BATCH_NORM = ("torch.ops.quantized.batch_norm?d", "torch.ops.quantized.batch_norm?d_relu")
_LAYER_NORM = ("torch.ops.quantized.layer_norm",)
_GROUP_NORM = ("torch.ops.quantized.group_norm",)
_INSTANCE_NORM = ("torch.ops.quantized.instance_norm",)
_ONEDNN_ADD = tuple(f"torch.ops.onednn.{name}.tensor" for name in ("qadd", "qadd_relu", "qmul"))
_CAT = ("torch.ops.quantized.cat", "torch.ops.quantized.cat_relu", "torch.cat")
_MAX_POOL = ("torch.ops.quantized.max_pool?d", "torch.quantized_max_pool?d")
_AVG_POOL = ("torch.nn.functional.avg_pool?d",)
_POOLS = (*_MAX_POOL, *_AVG_POOL)
_ADAPTIVE = ("torch.nn.functional.adaptive_avg_pool?d",)
_OF_AXES = (
    (("torch.ops.quantized.cat", "torch.ops.quantized.cat_relu", "torch.cat"), 1),
    (("torch.ops.quantized.softmax", "torch.flatten", "torch.ops.aten.slice.Tensor"), 1),
    (("torch.index_select", ".select", ".unfold", "torch.max", "torch.min"), 1),
    (("torch.topk", "torch.split", "torch.chunk"), 2),
)
_INTERPOLATE = ("torch.nn.functional.interpolate",)
_EMBEDDING = ("torch.ops.quantized.embedding_byte", "torch.ops.quantized.embedding_4bit")
_BAGS = ("torch.ops.quantized.embedding_bag_byte", "torch.ops.quantized.embedding_bag_4bit")
_SHUFFLES = ("torch.pixel_shuffle", "torch.pixel_unshuffle")
_4BIT_PACK, _4BIT = ("torch._dyn_quant_pack_4bit_weight",), ("torch._dyn_quant_matmul_4bit",)
_SLICE = ("torch.ops.aten.slice.Tensor",)
_WEIGHT_ONLY = ("torch._weight_int8pack_mm", "torch._weight_int4pack_mm_for_cpu")
_INT4 = ("torch._weight_int4pack_mm_for_cpu", "torch.ops.quantized.int4mm_packed_weight_cpu")
_OF_GROUPS = "scales and zeros are [groups of K, N, 2]: the kernel reads one of each group (int4mm_kernel.cpp)"
_CELLS = ("torch.ops.quantized.quantized_*_cell_dynamic",)
_LAYERS = ("torch.quantized_lstm", "torch.quantized_gru")
_DECOMPOSED = "torch.ops.quantized_decomposed"
_PER_TENSOR, _PER_CHANNEL, _PER_GROUP = (
    tuple(f"{_DECOMPOSED}.{verb}_per_{of}" for verb in ("quantize", "dequantize"))
    for of in ("tensor.default", "channel", "channel_group")
)
_BOUNDS = "'quant_max out of bound for dtype' (_decomposed.py, _quant_min_max_bounds_check)"
_FAKE_TENSOR = ("torch.fake_quantize_per_tensor_affine",)
_FAKE_CHANNEL = ("torch.fake_quantize_per_channel_affine", f"{_DECOMPOSED}.fake_quant_per_channel")
_FAKE_BOUNDS = "'`quant_min` should be less than or equal to `quant_max`' (FakeQuantPerTensorAffine.cpp)"
_BETWEEN = "'`zero_point` must be between `quant_min` and `quant_max`' (FakeQuantPerTensorAffine.cpp)"
_CHOOSE = tuple(f"{_DECOMPOSED}.choose_qparams{kind}.tensor" for kind in ("", "_symmetric"))


def _settings(stride: int, padding: int, dilation: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """What windows of convolutions and pools have in common, by position of the argument."""
    return (
        Mutation("zero_stride", targets, stride, to.all(0)),
        Mutation("negative_stride", targets, stride, to.all(-1)),
        Mutation("negative_padding", targets, padding, to.all(-1)),
        Mutation("many_numbers", targets, stride, to.longer),
        *(
            Mutation(kind, targets, dilation, to.all(number))
            for kind, number in (("zero_dilation", 0), ("negative_dilation", -1))
            if dilation
        ),
    )


def _qparams(scale: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """A scale, and after it a zero point."""
    return (
        Mutation("zero_scale", targets, scale, to.one(0.0)),
        Mutation("nan_scale", targets, scale, to.one(float("nan"))),
        Mutation("zero_point_above", targets, scale + 1, to.zero_point_above),
        Mutation("zero_point_below", targets, scale + 1, to.zero_point_below),
    )


def _groups(position: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    return (
        Mutation("zero_groups", targets, position, to.one(0)),
        Mutation("indivisible_groups", targets, position, to.indivisible),
    )


def _affine(position: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """A weight, and after it a bias."""
    return (
        Mutation("weight_channels", targets, position, reshape=to.grown(-1)),
        Mutation("bias_length", targets, position + 1, reshape=to.grown(-1)),
    )


MUTATIONS: tuple[Mutation, ...] = (
    *_settings(2, 3, 4, _CONV),
    *_settings(2, 3, 5, _TRANSPOSE),
    *_settings(4, 5, 6, _ONEDNN_PACK),
    *_settings(7, 8, 9, _ONEDNN_CONV),
    *_settings(8, 9, 10, _ONEDNN_CONV_ADD),
    *_groups(5, _CONV),
    *_groups(6, _TRANSPOSE),
    *_groups(7, _ONEDNN_PACK),
    *_groups(10, _ONEDNN_CONV),
    *_groups(11, _ONEDNN_CONV_ADD),
    Mutation("large_window", _CONV, 4, to.all(1000)),
    Mutation("large_window", _ONEDNN_PACK, 6, to.all(1000)),
    Mutation("large_window", _ONEDNN_CONV, 9, to.all(1000)),
    Mutation("large_window", _ONEDNN_CONV_ADD, 10, to.all(1000)),
    Mutation("large_padding", _TRANSPOSE, 3, to.all(1000)),
    Mutation("output_padding", _TRANSPOSE, 4, to.as_strides),
    Mutation("weight_channels", (*_CONV, *_ONEDNN_PACK), 0, reshape=to.channels),
    Mutation("weight_channels", _TRANSPOSE, 0, reshape=to.batch),
    Mutation("weight_channels", ("*linear_prepack",), 0, reshape=to.grown(-1)),
    Mutation("bias_length", ("torch.ops.quantized.*_prepack",), 1, reshape=to.grown(-1)),
    Mutation("bias_length", (*_ONEDNN_CONV, *_ONEDNN_LINEAR), 6, reshape=to.grown(-1)),
    Mutation("bias_length", (*_ONEDNN_CONV_ADD, *_ONEDNN_LINEAR_ADD), 7, reshape=to.grown(-1)),
    Mutation("channels", (*_ALL_CONV, *_BATCH_NORM, *_INSTANCE_NORM), 0, reshape=to.channels),
    Mutation("channels", (*_ALL_LINEAR, *_LAYER_NORM), 0, reshape=to.grown(-1)),
    Mutation("rank_high", (*_ALL_CONV, *_POOLS, *_ADAPTIVE), 0, reshape=to.deeper),
    Mutation("rank_low", (*_ALL_CONV, *_ALL_LINEAR), 0, reshape=to.flatter),
    Mutation("shapes", (*_ONEDNN_CONV_ADD, *_ONEDNN_LINEAR_ADD), 6, reshape=to.grown(-1)),
    *_affine(1, (*_BATCH_NORM, *_INSTANCE_NORM)),
    *_affine(2, (*_LAYER_NORM, *_GROUP_NORM)),
    Mutation("statistics_length", _BATCH_NORM, 3, reshape=to.grown(-1)),
    Mutation("statistics_length", _BATCH_NORM, 4, reshape=to.grown(-1)),
    Mutation("shapes", _LAYER_NORM, 1, to.one_more),
    *_groups(1, _GROUP_NORM),
    *_settings(2, 3, 4, _MAX_POOL),
    *_settings(2, 3, 0, _AVG_POOL),
    Mutation("zero_kernel", _POOLS, 1, to.all(0)),
    Mutation("large_window", _POOLS, 1, to.beyond),
    Mutation("large_padding", _POOLS, 3, to.half_and_one(1)),
    Mutation("zero_divisor", ("torch.nn.functional.avg_pool2d",), 6, to.one(0)),
    Mutation("negative_size", _ADAPTIVE, 1, to.all(-1)),
    Mutation("many_numbers", _ADAPTIVE, 1, to.longer),
    Mutation("shapes", _ADD, 1, reshape=to.other_size),
    Mutation("shapes", _ONEDNN_ADD, 3, reshape=to.other_size),
    Mutation("shapes", _CAT, 0, reshape=to.off_axis),
    Mutation("ranks", _CAT, 0, reshape=to.deeper),
    *(
        Mutation(kind, targets, position, change)
        for targets, position in _OF_AXES
        for kind, change in (("axis_above", to.above), ("axis_below", to.below))
    ),
    Mutation("axis_above", (".squeeze", "torch.flip", "torch.mean", "torch.std"), 1, to.axes(0)),
    Mutation("repeated_axis", ("torch.flip", "torch.mean", "torch.std"), 1, to.axes(-1, -1)),
    Mutation("axis_above", (".unsqueeze",), 1, lambda value, site: site.rank + 1),
    Mutation("axis_below", (".unsqueeze",), 1, lambda value, site: -site.rank - 2),
    Mutation("reversed_axes", ("torch.flatten",), 2, to.before_start),
    Mutation("zero_step", _SLICE, 4, to.one(0)),
    Mutation("negative_step", _SLICE, 4, to.one(-1)),
    Mutation("element_count", (".reshape",), 1, to.one_more),
    Mutation("inferred_twice", (".reshape",), 1, to.inferred_twice),
    Mutation("negative_count", (".reshape",), 1, to.negative_count),
    Mutation("repeated_axis", (".permute",), 1, to.repeated),
    Mutation("missing_axis", (".permute",), 1, to.missing),
    Mutation("axis_above", (".permute",), 1, lambda value, site: [*value[:-1], len(value)] if value else None),
    Mutation("large_padding", ("torch.nn.functional.pad",), 1, to.reflected),
    Mutation("padding_beyond", ("torch.nn.functional.pad",), 1, to.cut_away),
    Mutation("many_numbers", ("torch.nn.functional.pad",), 1, lambda value, site: [*value, *[0, 0] * site.rank]),
    Mutation("odd_padding", ("torch.nn.functional.pad",), 1, lambda value, site: [*value, 0]),
    Mutation("negative_size", _INTERPOLATE, 1, to.all(-1)),
    Mutation("zero_size", _INTERPOLATE, 1, to.all(0)),
    Mutation("many_numbers", _INTERPOLATE, 1, to.longer),
    Mutation("zero_factor", _INTERPOLATE, 2, to.all(0.0)),
    Mutation("negative_factor", _INTERPOLATE, 2, to.all(-1.0)),
    Mutation("rank_high", _INTERPOLATE, 0, reshape=to.deeper),
    Mutation("index_above", _EMBEDDING, 1, reshape=to.moved(10**4)),
    Mutation("index_below", _EMBEDDING, 1, reshape=to.moved(-(10**4))),
    Mutation("index_above", _BAGS, 1, reshape=to.moved(10**4)),
    Mutation("index_below", _BAGS, 1, reshape=to.moved(-(10**4))),
    Mutation("offsets_beyond", _BAGS, 2, reshape=to.moved(10**4)),
    Mutation("offsets_below", _BAGS, 2, reshape=to.moved(-1)),
    Mutation("index_above", ("torch.index_select",), 2, reshape=to.moved(10**4)),
    Mutation("index_below", ("torch.index_select",), 2, reshape=to.moved(-(10**4))),
    Mutation("index_above", ("torch.ops.aten.index.Tensor", ".index_put"), 1, reshape=to.moved(10**4)),
    Mutation("index_below", ("torch.ops.aten.index.Tensor", ".index_put"), 1, reshape=to.moved(-(10**4))),
    Mutation("index_above", (".select",), 2, to.one(10**4)),
    Mutation("index_below", (".select",), 2, to.one(-(10**4))),
    Mutation("zero_groups", ("torch.channel_shuffle",), 1, to.one(0)),
    Mutation("indivisible_groups", ("torch.channel_shuffle",), 1, to.indivisible),
    Mutation("zero_block", _SHUFFLES, 1, to.one(0)),
    Mutation("indivisible_block", _SHUFFLES, 1, to.one(10**3)),
    Mutation("large_window", (".unfold",), 2, to.one(10**3)),
    Mutation("negative_size", (".unfold",), 2, to.one(-1)),
    Mutation("zero_step", (".unfold",), 3, to.one(0)),
    Mutation("negative_step", (".unfold",), 3, to.one(-1)),
    Mutation("large_count", ("torch.topk",), 1, to.one(10**4)),
    Mutation("negative_count", ("torch.topk",), 1, to.one(-1)),
    Mutation("negative_count", ("torch.tile", ".expand"), 1, to.all(-2)),
    Mutation("shapes", (".expand",), 1, to.one_more),
    Mutation("shapes", (".masked_fill",), 1, reshape=to.grown(-1)),
    Mutation("element_count", ("torch.split",), 1, to.one_more),
    Mutation("negative_count", ("torch.chunk",), 1, to.one(-1)),
    Mutation("channels", ("torch._int_mm", *_WEIGHT_ONLY, *_CELLS, *_LAYERS), 0, reshape=to.grown(-1)),
    Mutation("weight_channels", ("torch._weight_int8pack_mm",), 1, reshape=to.grown(-1)),
    Mutation("shapes", ("torch._weight_int8pack_mm",), 2, reshape=to.grown(-1)),
    Mutation("scales_length", _INT4, 3, reshape=to.fewer(0), text=_OF_GROUPS),
    Mutation("shapes", (*_CELLS, *_LAYERS), 1, reshape=to.grown(-1)),
    Mutation("batch", (*_CELLS, *_LAYERS), 1, reshape=to.grown(-2)),
    Mutation("rank_high", (*_CELLS, *_LAYERS), 0, reshape=to.deeper),
    Mutation("rank_low", _LAYERS, 0, reshape=to.flatter),
    Mutation("large_count", _LAYERS, 4, to.more(1)),
    Mutation("negative_count", _LAYERS, 4, to.one(-1)),
    Mutation("axis_above", ("torch.sort",), "dim", to.above),
    Mutation("axis_below", ("torch.sort",), "dim", to.below),
    Mutation("axis_above", _PER_CHANNEL, 3, to.above, text="'Expecting axis to be < input.dim()' (_decomposed.py)"),
    Mutation(
        "scales_length", _PER_CHANNEL, 1, reshape=to.grown(-1), text="'scales ..., one per channel' (_decomposed.py)"
    ),
    Mutation("zero_block", _PER_GROUP, 6, to.one(0), text="'group_size must be > 1' (_decomposed.py)"),
    Mutation(
        "indivisible_block",
        _PER_GROUP,
        6,
        to.group_beside,
        text="'input.shape[-1] must be divisible by group_size' (_decomposed.py)",
    ),
    Mutation(
        "reversed_bounds",
        _CHOOSE,
        2,
        to.beside(1, -1),
        text="'Expecting quant_min to be smaller than quant_max' (_decomposed.py, choose_qparams_tensor_meta)",
    ),
    Mutation("reversed_bounds", _FAKE_TENSOR, 4, to.beside(3, -1), text=_FAKE_BOUNDS),
    Mutation("reversed_bounds", _FAKE_CHANNEL[:1], 5, to.beside(4, -1), text=_FAKE_BOUNDS),
    Mutation("zero_point_above", _FAKE_TENSOR, 2, to.beside(4, 1), text=_BETWEEN),
    Mutation("zero_point_below", _FAKE_TENSOR, 2, to.beside(3, -1), text=_BETWEEN),
    Mutation("zero_point_above", _FAKE_CHANNEL[:1], 2, reshape=to.moved(10**6), text=_BETWEEN),
    Mutation("zero_point_below", _FAKE_CHANNEL[:1], 2, reshape=to.moved(-(10**6)), text=_BETWEEN),
    Mutation("axis_above", _FAKE_CHANNEL, 3, to.above, text="an axis of x (torch.fake_quantize_per_channel_affine)"),
    Mutation(
        "scales_length", _FAKE_CHANNEL, 1, reshape=to.grown(-1), text="'scales ..., one per channel' (_decomposed.py)"
    ),
    Mutation("bounds_beyond", _PER_TENSOR[:1], 4, to.more(2**31), text=_BOUNDS),
    Mutation("bounds_beyond", _PER_CHANNEL[:1], 5, to.more(2**31), text=_BOUNDS),
    Mutation("channels", _4BIT, 0, reshape=to.grown(-1)),
    Mutation("rank_low", _4BIT, 0, reshape=to.flatter),
    Mutation("bias_length", _4BIT_PACK, 2, reshape=to.grown(-1)),
    *(
        Mutation(kind, targets, position, to.one(size))
        for kind, size in (("zero_group_size", 0), ("odd_group_size", 33))
        for targets, position in ((_4BIT_PACK, 3), (_4BIT, 2))
    ),
    Mutation("weight_channels", ("torch.ops.quantized.prelu",), 1, reshape=to.grown(-1)),
    Mutation("scales_length", ("torch.quantize_per_channel",), 1, reshape=to.grown(-1)),
    *(
        Mutation("no_bounds", ("torch.clamp", "torch.ops.quantized.clamp"), i, lambda value, site: NOTHING)
        for i in (1, 2)
    ),
    *_qparams(1, ("torch.quantize_per_tensor", "torch.ops.quantized.hardswish", "torch.ops.quantized.sigmoid")),
    *_qparams(
        2, (*_RUN_CONV, *_RUN_TRANSPOSE, *_LINEAR, *_ADD, "torch.ops.quantized.cat", "torch.ops.quantized.softmax")
    ),
    *_qparams(2, ("torch.ops.quantized.cat_relu", "torch.ops.quantized.prelu")),
    *_qparams(3, ("torch.ops.quantized.leaky_relu",)),
    *_qparams(1, ("torch.ops.quantized.elu", "torch.ops.quantized.celu")),
    *_qparams(11, _ONEDNN_CONV),
    *_qparams(12, _ONEDNN_CONV_ADD),
    *_qparams(7, _ONEDNN_LINEAR),
    *_qparams(8, _ONEDNN_LINEAR_ADD),
    *_qparams(6, _BATCH_NORM),
    *_qparams(5, (*_LAYER_NORM, *_GROUP_NORM)),
    *_qparams(4, _INSTANCE_NORM),
    *_qparams(6, _ONEDNN_ADD),
)
"""All changes. Several of one kind that match in one list are all made: what is packed and what runs say the same."""
