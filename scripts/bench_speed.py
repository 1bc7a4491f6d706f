"""Parts of `scripts/bench` about time: where an example's milliseconds go, and how fast the reference judges."""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.discovery import default_rides, load_backend
from qfuzz.campaign.ahead import AHEAD, Prepared, prepare
from qfuzz.campaign.pipes import decode_reply, frame, write_all
from qfuzz.campaign.protocol import TAP_EVERY, Example
from qfuzz.campaign.runner import Mark, Send, run_forked
from qfuzz.ir.contract import Contract
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.protocols import Backend, Program, Support
from qfuzz.ir.qtype import QType, float32
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops import CODEC
from qfuzz.ops.convolution import unit_conv
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import BackendVerdict
from qfuzz.strategies.generate import SHARD_SIZE, cases_of

STAGES = ("generate", "reference", "lowering", "judging", "pipes", "frameworks")


class Staged:
    """A backend whose `seconds` count its lowering: what it does before and around the framework's own calls."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.fuses = backend.name, backend.fuses
        self.contracts: Mapping[str, Contract] = backend.contracts
        self.seconds = 0.0

    def describe(self) -> dict[str, str]:
        """What the backend says of itself."""
        return self._backend.describe()

    def supports(self, network: Network) -> Support:
        """The backend's answer; most of them lower the network to find it."""
        start = time.perf_counter()
        support = self._backend.supports(network)
        self.seconds += time.perf_counter() - start
        return support

    def compile(self, network: Network, taps: Sequence[str] = ()) -> Program:
        """The backend's program."""
        start = time.perf_counter()
        program = self._backend.compile(network, taps)
        self.seconds += time.perf_counter() - start - float(getattr(program, "compile_seconds", 0.0))
        return program


@dataclass(frozen=True)
class Split:
    """Seconds by example and stage, [n, len(STAGES)].

    Attributes
    ----------
    draws, rejected, left_out
        What generation tried and gave up, and cases that were not run.
    """

    seconds: npt.NDArray[np.float64]
    draws: int
    rejected: int
    left_out: int

    @property
    def rate(self) -> float:
        """Examples a second."""
        return float(len(self.seconds) / self.seconds.sum())

    def __str__(self) -> str:
        each = dict(zip(STAGES, self.seconds.mean(axis=0) * 1e3, strict=True))
        share = each["frameworks"] / sum(each.values())
        told = ", ".join(f"{stage} {ms:.2f}" for stage, ms in each.items())
        return f"{self.rate:.0f} examples/s, {share:.1%} in the frameworks; ms per example: {told}"


def fastest(runs: Sequence[Split]) -> Split:
    """Each stage of each example as in its fastest run: whoever shares the machine interrupts some of them."""
    return replace(runs[0], seconds=np.minimum.reduce([r.seconds for r in runs]))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without Python's cycle collector, as a campaign's workers and runners are."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _cpu_clock() -> Iterator[None]:
    """Every clock counts this process's CPU time: nothing here waits, and whoever shares the machine does not count."""
    wall = time.perf_counter
    time.perf_counter = time.process_time
    try:
        yield
    finally:
        time.perf_counter = wall


@_cpu_clock()
def speed(options: argparse.Namespace) -> None:
    """Rate against a plain loop over one convolution, and the share of time inside the frameworks, stage by stage."""
    shards, repeats = (1, 3) if options.quick else (2, 7)
    list(cases_of(4, 0))  # warm: Hypothesis and NumPy load parts of themselves late
    rides = [(Staged(load_backend(s)), every) for s, every in default_rides()]
    for backend, _ in rides:
        warm = next(cases_of(4, 0))
        check_one(warm, backend, Reference(warm))
    lives = _survivors([c for shard in range(shards) for c in cases_of(5, shard)], rides)
    split, tapped = (
        fastest([_measured(shards, rides, tap_every, lives) for _ in range(repeats)]) for tap_every in (TAP_EVERY, 1)
    )
    print(f"   {len(rides)} backends, one core; each stage of each example in its fastest of {repeats} runs, CPU time:")
    print(f"   qfuzz: {split}")
    print(f"   with every example tapped instead of every {TAP_EVERY}th: {tapped}")
    print(
        f"   draws rejected: {split.rejected} of {split.draws} ({split.rejected / max(split.draws, 1):.2%}); "
        f"{split.left_out} cases left out, empty ones and those of which a kernel dies"
    )
    plain = _plain_loop(2.0 if options.quick else 6.0)
    print(f"   plain loop over one convolution, same kernels, no qfuzz: {plain:.0f}/s; ratio {split.rate / plain:.2f}")


