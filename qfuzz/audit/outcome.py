"""What an audit as a whole returns: a report per layer, what is not judged and why, and the cases that are violated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from qfuzz.audit.layer import Captured, Layer, LayerReport, Uncovered, judge
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import BackendMissing, InvalidCase
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Array
from qfuzz.ops import CODEC


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that returned what no correct kernel may return.

    Attributes
    ----------
    case
        One node and what it received, as a case file.
    index, got
        The first violating element; no index where the output as a whole cannot be compared.
    spec
        The qfuzz backend that runs this case on the same kernel; empty where there is none.
    """

    layer: str
    kernel: str
    spec: str
    case: bytes
    contract: Contract
    index: tuple[int, ...]
    got: float | None
    cause: str | None

    def decoded(self) -> Case:
        """The case."""
        return CODEC.decode(self.case).case


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """A model, layer by layer.

    Attributes
    ----------
    layers
        Those that were judged, in the order in which they ran.
    uncovered
        Those that were not, each with its reason.
    notes
        What a reader should know about the run.
    violations
        The first violating layers with their cases.
    """

    model: str
    layers: tuple[LayerReport, ...]
    uncovered: tuple[Uncovered, ...]
    notes: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()

    @property
    def violating(self) -> tuple[LayerReport, ...]:
        """The layers with a violation."""
        return tuple(r for r in self.layers if r.violation)

    @property
    def verdict(self) -> str:
        """One line."""
        elements = sum(r.elements for r in self.layers)
        unjudged = f"; {_layers(len(self.uncovered))} not judged" if self.uncovered else ""
        if self.violating:
            wrong = sum(r.violation for r in self.violating)
            wrong_in = f"{wrong} of {elements} elements in {_layers(len(self.violating))} are wrong"
            return f"violation: {wrong_in}{self._weights()}{unjudged}"
        exact = sum(r.exact for r in self.layers)
        how = "every one exact" if exact == elements else f"{exact} exact, {elements - exact} admissible"
        return f"no violation: {elements} elements in {_layers(len(self.layers))}, {how}{self._weights()}{unjudged}"

    def _weights(self) -> str:
        """Which use of the weights explains how many layers, of the arithmetics that the catalogue has.

        Of a kernel that sums floats in an order of its own, integers may be all that explains it.
        """
        told = [r.weights for r in self.layers if r.weights]
        texts = {
            ("integers",): "only integers explain",
            ("dequantized",): "only dequantized float32 explains",
            ("integers", "dequantized"): "integers and dequantized float32 both explain",
        }
        return "".join(f"; {text} {_layers(told.count(w))}" for w, text in texts.items() if w in told)


CASES_KEPT = 16
"""Cases of so many violating layers are kept: one may hold millions of elements."""

_NO_ARITHMETIC = frozenset(("quantize", "dequantize"))


def audit(
    target: Any,
    inputs: Any = None,
    *,
    seed: int = 0,
    level: str | None = None,
    dimensions: Mapping[str, int] | None = None,
    engine: str | None = None,
    on_layer: Callable[[int], None] = lambda n: None,
) -> Audit:
    """Judge a quantized model layer by layer: each kernel on what it received.

    Parameters
    ----------
    target
        A path of an ``.onnx`` file, which is never executed but by ONNX Runtime; of an exported program (``.pt2``);
        ``module.py:build``, which is executed and returns a model and its example inputs; or a `torch.nn.Module`.
    inputs
        What it runs on. ONNX: arrays by name, else drawn from `seed`. Exported programs: arrays in order, else its own
        example inputs. Modules: the argument of ``forward``, or a tuple of them.
    level
        ONNX Runtime's level of graph optimizations; by default ``all``.
    dimensions
        Sizes of an ONNX model's symbolic dimensions by name; others are 1.
    engine
        PyTorch's quantized engine to run under; by default the current one.
    on_layer
        Called with the number of layers judged so far.

    Raises
    ------
    InvalidCase
        In one line: a bad model file, inputs that do not fit, a builder that raises, or nothing to judge.
    BackendMissing
        Where the model's framework is not installed.
    """
    name = str(target) if isinstance(target, (str, Path)) else type(target).__name__
    if isinstance(target, (str, Path)) and name.endswith(".onnx"):
        if engine is not None:
            raise InvalidCase("engine: PyTorch has engines; ONNX Runtime has none")
        captured, notes = _of_onnx(Path(name), inputs, seed, level or "all", dimensions or {})
    else:
        if level is not None or dimensions:
            raise InvalidCase("level, dimensions: of ONNX models; PyTorch has neither")
        if isinstance(target, (str, Path)) and not (name.endswith(".pt2") or ".py:" in name):
            raise InvalidCase(f"{name}: a model is FILE.onnx, FILE.pt2 or FILE.py:FUNCTION")
        captured, notes = _of_torch(target, inputs, engine), ()
    return _judged(name, captured, notes, on_layer)


