"""The torch backends against the exact reference: operator by operator, documented refusals, and printed calls."""

import shutil
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from single_ops import SINGLE_OPS, Draw

from qfuzz.arithmetic.cause import cause_of
from qfuzz.backends.environment import cpu_flags
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import NotSupported, Supported
from qfuzz.ir.qtype import QType
from qfuzz.ir.tensor import TensorType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.activation import Relu
from qfuzz.ops.elementwise import Add
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.views import ChannelShuffle
from qfuzz.oracle.check import check, check_one
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import Outcome

pytest.importorskip("torch", reason="torch is not installed: its backends cannot run")

from qfuzz.backends import torch_limits
from qfuzz.backends.torch_backends import TorchBackend, as_numpy_has_it
from qfuzz.backends.torch_source import source_lines

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack", "export")
every_engine = pytest.mark.parametrize("engine", ENGINES)

SEEDS = 8
HAS_VNNI = "avx512_vnni" in cpu_flags()  # what fbgemm asks for


def cases(op: str, n_seeds: int = SEEDS) -> list[Case]:
    """Cases of one operator, of both dtypes, with scales that are powers of two and with any."""
    found = []
    for seed in range(n_seeds):
        for dtype in ("uint8", "int8"):
            for pow2 in (False, True):
                try:
                    found.append(SINGLE_OPS[op](Draw(seed, dtype, pow2=pow2)))
                except InvalidCase:
                    continue
    assert found
    return found


def is_known_bug(engine: str, case: Case) -> bool:
    """Whether a true bug of the framework is in the way: see the corpus."""
    op: Any = case.network.nodes[0].op
    if saturates_pairs(case) and engine != "qdq":
        return True
    if engine in ("x86", "onednn") and op.name in ("conv_transpose", "dynamic_conv_transpose"):
        channels, filters = case.network.constants[0].type.shape[:2]
        return 1 < filters != channels // op.groups > 1
    if engine in ("x86", "onednn", "export") and op.name in ("conv", "dynamic_conv"):
        return len(op.strides) == 3 and case.network.constants[0].type.shape[1] == 1 and any(op.padding)
    if engine == "qnnpack" and op.name == "max_pool":
        return any(op.padding) and any(d > 1 for d in op.dilations)
    if engine == "qnnpack" and op.name == "avg_pool":
        return bool(op.divisor_override) or (any(op.padding) and not op.count_include_pad)
    # onednn.qadd and qmul read uint8 from 128 on as negative.
    return engine == "export" and op.name in ("add", "mul")


def saturates_pairs(case: Case) -> bool:
    """Whether this CPU, without VNNI, may sum pairs of uint8 * int8 products in 16 bits that do not hold them."""
    op = case.network.nodes[0].op
    if HAS_VNNI or getattr(op, "reduce_range", False) or not any(word in op.name for word in MULTIPLYING):
        return False
    factors = [np.abs(a.astype(int)).ravel() for a in case.arrays.values() if a.dtype == np.int8]
    return any(255 * np.sort(a)[-2:].sum() > np.iinfo(np.int16).max for a in factors)


MULTIPLYING = ("conv", "linear", "matmul", "recurrent")
"""Parts of names of operators that sum products."""

KNOWN_CAUSES = ("cancelled-variance", "result-in-input-scale")
"""Of true bugs of the framework, too."""


@every_engine
@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_kernels_agree_with_the_reference(op: str, engine: str) -> None:
    backend = TorchBackend(engine)
    for case in cases(op):
        verdict = check_one(case, backend, Reference(case), explain=cause_of)
        supported = isinstance(backend.supports(case.network), Supported)
        assert supported == (verdict.outcome is not Outcome.UNSUPPORTED)
        assert verdict.outcome in (Outcome.JUDGED, Outcome.UNSUPPORTED), verdict.reason
        if not is_known_bug(engine, case) and not (verdict.cause or "").startswith(KNOWN_CAUSES):
            assert verdict.counts.violation == 0, (case.network.nodes, verdict.mismatches)


@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_float_operators_between_quantizers_agree_with_the_reference(op: str) -> None:
    backend = TorchBackend("export", format="qdq")
    assert backend.name == "torch-export?format=qdq"
    for case in cases(op):
        (verdict,) = check(case, [backend]).backends
        assert verdict.outcome in (Outcome.JUDGED, Outcome.UNSUPPORTED), verdict.reason
        assert verdict.counts.violation == 0, (case.network.nodes, verdict.mismatches)


