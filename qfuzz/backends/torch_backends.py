"""The torch backends: the four engines of the eager quantized kernels, and the export dialect's onednn kernels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qfuzz.backends.environment import with_machine
from qfuzz.backends.executors import Executor, Loaded, executor, python_option
from qfuzz.backends.torch_calls import CallList
from qfuzz.backends.torch_contracts import CONTRACTS
from qfuzz.backends.torch_dialect import lower_eager
from qfuzz.backends.torch_export_contracts import COMPILED_CONTRACTS, QDQ_CONTRACTS
from qfuzz.backends.torch_export_dialect import lower_export
from qfuzz.backends.torch_export_qdq import lower_qdq
from qfuzz.backends.torch_float import float_twin
from qfuzz.backends.torch_invalid import changed, ruled_out
from qfuzz.backends.torch_isa import CAPS, capped_flags
from qfuzz.backends.torch_source import source_lines, value_source
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import Corrupted, InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import Array, NotSupported, Script, Support, Supported
from qfuzz.ir.qtype import FLOAT8, dtype_of
from qfuzz.ir.tensor import DTYPES

EXPORT = "export"


class KnownRefusal(NamedTuple):
    """A refusal that the framework documents: part of its message, when it comes, and where that is said."""

    message: str
    condition: str
    source: str


_OTHER_SCHEMA = "this release of torch registers that operator with other arguments"
REFUSALS: tuple[KnownRefusal, ...] = (
    KnownRefusal("has no attribute", "this release of torch has no such call", "looked up in torch by name"),
    *(
        KnownRefusal(words, _OTHER_SCHEMA, "FunctionSchema::checkAndNormalizeInputs in ATen/core/function_schema_inl.h")
        for words in ("Unknown keyword argument", "is missing value for argument", "Expected at most")
    ),
    KnownRefusal(
        "QNNPACK only supports",
        "QNNPACK unpacks weights of conv2d alone: none of other convolutions are saved, copied or packed again",
        "aten/src/ATen/native/quantized/cpu/qconv_unpack_impl.cpp: 'QNNPACK only supports conv2d_unpack right now'",
    ),
    KnownRefusal(
        "Quantized copy only works with contiguous and NHWC Tensors",
        "a value lies in memory in a way that the call copies to",
        "aten/src/ATen/native/quantized/Copy.cpp: assignment of a non-contiguous quantized subtensor is not supported",
    ),
    *(
        KnownRefusal(words, "x lies in memory in another way than the kernel takes", f"LinearAlgebra.cpp: {words!r}")
        for words in ("A must be contiguous on the last dimension", "expect A to be contiguous")
    ),
    KnownRefusal(
        "to_quant must not contain NaNs",
        "groups of reals that hold NaN",
        "quantized_decomposed.quantize_per_channel_group",
    ),
)


class TorchBackend:
    """One engine of torch's quantized kernels.

    Parameters
    ----------
    engine
        ``fbgemm``, ``x86``, ``onednn`` or ``qnnpack``.
    threads
        Threads of one operator.
    layout
        ``contiguous``, or ``channels_last`` for images.
    isa
        The newest instruction set that torch's libraries may use, one of `CAPS`; empty for all that the CPU has.
    python
        The Python whose torch runs; empty for this one.
    format
        Of ``export``: ``onednn``, the calls that graphs are lowered to, or ``qdq``, float operators between
        quantized_decomposed ones.
    compile
        Of ``qdq``: ``none``, or ``inductor``, by which torch.compile fuses them.
    """

    def __init__(
        self,
        engine: str,
        threads: int | str = 1,
        layout: str = "contiguous",
        isa: str = "",
        python: str = "",
        format: str = "onednn",
        compile: str = "none",
    ) -> None:
        self.engine = engine
        self.format, self.compiler = _export_options(engine, format, compile)
        self.fuses = bool(self.compiler)
        self.threads = _positive("threads", threads)
        if layout not in ("contiguous", "channels_last"):
            raise InvalidCase(f"layout: {layout!r}; one of contiguous, channels_last")
        if isa and isa not in CAPS:
            raise InvalidCase(f"isa: {isa!r}; one of {', '.join(CAPS)}")
        self.layout, self.isa = layout, isa
        options = [f"threads={self.threads}"] * (self.threads != 1) + [f"layout={layout}"] * (layout != "contiguous")
        options += [f"format={format}"] * (format != "onednn") + [f"compile={compile}"] * (compile != "none")
        options += [f"isa={isa}"] * bool(isa) + python_option(python)
        self.name = f"torch-{engine}" + ("?" + "&".join(options) if options else "")
        self.contracts: Mapping[str, Contract] = CONTRACTS[engine]
        if self.format == "qdq":
            self.contracts = {**self.contracts, **(COMPILED_CONTRACTS if self.compiler else QDQ_CONTRACTS)}
        self._executor: Executor = executor("torch_executor", python, CAPS.get(isa, {}))

    def describe(self) -> dict[str, str]:
        """Versions and the float environment."""
        options = {"engine": self.engine, "threads": str(self.threads), "layout": self.layout}
        machine = with_machine({**self._executor.facts(), **options})
        if self.isa:
            machine |= {"isa": self.isa, "cpu_flags": capped_flags(machine["cpu_flags"], self.isa)}
        return machine

    def calls(self, network: Network) -> CallList:
        """The calls that `network` becomes, as its form changes them; raises `Unsupported`."""
        calls = self._plain_calls(network)
        return changed(calls, network) if network.is_invalid else calls

    def _plain_calls(self, network: Network) -> CallList:
        """The calls of the network before its form changes them; the network keeps them."""
        if self.format == "qdq":
            return self._compiled(lower_qdq(network))
        if self.engine == EXPORT:
            return lower_export(network)
        return lower_eager(network, self.engine, "channels_last" if self.layout == "channels_last" else "")

    def _compiled(self, calls: CallList) -> CallList:
        """The calls as one compiled function, if they shall be: of one caller, where weights are constants."""
        if not self.compiler:
            return calls
        kept = tuple(s for s in calls.settings if not s.startswith(("callers=", "packing=")))
        return calls._replace(settings=(*kept, f"compile={self.compiler}"))

    def supports(self, network: Network) -> Support:
        """Whether every node lowers to a kernel."""
        try:
            self.calls(network)
        except Unsupported as e:
            return NotSupported(str(e))
        return Supported()

    def why_invalid(self, network: Network, inputs: Mapping[str, Array]) -> str:
        """What torch's own float operators say of the changed calls, or the text that rules the change out."""
        kind, calls = network.form("invalid"), self.calls(network)
        if text := ruled_out(calls, kind):
            return text
        if said := self._float_refusal(self._plain_calls(network), network, inputs):
            raise Unsupported(f"{kind}: the float operator refuses the network as it is, too: {said}")
        said = self._float_refusal(calls, network, inputs)
        return f"on float32, {said}" if said else ""

    def _float_refusal(self, calls: CallList, network: Network, inputs: Mapping[str, Array]) -> str:
        """Why the float twin of `calls` is refused, or nothing."""
        constants = {name: as_numpy_has_it(t.array) for name, t in network.constant_data.items()}
        fed = {name: as_numpy_has_it(a) for name, a in inputs.items()}
        try:
            self._executor.load(float_twin(calls), constants, self.threads).run(fed, ())
        except self._executor.Refusal as e:
            return str(e)
        return ""

    def compile(self, network: Network, taps: Sequence[str] = ()) -> "TorchProgram":
        """Prepack. Eager values can all be read, so `taps` change nothing; compiled, all others may be fused away."""
        calls = self.calls(network)
        if self.compiler:
            wanted = (*network.outputs, *taps)
            calls = calls._replace(values=tuple(d for d in calls.values if d.name in wanted))
        constants = {name: as_numpy_has_it(t.array) for name, t in network.constant_data.items()}
        try:
            execution = self._executor.load(calls, constants, self.threads)
        except self._executor.Refusal as e:
            raise _judged(e) from None
        dtypes = {n.name: DTYPES[dtype_of(n.element)] for n in network.nodes}
        return TorchProgram(execution, network.outputs, self._executor.Refusal, dtypes)

    def script(self, network: Network, arrays: Mapping[str, Array], taps: Sequence[str] = ()) -> Script:
        """The calls as statements that need torch and NumPy only."""
        calls = self.calls(network)
        wanted = (*network.outputs, *taps)
        values = [f"    {d.name!r}: {value_source(d)}.numpy()," for d in calls.values if d.name in wanted]
        plain = {name: as_numpy_has_it(a) for name, a in arrays.items()}
        twin: tuple[str, ...] = ()
        if network.is_invalid and not ruled_out(calls, network.form("invalid")):
            twin = tuple(source_lines(float_twin(calls), plain, self.threads))
        return Script((*source_lines(calls, plain, self.threads), "outputs = {", *values, "}"), {}, twin)


