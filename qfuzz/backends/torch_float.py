"""The float twin of a list of quantized calls: the same calls with the same arguments, on dequantized tensors.

What it refuses is no valid call, whatever the types. Pure: nothing here imports torch.
"""

from collections.abc import Mapping
from types import MappingProxyType

from qfuzz.backends.torch_calls import Arg, Call, CallList, literal, variable, variables
from qfuzz.ir.errors import Unsupported

QUANTIZERS = ("torch._make_per_tensor_quantized_tensor", "torch._make_per_channel_quantized_tensor")
"""Calls that make a quantized tensor of integers; its reals are what the twin goes on with."""

PACKERS: tuple[str, ...] = (
    *(f"torch.ops.quantized.conv{kind}{n}d_prepack" for n in (1, 2, 3) for kind in ("", "_transpose")),
    "torch.ops.quantized.linear_prepack",
    "torch.ops.onednn.qconv_prepack",
    "torch.ops.onednn.qlinear_prepack",
    "torch.ops.quantized.linear_prepack_fp16",
    "torch.ops.quantized.embedding_bag_prepack",
    "torch._convert_weight_to_int4pack_for_cpu",
    *(f"torch.ops.quantized.make_quantized_cell_params{kind}" for kind in ("_dynamic", "_fp16")),
    "torch._dyn_quant_pack_4bit_weight",
)
"""Calls that pack a weight with what belongs to it. The float operator takes what they were given."""

_QUANTIZED: Mapping[str, str] = MappingProxyType(
    {
        **{
            f"conv{n}d{relu}{overload}": f"torch.nn.functional.conv{n}d: 0 p0 p1 p2 p3 p4 p5"
            for n in (1, 2, 3)
            for relu in ("", "_relu")
            for overload in ("", ".new")
        },
        **{f"conv_transpose{n}d": f"torch.nn.functional.conv_transpose{n}d: 0 p0 p1 p2 p3 p4 p6 p5" for n in (1, 2, 3)},
        **{
            f"linear{relu}{dynamic}": "torch.nn.functional.linear: 0 p0 p1"
            for relu in ("", "_relu")
            for dynamic in ("", "_dynamic", "_dynamic_fp16")
        },
        "add": "torch.add: 0 1",
        "add_relu": "torch.add: 0 1",
        "mul": "torch.mul: 0 1",
        "mul_relu": "torch.mul: 0 1",
        "cat": "torch.cat: 0 1",
        "cat_relu": "torch.cat: 0 1",
        "clamp": "torch.clamp: 0 1 2",
        "threshold": "torch.nn.functional.threshold: 0 1 2",
        "prelu": "torch.prelu: 0 1",
        "celu": "torch.nn.functional.celu: 0 3",
        **dict.fromkeys(("embedding_byte", "embedding_4bit"), "torch.nn.functional.embedding: 1 p0"),
        **dict.fromkeys(("embedding_bag_byte", "embedding_bag_4bit"), "torch.nn.functional.embedding_bag: 1 p0 2"),
        "relu6": "torch.nn.functional.relu6: 0",
        "sigmoid": "torch.sigmoid: 0",
        "hardswish": "torch.nn.functional.hardswish: 0",
        "leaky_relu": "torch.nn.functional.leaky_relu: 0 1",
        "elu": "torch.nn.functional.elu: 0 3",
        "softmax": "torch.softmax: 0 1",
        "max_pool1d": "torch.nn.functional.max_pool1d: 0 1 2 3 4 5",
        "max_pool2d": "torch.nn.functional.max_pool2d: 0 1 2 3 4 5",
        **{
            f"batch_norm{n}d{relu}": "torch.nn.functional.batch_norm: 0 3 4 1 2"
            for n in (1, 2, 3)
            for relu in ("", "_relu")
        },
        "layer_norm": "torch.nn.functional.layer_norm: 0 1 2 3 4",
        "group_norm": "torch.group_norm: 0 1 2 3 4",
        "instance_norm": "torch.nn.functional.instance_norm: 0 - - 1 2",
        **{
            f"quantized_{kind}_cell_dynamic": f"torch.{kind}_cell: 0 1 2p0 3p0 2p1 3p1"
            for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        },
        "int4mm_packed_weight_cpu": "torch.nn.functional.linear: 0 p0",
    }
)
"""Of ``torch.ops.quantized``: the float operator, and which arguments it takes: of the call, or, after a p, of the
packed parameters that the call is given, first or as the argument before the p; after a c, all weights and biases of
the cells there; a dash is None. After a semicolon, what is called with its result, a dot."""