def _survivors(cases: Sequence[Case], rides: Sequence[tuple[Staged, int]]) -> list[bool]:
    """Which cases have elements and kill no process, as known bugs do: all is measured in this one."""

    def survives(some: Sequence[Case]) -> bool:
        def job(send: Send, mark: Mark) -> None:
            for case in some:
                reference = Reference(case)
                for backend, _ in rides:
                    check_one(case, backend, reference)

        return run_forked(job, lambda _: None, 60.0) is None

    lives = [all(0 not in t.shape for t in case.network.types.values()) for case in cases]
    for start in range(0, len(cases), AHEAD):
        some = [i for i in range(start, min(start + AHEAD, len(cases))) if lives[i]]
        if not survives([cases[i] for i in some]):
            for i in some:
                lives[i] = survives([cases[i]])
    return lives


def _measured(shards: int, rides: Sequence[tuple[Staged, int]], tap_every: int, lives: Sequence[bool]) -> Split:
    """The split over fresh cases of `shards` shards that live, judged as a campaign's runner judges them."""
    with _no_collector():
        start = time.perf_counter()
        streams = [cases_of(5, shard) for shard in range(shards)]
        generate = (time.perf_counter() - start) / (shards * SHARD_SIZE)
        cases = [c for stream in streams for c in stream]
        safe = [c for c, is_live in zip(cases, lives, strict=True) if is_live]
        read_end, write_end = os.pipe()
        rows = []
        ready: list[Prepared] = []
        for index, case in enumerate(safe):
            riding = [backend for backend, every in rides if index % every == 0]
            if index % AHEAD == 0:
                ahead = range(index, min(index + AHEAD, len(safe)))
                ready = [prepare(safe[i], [backend for backend, every in rides if i % every == 0]) for i in ahead]
            prepared = ready[index % AHEAD]
            reference, known_before = prepared.reference, prepared.reference.seconds
            lowered_before = sum(backend.seconds for backend in riding)
            start = time.perf_counter()
            tap = index % tap_every == 0
            verdicts = tuple(check_one(case, backend, reference, tap=tap, explain=cause_of) for backend in riding)
            judged = time.perf_counter() - start
            lowering = sum(backend.seconds for backend in riding) - lowered_before
            frameworks = sum(v.compile_seconds + v.run_seconds for v in verdicts)
            judging = judged - frameworks - lowering - (reference.seconds - known_before)
            start = time.perf_counter()
            _send(read_end, write_end, index, case, verdicts)
            pipes = time.perf_counter() - start
            lowering += prepared.lowering_seconds
            rows.append((generate, reference.seconds, lowering, judging, pipes, frameworks))
        os.close(read_end)
        os.close(write_end)
    draws, rejected = (sum(getattr(s.counts, k) for s in streams) for k in ("draws", "rejected"))
    return Split(np.array(rows), draws, rejected, len(cases) - len(safe))


def _send(read_end: int, write_end: int, index: int, case: Case, verdicts: tuple[BackendVerdict, ...]) -> None:
    """What a runner and its worker do to pass a judged example on; the supervisor gets sums, a few times a second."""
    example = Example(index, verdicts, CODEC.encode(case) if any(v.is_finding for v in verdicts) else b"")
    whole = frame(example)
    write_all(write_end, whole)
    decode_reply(os.read(read_end, len(whole)))


