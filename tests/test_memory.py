"""Memory that kernels have no business with, memory that they leave unwritten, memory that runs out."""

import ctypes
import faulthandler
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from small_cases import add_case, conv_case

from qfuzz.backends.discovery import default_specs, load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.runner import Mark, Send, run_forked
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Supported
from qfuzz.oracle.check import check
from qfuzz.oracle.memory import BANDS, FILLS, Guarded, difference, fill_allocations, limit_reached
from qfuzz.oracle.verdicts import BackendVerdict
from qfuzz.strategies import cases_of

WANTED = {
    "WritesPastTheEnd": ("corrupted", "4 bytes past the end of input 'a' were written"),
    "WritesBeforeTheStart": ("corrupted", "1 byte before the start of input 'b' was written"),
    "WritesWhatIsThere": ("corrupted", "1 byte past the end of input 'a' was written"),
    "ChangesInputs": ("corrupted", "input 'a' was changed by the run"),
    "ReadsPastTheEnd": ("unstable", f"two identical runs differ in 'y' at [3]: {BANDS[0]}, then {BANDS[1]}"),
    "LeavesUnwritten": ("unstable", "two identical runs differ in 'y' at [1]: not written"),
    "Unstable": ("unstable", "two identical runs differ in 'y' at [0]: 1, then 2"),
    "Honest": ("exact", ""),
}


def n_out(case: Case) -> int:
    return case.network.types[case.network.outputs[0]].n_elements


def verdict_in_this_process(name: str, case: Case) -> BackendVerdict:
    return check(case, [load_backend(f"misbehaving:{name}")]).backends[0]


@pytest.mark.parametrize("name", WANTED)
def test_what_a_kernel_does_to_memory_is_its_verdict(name: str) -> None:
    verdict = verdict_in_this_process(name, add_case())
    assert (verdict.verdict, verdict.reason) == WANTED[name]


def test_large_outputs_that_nobody_wrote() -> None:
    """NumPy's own memory, too, beyond the small blocks that it keeps."""
    case = next(c for c in cases_of(1, 0, ops=("relu",), max_nodes=1) if n_out(c) > 1100)
    for name in ("LeavesUnwritten", "LeavesUnwrittenByNumPy"):
        verdict = verdict_in_this_process(name, case)
        assert verdict.verdict == "unstable"
        assert verdict.reason.endswith("not written")


SHAPES = [(0,), (1,), (3, 5), (0, 4), (2, 0, 3), (64,), ()]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float32"])
def test_guarded_arrays_are_like_those_they_come_from(dtype: str) -> None:
    sources = {f"x{i}": np.full(shape, i - 3).astype(dtype) for i, shape in enumerate(SHAPES)}
    guarded = Guarded(sources)
    for byte in FILLS:
        guarded.fill(byte)
        assert list(guarded.arrays) == list(sources)
        for name, source in sources.items():
            array = guarded.arrays[name]
            assert (array.dtype, array.shape) == (source.dtype, source.shape)
            assert array.tobytes() == source.tobytes()
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.ctypes.data % 64 == 0
        assert guarded.damage() == ""


def test_every_byte_around_an_array_is_guarded() -> None:
    guarded = Guarded({"x": np.zeros(3, np.uint8), "y": np.zeros((2, 5), np.int32)})
    for at in range(len(guarded._memory)):
        guarded.fill(FILLS[0])
        guarded._memory[at] ^= 1
        owner = "'x'" if at < 418 else "'y'"
        assert owner in guarded.damage(), at
    guarded = Guarded({})
    guarded.fill(FILLS[0])
    assert guarded.damage() == ""


def test_a_write_that_runs_over_the_next_array() -> None:
    guarded = Guarded({"x": np.zeros(64, np.uint8), "y": np.zeros(8, np.uint8)})
    guarded.fill(FILLS[0])
    guarded._memory[256 + 64 : 256 + 64 + 260] = 0xFF
    assert guarded.damage() == "256 bytes past the end of input 'x' were written; input 'y' was changed by the run"


def test_the_first_difference_is_told() -> None:
    a = np.array([[1, 2], [np.nan, 4]], np.float32)
    b = np.array([[1, 2], [np.nan, 5]], np.float32)
    assert difference(a, b) == " at [1, 1]: 4.0, then 5.0"
    assert difference(a, b.T[:1]) == ": float32 (2, 2), then float32 (1, 2)"
    fills = [np.frombuffer(bytes([fill] * 4), np.int32).reshape(()) for fill in FILLS]
    assert difference(*fills) == " at []: not written"


