"""Near-legal calls: which argument of which torch call a form ``invalid`` changes, and to what. Pure data."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from qfuzz.backends.torch_calls import Call, literal, variable
from qfuzz.ir.network import Network
from qfuzz.ir.qtype import QType

Value: TypeAlias = Any
"""A literal of a call: a number, a list of numbers, …"""


class Site(NamedTuple):
    """A call that is to be changed, and the network that it is of."""

    call: Call
    network: Network

    def literal(self, position: int) -> Value:
        """An argument of the call."""
        return self.call.args[position].value

    @property
    def rank(self) -> int:
        """Of what the node reads first."""
        return len(self.network.types[self.network.nodes[0].inputs[0]].shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the node reads first."""
        return self.network.types[self.network.nodes[0].inputs[0]].shape


Changed: TypeAlias = Callable[[Value, Site], Value]
"""(an argument's value, where it stands) -> what it is changed to, or None where that says nothing here."""


class _Nothing:
    """In the place of an argument: None, which `Changed` cannot say."""


NOTHING = _Nothing()

Reshaped: TypeAlias = Callable[[str, Site], Call | None]
"""(an array's variable, where it is read) -> the call that changes its shape, or None."""


class Mutation(NamedTuple):
    """A change.

    Attributes
    ----------
    kind
        The value of the form.
    targets
        Shell globs over call targets; all calls that match are changed.
    position
        Of the argument: a literal for `change`, a tensor for `reshape`. A literal beyond the last one is appended.
    """

    kind: str
    targets: tuple[str, ...]
    position: int
    change: Changed | None = None
    reshape: Reshaped | None = None


DOCUMENTED: Mapping[str, str] = MappingProxyType(
    {
        "zero_scale": "torch.quantize_per_tensor: the scale is what the quantization formula divides by, and no number "
        "can be divided by 0",
        "nan_scale": "torch.quantize_per_tensor: the scale is what the quantization formula divides by, and NaN is no "
        "number",
        "zero_point_above": "torch.quantize_per_tensor: the zero point is the integer that maps to 0.0, and is refused "
        "above the largest that dtype has (checkZeroPoint in aten/src/ATen/native/quantized/AffineQuantizer.cpp)",
        "zero_point_below": "torch.quantize_per_tensor: the zero point is the integer that maps to 0.0, and is refused "
        "below the smallest that dtype has (checkZeroPoint in aten/src/ATen/native/quantized/AffineQuantizer.cpp)",
    }
)
"""Kinds that concern qparams, which float operators have none of: the text that rules them out."""


def _all(number: float) -> Changed:
    """Every number of the list, or the one number."""
    return lambda value, site: [number] * len(value) if isinstance(value, list) else number


def _one(number: float) -> Changed:
    return lambda value, site: number


def _longer(value: Value, site: Site) -> Value:
    return [*value, value[-1], value[-1]] if isinstance(value, list) else None


