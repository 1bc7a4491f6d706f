"""The backend `onnxruntime`: ONNX Runtime's CPU kernels, as QOperator or QDQ graph, at each level of optimization."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onnx import GraphProto
from onnx import __version__ as onnx_version

from qfuzz.backends.environment import with_machine
from qfuzz.backends.executors import Executor, Loaded, executor, python_option
from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.backends.onnx_dialect import FORMATS, IR_VERSION, Boundary, Lowerer, serialize
from qfuzz.backends.onnx_opsets import OPSET
from qfuzz.backends.onnx_source import LEVELS, runtime_lines
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, NotSupported, Script, Support

MODEL_FILE = "model.onnx"


class KnownRefusal(NamedTuple):
    """A refusal that the runtime documents: part of its message, what is refused, and where that is said."""

    message: str
    reason: str
    source: str


REFUSALS: tuple[KnownRefusal, ...] = (
    KnownRefusal(
        "zero point of per-channel filter must be same",
        "QLinearConv takes per-channel weights with one zero point for all channels",
        "core/providers/cpu/quantization/qlinearconv.cc of releases before 1.32, which computes them",
    ),
    *(
        KnownRefusal(
            f"'{mode}' mode only supports:",
            f"Resize in {mode.lower()} mode resizes the dimensions of images only",
            "UpsampleBase::ScalesValidation in core/providers/cpu/tensor/upsamplebase.h",
        )
        for mode in ("Linear", "Cubic")
    ),
    KnownRefusal(
        "Dilation not supported for AutoPadType",
        "auto_pad is SAME_UPPER or SAME_LOWER, and the kernel is dilated",
        "ComputePadAndOutputShape in core/providers/common.h",
    ),
    KnownRefusal(
        "Non per-tensor quantization is not supported now",
        "ConvInteger takes weights with one zero point for all channels",
        "core/providers/cpu/quantization/conv_integer.cc, ORT_ENFORCE(IsScalarOr1ElementVector(W_Zero_Point))",
    ),
    KnownRefusal(
        "should have 2 dimensions and dimension size is known",
        "QEmbedLayerNormalization takes tables of a size that the model says",
        "the message itself, in core/graph/contrib_ops/shape_inference_functions.cc",
    ),
    KnownRefusal(
        "MatMulNBits on CPU does not support 8-bit weights with floating-point zero points",
        "MatMulNBits of 8 bits takes uint8 zero points only",
        "the message itself, MatMulNBits in contrib_ops/cpu/quantization/matmul_nbits.cc",
    ),
    KnownRefusal(
        "2-bit MatMulNBits block_size must not exceed 256",
        "MatMulNBits of 2 bits takes blocks of 256 at most",
        "the message itself, MatMulNBits in contrib_ops/cpu/quantization/matmul_nbits.cc",
    ),
    KnownRefusal(
        "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions",
        f"this release of ONNX Runtime does not know opset {OPSET}",
        "ValidateOpsetForDomain in core/graph/model_load_utils.h",
    ),
    KnownRefusal(
        "Unsupported model IR version",
        f"this release of ONNX Runtime does not read models of IR version {IR_VERSION}",
        "Model::Model in core/graph/model.cc",
    ),
)


CLEANUP = (
    "qdq_cleanup=on may leave out the rounding between two nodes: it 'could impact accuracy' "
    "(kOrtSessionOptionsEnableQuantQDQCleanup in onnxruntime_session_options_config_keys.h)"
)


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU.

    Parameters
    ----------
    format
        ``qoperator`` or ``qdq``.
    opt
        Level of graph optimizations: ``disable``, ``basic``, ``extended`` or ``all``.
    threads
        Threads of one operator.
    python
        The Python whose onnxruntime runs; empty for this one.
    """

    def __init__(self, format: str = "qoperator", opt: str = "all", threads: int | str = 1, python: str = "") -> None:
        if format not in FORMATS:
            raise InvalidCase(f"format: {format!r}; one of {', '.join(FORMATS)}")
        if opt not in LEVELS:
            raise InvalidCase(f"opt: {opt!r}; one of {', '.join(LEVELS)}")
        self.format, self.opt = format, opt
        self.threads = _positive("threads", threads)
        options = [f"format={format}"] * (format != "qoperator") + [f"opt={opt}"] * (opt != "all" or format == "qdq")
        options += [f"threads={self.threads}"] * (self.threads != 1) + python_option(python)
        self.name = "onnxruntime" + ("?" + "&".join(options) if options else "")
        self.fuses = opt != "disable"
        self.contracts: Mapping[str, Contract] = contracts_of(format, opt)
        self._lowerer = Lowerer(format, _refuse)
        self._executor: Executor = executor("onnx_executor", python)

    def describe(self) -> dict[str, str]:
        """Versions, build and the float environment."""
        return with_machine(
            {
                **self._executor.facts(),
                "onnx": onnx_version,
                "opset": str(OPSET),
                "ir_version": str(IR_VERSION),
                "format": self.format,
                "opt": self.opt,
                "threads": str(self.threads),
            }
        )

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel that takes it, and the result is still the network's."""
        if self.fuses and len(network.nodes) > 1 and network.form("qdq_cleanup") == "on":
            return NotSupported(CLEANUP)
        return self._lowerer.supports(network)

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "OnnxRuntimeProgram":
        """Load the model in a session of its own."""
        lowered = self._lowerer.lowered(network)
        try:
            session = self._executor.load(serialize(network, lowered, taps), self.opt, self.threads, lowered.session)
        except self._executor.Refusal as e:
            raise _judged(e) from None
        return OnnxRuntimeProgram(session, network.outputs, Boundary(network, lowered.feeds), self._executor.Refusal)

    def script(self, network: Network, arrays: Mapping[str, Array], taps: Sequence[str] = ()) -> Script:
        """What runs, for a reader who has onnxruntime only."""
        lowered = self._lowerer.lowered(network)
        boundary = Boundary(network, lowered.feeds)
        inputs = boundary.fed({i.name: arrays[i.name] for i in network.inputs})
        names = boundary.names((*network.outputs, *taps))
        lines = runtime_lines(MODEL_FILE, inputs, names, self.opt, self.threads, lowered.session)
        return Script(tuple(lines), {MODEL_FILE: serialize(network, lowered, taps)})


class OnnxRuntimeProgram:
    """A loaded model. `compile_seconds` were spent inside the runtime."""

    def __init__(self, session: Loaded, outputs: tuple[str, ...], boundary: Boundary, refusal: type[Exception]) -> None:
        self._session, self._outputs, self._boundary, self._refusal = session, outputs, boundary, refusal
        self.compile_seconds = session.compile_seconds

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name."""
        names = (*self._outputs, *taps)
        try:
            values = self._session.run(self._boundary.fed(inputs), self._boundary.names(names))
            return self._boundary.returned(names, values)
        except self._refusal as e:
            raise _judged(e) from None


def _refuse(network: Network, graph: GraphProto) -> None:
    if any(t.dtype == "bfloat16" for t in network.types.values()):
        raise Unsupported(
            "bfloat16: the CPU provider's QuantizeLinear and DequantizeLinear take float32 and float16 "
            "(core/providers/cpu/quantization/quantize_linear.cc, the kernels' type constraints)"
        )


def _judged(refusal: Exception) -> Unsupported | Rejected:
    for known in REFUSALS:
        if known.message in str(refusal):
            return Unsupported(f"{known.reason} ({known.source})")
    return Rejected(str(refusal))


def _positive(option: str, value: int | str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise InvalidCase(f"{option}: {value!r}; a number of at least 1")
    return number
