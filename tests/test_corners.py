"""What the written specifications leave open: CORNERS.md says what each backend returns there, and all of it holds."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfuzz.backends.discovery import BUILT_IN, is_installed, load_backend
from qfuzz.ir.errors import QfuzzError
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import NotSupported
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.binary import Div
from qfuzz.ops.dynamic import DynamicQuantize
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.ordering import Topk
from qfuzz.ops.quantization import Quantize
from qfuzz.oracle.check import check

PAGE = Path(__file__).parents[1] / "qfuzz" / "CORNERS.md"
BACKENDS = (
    "onnxruntime",
    "onnxruntime?format=qdq&opt=disable",
    "onnxruntime?format=qdq&opt=all",
    "onnx-reference",
    "torch-fbgemm",
    "torch-onednn",
    "torch-x86",
    "torch-qnnpack",
    "torch-export",
)

U8 = QType.per_tensor("uint8", 1.0, 3)


def _case(op: Operator, element: Element, *inputs: tuple[list[float], Element], forms: tuple[str, ...] = ()) -> Case:
    values = tuple(Input(f"x{i}", TensorType(np.shape(data), e)) for i, (data, e) in enumerate(inputs))
    network = Network(values, (), (Node("y", op, tuple(v.name for v in values), element),), ("y",), forms)
    return Case(
        network, tuple(Tensor(np.array(d, dtype=v.type.dtype)) for v, (d, _) in zip(values, inputs, strict=True))
    )


def _fake_quantized(x: list[float], n: tuple[int, ...]) -> Case:
    """Levels of scale 1 and zero point 3, from 0 to 255."""
    constants = tuple(
        Constant(name, TensorType(n, element), Tensor(np.full(n, value, dtype=element)))
        for name, element, value in (("s", "float32", 1), ("z", "int32", 3))
    )
    values = (Input("x0", TensorType(np.shape(x), "float32")),)
    node = Node("y", FakeQuantize(), ("x0", "s", "z"), "float32")
    return Case(Network(values, constants, (node,), ("y",)), (Tensor(np.array(x, dtype=np.float32)),))  # type: ignore[arg-type]


NO_KERNEL = "\u2013"

CORNERS: dict[str, Case] = {
    "quantize NaN to uint8": _case(Quantize(), QType.per_tensor("uint8", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to int8": _case(Quantize(), QType.per_tensor("int8", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to uint16": _case(Quantize(), QType.per_tensor("uint16", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to int4": _case(Quantize(), QType.per_tensor("int4", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to int32": _case(Quantize(), QType.per_tensor("int32", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to uint4": _case(Quantize(), QType.per_tensor("uint4", 1.0, 0), ([float("nan")], "float32")),
    "quantize NaN to uint8, on an axis": _case(
        Quantize(), QType("uint8", (1.0,), (3,), 0), ([float("nan")], "float32")
    ),
    "the same, with a float zero point": _case(
        Quantize(), QType("uint8", (1.0,), (3,), 0), ([float("nan")], "float32"), forms=("quantizer=float_qparams",)
    ),
    "div 0 by 0, to uint8 of zero point 7": _case(Div(), QType.per_tensor("uint8", 1.0, 7), ([3], U8), ([3], U8)),
    "dynamic_quantize zeros: scale": _case(DynamicQuantize(output="scale"), "float32", ([0, 0], "float32")),
    "the same, as torch chooses it": _case(
        DynamicQuantize(output="scale", chosen_as="torch"), "float32", ([0, 0], "float32")
    ),
    "fake_quantize NaN, zero point 3": _fake_quantized([float("nan")], ()),
    "the same, on an axis": _fake_quantized([float("nan")], (1,)),
    "dynamic_quantize nothing: scale": _case(DynamicQuantize(output="scale"), "float32", ([], "float32")),
    "interpolate: 0 and 1 averaged on stored uint8": _case(
        Interpolate(scales=(1.0, 1.0, 1.0, 2.0), mode="linear", coordinates="align_corners"),
        QType.per_tensor("uint8", 1.0, 0),
        ([[[[0, 1]]]], QType.per_tensor("uint8", 1.0, 0)),  # type: ignore[list-item]
    ),
    "topk: which two of four equal elements": _case(
        Topk(k=2, axis=0), "int64", ([5, 5, 5, 5], QType.per_tensor("uint8", 1.0, 0))
    ),
}
"""What is asked. On each of these every listed answer is admissible."""


def _answer(spec: str, case: Case) -> str:
    backend: Any = load_backend(spec)
    if isinstance(backend.supports(case.network), NotSupported):
        return NO_KERNEL
    try:
        (value,) = backend.compile(case.network).run({n: np.array(t.array) for n, t in case.feeds.items()}).values()
    except QfuzzError:
        return "refuses"
    return " ".join(f"{v:.8g}" for v in np.ravel(value).astype(np.float64))


def table() -> list[str]:
    """The rows of the page's table, as the installed backends answer."""
    head = "| corner | " + " | ".join(f"`{b}`" for b in BACKENDS) + " |"
    rows = [f"| {name} | " + " | ".join(_answer(b, case) for b in BACKENDS) + " |" for name, case in CORNERS.items()]
    return [head, "| --- " * (len(BACKENDS) + 1) + "|", *rows]


@pytest.mark.skipif(
    not all(is_installed(b.split("?")[0]) for b in BACKENDS if b.split("?")[0] in BUILT_IN),
    reason="the page tells of backends that are not installed here",
)
def test_the_page_says_what_backends_return() -> None:
    said = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert said == table(), "renew the table of qfuzz/CORNERS.md:\n" + "\n".join(table())


@pytest.mark.parametrize("name", CORNERS)
def test_nothing_is_accused_of_what_is_left_open(name: str) -> None:
    case = CORNERS[name]
    installed = [load_backend(b) for b in BACKENDS if is_installed(b.split("?")[0])]
    for verdict in check(case, installed).backends:
        assert not verdict.is_finding or re.search("refus|rejected", verdict.verdict), (name, verdict)
