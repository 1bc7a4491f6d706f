"""Forms: other ways to say the same network to a framework, which may change nothing that it computes.

A network carries those that differ from the plain ones, as ``name=value``. A backend reads the dimensions that it
knows; others say nothing to it. What a form promises to leave alone is what the reference holds it to.

One dimension is of another kind: ``invalid`` changes an argument of the node's call to what is to be refused.
"""

from collections.abc import Iterable
from typing import NamedTuple

from qfuzz.ir.errors import InvalidCase


class Dimension(NamedTuple):
    """One way in which a network can be said differently.

    Attributes
    ----------
    values
        The first is the plain one, which needs no saying.
    about
        What it is, in a few words.
    """

    name: str
    values: tuple[str, ...]
    about: str


INVALID = (
    *("no", "zero_stride", "negative_stride", "zero_dilation", "negative_dilation", "negative_padding"),
    *("large_padding", "zero_kernel", "large_window", "many_numbers", "zero_divisor", "negative_size"),
    *("zero_groups", "indivisible_groups", "weight_channels", "bias_length", "channels"),
    *("statistics_length", "scales_length", "output_padding", "zero_size", "zero_factor", "negative_factor"),
    *("index_above", "index_below", "offsets_beyond", "offsets_below", "zero_block", "indivisible_block"),
    *("large_count",),
    *("shapes", "ranks", "rank_low", "rank_high"),
    *("axis_above", "axis_below", "zero_step", "negative_step", "element_count", "inferred_twice", "negative_count"),
    *("repeated_axis", "missing_axis", "reversed_axes", "padding_beyond", "odd_padding", "no_bounds"),
    *("zero_scale", "nan_scale", "zero_point_above", "zero_point_below", "zero_group_size", "odd_group_size"),
    *("batch", "reversed_bounds", "bounds_beyond"),
)
"""What one argument of the node's call is changed to, so that no framework should take it. First comes none.

What is expected is a refusal, and what the reference knows is of the network before that change.
"""