def test_compiled_networks_agree_with_the_reference() -> None:
    """One of a layer and what follows it, which inductor fuses to one kernel of oneDNN."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: inductor cannot compile")
    backend = TorchBackend("export", format="qdq", compile="inductor")
    assert backend.name == "torch-export?format=qdq&compile=inductor"
    assert backend.fuses
    fitting = (c for c in cases("linear_pointwise", 60) if not saturates_pairs(c))
    case = next(c for c in fitting if isinstance(backend.supports(c.network), Supported))
    (verdict,) = check(case, [backend]).backends
    assert verdict.outcome is Outcome.JUDGED, verdict.reason
    assert verdict.counts.violation == 0


def test_a_compiled_call_has_its_keyword_arguments() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: inductor cannot compile")
    backend = TorchBackend("export", format="qdq", compile="inductor")
    case = next(c for c in cases("gelu") if isinstance(backend.supports(c.network), Supported))
    assert any(call.kwargs for call in backend.calls(case.network).run)
    (verdict,) = check(case, [backend]).backends
    assert verdict.outcome is Outcome.JUDGED, verdict.reason


@pytest.mark.parametrize(
    ("engine", "options", "reason"),
    [
        ("fbgemm", {"format": "qdq"}, "format: 'qdq' of fbgemm"),
        ("export", {"format": "onnx"}, "format: 'onnx' of export"),
        ("export", {"compile": "inductor"}, "compile: 'inductor' of onednn"),
        ("export", {"format": "qdq", "compile": "gcc"}, "compile: 'gcc' of qdq"),
    ],
)
def test_options_of_the_export_dialect_are_checked(engine: str, options: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidCase, match=reason):
        TorchBackend(engine, **options)


@pytest.mark.parametrize("op", ["conv", "max_pool", "avg_pool", "global_avg_pool", "add"])
def test_channels_last_stays_within_the_contract(op: str) -> None:
    backend = TorchBackend("fbgemm", layout="channels_last")
    assert backend.name == "torch-fbgemm?layout=channels_last"
    for case in cases(op):
        if not is_known_bug("fbgemm", case):
            assert check(case, [backend]).backends[0].counts.violation == 0


@every_engine
def test_a_reason_names_the_node(engine: str) -> None:
    backend = TorchBackend(engine)
    (case,) = [c for c in cases("requantize", 1) if c.network.inputs[0].type.dtype == "uint8"][:1]
    support = backend.supports(case.network)
    assert isinstance(support, NotSupported)
    assert support.reason.startswith("requantize 'y': ")


def weighted(op: Operator, shape: tuple[int, ...], weight: tuple[int, ...], *, bias: bool = False) -> Case:
    """A case with a weight of ones, and a bias."""
    constants: dict[int, Any] = {1: (TensorType(weight, QType.per_tensor("int8", 1.0, 0)), np.ones(weight, np.int8))}
    if bias:
        constants[2] = (TensorType((weight[0],), "float32"), np.ones(weight[0], np.float32))
    return DRAW.case(op, [(shape, U8)], U8, constants=constants)


@every_engine
def test_factors_are_refused(engine: str) -> None:
    """torch's calls would compute something else."""
    backend = TorchBackend(engine)
    for op, bias in ((Linear(alpha=2.0), False), (Linear(alpha=-1.0, beta=-1.0), True), (Linear(beta=0.5), True)):
        support = backend.supports(weighted(op, (2, 3), (4, 3), bias=bias).network)
        assert isinstance(support, NotSupported)
        assert "no such factors" in support.reason
    assert isinstance(backend.supports(weighted(Linear(beta=0.5), (2, 3), (4, 3)).network), Supported), (
        "nothing to factor"
    )


U8 = QType.per_tensor("uint8", 1.0, 0)
FULL = QType.per_tensor("uint8", 1.0, 255)
FAR = QType.per_tensor("uint8", 2.0**10, 0)
DRAW = Draw(0, "uint8", pow2=True)
UNIT_POOL: dict[str, Any] = {"kernel": (1, 1), "strides": (1, 1), "padding": (0, 0, 0, 0)}
PAIRS: dict[str, Any] = {"kernel": (2, 2), "strides": (1, 1), "padding": (0, 0, 0, 0)}


def _unbatched(op: Operator) -> Case:
    """A pool of an image without a batch."""
    case = DRAW.case(op, [((1, 1, 2, 2), U8)], U8)
    return Case(replace(case.network, forms=("calls=unbatched",)), case.inputs)