def test_torchs_memory_is_filled() -> None:
    """Where torch leaves memory as it found it, whether the block is small or large, fresh or used."""
    pytest.importorskip("torch")
    program = """
import torch
from qfuzz.oracle.memory import FILLS, fill_allocations
for n in (1, 8, 40, 100, 500, 900, 1200, 5000, 2**20):
    for _ in range(20):
        used = [torch.zeros(n, dtype=torch.uint8) for _ in range(10)]
        del used
        for fill in FILLS:
            fill_allocations(fill)
            fresh = torch.empty(n, dtype=torch.uint8)
            fill_allocations(0)
            assert (fresh == fill).all(), n
"""
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_onnx_runtimes_memory_is_malloced() -> None:
    """What it frees is filled at once: nothing is kept in an arena, where the second run would find the first one's."""
    ort = pytest.importorskip("onnxruntime")
    from qfuzz.backends.onnx_executor import Session

    backend = load_backend("onnxruntime")
    case = next(
        c
        for shard in range(9)
        for c in cases_of(1, shard, ops=("relu",), max_nodes=1)
        if isinstance(backend.supports(c.network), Supported)
        and c.network.types[c.network.outputs[0]].n_elements > 4000
    )
    session = Session(backend._lowerer.model(case.network, ()))  # type: ignore[attr-defined]
    fed = {name: ort.OrtValue.ortvalue_from_numpy(np.array(t.array)) for name, t in case.feeds.items()}
    fill_allocations(FILLS[0])
    try:
        (output,) = session._session.run_with_ort_values(list(case.network.outputs), fed)
        at = output.data_ptr() + 2000
        del output
        freed = ctypes.string_at(at, 16)
    finally:
        fill_allocations(0)
    assert freed == bytes([FILLS[0] ^ 0xFF] * 16)


def test_right_kernels_are_not_accused() -> None:
    specs = default_specs()
    if not specs:
        pytest.skip("no framework is installed")
    cases = [c for c in cases_of(8, 0) if all(0 not in t.shape for t in c.network.types.values())][:60]
    with WorkerClient(specs) as client:
        for case in cases:
            for verdict in client.check(case).backends:
                assert verdict.verdict not in ("unstable", "corrupted"), (verdict, case)


ASKS_FOR_TOO_MUCH = {
    "AllocatesTooMuch": "MemoryError: Unable to allocate 64.0 GiB",
    "TorchAllocates": "torch.empty: RuntimeError: ",
    "OnnxRuntimeAllocates": "run: ",
}


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    names = (*ASKS_FOR_TOO_MUCH, "TorchAllocatesTheAbsurd", "Honest")
    with WorkerClient([f"misbehaving:{n}" for n in names]) as started:
        yield started


@pytest.mark.parametrize("name", ASKS_FOR_TOO_MUCH)
def test_asking_for_more_than_the_limit_is_a_crash(name: str, client: WorkerClient) -> None:
    if name.startswith(("Torch", "Onnx")):
        pytest.importorskip("torch" if name.startswith("Torch") else "onnxruntime")
    dead, honest = client.check(add_case(), (f"misbehaving:{name}", "misbehaving:Honest")).backends
    assert (dead.verdict, dead.op) == ("crash", "add")
    assert dead.reason.startswith(f"memory limit of 4096 MiB reached: {ASKS_FOR_TOO_MUCH[name]}")
    assert honest.verdict == "exact"
    assert client.check(conv_case(), (f"misbehaving:{name}",)).backends[0].verdict == "exact"


def test_an_absurd_size_is_a_refusal(client: WorkerClient) -> None:
    pytest.importorskip("torch")
    (verdict,) = client.check(add_case(), ("misbehaving:TorchAllocatesTheAbsurd",)).backends
    assert verdict.verdict == "rejected"
    assert "allocate" in verdict.reason


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("Allocates", "reached: MemoryError"),
        ("AllocatesInCpp", "reached: died of SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'"),
        ("AllocatesInC", "died of SIGSEGV"),
    ],
)
def test_allocating_without_end_is_a_crash(name: str, how: str) -> None:
    case, backend = add_case(), load_backend(f"misbehaving:{name}")
    read, write = os.pipe()

    def job(send: Send, mark: Mark) -> None:
        faulthandler.disable()  # pytest's, which would print to the terminal
        (verdict,) = check(case, [backend]).backends
        os.write(write, f"{verdict.verdict} {verdict.reason}".encode())

    death = run_forked(job, lambda _: None, 60.0, memory_limit=2**29)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read() if death is None else f"crash {death.reason}"
    assert said.startswith("crash ")
    assert how in said


def test_running_out_in_our_own_code_is_no_verdict() -> None:
    def job(send: Send, mark: Mark) -> None:
        raise MemoryError

    death = run_forked(job, lambda _: None, 30.0)
    assert death is not None
    assert death.internal
    assert "qfuzz's own code" in death.reason


def test_without_a_limit_nothing_is_said_of_one() -> None:
    assert limit_reached("std::bad_alloc") == ""


def test_words_and_sizes() -> None:
    """Messages as the frameworks wrote them when they really ran out."""
    said = {
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes. Error code 12 (": True,
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1125899906842624 bytes.": False,
        "Non-zero status code returned while running Expand node. Status Message: std::bad_alloc": True,
        "bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 1073741824": True,
        "bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 4503599627370496": False,
        "MemoryError: Unable to allocate 16.0 MiB for an array with shape (16777216,) and data type uint8": True,
        "MemoryError: Unable to allocate 1.00 PiB for an array with shape (1125899906842624,)": False,
        "MemoryError": True,
        "no kernel was found in the registry": False,
    }

    def job(send: Send, mark: Mark) -> None:
        wrong = [text for text, is_limit in said.items() if bool(limit_reached(text)) != is_limit]
        assert not wrong, wrong

    broken: list[bytes] = []
    assert run_forked(job, broken.append, 30.0, memory_limit=2**32) is None
    assert not broken