def _plain_loop(seconds: float) -> float:
    """One 3x3 convolution with new data through the default backends' kernels, written by hand."""
    import onnxruntime as ort
    import torch
    from onnx import TensorProto, helper, numpy_helper

    torch.set_num_threads(1)
    options = {}
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"):
        options[level] = ort.SessionOptions()
        options[level].intra_op_num_threads = 1
        options[level].log_severity_level = 4
        options[level].graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    rng = np.random.default_rng(0)

    def model(nodes: list[Any], initializers: dict[str, Any]) -> bytes:
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [8, 8, 7, 7])],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
            [numpy_helper.from_array(np.asarray(a), k) for k, a in initializers.items()],
        )
        data: bytes = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
        ).SerializeToString()
        return data

    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        x = rng.integers(0, 256, (8, 8, 7, 7)).astype(np.uint8)
        w = rng.integers(-128, 128, (8, 8, 3, 3)).astype(np.int8)
        s_x, s_w, s_y, z_x, z_y = np.float32(0.1), np.float32(0.02), np.float32(1.5), np.uint8(3), np.uint8(100)
        for engine in ("fbgemm", "x86", "onednn", "qnnpack"):
            torch.backends.quantized.engine = engine
            weight = torch._make_per_tensor_quantized_tensor(torch.from_numpy(w), float(s_w), 0)
            packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [1, 1], [1, 1], 1)
            q = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), float(s_x), int(z_x))
            torch.ops.quantized.conv2d(q, packed, float(s_y), int(z_y)).int_repr().numpy()
        qparams = {"sx": s_x, "zx": z_x, "w": w, "sw": s_w, "zw": np.int8(0), "sy": s_y, "zy": z_y}
        pads = {"pads": [1, 1, 1, 1]}
        linear = [helper.make_node("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"], **pads)]
        qdq = [
            helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["xr"]),
            helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wr"]),
            helper.make_node("Conv", ["xr", "wr"], ["yr"], **pads),
            helper.make_node("QuantizeLinear", ["yr", "sy", "zy"], ["y"]),
        ]
        sessions = [(linear, "ORT_ENABLE_ALL"), (qdq, "ORT_DISABLE_ALL"), (qdq, "ORT_ENABLE_ALL")]
        if done % 4 == 0:  # as these ride in a campaign
            sessions += [(qdq, "ORT_ENABLE_BASIC"), (qdq, "ORT_ENABLE_EXTENDED")]
        for nodes, level in sessions:
            session = ort.InferenceSession(model(nodes, qparams), options[level], providers=["CPUExecutionProvider"])
            session.run(None, {"x": x})
        done += 1
    return done / (time.perf_counter() - start)


CONVOLUTIONS = ((1, 14), (8, 14), (8, 28), (1, 56), (8, 56))
"""Batches and sizes of images that layers of real networks see."""

CONV_CONTRACTS = ("onnxruntime", "onnxruntime?format=qdq&opt=disable", "torch-fbgemm")
"""Backends whose contracts for conv differ in what a rounding error is relative to."""


@_cpu_clock()
def reference(options: argparse.Namespace) -> None:
    """Output elements a second that the reference judges on 3x3 convolutions with 16 channels, on one core."""
    repeats = 3 if options.quick else 7
    contracts = {spec: load_backend(spec).contracts["conv"] for spec in CONV_CONTRACTS}
    for batch, size in CONVOLUTIONS:
        n_cases = max(4, 400_000 // (batch * 16 * size * size))
        rates: dict[str, list[float]] = {spec: [] for spec in contracts}
        for number in range(repeats):
            for spec, contract in contracts.items():
                # Data of its own for every case, so that nothing is known from another.
                cases = [_convolution(number * n_cases + i, batch, size) for i in range(n_cases)]
                with _no_collector():
                    start = time.perf_counter()
                    for case in cases:
                        judge = Reference(case)
                        judge.exact()
                        judge.node(case.network.nodes[0], [case.inputs[0].array, None, None], contract)
                    elapsed = time.perf_counter() - start
                rates[spec].append(n_cases * batch * 16 * size * size / elapsed)
        told = ", ".join(f"{spec} {statistics.median(r) / 1e6:.1f}" for spec, r in rates.items())
        print(f"   {batch} x 16 x {size} x {size}, million elements a second under the contract of: {told}")


def _convolution(seed: int, batch: int, size: int) -> Case:
    """One 3x3 convolution of 16 channels, uint8 x int8 per channel with an int32 bias."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (batch, 16, size, size)).astype(np.uint8)
    w = rng.integers(-128, 128, (16, 16, 3, 3)).astype(np.int8)
    bias = rng.integers(-3000, 3000, 16).astype(np.int32)
    q_x = QType.per_tensor("uint8", float32(rng.uniform(0.01, 0.1)), int(rng.integers(256)))
    q_w = QType("int8", tuple(float32(s) for s in rng.uniform(0.001, 0.01, 16)), (0,) * 16, 0)
    q_y = QType.per_tensor("uint8", float32(rng.uniform(0.3, 3.0)), int(rng.integers(256)))
    node = Node("y", unit_conv(2, padding=(1, 1, 1, 1)), ("x", "w", "b"), q_y)
    constants = (
        Constant("w", TensorType(w.shape, q_w), Tensor(w)),
        Constant("b", TensorType(bias.shape, "int32"), Tensor(bias)),
    )
    network = Network((Input("x", TensorType(x.shape, q_x)),), constants, (node,), ("y",))
    return Case(network, (Tensor(x),))
