"""A torch model's layers: a module in Python, a file that builds one, an exported program. The model runs once."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qfuzz.audit.layer import Captured, Layer, Uncovered
from qfuzz.audit.torch_builder import built, one_line
from qfuzz.audit.torch_exported import loaded
from qfuzz.audit.torch_graph import GraphReader, is_decomposed
from qfuzz.audit.torch_kernels import NO_OPERATOR, READINGS, REASONS
from qfuzz.audit.torch_lowered import LOWERED
from qfuzz.audit.torch_readings import Work
from qfuzz.audit.torch_trace import Call, Floats, Trace
from qfuzz.audit.torch_values import single_node
from qfuzz.backends.torch_contracts import CONTRACTS
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType


def layers_of_module(model: Any, inputs: Any) -> Iterator[Captured]:
    """The layers of a quantized `torch.nn.Module`, in the order in which they ran on `inputs`.

    Parameters
    ----------
    model
        An eager PTQ model, a PT2E-converted graph module, a module that holds such, or an exported program.
    inputs
        A tensor, or the tuple of the arguments of ``forward``; arrays become tensors.

    Raises
    ------
    InvalidCase
        If the model is none, or does not run on these inputs.
    """
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if not isinstance(model, torch.nn.Module):
        raise InvalidCase(f"model: {type(model).__name__}; audit takes a torch.nn.Module")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arguments = [torch.from_numpy(np.array(i)) if isinstance(i, np.ndarray) else i for i in given]
    trace = Trace()
    try:
        with ExitStack() as entered:
            entered.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # that quantized dtypes are deprecated
            for context in (torch.no_grad(), trace.naming(model), _interpreting(model, trace), trace):
                entered.enter_context(context)
            model(*arguments)
    except (Exception, SystemExit) as e:  # a user's code may raise anything
        if _is_ours(e):
            raise
        raise InvalidCase(f"model: it does not run on these inputs: {one_line(e)}") from None
    return _captured(trace.events)


def layers_of_builder(path: Path, name: str) -> Iterator[Captured]:
    """The layers of the model that the function `name` of the Python file `path` builds. The file is executed.

    Raises
    ------
    InvalidCase
        In one line: the file does not import, the function raises or returns something else than a model and its
        example inputs, or the model does not run on them.
    """
    model, inputs = built(path, name)
    with redirect_stdout(sys.stderr):  # what the model prints
        return layers_of_module(model, inputs)


def layers_of_exported(path: Path, inputs: Sequence[Any] | None = None) -> Iterator[Captured]:
    """The layers of an exported program, on `inputs` (tensors or arrays) or on its own example inputs.

    Raises
    ------
    InvalidCase
        In one line: the file is no exported program, or does not run on these inputs.
    """
    return layers_of_module(*loaded(path, inputs))


@contextmanager
def _interpreting(model: Any, trace: Trace) -> Iterator[None]:
    """Let graphs with quantizing calls of their own be interpreted, while entered."""
    with ExitStack() as undo:
        for module in model.modules():
            if is_decomposed(module):
                module.forward = GraphReader(module, trace).forward
                undo.callback(delattr, module, "forward")
        yield


def _captured(events: list[Any]) -> Iterator[Captured]:
    """What the events say, each forgotten once it is said."""
    seen: Counter[str] = Counter()
    events.reverse()
    while events:
        for captured in _of_event(events.pop()):
            seen[captured.name] += 1
            n = seen[captured.name]
            yield captured if n == 1 else _renamed(captured, f"{captured.name}#{n}")


def _of_event(event: Any) -> Iterator[Captured]:
    match event:
        case Call():
            yield from _of_call(event)
        case Floats(name, ops):
            yield Uncovered(name, ", ".join(ops), "computes on tensors that are not quantized")
        case _:
            yield from event()


def _of_call(call: Call) -> Iterator[Captured]:
    reading = READINGS.get(call.op.rstrip("_"))
    if reading is None:
        yield Uncovered(call.name, call.kernel, REASONS.get(call.op, NO_OPERATOR))
        return
    try:
        for work in reading(call):
            yield _layer(call, work)
    except InvalidCase as e:
        yield Uncovered(call.name, call.kernel, str(e))


def _layer(call: Call, work: Work) -> Layer:
    engine = work.family or call.engine
    return Layer(
        name=call.name,
        kernel=_kernel(call, work),
        case=single_node(work.op, work.operands, work.element),
        got=work.got,
        contract=work.contract or CONTRACTS[engine][work.op.name],
        spec=f"torch-{engine}",
    )


_QNNPACK = frozenset(
    (
        *("relu", "relu6", "hardtanh", "clamp", "sigmoid", "tanh", "hardsigmoid", "hardswish", "softmax"),
        *("add", "add_relu", "max_pool2d", "avg_pool2d", "quantized_max_pool2d", "_adaptive_avg_pool2d", "mean"),
    )
)
"""Operators without packed weights that QNNPACK has kernels for; torch's own take what those do not, int8 for one."""


def _kernel(call: Call, work: Work) -> str:
    """What ran, in the dispatcher's words, and whose code that is."""
    (first, *_) = work.operands
    if call.op in LOWERED:
        kernel = call.kernel
    elif work.family:
        engine = "" if call.engine == work.family else f", engine {call.engine}"
        kernel = f"{call.kernel} [{work.family}{engine}]"
    else:
        kernel = f"{call.kernel} [{'qnnpack' if _by_qnnpack(call, work) else 'native'}]"
    if first.layout:
        kernel += f", {first.layout}"
    said = call.outputs[0].element
    if isinstance(said, QType) and said != work.element:
        kernel += f", which returned {_qtype(said)} though {_qtype(work.element)} was asked for"
    return f"{call.instead} in place of {kernel}" if call.instead else kernel


def _by_qnnpack(call: Call, work: Work) -> bool:
    """Whether the kernel is QNNPACK's: for uint8, one shape of operands, no `ceil_mode`, and what two of them need."""
    short = call.op.split("::")[1].rstrip("_")
    if call.engine != "qnnpack" or short not in _QNNPACK or work.operands[0].array.dtype != "uint8":
        return False
    if short == "mean":
        return list(call["dim"]) == [2, 3]
    if short == "softmax":
        return work.element == QType.per_tensor("uint8", 2.0**-8, 0)
    return len({operand.array.shape for operand in work.operands}) == 1 and not call.arguments.get("ceil_mode")


def _qtype(element: Any) -> str:
    if not isinstance(element, QType):
        return str(element)
    return f"{element.dtype} of scale {element.scale[0]!r}, zero point {element.zero_point[0]}"


def _is_ours(error: BaseException) -> bool:
    """Whether qfuzz's own code raised it: an error of the tool, not of the model."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__", "")).startswith("qfuzz.")


def _renamed(captured: Captured, name: str) -> Captured:
    return replace(captured, name=name)
