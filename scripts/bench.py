"""The figures of the README: soundness, power, reduction, speed, repeatability. Ratios are taken within one run.

Usage: scripts/bench [--quick] [--save] [soundness] [power] [reduction] [speed] [reference] [repeat]
`--save` writes the worst errors measured to qfuzz/measured.json, which `qfuzz ops -v` prints.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import bench_models
import bench_speed
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from slow_evaluator import evaluate_on  # noqa: E402  the tests' independent evaluator confirms violations

from qfuzz.arithmetic.catalogue import FAULTS  # noqa: E402
from qfuzz.arithmetic.cause import cause_of  # noqa: E402
from qfuzz.arithmetic.planted import PlantedBackend  # noqa: E402
from qfuzz.backends.discovery import default_specs, load_backend  # noqa: E402
from qfuzz.ir.network import Case  # noqa: E402
from qfuzz.ir.protocols import Backend, Supported  # noqa: E402
from qfuzz.ops.semantics import Operand  # noqa: E402
from qfuzz.oracle.check import check, check_one  # noqa: E402
from qfuzz.oracle.measure import near_ties, worst_errors  # noqa: E402
from qfuzz.oracle.reference import DEFAULT_CONTRACT, Reference, image_of  # noqa: E402
from qfuzz.oracle.verdicts import Outcome  # noqa: E402
from qfuzz.reduce.driver import reduce_case  # noqa: E402
from qfuzz.strategies import cases_of  # noqa: E402
from qfuzz.strategies.near_ties import NEAR_TIE_OPS, near_tie_cases  # noqa: E402

DISTANCE = 2.0**-16


def main() -> None:
    """Measure the parts that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--save", action="store_true", help="write qfuzz/measured.json")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        PARTS[name](options)
        print(f"   ({time.perf_counter() - start:.0f} s)", flush=True)


def soundness(options: argparse.Namespace) -> None:
    """Elements judged per backend, directed ones among them; every violation confirmed by the slow evaluator."""
    wanted, wanted_near = (10_000_000, 1_000_000) if not options.quick else (1_000_000, 100_000)
    errors: dict[str, dict[str, float]] = {}
    for spec in default_specs():
        backend = load_backend(spec)
        totals: Counter[str] = Counter()
        worst: dict[str, float] = defaultdict(float)
        unconfirmed: list[str] = []
        kinds: Counter[str] = Counter()
        streams = {op: near_tie_cases(op, seed=1) for op in NEAR_TIE_OPS}
        taken = dict.fromkeys(streams, 0)
        while totals["near"] < wanted_near or totals["elements"] < wanted:
            if not streams:
                break
            for op in list(streams):
                for case in islice(streams[op], 8):
                    taken[op] += 1
                    if not isinstance(backend.supports(case.network), Supported):
                        continue
                    _judge_directed(case, backend, totals, worst, kinds, unconfirmed)
                if taken[op] >= 200 and totals[f"elements of {op}"] == 0:
                    del streams[op]  # a form that this backend has no kernel for
        errors[spec] = dict(sorted(worst.items()))
        confirmed = totals["violations"] - len(unconfirmed)
        print(
            f"   {spec}: {totals['elements']:,} elements, {totals['near']:,} within 2^-16 of a tie; "
            f"{totals['violations']} violations, {confirmed} confirmed by the slow evaluator; {dict(kinds)}",
            flush=True,
        )
        for text in unconfirmed[:5]:
            print(f"      NOT CONFIRMED: {text}")
        bounds = {op: backend.contracts.get(op, DEFAULT_CONTRACT).k for op in worst}
        print(
            "      worst error / (u T), and k: "
            + ", ".join(f"{o} {e:.2f}/{bounds[o]}" for o, e in sorted(worst.items()))
        )
    if options.save:
        document = {"errors": {s: {o: round(e, 3) for o, e in w.items()} for s, w in errors.items()}}
        (ROOT / "qfuzz" / "measured.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def _judge_directed(
    case: Case,
    backend: Backend,
    totals: Counter[str],
    worst: dict[str, float],
    kinds: Counter[str],
    unconfirmed: list[str],
) -> None:
    verdict = check(case, [backend]).backends[0]
    (node,) = case.network.nodes
    if verdict.outcome is not Outcome.JUDGED:
        if verdict.is_finding:
            kinds[f"{node.op.name} {verdict.verdict}"] += 1
        return
    totals["elements"] += verdict.counts.total
    totals[f"elements of {node.op.name}"] += verdict.counts.total
    totals["near"] += near_ties(case, DISTANCE)
    if not verdict.counts.violation:
        for op, e in worst_errors(case, backend).items():
            worst[op] = max(worst[op], e)
        return
    kinds[node.op.name] += verdict.counts.violation
    totals["violations"] += len(verdict.mismatches)
    received = case.arrays
    slow = evaluate_on(case.network, node, [received[i] for i in node.inputs])
    operands = [Operand.point(t, received[i]) for i, t in zip(node.inputs, case.network.input_types(node), strict=True)]
    contract = backend.contracts.get(node.op.name, DEFAULT_CONTRACT)
    bound = np.broadcast_to(image_of(node, operands).error(contract), case.network.types[node.name].shape)
    for m in verdict.mismatches:
        if m.problem or m.got is None:
            continue
        correct = slow.correct(m.index) == int(m.got)
        if correct or float(slow.excess(m.index, int(m.got))) <= float(bound[m.index]):
            if not correct and float(bound[m.index]) == 0.0 and float(slow.excess(m.index, int(m.got))) == 0.0:
                continue  # an exact tie, rounded against the contract's rule
            unconfirmed.append(f"{node.op.name} {m}")


