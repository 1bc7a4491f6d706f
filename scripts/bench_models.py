"""Parts of `scripts/bench` about arithmetics and whole models: identification, and audits of networks of real size."""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qfuzz.arithmetic.catalogue import family_of
from qfuzz.identify.experiment import identify
from qfuzz.identify.forms import OPERATORS, forms
from qfuzz.identify.rows import evaluate

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ROOT / "tests" / "audit"
QFUZZ = [sys.executable, "-c", "from qfuzz.cli import main; main()"]


def identification(options: argparse.Namespace) -> None:
    """Kernels made of random choices: whether the model is kept and singled out, cases and seconds."""
    draws = random.Random(1)
    for op in OPERATORS:
        n = {True: 5, False: 60 if op in ("conv", "linear") else 20}[options.quick]
        family = family_of(op)
        asked = [f for variants in forms(op) for f in variants if f.rescaled]
        kept = single = 0
        cases, seconds = [], []
        for _ in range(n):
            form, model = draws.choice(asked), None
            while model is None or family.why_not(model) is not None:
                model = family.model(**{f: draws.choice(family.made(f)) for f in family.model.__struct_fields__})
            start = time.perf_counter()
            outcome = identify(form, lambda case, model=model: evaluate(case).stored(model))
            seconds.append(time.perf_counter() - start)
            cases.append(len(outcome.observations))
            kept += family.canonical(model, form) in outcome.left
            single += len(outcome.left) == 1
        print(
            f"   {op}: true model kept in {kept} of {n}, singled out in {single}; median {statistics.median(cases):g} "
            f"cases, {statistics.median(seconds):.2f} s",
            flush=True,
        )


def audits(options: argparse.Namespace) -> None:
    """Seconds and memory of audits of ResNet-18 and MobileNetV2 in shape, 224 x 224, random weights."""
    sys.path.insert(0, str(NETWORKS))
    from onnx_networks import quantized

    with tempfile.TemporaryDirectory() as folder:
        targets = {
            f"{name}, PyTorch {flow or 'eager'}": f"{NETWORKS / 'torch_networks.py'}:build_{name}{flow and '_pt2e'}"
            for name in ("resnet18", "mobilenet_v2")
            for flow in ("", "PT2E")
        }
        for name in ("resnet18", "mobilenet_v2"):
            for quant_format in ("QDQ", "QOperator"):
                targets[f"{name}, ONNX {quant_format}"] = str(quantized(name, quant_format, Path(folder)))
        for what, target in targets.items():
            start = time.perf_counter()
            with subprocess.Popen([*QFUZZ, "audit", target, "--json"], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                said = process.stdout.read()
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
            verdict = json.loads(said)["verdict"]
            seconds = time.perf_counter() - start
            print(f"   {what}: {seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MB; {verdict}", flush=True)
