"""The identity of a bug: its symptom while it is reduced, and what survives reduction once it is small."""

import hashlib
import math
import re

import msgspec
import numpy as np

from qfuzz.findings.wide import wide_form
from qfuzz.ir.network import Case, Node
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, Correlation
from qfuzz.ops.dynamic_convolution import DynamicConv, DynamicConvTranspose
from qfuzz.ops.dynamic_nbits import DynamicNbitsLinear
from qfuzz.ops.dynamic_range import NO_SCALE
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.ops.grid import GridSample
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMulInteger
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, MaxPool
from qfuzz.ops.prelu import Prelu
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.ops.semantics import Operand, float_scale
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.weight_only import WeightOnlyLinear
from qfuzz.oracle.verdicts import BackendVerdict, Outcome
from qfuzz.reduce.order import PLAIN, plain_value


class Symptom(msgspec.Struct, frozen=True, order=True):
    """What a verdict shows before anything is reduced.

    Attributes
    ----------
    op
        The accused operator; empty where no single one is.
    verdict
        ``violation``, ``crash``, ``hang``, ``rejected``, ``unstable``, ``corrupted`` or ``accepted-invalid``.
    cause
        The arithmetic model that explains it; empty for none.
    kind
        How the violations look; for a refusal or a crash, the gist of its message; what was accepted though invalid.
    """

    op: str
    verdict: str
    cause: str = ""
    kind: str = ""

    def leads_to(self, other: "Symptom") -> bool:
        """Whether `other` may be the same bug, smaller: the verdict and its cause stay, an operator may settle."""
        op_fits = self.op == other.op or not self.op or not other.op
        message_fits = self.verdict not in ("rejected", "crash", "accepted-invalid") or self.kind == other.kind
        return op_fits and message_fits and (self.verdict, self.cause) == (other.verdict, other.cause)

    def shows_in(self, other: "Symptom") -> bool:
        """Whether `other`, seen on the same case, is this symptom: more may be known of it by now."""
        op_fits = self.op == other.op or not self.op or not other.op
        return op_fits and self.verdict == other.verdict


def symptom_of(verdict: BackendVerdict) -> Symptom:
    """The symptom of an accusing verdict."""
    kind = str(verdict.kind or "")
    if verdict.outcome in (Outcome.REJECTED, Outcome.CRASH):
        kind = _gist(verdict.reason)
    if verdict.outcome is Outcome.ACCEPTED_INVALID:
        kind = verdict.reason.partition(":")[0]
    return Symptom(verdict.op, verdict.verdict, verdict.cause or "", kind)


def _gist(message: str) -> str:
    """The first words of a message, without names, numbers and punctuation that differ from case to case."""
    first_line = re.sub(r"\b0[xX][0-9a-fA-F]+", " ", message.split("\n")[0])  # addresses
    words = re.findall(r"[A-Za-z][A-Za-z_]+", first_line)
    return " ".join(w[:40] for w in words[:6]).lower()


NARROW = ("int2", "uint2", "int4", "uint4")

_OF_IMAGES = (
    "conv",
    "dynamic_conv",
    "dynamic_conv_transpose",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "conv_transpose",
    "conv_integer",
    "adaptive_avg_pool",
    "conv_pointwise",
    "conv_add",
)
"""Operators whose first input is mostly an image: where it is none, a signature says so."""


class Signature(msgspec.Struct, frozen=True):
    """The identity of a reduced bug.

    Attributes
    ----------
    symptom
        Of the reduced case.
    form
        What survived reduction, sorted: forms and attributes that differ from the plain ones, dtypes, whether some are
        narrower than a byte, per-channel, bias, empty dimensions, windows in the padding or beyond it, a stride
        but one window, further operators.
    """

    symptom: Symptom
    form: tuple[str, ...]

    @property
    def text(self) -> str:
        """As printed: ``op/verdict/cause or kind/form,form``."""
        s = self.symptom
        what = s.cause or s.kind or "-"
        return f"{s.op or 'network'}/{s.verdict}/{what}/{','.join(self.form) or '-'}"

    @property
    def slug(self) -> str:
        """A folder name: readable, and distinct for distinct signatures."""
        s = self.symptom
        parts = [s.op or "network", s.verdict, s.cause or s.kind]
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        words = [re.sub(r"[^a-z0-9]+", "-", p.lower())[:40].strip("-") for p in parts if p]
        return "-".join([*words, digest])


def signature_of(case: Case, symptom: Symptom) -> Signature:
    """The signature of a reduced case."""
    network = case.network
    nodes = [n for n in network.nodes if n.op.name == symptom.op] or list(network.nodes)
    form: set[str] = set()
    accused = nodes[:1] if symptom.op or len(nodes) == 1 else []
    for node in accused:
        form |= _attributes(node) | _types(case, node)
    form |= {f"with {n.op.name}" for n in network.nodes if n not in accused}
    form |= set(network.forms)
    if any(0 in t.shape for t in network.types.values()):
        form.add("empty")
    for node in accused or nodes:
        form |= _windows(case, node) | _layout(case, node) | _narrow(case, node) | _reciprocal(node)
        form |= _slopes(case, node)
    for node in nodes:
        form |= wide_form(case, node)
    return Signature(symptom, tuple(sorted(form)))