def _judged(name: str, captured: Iterator[Captured], notes: tuple[str, ...], on_layer: Callable[[int], None]) -> Audit:
    """Judge layer after layer, keeping none of them."""
    reports: list[LayerReport] = []
    uncovered: list[Uncovered] = []
    violations: list[Violation] = []
    for one in captured:
        match one:
            case Uncovered():
                uncovered.append(one)
            case Layer():
                report = judge(one)
                reports.append(report)
                if report.violation and len(violations) < CASES_KEPT:
                    violations.append(violation_of(one, report))
        on_layer(len(reports))
    if not reports and not uncovered:
        raise InvalidCase(f"{name}: no quantized layer: nothing in it ran on quantized values")
    if uncovered and all(r.op in _NO_ARITHMETIC for r in reports):
        first = uncovered[0]
        raise InvalidCase(
            f"{name}: none of its {_layers(len(uncovered))} can be judged; the first is {first.name} ({first.kernel}): "
            f"{first.reason}"
        )
    return Audit(
        model=name, layers=tuple(reports), uncovered=tuple(uncovered), notes=notes, violations=tuple(violations)
    )


def violation_of(layer: Layer, report: LayerReport) -> Violation:
    """What is kept of a violating layer."""
    index = next(iter(report.violating), ())
    return Violation(
        layer=layer.name,
        kernel=layer.kernel,
        spec=layer.spec or "",
        case=CODEC.encode(layer.case),
        contract=layer.contract,
        index=index,
        got=None if report.problem else float(layer.got[index]),
        cause=report.cause,
    )


def _of_onnx(
    path: Path, inputs: Any, seed: int, level: str, dimensions: Mapping[str, int]
) -> tuple[Iterator[Captured], tuple[str, ...]]:
    try:
        from qfuzz.audit.onnx_layers import layers_of_onnx
    except ImportError as e:
        raise BackendMissing(f"{path}: {e}; pip install 'qfuzz[onnxruntime]'") from None
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InvalidCase("inputs: an ONNX model takes arrays by name")
    given = None if inputs is None else {str(k): np.asarray(v) for k, v in inputs.items()}
    found = layers_of_onnx(path, given, seed=seed, level=level, dimensions=dimensions)
    return found.layers, found.notes


def _of_torch(target: Any, inputs: Any, engine: str | None) -> Iterator[Captured]:
    try:
        from qfuzz.audit import torch_layers
        from qfuzz.audit.torch_engine import chosen_engine
    except ImportError as e:
        raise BackendMissing(f"{target}: {e}; pip install 'qfuzz[torch]'") from None
    with chosen_engine(engine):
        if not isinstance(target, (str, Path)):
            if inputs is None:
                raise InvalidCase("inputs: a module is audited on example inputs; none are given")
            yield from torch_layers.layers_of_module(target, inputs)
            return
        path, _, function = str(target).partition(".py:")
        if function:
            if inputs is not None:
                raise InvalidCase(f"{target}: a builder returns its own example inputs; none are given beside it")
            yield from torch_layers.layers_of_builder(Path(f"{path}.py"), function)
        else:
            yield from torch_layers.layers_of_exported(Path(path), _in_order(inputs))


def _in_order(inputs: Any) -> Sequence[Array] | None:
    if inputs is None:
        return None
    return list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)


def _layers(n: int) -> str:
    return f"{n} layer" if n == 1 else f"{n} layers"