DIMENSIONS: tuple[Dimension, ...] = (
    Dimension(
        "opset",
        ("22", "10", "11", "13", "17", "19", "21", "23", "25", "27"),
        "opset of the ONNX model, or the oldest one that has its operators where that is younger",
    ),
    Dimension("ir", ("10", "3", "4", "8", "9", "11", "13"), "version of the ONNX model format"),
    Dimension("zero_points", ("given", "omitted"), "zero points of 0: an input, or none"),
    Dimension("parameters", ("scalar", "one_element"), "shape of per-tensor scales and zero points"),
    Dimension("axes", ("positive", "negative"), "how axes are counted"),
    Dimension("constants", ("initializers", "inputs", "nodes"), "weights and biases: what they are in the model"),
    Dimension("qparams", ("initializers", "inputs"), "scales and zero points: what they are in the model"),
    Dimension("sharing", ("shared", "own"), "equal initializers: one for all who read them, or each its own"),
    Dimension(
        "shapes", ("static", "symbolic", "overridden"), "sizes in the model; overridden: symbols set when loaded"
    ),
    Dimension("padding", ("explicit", "auto"), "padding that auto_pad can say, where it can"),
    Dimension("layout", ("channels_first", "channels_last"), "of kernels on stored integers that have both"),
    Dimension("qdq", ("single", "unshared", "doubled"), "DequantizeLinear: one a value, one a reader, or a pair twice"),
    Dimension("qdq_domain", ("onnx", "microsoft"), "whose QuantizeLinear and DequantizeLinear"),
    Dimension(
        "accuracy",
        ("unset", "0", "1", "4"),
        "accuracy_level of MatMulNBits, which DequantizeLinear and MatMul may become; 4: int8 activations",
    ),
    Dimension(
        "weight_graph",
        ("matmul", "gemm", "transposed", "reshaped"),
        "how dequantized weights of reals are said: [K, N] to MatMul or Gemm, [N, K] transposed, blocks reshaped",
    ),
    Dimension(
        "nbits_block",
        ("32", "16", "64", "128", "256", "fitting"),
        "blocks of MatMulNBits along K, where the weight has none of its own",
    ),
    Dimension("nbits_zero_points", ("integers", "reals"), "zero points of MatMulNBits: packed, or float32"),
    Dimension("table", ("typed", "bytes"), "4-bit tables of GatherBlockQuantized: of their type, or packed in bytes"),
    Dimension("types", ("inferred", "told"), "output_dtype and precision of QuantizeLinear, output_dtype of the other"),
    Dimension(
        "memory",
        ("contiguous", "channels_last", "permuted", "strided", "offset"),
        "how torch's inputs, and what it writes into, lie in memory: also with gaps, and inside of a larger tensor",
    ),
    Dimension(
        "calls",
        ("functional", "in_place", "out", "unbatched"),
        "torch's calls: in place of a copy, into a given tensor, or of the one element of a batch",
    ),
    Dimension(
        "packing",
        ("fresh", "saved", "copied", "repacked", "shared"),
        "torch's packed weights: saved and loaded, copied, unpacked and packed again, or shared with another layer",
    ),
    Dimension("grad", ("on", "off", "inference"), "whether torch would record gradients, or is told to infer"),
    Dimension("saved", ("no", "onnx", "ort"), "the optimized model, saved and loaded again in a format"),
    Dimension("call", ("plain", "aten", "overload", "swapped", "tensor"), "which of torch's calls that mean the same"),
    Dimension("threads", ("1", "3"), "threads of one operator"),
    Dimension(
        "callers",
        ("1", "2"),
        "threads that run one session, or calls on one set of packed weights, at the same time",
    ),
    Dimension("execution", ("sequential", "parallel"), "of nodes that do not depend on each other"),
    Dimension("arena", ("off", "on"), "memory from the runtime's arena"),
    Dimension("memory_pattern", ("on", "off"), "memory planned ahead"),
    Dimension("memory_reuse", ("on", "off"), "buffers used again for later values"),
    Dimension("prepacking", ("on", "off"), "constants laid out for kernels when loaded"),
    Dimension("qdq_cleanup", ("off", "on"), "QuantizeLinear and DequantizeLinear that remain are removed"),
    Dimension("double_qdq", ("removed", "kept"), "pairs of QuantizeLinear and DequantizeLinear after another"),
    Dimension("qdq_int8", ("plain", "forbidden"), "whether int8 activations are fused as they are"),
    Dimension("saturation", ("plain", "avoided"), "products of u8 and s8 that could leave 16 bits are done otherwise"),
    Dimension(
        "quantizer",
        ("numbers", "tensors", "list", "float_qparams", "tokens"),
        "torch's quantizers: of numbers, of tensors, of a list of tensors, of float zero points, of tokens (as rows)",
    ),
    Dimension(
        "fake_quantizer",
        ("numbers", "tensors", "mask", "learnable", "float_zero_points", "observed"),
        "torch's fake quantizers: of numbers, of tensors, with a mask, learnable, of float zero points, of a range",
    ),
    Dimension(
        "entry",
        ("usual", "older", "aten", "wrapped", "wrapped_packed", "unpacked", "onednn", "second", "sparse"),
        "under which of its names torch's layer is called, where it has that one; sparse: with block-sparse weights",
    ),
    Dimension("nbits_fusion", ("off", "on"), "DequantizeLinear, Reshape, Transpose, MatMul become MatMulNBits"),
    Dimension("invalid", INVALID, "one argument that the operator on real numbers refuses; said of one node alone"),
)
"""All dimensions, those of the model before those of the session."""

_BY_NAME = {d.name: d for d in DIMENSIONS}
CHOICES: tuple[tuple[str, str], ...] = tuple(
    (d.name, v) for d in DIMENSIONS if d.values != INVALID for v in d.values[1:]
)
"""Every value that is not plain and changes nothing that is computed, with its dimension."""

DEFAULTS: dict[str, str] = {d.name: d.values[0] for d in DIMENSIONS}


def form_of(forms: Iterable[str], name: str) -> str:
    """The value of the dimension `name` in `forms`."""
    start = f"{name}="
    return next((f[len(start) :] for f in forms if f.startswith(start)), DEFAULTS[name])


def forms_from(choices: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Forms in their one order; of a dimension that is chosen twice, the last choice."""
    chosen = dict(choices)
    return tuple(f"{n}={chosen[n]}" for n in DEFAULTS if chosen.get(n, DEFAULTS[n]) != DEFAULTS[n])


def check_forms(forms: tuple[str, ...]) -> None:
    """Raise `InvalidCase` unless every form is known and not plain, each dimension once, in their one order."""
    choices = []
    for f in forms:
        name, _, value = f.partition("=")
        if name not in _BY_NAME:
            raise InvalidCase(f"forms: {f!r}; the dimensions are {', '.join(DEFAULTS)}")
        if value not in _BY_NAME[name].values[1:]:
            raise InvalidCase(f"forms: {f!r}; {name} is {' or '.join(_BY_NAME[name].values[1:])}, where it is told")
        choices.append((name, value))
    if forms_from(choices) != forms:
        raise InvalidCase(f"forms: {', '.join(forms)}; each dimension once, in this order: {', '.join(DEFAULTS)}")