_ONEDNN: Mapping[str, str] = MappingProxyType(
    {
        "qconv_pointwise.default": "torch.nn.functional.conv{n}d: 0 p0 6 7 8 9 10",
        "qconv2d_pointwise.binary": "torch.nn.functional.conv2d: 0 p0 7 8 9 10 11; torch.add: . 6",
        "qlinear_pointwise.default": "torch.nn.functional.linear: 0 p0 6",
        "qlinear_pointwise.binary": "torch.nn.functional.linear: 0 p0 7; torch.add: . 6",
        **dict.fromkeys(("qadd.tensor", "qadd_relu.tensor"), "torch.add: 0 3"),
        "qmul.tensor": "torch.mul: 0 3",
    }
)
"""The same of ``torch.ops.onednn``; n is the length of the first list among the arguments."""

FLOAT: Mapping[str, str] = MappingProxyType(
    {
        **{f"torch.ops.quantized.{name}": said for name, said in _QUANTIZED.items()},
        **{f"torch.ops.onednn.{name}": said for name, said in _ONEDNN.items()},
        **dict.fromkeys(("torch.quantize_per_tensor", "torch.quantize_per_channel"), "torch.clone: 0"),
        "torch._int_mm": "torch.mm: 0 1",
        ".int": ".float: 0",
        "torch._weight_int8pack_mm": "torch.nn.functional.linear: 0 1; torch.mul: . 2",
        "torch._weight_int4pack_mm_for_cpu": "torch.nn.functional.linear: 0 p0",
        **{f"torch.quantized_{kind}": f"torch.{kind}: 0 1 2c 3 4 5 6 7 8" for kind in ("lstm", "gru")},
        "torch._dyn_quant_matmul_4bit": "torch.ones: 4 3; torch.nn.functional.linear: 0 . p2",
        **{f"torch.quantized_max_pool{n}d": f"torch.nn.functional.max_pool{n}d: 0 1 2 3 4 5" for n in (1, 2, 3)},
    }
)
"""Quantized calls to float ones. What is not listed and not of a quantized namespace is its own twin."""


def float_twin(calls: CallList) -> CallList:
    """The twin, which declares no values.

    Raises
    ------
    Unsupported
        For a quantized call that has no float operator here.
    """
    twin = _Twin()
    bits = {c.args[0].value for c in calls.run if c.target == ".view"}  # of reals that NumPy has not
    arrays = (*calls.constants, *calls.inputs) if not calls.engine else ()
    reals = [a.variable for a in arrays if a.variable not in bits]
    prepare = [twin.real(name) for name in reals if name in {a.variable for a in calls.constants}]
    run = [twin.real(name) for name in reals if name in {a.variable for a in calls.inputs}]
    prepare += [said for call in calls.prepare for said in twin.of(call)]
    run += [said for call in calls.run for said in twin.of(call)]
    return calls._replace(engine="", prepare=tuple(prepare), run=tuple(run), values=())


class _Twin:
    """Remembers what was packed."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[Arg, ...]] = {}

    @staticmethod
    def real(name: str) -> Call:
        """The variable as float32."""
        return Call(name, ".float", (variable(name),))

    def of(self, call: Call) -> list[Call]:
        """The float calls in the place of one."""
        if call.target in QUANTIZERS:
            return [call, Call(call.out, ".dequantize", (variable(call.out),))]
        if call.target == ".view":
            return [call, self.real(call.out)]
        if call.target in PACKERS:
            self._packed[call.out] = call.args
            return []
        said = FLOAT.get(call.target)
        if said is None:
            if call.target.startswith(("torch.ops.quantized.", "torch.ops.onednn.")):
                raise Unsupported(f"{call.target} has no float operator here to be held against")
            return [call]
        return [c for part in said.split("; ") for c in _wide(self._float(call, part))]

    def _float(self, call: Call, said: str) -> Call:
        target, _, wanted = said.partition(": ")
        first = next((a for a in call.args if a.kind == "variable" and a.value in self._packed), None)
        args: list[Arg] = []
        for which in wanted.split():
            place, packed, part = which.partition("p")
            if which in ".-":
                args.append(variable(call.out) if which == "." else literal(None))
            elif packed:
                owner = call.args[int(place)] if place else first
                assert owner is not None, call
                args.append(self._packed[owner.value][int(part)])
            elif which.endswith("c"):
                args.append(self._weights(call.args[int(which[:-1])]))
            else:
                args.append(call.args[int(which)])
        n = next((len(a.value) for a in args if isinstance(a.value, list)), 0)
        return Call(call.out, target.format(n=n), tuple(args))

    def _weights(self, cells: Arg) -> Arg:
        """Of each cell both weights, then both biases, as they were packed."""
        layers = [[self._packed[a.value] for a in self._packed[cell][:2]] for cell in cells.value]
        return variables(tuple(pack[part].value for packs in layers for part in (0, 1) for pack in packs))


def _wide(call: Call) -> list[Call]:
    """An LSTM of float64, which oneDNN has none of: that of float32 reads and writes past tensors of other sizes."""
    if call.target != "torch.lstm":
        return [call]
    names = [n for a in call.args[:3] for n in (a.value if a.kind == "variables" else [a.value])]
    return [*(Call(n, ".double", (variable(n),)) for n in names), call]