REFUSED = [
    ("Got empty input tensor", DRAW.case(Relu(), [((), U8)], U8)),
    ("Got empty input tensor", DRAW.case(Add(), [((), U8), ((), U8)], U8)),
    ("number of channels must be non-zero", DRAW.case(Relu(), [((2, 0), U8)], U8)),
    ("number of channels must be non-zero", DRAW.case(Add(), [((2, 0), U8), ((2, 0), U8)], U8)),
    ("scale ratio must be in [2**-14, 2**8) range", DRAW.case(Add(), [((2, 3), FAR), ((2, 3), FAR)], U8)),
    ("range min must be below range max", DRAW.case(Add(relu=True), [((2, 3), U8), ((2, 3), U8)], FULL)),
    ("Expected input to be 4-dimensional", _unbatched(MaxPool(**PAIRS, dilations=(1, 1)))),
    ("Expected input to be 4-dimensional", _unbatched(AvgPool(**PAIRS))),
    ("Expected input to be 4-dimensional", _unbatched(GlobalAvgPool())),
    ("Expected input to be 4-dimensional", _unbatched(AdaptiveAvgPool(output_size=(1, 1)))),
    ("1x1 pooling is meaningless", DRAW.case(MaxPool(**UNIT_POOL, dilations=(1, 1)), [((1, 1, 2, 2), U8)], U8)),
    ("1x1 pooling is meaningless", DRAW.case(AvgPool(**UNIT_POOL), [((1, 1, 2, 2), U8)], U8)),
    (
        "doesn't support of quantized_max_pool3d",
        DRAW.case(
            MaxPool(kernel=(2, 1, 1), strides=(1, 1, 1), padding=(0,) * 6, dilations=(1, 1, 1)),
            [((1, 1, 2, 1, 1), U8)],
            U8,
        ),
    ),
]


@pytest.mark.parametrize(
    ("words", "case"), REFUSED, ids=lambda v: "" if isinstance(v, str) else v.network.nodes[0].op.name
)
def test_documented_refusals_are_what_qnnpack_says(
    words: str, case: Case, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (documented,) = check(case, [TorchBackend("qnnpack")]).backends
    assert documented.outcome is Outcome.UNSUPPORTED
    assert words in documented.reason
    monkeypatch.setattr(torch_limits, "LIMITS", ())
    anew = Case(replace(case.network), case.inputs)  # a network keeps what it lowers to
    (verdict,) = check(anew, [TorchBackend("qnnpack")]).backends
    assert verdict.outcome is Outcome.REJECTED
    assert words in verdict.reason + capfd.readouterr().err


S8 = QType.per_tensor("int8", 1.0, 0)
NEAREST: dict[str, Any] = {"coordinates": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("call", "arguments", "case"),
    [
        ("channel_shuffle", (1,), DRAW.case(ChannelShuffle(groups=1), [((1, 2, 3), U8)], U8)),
        ("channel_shuffle", (2,), DRAW.case(ChannelShuffle(groups=2), [((1, 2, 1, 1), S8)], S8)),
        (
            "nn.functional.interpolate",
            ([1, 1, 1],),
            DRAW.case(Interpolate(sizes=(0, 1, 1, 1, 1), **NEAREST), [((0, 1, 2, 2, 2), U8)], U8),
        ),
        (
            "nn.functional.interpolate",
            ([0, 1],),
            DRAW.case(Interpolate(sizes=(1, 1, 0, 1), **NEAREST), [((1, 1, 2, 2), U8)], U8),
        ),
    ],
)
def test_a_quoted_refusal_is_torchs_own(call: str, arguments: tuple[Any, ...], case: Case) -> None:
    import torch

    reason = TorchBackend("fbgemm").supports(case.network)
    assert isinstance(reason, NotSupported)
    quoted = reason.reason.split("'")[-2]
    make = torch._make_per_tensor_quantized_tensor  # type: ignore[attr-defined]
    x = make(torch.from_numpy(case.inputs[0].array.copy()), 1.0, 0)
    function: Any = torch
    for name in call.split("."):
        function = getattr(function, name)
    with pytest.raises(RuntimeError, match=quoted):
        function(x, *arguments)


@every_engine
@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_printed_calls_compute_what_the_interpreted_ones_do(op: str, engine: str) -> None:
    backend = TorchBackend(engine)
    for case in cases(op, 1):
        if isinstance(backend.supports(case.network), NotSupported):
            continue
        named = (*case.network.constant_data.items(), *case.feeds.items())
        arrays = {n: as_numpy_has_it(t.array) for n, t in named}
        lines = source_lines(backend.calls(case.network), arrays)
        scope: dict[str, Any] = {}
        exec("\n".join(lines), scope)
        (name,) = case.network.outputs
        printed = scope[name]
        if printed.is_quantized:
            printed = printed.int_repr()
        fed = {n: np.array(t.array) for n, t in case.feeds.items()}
        np.testing.assert_array_equal(printed.numpy(), backend.compile(case.network).run(fed)[name])
