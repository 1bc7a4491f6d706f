"""Near-legal calls: which argument of which torch call a form ``invalid`` changes, and to what. Pure.

A change is made in the call list of a valid network, so that everything that runs, prints and compares call lists does
so with it, too. `qfuzz.backends.torch_float` makes the float twin of the changed list.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from qfuzz.backends.torch_calls import Arg, Call, CallList, literal, variable
from qfuzz.backends.torch_float import QUANTIZERS
from qfuzz.ir.errors import Unsupported
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


_NOTHING = _Nothing()

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
    first, second = (site.network.types[i].shape for i in site.network.nodes[0].inputs[:2])
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


def _channels(name: str, site: Site) -> Call | None:
    return _grown(1 - site.rank)(name, site) if site.rank > 1 else None


_CONV = ("torch.ops.quantized.conv?d_prepack",)
_RUN_CONV = ("torch.ops.quantized.conv?d", "torch.ops.quantized.conv?d.new", "torch.ops.quantized.conv?d_relu*")
_LINEAR = ("torch.ops.quantized.linear", "torch.ops.quantized.linear_relu")
_ONEDNN_CONV = ("torch.ops.onednn.qconv_pointwise.default",)
_ONEDNN_LINEAR = ("torch.ops.onednn.qlinear_pointwise.default",)
_ADD = tuple(f"torch.ops.quantized.{name}" for name in ("add", "add_relu", "mul", "mul_relu"))
_ONEDNN_ADD = ("torch.ops.onednn.q*.tensor",)
_CAT = ("torch.ops.quantized.cat", "torch.cat")
_MAX_POOL = ("torch.ops.quantized.max_pool?d",)
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


MUTATIONS: tuple[Mutation, ...] = (
    *_settings(2, 3, 4, _CONV),
    *_settings(4, 5, 6, ("torch.ops.onednn.qconv_prepack",)),
    *_settings(7, 8, 9, _ONEDNN_CONV),
    Mutation("zero_groups", _CONV, 5, _one(0)),
    Mutation("zero_groups", ("torch.ops.onednn.qconv_prepack",), 7, _one(0)),
    Mutation("zero_groups", _ONEDNN_CONV, 10, _one(0)),
    Mutation("indivisible_groups", _CONV, 5, _indivisible),
    Mutation("indivisible_groups", ("torch.ops.onednn.qconv_prepack",), 7, _indivisible),
    Mutation("indivisible_groups", _ONEDNN_CONV, 10, _indivisible),
    Mutation("large_window", _CONV, 4, lambda value, site: [1000] * len(value)),
    Mutation("large_window", ("torch.ops.onednn.qconv_prepack",), 6, lambda value, site: [1000] * len(value)),
    Mutation("large_window", _ONEDNN_CONV, 9, lambda value, site: [1000] * len(value)),
    Mutation(
        "weight_channels", ("*conv?d_prepack", "*qconv_prepack"), 0, reshape=lambda n, s: _grown(1 - s.rank)(n, s)
    ),
    Mutation("weight_channels", ("*linear_prepack",), 0, reshape=_grown(-1)),
    Mutation("bias_length", ("torch.ops.quantized.*_prepack",), 1, reshape=_grown(-1)),
    Mutation("bias_length", (*_ONEDNN_CONV, *_ONEDNN_LINEAR), 6, reshape=_grown(-1)),
    Mutation("channels", (*_RUN_CONV, *_ONEDNN_CONV), 0, reshape=_channels),
    Mutation("channels", (*_LINEAR, *_ONEDNN_LINEAR), 0, reshape=_grown(-1)),
    Mutation("rank_high", (*_RUN_CONV, *_ONEDNN_CONV, *_POOLS, *_ADAPTIVE), 0, reshape=_deeper),
    Mutation("rank_low", (*_RUN_CONV, *_ONEDNN_CONV, *_LINEAR, *_ONEDNN_LINEAR), 0, reshape=_flatter),
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
    Mutation("no_bounds", ("torch.clamp",), 1, lambda value, site: None if value is None else _NOTHING),
    Mutation("no_bounds", ("torch.clamp",), 2, lambda value, site: None if value is None else _NOTHING),
    *_qparams(1, ("torch.quantize_per_tensor", "torch.ops.quantized.hardswish", "torch.ops.quantized.sigmoid")),
    *_qparams(2, (*_RUN_CONV, *_LINEAR, *_ADD, "torch.ops.quantized.cat", "torch.ops.quantized.softmax")),
    *_qparams(3, ("torch.ops.quantized.leaky_relu",)),
    *_qparams(1, ("torch.ops.quantized.elu",)),
    *_qparams(11, _ONEDNN_CONV),
    *_qparams(7, _ONEDNN_LINEAR),
    *_qparams(6, _ONEDNN_ADD),
)
"""All changes. Several of one kind that match in one list are all made: what is packed and what runs say the same."""


def changed(calls: CallList, network: Network, kind: str = "") -> CallList:
    """The call list of a valid network with the change that its form says, or `kind`.

    Its values are declared to say nothing of themselves.

    Raises
    ------
    Unsupported
        Where no call here has what is to be changed.
    """
    kind = kind or network.form("invalid")
    mine = [m for m in MUTATIONS if m.kind == kind]
    prepare, run, n = list(calls.prepare), list(calls.run), 0
    for part in (prepare, run):
        for call in list(part):
            for m in mine:
                if any(fnmatchcase(call.target, t) for t in m.targets):
                    n += _make(m, Site(call, network), calls, prepare, run)
    if not n:
        raise Unsupported(f"{kind}: no call of {network.nodes[0].op.name} here has what would be changed")
    values = tuple(d._replace(dtype="") for d in calls.values)
    return calls._replace(prepare=tuple(prepare), run=tuple(run), values=values)


def _make(m: Mutation, site: Site, calls: CallList, prepare: list[Call], run: list[Call]) -> bool:
    """Make a change in `prepare` or `run`; whether it says anything here."""
    if m.change is not None:
        return _change(m, m.change, site, prepare if site.call in prepare else run)
    assert m.reshape is not None
    if m.position >= len(site.call.args):
        return False
    arg = site.call.args[m.position]
    name = arg.value[-1] if arg.kind == "variables" else arg.value
    if arg.kind not in ("variable", "variables") or (arg.kind == "variables" and len(set(arg.value)) < 2):
        return False
    if sum(_reads(a, name) for a in site.call.args) > 1:
        return False  # both operands would change
    made = next((c for c in (*prepare, *run) if c.out == name and c.target in QUANTIZERS), None)
    array = name if made is None else made.args[0].value
    call = m.reshape(array, site)
    if call is None:
        return False
    part = prepare if array in {a.variable for a in calls.constants} else run
    at = part.index(made) if made in part else 0
    part.insert(at, call)
    return True


def _reads(arg: Arg, name: str) -> bool:
    return name in arg.value if arg.kind == "variables" else arg.kind == "variable" and arg.value == name


def _change(m: Mutation, change: Changed, site: Site, part: list[Call]) -> bool:
    at = next(i for i, call in enumerate(part) if call.out == site.call.out and call.target == site.call.target)
    args = list(part[at].args)
    if m.position > len(args) or (m.position < len(args) and args[m.position].kind != "literal"):
        return False
    value = change(args[m.position].value if m.position < len(args) else None, site)
    if value is None:
        return False
    args[m.position : m.position + 1] = [literal(None if value is _NOTHING else value)]
    part[at] = part[at]._replace(args=tuple(args))
    return True


def kinds_of(calls: CallList, network: Network) -> tuple[str, ...]:
    """The kinds that change something of a call list, in the order of the table."""
    targets = [c.target for c in (*calls.prepare, *calls.run)]
    kinds = []
    for kind in dict.fromkeys(m.kind for m in MUTATIONS if any(fnmatchcase(t, g) for t in targets for g in m.targets)):
        try:
            changed(calls, network, kind)
        except Unsupported:
            continue
        kinds.append(kind)
    return tuple(kinds)
