"""The backend `onnx-reference`: the reference evaluator of the onnx package, which is NumPy."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from onnx import GraphProto

from qfuzz.backends.environment import with_machine
from qfuzz.backends.executors import Executor, Loaded, executor, python_option
from qfuzz.backends.onnx_dialect import FORMATS, IR_VERSION, Boundary, Lowerer, serialize
from qfuzz.backends.onnx_opsets import OPSET
from qfuzz.backends.onnx_source import evaluator_lines
from qfuzz.ir.contract import Contract, Terms
from qfuzz.ir.errors import InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, Script, Support
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.dynamic import DynamicLayer, DynamicQuantize

MODEL_FILE = "model.onnx"

NO_IMPLEMENTATION = "No implementation for operator"
"""Of onnx/reference/reference_evaluator.py: it has no class of that operator for the model's opset, or for any.

DequantizeLinear, for one, is implemented from opset 19 on.
"""


def _float(k: int, *, sums: bool = False, ulps: float = 0.0, terms: Terms = "real") -> Contract:
    return Contract(
        terms=terms,
        k=k,
        tie="half_even",
        accumulates_float=sums,
        function_ulps=ulps,
        source="onnx/reference/ops: NumPy float32 between op_dequantize_linear.py and op_quantize_linear.py "
        "(np.rint, then + zero point)",
    )


_IN_TYPE = msgspec.structs.replace(
    _float(1),
    in_real_type=True,
    source="onnx/docs/Operators.md QuantizeLinear: the division is done in the type of y_scale; DequantizeLinear: the "
    "product has that type; onnx/reference/ops/op_quantize_linear.py, op_dequantize_linear.py do so",
)
_INTEGER = Contract(
    terms="exact",
    k=0,
    tie="half_even",
    source="onnx/reference/ops/op_conv_integer.py, op_matmul_integer.py: NumPy int32",
)
_DYNAMIC_QUANTIZE = Contract(
    terms="real",
    k=3,
    tie="half_even",
    source="onnx/reference/ops/op_dynamic_quantize_linear.py: float32 (max - min) / 255, 0 - min / scale, x / scale",
)
_DYNAMIC_LINEAR = Contract(
    terms="accumulator",
    k=6,
    tie="half_even",
    source="op_dynamic_quantize_linear.py, op_matmul_integer.py, op_conv_integer.py, then float32 Cast, Mul of the "
    "scales, Mul and Add",
)
_QDQ: Mapping[str, Contract] = MappingProxyType(
    dict.fromkeys(OPERATOR_NAMES, _float(3))
    | {
        "quantize": _IN_TYPE,
        "dequantize": _IN_TYPE,
        "conv": _float(6, sums=True),
        "linear": _float(6, sums=True),
        "scaled_mm": _float(4, sums=True),
        "mul": _float(4),
        "avg_pool": _float(4, sums=True),
        "global_avg_pool": _float(4, sums=True),
        "sigmoid": _float(4, ulps=4.0),
        "tanh": _float(4, ulps=4.0),
        "elu": _float(4, ulps=4.0, terms="affine"),
        "softmax": _float(4, ulps=4.0),
        "attention": _float(4, sums=True, ulps=4.0),
        "weight_only_linear": _float(1, sums=True),
        "embedding": _IN_TYPE,
        "hardsigmoid": _float(6),
        "hardswish": _float(7),
        "div": _float(4),
        "minimum": _float(2),
        "maximum": _float(2),
        "where": _float(2),
        "amax": _float(2),
        "amin": _float(2),
        "gelu": _float(6, ulps=4.0),
        "layer_norm": _float(9, sums=True),
        "instance_norm": _float(9, sums=True),
        "mean": _float(3, sums=True),
        "interpolate": _float(8, sums=True),
        "matmul": _float(3, sums=True),
        "conv_transpose": _float(3, sums=True),
        "conv_integer": _INTEGER,
        "linear_integer": _INTEGER,
        "matmul_integer": _INTEGER,
        "dynamic_quantize": _DYNAMIC_QUANTIZE,
        "dynamic_linear": _DYNAMIC_LINEAR,
        "dynamic_conv": _DYNAMIC_LINEAR,
    }
)
_ROUNDS_AFTER = Contract(
    terms="affine",
    k=5,
    tie="either_even",
    source="onnx/reference/ops/op_qlinear_conv.py, op_qlinear_matmul.py: "
    "int32 acc * (s_x*s_w/s_y) + zero point, then np.rint",
)
_COMPARED = Contract(
    terms="exact",
    k=0,
    tie="half_even",
    source="op_min.py, op_max.py: np.minimum, np.maximum; op_reduce_max.py, op_reduce_min.py: their reductions",
)
_INTEGERS = dict.fromkeys(("conv", "linear", "matmul"), _ROUNDS_AFTER) | dict.fromkeys(
    ("minimum", "maximum", "amax", "amin"), _COMPARED
)
_CONTRACTS: Mapping[str, Mapping[str, Contract]] = MappingProxyType(
    {"qdq": _QDQ, "qoperator": MappingProxyType(dict(_QDQ) | _INTEGERS)}
)


class OnnxReferenceBackend:
    """The ONNX reference evaluator.

    Parameters
    ----------
    format
        ``qdq`` or ``qoperator``; the latter has only what ONNX itself defines.
    python
        The Python whose onnx runs; empty for this one.
    """

    fuses = False

    def __init__(self, format: str = "qdq", python: str = "") -> None:
        if format not in FORMATS:
            raise InvalidCase(f"format: {format!r}; one of {', '.join(FORMATS)}")
        self.format = format
        options = [f"format={format}"] * (format != "qdq") + python_option(python)
        self.name = "onnx-reference" + ("?" + "&".join(options) if options else "")
        self.contracts: Mapping[str, Contract] = _CONTRACTS[format]
        self._lowerer = Lowerer(format, _refuse)
        self._executor: Executor = executor("onnx_reference_executor", python)

    def describe(self) -> dict[str, str]:
        """Versions and the machine."""
        dialect = {"opset": str(OPSET), "ir_version": str(IR_VERSION), "format": self.format}
        return with_machine({**self._executor.facts(), **dialect})

    def supports(self, network: Network) -> Support:
        """Whether every node has an operator that ONNX defines."""
        return self._lowerer.supports(network)

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "OnnxReferenceProgram":
        """Load the model."""
        lowered = self._lowerer.lowered(network)
        try:
            evaluation = self._executor.load(serialize(network, lowered, taps))
        except self._executor.Refusal as e:
            if NO_IMPLEMENTATION in str(e):
                raise Unsupported(f"the evaluator says so itself: {e}") from None
            raise Rejected(str(e)) from None
        return OnnxReferenceProgram(
            evaluation, network.outputs, Boundary(network, lowered.feeds), self._executor.Refusal
        )

    def script(self, network: Network, arrays: Mapping[str, Array], taps: Sequence[str] = ()) -> Script:
        """What runs, for a reader who has onnx only."""
        lowered = self._lowerer.lowered(network)
        boundary = Boundary(network, lowered.feeds)
        inputs = boundary.fed({i.name: arrays[i.name] for i in network.inputs})
        lines = evaluator_lines(MODEL_FILE, inputs, boundary.names((*network.outputs, *taps)))
        return Script(tuple(lines), {MODEL_FILE: serialize(network, lowered, taps)})


class OnnxReferenceProgram:
    """A loaded model."""

    def __init__(
        self, evaluation: Loaded, outputs: tuple[str, ...], boundary: Boundary, refusal: type[Exception]
    ) -> None:
        self._evaluation, self._outputs, self._boundary, self._refusal = evaluation, outputs, boundary, refusal
        self.compile_seconds = evaluation.compile_seconds

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name."""
        names = (*self._outputs, *taps)
        try:
            values = self._evaluation.run(self._boundary.fed(inputs), self._boundary.names(names))
            return self._boundary.returned(names, values)
        except self._refusal as e:
            raise Rejected(str(e)) from None


def _refuse(network: Network, graph: GraphProto) -> None:
    for node in network.nodes:
        if isinstance(node.op, DynamicQuantize | DynamicLayer) and not network.types[node.inputs[0]].n_elements:
            raise Unsupported(
                f"{node.op.name} {node.name!r}: x is empty, of which NumPy has no maximum; nor says ONNX what it is "
                "(ReduceMax, in opset 11)"
            )
    for proto in graph.node:
        if proto.domain:
            raise Unsupported(f"{proto.op_type} of {proto.domain} is no operator of ONNX itself")
