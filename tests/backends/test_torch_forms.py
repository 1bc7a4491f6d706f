"""Forms of torch's calls: each reaches the calls and changes no result, and printed calls do what the executor does."""

import shutil
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.environment import cpu_flags
from qfuzz.backends.torch_backends import TorchBackend
from qfuzz.backends.torch_isa import CAPS, capped_flags
from qfuzz.findings.corpus import read_case
from qfuzz.ir.errors import InvalidCase, Unsupported
from qfuzz.ir.forms import CHOICES
from qfuzz.ir.network import Case, Network
from qfuzz.oracle.check import check, check_one
from qfuzz.oracle.reference import Reference
from qfuzz.strategies import cases_of

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

FORMS = tuple(
    f"{name}={value}"
    for name, value in CHOICES
    if name in ("memory", "calls", "packing", "grad", "callers") or (name, value) == ("threads", "3")
)
OPS = ("conv", "linear", "add", "relu", "clamp", "leaky_relu", "concat", "avg_pool", "adaptive_avg_pool")
ENGINES = ("fbgemm", "qnnpack")


def said(case: Case, *forms: str) -> Case:
    """The case in these forms only."""
    n = case.network
    return Case(Network(n.inputs, n.constants, n.nodes, n.outputs, forms), case.inputs)


@cache
def plain_cases() -> tuple[Case, ...]:
    """Cases of one node in the plain form; kernels on int32 wrap."""
    drawn = (c for op in OPS for c in islice(cases_of(21, 0, ops=(op,), max_nodes=1), 30))
    return tuple(said(c) for c in drawn if c.network.inputs[0].type.dtype != "int32")


def lowered(form: str, engine: str) -> Iterator[tuple[Case, TorchBackend]]:
    """Cases in the form that the engine takes, and whose calls are not the plain ones."""
    backend = TorchBackend(engine)
    for case in plain_cases():
        try:
            plain, other = backend.calls(case.network), backend.calls(said(case, form).network)
        except Unsupported:
            continue
        if plain != other:
            yield said(case, form), backend


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", FORMS)
def test_a_form_reaches_the_calls_and_what_is_printed_does_the_same(form: str, engine: str) -> None:
    found = list(islice(lowered(form, engine), 12))
    assert found, f"{form} changes no call"
    for case, backend in found:
        feeds = {name: t.array for name, t in case.feeds.items()}
        got = backend.compile(case.network).run(feeds)
        namespace: dict[str, object] = {}
        exec("\n".join(backend.script(case.network, case.arrays).lines), namespace)
        printed = namespace["outputs"]
        assert isinstance(printed, dict)
        for name in case.network.outputs:
            np.testing.assert_array_equal(printed[name], got[name])


@pytest.mark.parametrize("form", FORMS)
def test_a_form_changes_no_result_of_simple_calls(form: str) -> None:
    for case, backend in lowered(form, "fbgemm"):
        (node,) = case.network.nodes
        if node.op.name in ("relu", "add", "clamp", "leaky_relu"):
            (verdict,) = check(case, [backend]).backends
            assert not verdict.is_finding, (case, verdict)


@pytest.mark.parametrize("memory", [v for name, v in CHOICES if name == "memory"])
def test_what_is_written_into_lies_in_memory_as_inputs_do(memory: str) -> None:
    n = 0
    for case, backend in lowered("calls=out", "fbgemm"):
        plain, other = said(case, "calls=out"), said(case, f"memory={memory}", "calls=out")
        made = [
            [c for c in backend.calls(x.network).run if c.out in x.network.outputs and c.out not in x.feeds]
            for x in (plain, other)
        ]
        n += made[0] != made[1]
        if case.network.nodes[0].op.name in ("add", "clamp", "leaky_relu", "concat"):
            (verdict,) = check(other, [backend]).backends
            assert not verdict.is_finding, (other, verdict)
    assert n > 10


@pytest.mark.parametrize("isa", CAPS)
def test_an_instruction_set_is_kept_to(isa: str) -> None:
    backend = TorchBackend("fbgemm", isa=isa)
    assert backend.name == f"torch-fbgemm?isa={isa}"
    told = backend.describe()
    newest = {"sse41": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}
    order = list(newest.values())
    assert order.index(told["cpu_capability"]) <= order.index(newest[isa])
    assert "avx512_vnni" not in told["cpu_flags"].split()
    case = next(c for c in plain_cases() if c.network.nodes[0].op.name == "relu")
    assert not check(case, [backend]).backends[0].is_finding


@pytest.mark.parametrize(
    "name", ["saturation_conv", "saturation_conv_padding", "saturation_linear", "saturation_linear_halves"]
)
def test_what_older_kernels_saturate_is_given_by_a_model(name: str) -> None:
    """Every element of it: pairs are taken in oneDNN's order, without padding, and of many channels in two halves."""
    if "avx2" not in cpu_flags():
        pytest.skip("this CPU has no AVX2: oneDNN has no such kernel here")
    case = read_case(Path(__file__).parents[2] / "corpus" / "known" / f"{name}.json").case
    for engine in ("onednn", "export"):
        verdict = check_one(case, TorchBackend(engine, isa="avx2"), Reference(case), explain=cause_of)
        assert (verdict.cause or "").startswith("int16-pair-saturation"), verdict


def test_flags_beyond_an_instruction_set_are_not_seen() -> None:
    flags = "avx2 fma f16c avx_vnni avx512f avx512_vnni amx_int8"
    assert [capped_flags(flags, isa) for isa in ("sse41", "avx2", "avx512")] == [
        "",
        "avx2 fma f16c",
        "avx2 fma f16c avx512f",
    ]


def test_an_unknown_instruction_set_is_named() -> None:
    with pytest.raises(InvalidCase, match="isa: 'neon'; one of sse41, avx2, avx512"):
        TorchBackend("fbgemm", isa="neon")


def test_another_python_can_be_held_to_one_too() -> None:
    python = shutil.which(sys.executable)
    assert python is not None
    assert TorchBackend("fbgemm", isa="avx2", python=python).name.startswith("torch-fbgemm?isa=avx2&python=")