def power(options: argparse.Namespace) -> None:
    """Planted faults: examples until each is found; and that the copy without a fault is never accused."""
    seeds = 10 if not options.quick else 3
    for fault in FAULTS:
        backend = PlantedBackend(fault)
        firsts = [_first_found(backend, seed, 300) for seed in range(seeds)]
        found = [f for f in firsts if f is not None]
        median = statistics.median(found) if found else None
        print(
            f"   {fault}: {len(found)} of {seeds} seeds within 300 examples; "
            f"median {median}, worst {max(found, default=None)}"
        )
    sound = PlantedBackend("none")
    accused = sum(_first_found(sound, seed, 1000) is not None for seed in range(seeds))
    print(f"   no fault: accused in {accused} of {seeds} seeds of 1,000 examples")


def _examples(seed: int, n: int) -> Iterator[Case]:
    shard, left = 0, n
    while left > 0:
        for case in cases_of(seed, shard, ops=("conv", "linear")):
            if left == 0:
                return
            left -= 1
            yield case
        shard += 1


def _first_found(backend: Backend, seed: int, n: int) -> int | None:
    for i, case in enumerate(_examples(seed, n)):
        if check(case, [backend]).findings:
            return i + 1
    return None


def reduction(options: argparse.Namespace) -> None:
    """Each planted fault reduced from where it was first found."""
    seeds = 5 if not options.quick else 2
    sizes: list[int] = []
    for fault in FAULTS:
        backend = PlantedBackend(fault)
        rows = []
        for seed in range(seeds):
            case = next(c for c in _examples(seed, 2000) if check(c, [backend]).findings)
            first = check_one(case, backend, Reference(case), explain=cause_of)

            def interesting(candidate: Case, backend: Backend = backend, first: Any = first) -> bool:
                v = check_one(candidate, backend, Reference(candidate), explain=cause_of)
                return (v.verdict, v.op, v.cause) == (first.verdict, first.op, first.cause)

            start = time.perf_counter()
            result = reduce_case(case, interesting)
            rows.append((len(result.case.network.nodes), result.case.n_elements, time.perf_counter() - start))
        sizes += [r[1] for r in rows]
        nodes, elements, seconds = (max(r[i] for r in rows) for i in range(3))
        median = statistics.median(r[1] for r in rows)
        print(
            f"   {fault}: at most {nodes} node(s), median {median:g} and at most {elements} elements, "
            f"at most {seconds:.1f} s"
        )
    print(f"   all: median {statistics.median(sizes):g} elements, at most {max(sizes)}")


def repeat(options: argparse.Namespace) -> None:
    """The same findings, byte for byte: one job and two, editable and from a wheel."""
    n = "400" if options.quick else "600"
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        wheel = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            folder,
            str(ROOT),
        ]
        subprocess.run(wheel, check=True, capture_output=True)
        built = next(Path(folder).glob("qfuzz-*.whl"))
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(built)]
        subprocess.run(install, check=True, capture_output=True)
        runs = {"1 job": ("1", {}), "2 jobs": ("2", {}), "wheel": ("1", {"PYTHONPATH": str(site)})}
        digests: dict[str, dict[str, bytes]] = {}
        for name, (jobs, extra) in runs.items():
            out = Path(folder) / name.replace(" ", "-")
            command = [
                sys.executable,
                "-c",
                "from qfuzz.cli import main; main()",
                "run",
                "--seed",
                "7",
                "--max-examples",
                n,
            ]
            command += ["--jobs", jobs, "--out", str(out), "-q"]
            for fault in ("half-away", "pads-with-stored-zero"):
                command += ["-b", f"planted?fault={fault}"]
            command += ["-b", "torch-qnnpack"] if "torch-qnnpack" in default_specs() else []
            subprocess.run(command, check=False, cwd=folder, env=os.environ | extra, capture_output=True)
            digests[name] = {
                str(p.relative_to(out)): p.read_bytes()
                for p in sorted(out.rglob("*"))
                if p.name in ("case.json", "repro.py")
            }
        first = digests["1 job"]
        print(
            f"   {len(first)} files of findings; "
            + ", ".join(f"{k}: {'same' if v == first else 'DIFFERENT'}" for k, v in digests.items())
        )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "soundness": soundness,
    "power": power,
    "reduction": reduction,
    "speed": bench_speed.speed,
    "reference": bench_speed.reference,
    "repeat": repeat,
    "identify": bench_models.identification,
    "audit": bench_models.audits,
}

if __name__ == "__main__":
    main()