def node_form(case: Case, node: Node) -> set[str]:
    """What there is to say of one node: attributes that are not the plain ones, dtypes, per-channel, windows, empty."""
    network = case.network
    form = _attributes(node) | _types(case, node) | _windows(case, node) | _layout(case, node) | _narrow(case, node)
    if any(0 in network.types[name].shape for name in (*node.inputs, node.name)):
        form.add("empty")
    return form


def _windows(case: Case, node: Node) -> set[str]:
    """Whether, in one dimension, a window of a convolution holds padding only, or there is a stride but one window.

    And whether the last window of an average reaches beyond the padding, and pools make several pixels of one; whether
    a transposed convolution has other numbers of channels and filters a group, neither of them 1, or gaps; whether
    integer products are summed at all, those with stored weights in 16 at a time, and weights of 4 bits fill bytes.
    """
    op = node.op
    if isinstance(op, AvgPool | MaxPool | AdaptiveAvgPool):
        x, y = (case.network.types[name].shape for name in (node.inputs[0], node.name))
        form = {"of one pixel"} if x[1] > 1 and {*x[2:]} == {1} and math.prod(y[2:]) > 1 else set()
        return form | ({"window overhangs"} if isinstance(op, AvgPool) and _overhangs(case, node, op) else set())
    if isinstance(op, WeightOnlyLinear):
        return {"tail of 16"} if case.network.types[node.inputs[0]].shape[-1] % 16 else set()
    if isinstance(op, DynamicNbitsLinear):
        channels, features = case.network.types[node.inputs[1]].shape
        form = {"odd features"} if features % 2 else set()
        return form | ({"one weight"} if channels * features == 1 else set())
    if isinstance(op, LinearInteger | MatMulInteger):
        return {"one summed"} if case.network.types[node.inputs[0]].shape[-1:] == (1,) else set()
    if isinstance(op, ConvTranspose | DynamicConvTranspose):
        channels, filters = case.network.types[node.inputs[1]].shape[:2]
        form = {"channels differ"} if 1 < filters != channels // op.groups > 1 else set()
        return form | ({"gaps"} if _has_gaps(case, node, op) else set())
    if not isinstance(op, Correlation | DynamicConv):
        return set()
    form = set()
    x, w, y = (case.network.types[name].shape[2:] for name in (*node.inputs[:2], node.name))
    n = len(x)
    for d in range(n):
        for i in {*range(min(op.padding[d] + 1, y[d])), *range(max(y[d] - op.padding[n + d] - 1, 0), y[d])}:
            taps = [i * op.strides[d] + k * op.dilations[d] - op.padding[d] for k in range(w[d])]
            if not any(0 <= t < x[d] for t in taps):
                form.add("window in padding")
        if y[d] == 1 and op.strides[d] > 1:
            form.add("one strided window")
    return form


def _has_gaps(case: Case, node: Node, op: ConvTranspose | DynamicConvTranspose) -> bool:
    """Whether nothing falls on some place of a transposed convolution's output."""
    x, w, y = (case.network.types[name].shape[2:] for name in (*node.inputs[:2], node.name))
    for d, size in enumerate(y):
        places = {i * op.strides[d] + k * op.dilations[d] - op.padding[d] for i in range(x[d]) for k in range(w[d])}
        if not places.issuperset(range(size)):
            return True
    return False


def _overhangs(case: Case, node: Node, op: AvgPool) -> bool:
    x, y = (case.network.types[name].shape[2:] for name in (node.inputs[0], node.name))
    n = len(x)
    ends = ((y[d] - 1) * op.strides[d] + op.kernel[d] for d in range(n))
    return any(end > x[d] + op.padding[d] + op.padding[n + d] for d, end in enumerate(ends))


def _layout(case: Case, node: Node) -> set[str]:
    """Whether an image is resized as one whose channels come last, from one pixel, or to the size that it has.

    Kernels for that are others. And whether a grid names places so far outside that a float32 has no fractions there,
    or a number is so many levels away that no int64 counts them, or a dynamic layer's bias so many units that no int32
    does.
    """
    op, shape = node.op, case.network.types[node.inputs[0]].shape
    if isinstance(op, FakeQuantize):
        return {"beyond int64"} if _is_beyond_int64(case, node, op) else set()
    if isinstance(op, DynamicConv | DynamicConvTranspose):
        return {"bias beyond int32"} if _is_bias_beyond_int32(case, node, op) else set()
    if isinstance(op, GridSample):
        grid = np.abs(case.network.constant_data[node.inputs[1]].array)
        return {"far outside"} if (grid * (shape[3], shape[2]) >= 2**22).any() else set()
    if not isinstance(op, Interpolate):
        return set()
    samplings = op.samplings(shape)
    form = {"of one pixel"} if len(shape) > 3 and shape[1] > 1 and {*shape[2:]} == {1} else set()
    if all(s.out == s.size for s in samplings):
        form.add("same size")
    if len(shape) == 4 and samplings[1].scale != 1 and samplings[3].scale == 1:
        form.add("channels last")
    return form


