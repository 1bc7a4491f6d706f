"""Which operators of ONNX Runtime are covered, by what, and why others are not: one literal table.

An operator is in question where the runtime has a CPU kernel for it and a kernel or the schema admits 2 to 16-bit
integers or float8; the runtime tells which these are (`onnx_kernels`). It is in scope where it has scales: as inputs,
as attributes, or inside of a packed format. So are float operators that the runtime rewrites in QDQ form, to an integer
kernel or by dropping DequantizeLinear and QuantizeLinear around them, and those that quantization tools put between
the two. All else computes on integers that stand for no real numbers.

Every claim of `COVERED` is proven by tests: drawn cases of the operators named are lowered, and the node is there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from qfuzz.backends.onnx_kernels import MICROSOFT, ONNX, Key, Runtime
from qfuzz.backends.onnx_scope import NOT_YET, OUT_OF_SCOPE
from qfuzz.backends.statuses import STATUSES, sentence


class Covered(NamedTuple):
    """Operators of qfuzz whose lowering has this node.

    Attributes
    ----------
    qoperator
        In the form QOperator: on stored integers.
    qdq
        In the form QDQ: on real numbers between DequantizeLinear and QuantizeLinear; these two themselves, too.
    optimized
        Only in what the runtime makes at opt=all of networks of these operators.
    raw
        Whether its kernels on integers are another thing, without scales: then none of their types is in question.
    """

    qoperator: tuple[str, ...] = ()
    qdq: tuple[str, ...] = ()
    optimized: tuple[str, ...] = ()
    raw: bool = False

    @property
    def operators(self) -> tuple[str, ...]:
        """All that are named, once each."""
        return tuple(dict.fromkeys((*self.qoperator, *self.qdq, *self.optimized)))


def _both(*operators: str) -> Covered:
    """The same operators in both forms."""
    return Covered(operators, operators)


def _qdq(*operators: str, raw: bool = False) -> Covered:
    return Covered(qdq=operators, raw=raw)


def _qoperator(*operators: str) -> Covered:
    return Covered(qoperator=operators)


_ONNX: Mapping[str, Covered] = {
    "QuantizeLinear": Covered(("quantize",), ("quantize", "requantize")),
    "DequantizeLinear": Covered(("dequantize",), ("dequantize", "requantize")),
    "DynamicQuantizeLinear": _both("dynamic_quantize"),
    "QLinearConv": _qoperator("conv"),
    "QLinearMatMul": _qoperator("linear", "matmul"),
    "ConvInteger": _both("conv_integer", "dynamic_conv"),
    "MatMulInteger": _both("matmul_integer", "linear_integer"),
    # Real numbers between DequantizeLinear and QuantizeLinear.
    "Conv": _qdq("conv"),
    "ConvTranspose": _qdq("conv_transpose"),
    "Gemm": _qdq("linear", "scaled_mm"),
    "MatMul": _qdq("linear", "matmul"),
    "Add": _qdq("add", raw=True),
    "Sub": _qdq("sub", raw=True),
    "Mul": _qdq("mul", raw=True),
    "Div": _qdq("div", raw=True),
    "Sigmoid": _qdq("sigmoid"),
    "Tanh": _qdq("tanh"),
    "LeakyRelu": _qdq("leaky_relu"),
    "Elu": _qdq("elu"),
    "HardSigmoid": _qdq("hardsigmoid"),
    "HardSwish": _qdq("hardswish"),
    "Gelu": _qdq("gelu"),
    "Softmax": _qdq("softmax"),
    "AveragePool": _qdq("avg_pool"),
    "GlobalAveragePool": _qdq("global_avg_pool"),
    "ReduceMean": _qdq("mean"),
    "LayerNormalization": _qdq("layer_norm"),
    "InstanceNormalization": _qdq("instance_norm"),
    # The same on stored integers, where input and output share a scale and a zero point.
    "Relu": _both("relu"),
    "Clip": _both("clamp"),
    "Min": _both("minimum"),
    "Max": _both("maximum"),
    "Where": _qdq("where"),
    "MaxPool": _both("max_pool"),
    "Concat": _qdq("concat"),
    "Split": _both("split"),
    "Slice": _both("slice"),
    "Pad": _both("pad"),
    "Reshape": _both("reshape"),
    "Flatten": _both("flatten"),
    "Transpose": _both("transpose"),
    "Squeeze": _both("squeeze"),
    "Unsqueeze": _both("unsqueeze"),
    "Expand": _both("expand"),
    "Gather": _both("gather"),
    "DepthToSpace": _both("depth_to_space"),
    "SpaceToDepth": _both("space_to_depth"),
    "ArgMax": _both("argmax"),
    "Resize": _both("interpolate"),
    "Tile": _both("tile"),
    "GatherElements": _both("gather_elements"),
    "ReduceMax": _both("amax"),
    "ReduceMin": _both("amin"),
}

_MICROSOFT: Mapping[str, Covered] = {
    "QuantizeLinear": _both("quantize"),
    "DequantizeLinear": _both("dequantize"),
    "QGemm": _qoperator("linear"),
    "QLinearAdd": _qoperator("add"),
    "QLinearMul": _qoperator("mul"),
    "QLinearSigmoid": _qoperator("sigmoid"),
    "QLinearLeakyRelu": _qoperator("leaky_relu"),
    "QLinearSoftmax": _qoperator("softmax"),
    "QLinearConcat": _qoperator("concat"),
    "QLinearAveragePool": _qoperator("avg_pool"),
    "QLinearGlobalAveragePool": _qoperator("global_avg_pool"),
    "QLinearWhere": _qoperator("where"),
    "QLinearConv": Covered(qoperator=("conv",), optimized=("conv",)),
    "NhwcMaxPool": Covered(qoperator=("max_pool",), optimized=("conv", "max_pool")),
    "DynamicQuantizeMatMul": _qoperator("dynamic_linear"),
    "MatMulIntegerToFloat": _qoperator("linear"),
    "MatMulNBits": _qoperator("weight_only_linear"),
    "GatherBlockQuantized": _qoperator("embedding"),
    "QAttention": _qoperator("attention"),
    "DynamicQuantizeLSTM": _qoperator("lstm"),
    "QEmbedLayerNormalization": _qoperator("embed_layer_norm"),
    "QMoE": _qoperator("moe"),
}

COVERED: Mapping[Key, Covered] = MappingProxyType(
    {(domain, name): c for domain, table in ((ONNX, _ONNX), (MICROSOFT, _MICROSOFT)) for name, c in table.items()}
)
"""Operator of ONNX to what of qfuzz covers it."""


class Row(NamedTuple):
    """What is said of one operator.

    Attributes
    ----------
    key
        Domain and name.
    status
        ``covered``, ``not yet``, ``out of scope`` or ``unlisted``.
    covered
        What covers it, where something does or is to do.
    reason
        Why it is not covered.
    kernel_types
        Narrow types that the runtime's kernels take, and that are in question.
    """

    key: Key
    status: str
    covered: Covered
    reason: str
    kernel_types: tuple[str, ...]


UNLISTED = "new in this release: neither covered nor listed in qfuzz/backends/onnx_scope.py with a reason"


def rows(runtime: Runtime) -> tuple[Row, ...]:
    """One for each operator that is in question with this runtime, by status, then in the order of the tables."""
    operators = runtime.by_key()
    keys = [k for k in (*COVERED, *NOT_YET, *OUT_OF_SCOPE) if k in operators]
    keys += [k for k, o in operators.items() if o.has_kernel and o.admits_narrow and k not in set(keys)]
    found = [_row(k, operators[k].stored) for k in keys]
    return tuple(sorted(found, key=lambda row: STATUSES.index(row.status)))


def _row(key: Key, types: tuple[str, ...]) -> Row:
    if key in COVERED:
        c = COVERED[key]
        return Row(key, "covered", c, "", () if c.raw else types)
    if key in NOT_YET:
        return Row(key, "not yet", Covered(), NOT_YET[key], types)
    if key in OUT_OF_SCOPE:
        return Row(key, "out of scope", Covered(), OUT_OF_SCOPE[key], types)
    return Row(key, "unlisted", Covered(), UNLISTED, types)


def summary(runtime: Runtime) -> str:
    """The counts as a sentence, as `qfuzz ops` and the README say it."""
    which = (
        f"ONNX Runtime {runtime.version} that take 2 to 16-bit integers or float8 on the CPU, directly or in QDQ form"
    )
    return sentence(rows(runtime), which)


def without_kernel(runtime: Runtime) -> tuple[Key, ...]:
    """Operators whose schema admits narrow types, but which this runtime has no CPU kernel for."""
    return tuple(k for k, o in runtime.by_key().items() if o.admits_narrow and not o.has_kernel and k not in COVERED)