class TorchProgram:
    """A prepared call list. `compile_seconds` were spent inside torch."""

    def __init__(
        self,
        execution: Loaded,
        outputs: tuple[str, ...],
        refusal: type[Exception],
        dtypes: Mapping[str, np.dtype[Any]],
    ) -> None:
        self._execution, self._outputs, self._refusal, self._dtypes = execution, outputs, refusal, dtypes
        self.compile_seconds = execution.compile_seconds

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs and taps by name, as stored integers (float32 values for a float32 result)."""
        fed = {name: as_numpy_has_it(a) for name, a in inputs.items()}
        try:
            returned = self._execution.run(fed, (*self._outputs, *taps))
        except self._refusal as e:
            raise _judged(e) from None
        return {name: as_stored(a, self._dtypes[name]) for name, a in returned.items()}


def as_numpy_has_it(array: Array) -> Array:
    """The array in a type that NumPy itself has: narrow integers in a byte each, the bits of other reals."""
    name = array.dtype.name
    if name in NARROW:
        return array.astype(NARROW[name])
    return array.view(BITS[name]) if name in BITS else array


def as_stored(array: Array, dtype: np.dtype[Any]) -> Array:
    """What `as_numpy_has_it` made of an array of `dtype`, turned back; left alone where that is another array."""
    name = dtype.name
    if name in NARROW and array.dtype == NARROW[name]:
        narrow = array.astype(dtype)
        return narrow if np.array_equal(narrow.astype(array.dtype), array) else array
    return array.view(dtype) if array.dtype == BITS.get(name) else array


NARROW = {"uint2": "uint8", "uint4": "uint8", "int2": "int8", "int4": "int8"}
BITS: dict[str, str] = {"bfloat16": "int16", **dict.fromkeys(FLOAT8, "uint8")}


def _judged(refusal: Exception) -> Unsupported | Rejected | Corrupted:
    if "was changed by a call that reads it" in str(refusal):
        return Corrupted(str(refusal))
    for known in REFUSALS:
        if known.message in str(refusal):
            return Unsupported(f"{known.condition} ({known.source})")
    return Rejected(str(refusal))


def _export_options(engine: str, format: str, compile: str) -> tuple[str, str]:
    """The format of the export dialect and what compiles it, checked; empty where there is none."""
    if format not in ("onednn", "qdq") or (format == "qdq" and engine != EXPORT):
        raise InvalidCase(f"format: {format!r} of {engine}; onednn, or of the export dialect qdq")
    if compile not in ("none", "inductor") or (compile == "inductor" and format != "qdq"):
        raise InvalidCase(f"compile: {compile!r} of {format}; none, or of format qdq inductor")
    return format if engine == EXPORT else "", "" if compile == "none" else compile


def _positive(option: str, value: int | str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise InvalidCase(f"{option}: {value!r}; a number of at least 1")
    return number