def _half_and_one(kernel: int) -> Changed:
    return lambda value, site: [k // 2 + 1 for k in site.literal(kernel)]


def _beyond(value: Value, site: Site) -> Value:
    """Windows larger than the padded input."""
    return [2 * n + k + 1 for k, n in zip(value, site.shape[-len(value) :], strict=True)]


def _as_strides(value: Value, site: Site) -> Value:
    """Padding of an output that is no smaller than strides and dilations."""
    return [max(s, d) for s, d in zip(site.literal(2), site.literal(5), strict=True)]


def _indivisible(value: Value, site: Site) -> Value:
    """More groups than channels."""
    return site.shape[1] + 1 if len(site.shape) > 1 else None


def _above(value: Value, site: Site) -> Value:
    return site.rank or 1


def _below(value: Value, site: Site) -> Value:
    return -(site.rank or 1) - 1


def _one_more(value: Value, site: Site) -> Value:
    return [*value[:-1], value[-1] + 1] if value else [2]


def _inferred_twice(value: Value, site: Site) -> Value:
    return [-1, -1, *value[2:]] if len(value) > 1 else [-1, -1]


def _negative_count(value: Value, site: Site) -> Value:
    return [-2, *value[1:]]


def _repeated(value: Value, site: Site) -> Value:
    return [value[0], *value[:-1]] if len(value) > 1 else None


def _missing(value: Value, site: Site) -> Value:
    return value[:-1] or None


def _before_start(value: Value, site: Site) -> Value:
    start = site.literal(1)
    return start - 1 if start > 0 else None


def _cut_away(value: Value, site: Site) -> Value:
    """More is cut from the last axis than it has."""
    return [-site.shape[-1] - 1 - max(value[1], 0), *value[1:]] if value and site.shape else None


def _output(site: Site) -> QType | None:
    q = site.network.nodes[-1].element
    return q if isinstance(q, QType) else None


def _zero_point_above(value: Value, site: Site) -> Value:
    q = _output(site)
    return None if q is None else q.qmax + 1


def _zero_point_below(value: Value, site: Site) -> Value:
    q = _output(site)
    return None if q is None else q.qmin - 1


def _grown(axis: int) -> Reshaped:
    """One more element along an axis, counted from the end."""

    def call(name: str, site: Site) -> Call:
        sides = [0, 0] * (-axis - 1) + [0, 1]
        return Call(name, "torch.nn.functional.pad", (variable(name), literal(sides)))

    return call


def _other_size(name: str, site: Site) -> Call | None:
    """One more element along the last axis of the second operand, which is not broadcast."""
    inputs = site.network.nodes[0].inputs
    if len(inputs) < 2:
        return None
    first, second = (site.network.types[i].shape for i in inputs[:2])
    if not first or not second or first[-1] in (1, second[-1] + 1) or second[-1] == 0:
        return None
    return _grown(-1)(name, site)


def _off_axis(name: str, site: Site) -> Call | None:
    """One more element of a concatenated value along an axis on which it is not concatenated."""
    if site.rank < 2:
        return None
    return _grown(-1 if site.literal(1) % site.rank == 0 else -site.rank)(name, site)


def _deeper(name: str, site: Site) -> Call:
    return Call(name, ".unsqueeze", (variable(name), literal(0)))


def _flatter(name: str, site: Site) -> Call | None:
    """The first axes as one: of a batch of one image, what is left is an image alone, which is legal."""
    if site.rank < 2 or 0 in site.shape:
        return None
    return Call(name, ".flatten", (variable(name), literal(0), literal(1)))


def _batch(name: str, site: Site) -> Call | None:
    """The first axis."""
    return _grown(-site.rank)(name, site)


def _channels(name: str, site: Site) -> Call | None:
    return _grown(1 - site.rank)(name, site) if site.rank > 1 else None


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
_DYNAMIC = ("torch.ops.quantized.linear_dynamic", "torch.ops.quantized.linear_relu_dynamic")
_ALL_LINEAR = (*_LINEAR, *_DYNAMIC, *_ONEDNN_LINEAR, *_ONEDNN_LINEAR_ADD)
_BATCH_NORM = ("torch.ops.quantized.batch_norm?d", "torch.ops.quantized.batch_norm?d_relu")
_LAYER_NORM = ("torch.ops.quantized.layer_norm",)
_GROUP_NORM = ("torch.ops.quantized.group_norm",)
_INSTANCE_NORM = ("torch.ops.quantized.instance_norm",)
_ONEDNN_ADD = tuple(f"torch.ops.onednn.{name}.tensor" for name in ("qadd", "qadd_relu", "qmul"))
_CAT = ("torch.ops.quantized.cat", "torch.cat")
_MAX_POOL = ("torch.ops.quantized.max_pool?d", "torch.quantized_max_pool?d")
_AVG_POOL = ("torch.nn.functional.avg_pool?d",)
_POOLS = (*_MAX_POOL, *_AVG_POOL)
_ADAPTIVE = ("torch.nn.functional.adaptive_avg_pool?d",)
_SLICE = ("torch.ops.aten.slice.Tensor",)


def _settings(stride: int, padding: int, dilation: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """What windows of convolutions and pools have in common, by position of the argument."""
    return (
        Mutation("zero_stride", targets, stride, _all(0)),
        Mutation("negative_stride", targets, stride, _all(-1)),
        Mutation("negative_padding", targets, padding, _all(-1)),
        Mutation("many_numbers", targets, stride, _longer),
        *(
            Mutation(kind, targets, dilation, _all(number))
            for kind, number in (("zero_dilation", 0), ("negative_dilation", -1))
            if dilation
        ),
    )


def _qparams(scale: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """A scale, and after it a zero point."""
    return (
        Mutation("zero_scale", targets, scale, _one(0.0)),
        Mutation("nan_scale", targets, scale, _one(float("nan"))),
        Mutation("zero_point_above", targets, scale + 1, _zero_point_above),
        Mutation("zero_point_below", targets, scale + 1, _zero_point_below),
    )


def _groups(position: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    return (
        Mutation("zero_groups", targets, position, _one(0)),
        Mutation("indivisible_groups", targets, position, _indivisible),
    )


def _affine(position: int, targets: tuple[str, ...]) -> tuple[Mutation, ...]:
    """A weight, and after it a bias."""
    return (
        Mutation("weight_channels", targets, position, reshape=_grown(-1)),
        Mutation("bias_length", targets, position + 1, reshape=_grown(-1)),
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
    Mutation("large_window", _CONV, 4, _all(1000)),
    Mutation("large_window", _ONEDNN_PACK, 6, _all(1000)),
    Mutation("large_window", _ONEDNN_CONV, 9, _all(1000)),
    Mutation("large_window", _ONEDNN_CONV_ADD, 10, _all(1000)),
    Mutation("large_padding", _TRANSPOSE, 3, _all(1000)),
    Mutation("output_padding", _TRANSPOSE, 4, _as_strides),
    Mutation("weight_channels", (*_CONV, *_ONEDNN_PACK), 0, reshape=_channels),
    Mutation("weight_channels", _TRANSPOSE, 0, reshape=_batch),
    Mutation("weight_channels", ("*linear_prepack",), 0, reshape=_grown(-1)),
    Mutation("bias_length", ("torch.ops.quantized.*_prepack",), 1, reshape=_grown(-1)),
    Mutation("bias_length", (*_ONEDNN_CONV, *_ONEDNN_LINEAR), 6, reshape=_grown(-1)),
    Mutation("bias_length", (*_ONEDNN_CONV_ADD, *_ONEDNN_LINEAR_ADD), 7, reshape=_grown(-1)),
    Mutation("channels", (*_ALL_CONV, *_BATCH_NORM, *_INSTANCE_NORM), 0, reshape=_channels),
    Mutation("channels", (*_ALL_LINEAR, *_LAYER_NORM), 0, reshape=_grown(-1)),
    Mutation("rank_high", (*_ALL_CONV, *_POOLS, *_ADAPTIVE), 0, reshape=_deeper),
    Mutation("rank_low", (*_ALL_CONV, *_ALL_LINEAR), 0, reshape=_flatter),
    Mutation("shapes", (*_ONEDNN_CONV_ADD, *_ONEDNN_LINEAR_ADD), 6, reshape=_grown(-1)),
    *_affine(1, (*_BATCH_NORM, *_INSTANCE_NORM)),
    *_affine(2, (*_LAYER_NORM, *_GROUP_NORM)),
    Mutation("statistics_length", _BATCH_NORM, 3, reshape=_grown(-1)),
    Mutation("statistics_length", _BATCH_NORM, 4, reshape=_grown(-1)),
    Mutation("shapes", _LAYER_NORM, 1, _one_more),
    *_groups(1, _GROUP_NORM),
    *_settings(2, 3, 4, _MAX_POOL),
    *_settings(2, 3, 0, _AVG_POOL),
    Mutation("zero_kernel", _POOLS, 1, _all(0)),
    Mutation("large_window", _POOLS, 1, _beyond),
    Mutation("large_padding", _POOLS, 3, _half_and_one(1)),
    Mutation("zero_divisor", ("torch.nn.functional.avg_pool2d",), 6, _one(0)),
    Mutation("negative_size", _ADAPTIVE, 1, _all(-1)),
    Mutation("many_numbers", _ADAPTIVE, 1, _longer),
    Mutation("shapes", _ADD, 1, reshape=_other_size),
    Mutation("shapes", _ONEDNN_ADD, 3, reshape=_other_size),
    Mutation("shapes", _CAT, 0, reshape=_off_axis),
    Mutation("ranks", _CAT, 0, reshape=_deeper),
    *(
        Mutation(kind, targets, position, change)
        for targets, position in (
            (_CAT, 1),
            (("torch.ops.quantized.softmax",), 1),
            (("torch.flatten",), 1),
            (_SLICE, 1),
        )
        for kind, change in (("axis_above", _above), ("axis_below", _below))
    ),
    Mutation("reversed_axes", ("torch.flatten",), 2, _before_start),
    Mutation("zero_step", _SLICE, 4, _one(0)),
    Mutation("negative_step", _SLICE, 4, _one(-1)),
    Mutation("element_count", (".reshape",), 1, _one_more),
    Mutation("inferred_twice", (".reshape",), 1, _inferred_twice),
    Mutation("negative_count", (".reshape",), 1, _negative_count),
    Mutation("repeated_axis", (".permute",), 1, _repeated),
    Mutation("missing_axis", (".permute",), 1, _missing),
    Mutation("axis_above", (".permute",), 1, lambda value, site: [*value[:-1], len(value)] if value else None),
    Mutation("padding_beyond", ("torch.nn.functional.pad",), 1, _cut_away),
    Mutation("many_numbers", ("torch.nn.functional.pad",), 1, lambda value, site: [*value, *[0, 0] * site.rank]),
    Mutation("odd_padding", ("torch.nn.functional.pad",), 1, lambda value, site: [*value, 0]),
    Mutation("no_bounds", ("torch.clamp",), 1, lambda value, site: None if value is None else NOTHING),
    Mutation("no_bounds", ("torch.clamp",), 2, lambda value, site: None if value is None else NOTHING),
    *_qparams(1, ("torch.quantize_per_tensor", "torch.ops.quantized.hardswish", "torch.ops.quantized.sigmoid")),
    *_qparams(
        2, (*_RUN_CONV, *_RUN_TRANSPOSE, *_LINEAR, *_ADD, "torch.ops.quantized.cat", "torch.ops.quantized.softmax")
    ),
    *_qparams(3, ("torch.ops.quantized.leaky_relu",)),
    *_qparams(1, ("torch.ops.quantized.elu",)),
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
