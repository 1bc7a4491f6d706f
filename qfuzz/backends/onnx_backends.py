"""The backend `onnxruntime`: ONNX Runtime's CPU kernels, as QOperator or QDQ graph, at each level of optimization."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onnx import __version__ as onnx_version

from qfuzz.backends import onnx_executor
from qfuzz.backends.environment import describe_machine
from qfuzz.backends.onnx_contracts import contracts_of
from qfuzz.backends.onnx_dialect import FORMATS, IR_VERSION, OPSET, Lowerer
from qfuzz.backends.onnx_executor import Refusal, Session, source_lines
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, Script, Support

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
    """

    def __init__(self, format: str = "qoperator", opt: str = "all", threads: int | str = 1) -> None:
        if format not in FORMATS:
            raise InvalidCase(f"format: {format!r}; one of {', '.join(FORMATS)}")
        if opt not in onnx_executor.LEVELS:
            raise InvalidCase(f"opt: {opt!r}; one of {', '.join(onnx_executor.LEVELS)}")
        self.format, self.opt = format, opt
        self.threads = _positive("threads", threads)
        options = [f"format={format}"] * (format != "qoperator") + [f"opt={opt}"] * (opt != "all" or format == "qdq")
        options += [f"threads={self.threads}"] * (self.threads != 1)
        self.name = "onnxruntime" + ("?" + "&".join(options) if options else "")
        self.fuses = opt != "disable"
        self.contracts: Mapping[str, Contract] = contracts_of(format, opt)
        self._lowerer = Lowerer(format)

    def describe(self) -> dict[str, str]:
        """Versions, build and the float environment."""
        return {
            "version": onnx_executor.VERSION,
            "framework": "onnxruntime",
            "build": onnx_executor.BUILD_INFO,
            "onnx": onnx_version,
            "opset": str(OPSET),
            "ir_version": str(IR_VERSION),
            "format": self.format,
            "opt": self.opt,
            "threads": str(self.threads),
            **describe_machine(),
        }

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel that takes it."""
        return self._lowerer.supports(network)

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "OnnxRuntimeProgram":
        """Load the model in a session of its own."""
        model = self._lowerer.model(network, taps)
        try:
            session = Session(model, self.opt, self.threads)
        except Refusal as e:
            raise _judged(e) from None
        return OnnxRuntimeProgram(session, network.outputs)

    def script(self, network: Network, arrays: Mapping[str, Array], taps: Sequence[str] = ()) -> Script:
        """What runs, for a reader who has onnxruntime only."""
        inputs = {i.name: arrays[i.name] for i in network.inputs}
        lines = source_lines(MODEL_FILE, inputs, (*network.outputs, *taps), self.opt, self.threads)
        return Script(tuple(lines), {MODEL_FILE: self._lowerer.model(network, taps)})


class OnnxRuntimeProgram:
    """A loaded model. `compile_seconds` were spent inside the runtime."""

    def __init__(self, session: Session, outputs: tuple[str, ...]) -> None:
        self._session = session
        self._outputs = outputs
        self.compile_seconds = session.compile_seconds

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name."""
        try:
            return self._session.run(inputs, (*self._outputs, *taps))
        except Refusal as e:
            raise _judged(e) from None


def _judged(refusal: Refusal) -> Unsupported | Rejected:
    for known in REFUSALS:
        if known.message in refusal.message:
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