def _is_bias_beyond_int32(case: Case, node: Node, op: DynamicConv | DynamicConvTranspose) -> bool:
    """Whether a bias is so many accumulator units that no int32 counts them."""
    x = case.arrays.get(node.inputs[0])
    if x is None or len(node.inputs) < 3:
        return False
    quantization = op.quantization(Operand.point(case.network.types[node.inputs[0]], x))
    scale = NO_SCALE if quantization.is_zero else float(quantization.scale.lo)
    unit = scale * min(case.network.types[node.inputs[1]].qtype.scale)
    return bool((np.abs(case.arrays[node.inputs[2]].astype(np.float64)) >= unit * 2.0**30).any())


def _is_beyond_int64(case: Case, node: Node, op: FakeQuantize) -> bool:
    x = case.arrays.get(node.inputs[0])
    if x is None:
        return False
    scale = case.network.constant_data[node.inputs[1]].array
    laid = scale.reshape([-1 if d == op.axis else 1 for d in range(x.ndim)]) if scale.ndim else scale
    return bool((np.abs(x.astype(np.float64)) >= laid.astype(np.float64) * (1 - 2.0**-20) * 2.0**63).any())


def _narrow(case: Case, node: Node) -> set[str]:
    """Whether what the node reads or gives are integers of less than a byte, which runtimes treat apart."""
    types = [case.network.types[name].dtype for name in (*node.inputs, node.name)]
    form = {"narrow"} if any(t in NARROW for t in types) else set()
    if 1 in node.op.constant_inputs and types[1] in ("int2", "uint2"):
        form.add("2-bit weight")
    return form


def _reciprocal(node: Node) -> set[str]:
    """Whether 1 over the scale of a softmax is no integer."""
    q = node.element
    if not isinstance(node.op, Softmax) or not isinstance(q, QType):
        return set()
    return {"fractional reciprocal"} if any((1 / s).denominator != 1 for s in q.exact_scale) else set()


def _slopes(case: Case, node: Node) -> set[str]:
    """Whether no stored slope of a prelu is 1, nor is it one as a float32."""
    if not isinstance(node.op, Prelu):
        return set()
    q = case.network.types[node.inputs[1]].qtype
    one = 1 / q.exact_scale[0] + q.zero_point[0]
    return set() if one.denominator == 1 and one <= q.qmax and float32(float(one)) == one else {"no slope is 1"}


def _attributes(node: Node) -> set[str]:
    form = set()
    for name in node.op.__struct_fields__:
        value, plain = getattr(node.op, name), PLAIN.get(name)
        entries = value if isinstance(value, tuple) else (value,)
        if isinstance(value, str) and value != plain_value(node.op, name):
            form.add(value)
        if (
            name in PLAIN
            and any(e != plain for e in entries)
            and name not in ("min", "max", "axis", "start_axis", "index")
        ):
            form.add(name)
    if getattr(node.op, "scale", None) == 0.0:
        form.add("zero scale")
    if getattr(node.op, "clip", None) is not None:
        form.add("clip")
    return form


def _types(case: Case, node: Node) -> set[str]:
    network = case.network
    types = network.input_types(node)
    form = {"*".join(t.dtype for t in types[:2]) + "->" + network.types[node.name].dtype}
    if isinstance(node.op, ScaledMm):  # of whose kinds of float8 any go together
        form = {t.dtype for t in types[:2]} - {"float8_e4m3fn"} | {f"->{network.types[node.name].dtype}"}
        form |= {"output scale"} if float_scale(node.element) != 1.0 else set()
    if any(isinstance(t.element, QType) and t.element.axis is not None for t in types):
        form.add("per-channel")
    form |= {f"{bits} bits" for bits in ("2", "4") if any(t.dtype.endswith(f"int{bits}") for t in types[:2])}
    if (
        len(types) > 2
        and 2 in node.op.constant_inputs
        and types[2].element in ("int32", "float32")
        and node.op.name not in ("moe", "embedding_bag", "fake_quantize")
    ):
        form.add(f"{types[2].dtype} bias")
    if node.op.name == "fake_quantize" and types[1].shape:
        form.add("per-channel")
    if len(types) > 2 and isinstance(node.op, Conv | ConvTranspose | Linear) and types[2].is_quantized:
        form.add(f"{types[2].dtype} bias with a scale")
    if node.op.name == "moe" and (network.constant_data[node.inputs[2]].array < 0).any():
        form.add("negative weight")
    if node.op.name in _OF_IMAGES and len(types[0].shape) != 4:
        form.add(f"{len(types[0].shape) - 2}d")
    return form
