"""Whether PyTorch's quantized forward pass computes with int8 weights, or with weights dequantized to float32.

First the experiment of the forum question, which cannot tell; then a network on which the two must differ.
"""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.ao import quantization

import qfuzz
from qfuzz.arithmetic.catalogue import family_of
from qfuzz.arithmetic.family import Choices, Form
from qfuzz.backends.discovery import is_installed
from qfuzz.campaign.client import WorkerClient
from qfuzz.cli.identify_command import first_taken
from qfuzz.identify.contraction_probes import cancelling_products
from qfuzz.identify.experiment import classes
from qfuzz.identify.forms import forms
from qfuzz.identify.rows import evaluate, with_rows
from qfuzz.ir.network import Case

ENGINES = (
    *("torch-fbgemm", "torch-x86", "torch-onednn", "torch-qnnpack", "onnxruntime"),
    "onnxruntime?format=qdq&opt=disable",  # what computing with dequantized weights looks like
)
PIXELS = 4


class M(torch.nn.Module):
    """The model of the question."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = quantization.QuantStub()
        self.conv = torch.nn.Conv2d(1, 1, 1)
        self.relu = torch.nn.ReLU()
        self.dequant = quantization.DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize, convolve, clip, dequantize."""
        return self.dequant(self.relu(self.conv(self.quant(x))))


def quantized_model() -> tuple[torch.nn.Module, torch.Tensor]:
    """Fused, prepared, calibrated and converted as in the question."""
    torch.manual_seed(0)
    torch.backends.quantized.engine = "fbgemm"
    model = M().eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(quantization.fuse_modules(model, [["conv", "relu"]]))
    x = torch.randn(4, 1, 4, 4)
    prepared(x)
    return quantization.convert(prepared), x


def the_experiment() -> None:
    """Recompute the hooked convolution with dequantized floats, and audit it."""
    model, x = quantized_model()
    seen: dict[str, Any] = {}
    hook = model.conv.register_forward_hook(lambda m, i, o: seen.update(x=i[0], w=m.weight(), y=o))
    model(x)
    hook.remove()
    real = seen["x"].dequantize() * seen["w"].dequantize() + model.conv.bias()
    by_hand = torch.relu((real / model.conv.scale).round()) + model.conv.zero_point
    differences = int((by_hand != seen["y"].int_repr()).sum())
    print("The experiment: one 1x1 convolution of one channel, recomputed with dequantized float32.")
    print(f"  {differences} of {by_hand.numel()} integers differ.")
    audit = qfuzz.audit(model, x)
    (conv,) = [layer for layer in audit.layers if layer.op == "conv"]
    print(f"  qfuzz audit: {audit.verdict}")
    if len(conv.weights) == 2:
        print(f"  {' and '.join(conv.weights)} both fit: such a kernel sums one product, which both round alike.")
    else:
        print(f"  the convolution is explained by: {', '.join(conv.weights)}")
    print()


def telling_case() -> tuple[Case, int, list[int]]:
    """A network on which integers give one number, and whatever sums dequantized floats gives another."""
    form = Form(op="conv", dtype="uint8")
    family = family_of("conv")
    integers = [p.model for p in family.published if p.model.operands == "integers"]  # type: ignore[attr-defined]
    floats = [m for m in classes(form) if m.operands == "dequantized" and m.rounding == "half_even"]  # type: ignore[attr-defined]
    for key in range(10_000):
        case = cancelling_products(form, key, [integers[0], *floats], size=1)
        if case is not None:
            # Float kernels sum the products of a single pixel in an order of its own.
            case = with_rows(case, np.zeros(PIXELS, dtype=np.int64))
            of_integers, of_floats = _results(case, integers), _results(case, floats)
            if len(of_integers) == 1 and not of_integers & of_floats:
                return case, of_integers.pop(), sorted(of_floats)
    raise AssertionError("no case tells them apart")


def _results(case: Case, models: list[Choices]) -> set[int]:
    evaluation = evaluate(case)
    return {int(evaluation.stored(m).ravel()[0]) for m in models}


def describe(case: Case) -> Iterator[str]:
    """The network in words."""
    network = case.network
    x, w = case.inputs[0].array, network.constants[0].data.array
    types = (network.inputs[0].type.qtype, network.constants[0].type.qtype, network.types["y"].qtype)
    scale, zero_point = types[0].scale[0], types[0].zero_point[0]
    yield f"  x {x[0, :, 0, 0].tolist()} at each of {PIXELS} pixels, uint8, scale {scale!r}, zero point {zero_point}"
    yield f"  w {w[0].ravel().tolist()}, int8, scale {types[1].scale[0]!r}, zero point 0"
    yield f"  y uint8, scale {types[2].scale[0]!r}, zero point {types[2].zero_point[0]}"
    products = (x[0, :, 0, 0].astype(np.int64) - types[0].zero_point[0]) * w[0].astype(np.int64).ravel()
    yield f"  integer products {products.tolist()}: their sum is {products.sum()}"


def main() -> int:
    """Print the answer; 1 where an engine's cannot be told."""
    warnings.filterwarnings("ignore")  # that quantized dtypes are deprecated
    the_experiment()
    case, of_integers, of_floats = telling_case()
    print("The network on which the two must differ: one 1x1 convolution whose integer products cancel.")
    for line in describe(case):
        print(line)
    order = ", by the order of the sum" if len(of_floats) > 1 else ""
    print(f"  computed with integers: {of_integers}")
    print(f"  with weights dequantized to float32: {' or '.join(map(str, of_floats))}{order}")
    print()
    untold = 0
    for spec in ENGINES:
        if not is_installed(spec):
            print(f"  {spec:34} is not installed")
            continue
        with WorkerClient((spec,)) as client:
            values = client.values(case, spec)
            returned = int(values["y"].ravel()[0]) if isinstance(values, dict) else None
            answer = {of_integers: "integers"} | dict.fromkeys(of_floats, "dequantized float32")
            found = first_taken(client, spec, next(forms("conv")), witnesses=False)
        said = f"returned {returned}: {answer.get(returned, 'neither')}"
        untold += returned not in answer
        if found is not None and found.choices:
            operands = "integers" if found.choices["operands"] == "integers" else "dequantized float32"
            said += f"; identified in {found.cases} cases: {operands}"
            untold += (operands == "integers") != (returned == of_integers)
            if found.published:
                said += f", as {found.published[0].partition(' (')[0]}"
        print(f"  {spec:34} {said}")
    return 1 if untold else 0


if __name__ == "__main__":
    sys.exit(main())
